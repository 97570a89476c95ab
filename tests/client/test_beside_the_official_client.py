"""The table at the top of docs/client.md: one fault for each row, met by the official client and by ours."""

from __future__ import annotations

from typing import Any

import anyio
import mcp
import pytest
from mcp import MCPError

from client import peer as wire
from client.peer import Peer
from client.talking import LEGACY, MODERN, Person, question, text_of
from milepost.client import Client, Policy, Unauthorized
from milepost.client.origins import Origins

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")]

ROUND = {"resultType": "input_required", "inputRequests": {"k": question("who?")}, "requestState": "sealed"}


@pytest.fixture
def ours(policy: Policy) -> Any:
    return lambda url, **more: Client(url, policy=policy, origins=Origins(), **more)


async def failing(client: Any, name: str = "look") -> MCPError:
    with pytest.raises(MCPError) as failed:
        await client.call_tool(name, {})
    return failed.value


async def test_a_session_that_was_forgotten(peer: Peer, ours: Any) -> None:
    gone = [wire.error(-32600, "Session not found", http=404)] * 2
    peer.on("tools/call", *gone, wire.result(wire.TEXT))
    async with mcp.Client(peer.url, mode=LEGACY) as official:
        assert "not found" in (await failing(official)).message
        await failing(official)
        assert len(peer.of("initialize")) == 1
    peer.on("tools/call", gone[0], wire.result(wire.TEXT))
    async with ours(peer.url, mode=LEGACY) as client:
        assert text_of(await client.call_tool("look", {})) == "done"


async def test_an_answer_whose_way_was_blocked(peer: Peer, ours: Any) -> None:
    blocked = [wire.result(ROUND), wire.status(503, "retry-after: 0"), wire.result(ROUND), wire.result(wire.TEXT)]
    official_person, our_person = Person(), Person()
    peer.on("tools/call", *blocked)
    async with mcp.Client(peer.url, mode=MODERN, elicitation_callback=official_person) as official:
        await failing(official)
        await official.call_tool("look", {})
    peer.on("tools/call", wire.result(ROUND), wire.status(503, "retry-after: 0"), wire.result(wire.TEXT))
    async with ours(peer.url, mode=MODERN, elicitation_callback=our_person) as client:
        await client.call_tool("look", {})
    assert (len(official_person.asked), len(our_person.asked)) == (2, 1)


async def test_a_call_that_was_dropped(peer: Peer, ours: Any) -> None:
    peer.on("tools/list", wire.result(wire.tools({"name": "look", "annotations": {"readOnlyHint": True}})))
    peer.on("tools/call", wire.stream(reset=True), wire.result(wire.TEXT))
    async with mcp.Client(peer.url, mode=MODERN) as official:
        await failing(official)
    peer.on("tools/call", wire.stream(reset=True), wire.result(wire.TEXT))
    async with ours(peer.url, mode=MODERN) as client:
        assert text_of(await client.call_tool("look", {})) == "done"


async def test_a_server_that_is_busy(peer: Peer, ours: Any) -> None:
    peer.on("tools/call", wire.status(429, "retry-after: 0"))
    async with mcp.Client(peer.url, mode=MODERN) as official:
        await failing(official)
    peer.on("tools/call", wire.status(429, "retry-after: 0"), wire.result(wire.TEXT))
    async with ours(peer.url, mode=MODERN) as client:
        assert text_of(await client.call_tool("look", {})) == "done"


async def test_one_503_at_the_first_contact(peer: Peer, ours: Any) -> None:
    peer.on("server/discover", wire.status(503), wire.result(wire.DISCOVER))
    async with mcp.Client(peer.url) as official:
        assert official.protocol_version == "2025-11-25"
    peer.on("server/discover", wire.status(503), wire.result(wire.DISCOVER))
    async with ours(peer.url) as client:
        assert client.protocol_version == "2026-07-28"


async def test_a_person_who_takes_longer_than_the_time_limit(peer: Peer, ours: Any) -> None:
    ready = anyio.Event()

    async def asks(connection: wire.Connection) -> None:
        await connection.head(200, "content-type: text/event-stream")
        await connection.chunk(wire.frame(question("who?", "q-1")))
        await ready.wait()
        result = {"jsonrpc": "2.0", "id": connection.seen.id, "result": wire.TEXT}
        await connection.chunk(wire.frame(result))
        await connection.end()

    async def longer_than_the_official_client_waits(person: Person) -> None:
        await person.being_asked.wait()
        async with mcp.Client(peer.url, mode=LEGACY, elicitation_callback=Person(ready=ready)) as official:
            with pytest.raises(MCPError, match="imed out"):
                await official.call_tool("look", {}, read_timeout_seconds=0.3)
        ready.set()

    peer.on("tools/call", asks)
    person = Person(ready=ready)
    async with ours(peer.url, mode=LEGACY, elicitation_callback=person) as client, anyio.create_task_group() as group:
        group.start_soon(longer_than_the_official_client_waits, person)
        assert text_of(await client.call_tool("look", {}, read_timeout_seconds=0.3)) == "done"


async def test_more_than_ten_rounds_of_questions(peer: Peer, ours: Any) -> None:
    peer.on("tools/call", *[wire.result(ROUND)] * 11, wire.result(wire.TEXT))
    async with mcp.Client(peer.url, mode=MODERN, elicitation_callback=Person()) as official:
        with pytest.raises(Exception, match="rounds"):
            await official.call_tool("look", {})
    peer.on("tools/call", *[wire.result(ROUND)] * 11, wire.result(wire.TEXT))
    async with ours(peer.url, mode=MODERN, elicitation_callback=Person()) as client:
        assert text_of(await client.call_tool("look", {})) == "done"


async def test_a_401(peer: Peer, ours: Any) -> None:
    peer.on("tools/call", wire.status(401))
    async with mcp.Client(peer.url, mode=MODERN) as official:
        assert not isinstance(await failing(official), Unauthorized)
    async with ours(peer.url, mode=MODERN) as client:
        assert isinstance(await failing(client), Unauthorized)


async def test_a_call_with_effects_that_was_dropped_is_sent_once_by_both(peer: Peer, ours: Any) -> None:
    peer.on("tools/list", wire.result(wire.tools({"name": "pay"})))
    peer.on("tools/call", wire.stream(reset=True))
    async with mcp.Client(peer.url, mode=MODERN) as official:
        official_error = await failing(official, "pay")
    async with ours(peer.url, mode=MODERN) as client:
        our_error = await failing(client, "pay")
    assert len(peer.of("tools/call")) == 2
    assert "unknown" in our_error.message
    assert "unknown" not in official_error.message
