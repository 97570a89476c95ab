"""What the drill of the client has found (drills/client), each as small as it gets."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from client import peer as wire
from client.peer import Peer
from client.talking import LEGACY, Person, client_of, text_of
from client.test_handshake import ANSWER, GONE, WORKFLOW, conversation, opened, primed, question
from milepost.client import Client, OutcomeUnknown, Policy
from milepost.client.origins import Origins

pytestmark = pytest.mark.anyio


async def _call_whose_session_is_replaced(peer: Peer, client: Client) -> str:
    """Another request finds the session gone and opens a new one; only then does the call see its stream break."""
    peer.on("initialize", opened("one"), opened("two"))

    async def by_session(connection: wire.Connection) -> None:
        await (GONE if connection.seen.headers["mcp-session-id"] == "one" else wire.result({"resources": []}))(
            connection
        )

    async def broken(connection: wire.Connection) -> None:
        await connection.head(200, "content-type: text/event-stream")
        await connection.chunk(primed("s.0"))
        await peer.until("initialize", 2)
        connection.reset()

    async def unknown_event(connection: wire.Connection) -> None:
        """What the SDK's transport says of an event that it doesn't know: a stream that ends at once."""
        await (wire.stream() if "last-event-id" in connection.seen.headers else wire.status(405))(connection)

    peer.on("resources/list", by_session)
    peer.on("tools/call", broken, wire.result(ANSWER))
    peer.on("GET", unknown_event)
    said: list[str] = []
    async with client, anyio.create_task_group() as group:

        async def call() -> None:
            try:
                said.append(text_of(await client.call_tool("look")))
            except OutcomeUnknown as exc:
                said.append(str(exc))

        group.start_soon(call)
        await peer.until("tools/call")
        await client.list_resources()
    assert not [seen for seen in peer.of("GET") if "last-event-id" in seen.headers]
    return said[0]


async def test_a_stream_is_not_read_on_in_a_session_that_is_not_its_own(peer: Peer, policy: Policy) -> None:
    peer.on("tools/list", wire.result(wire.tools({"name": "look"})))
    client = Client(peer.url, mode=LEGACY, policy=policy, origins=Origins())
    assert "the session ended" in await _call_whose_session_is_replaced(peer, client)


async def test_a_workflow_whose_stream_went_with_its_session_is_issued_again(peer: Peer, policy: Policy) -> None:
    peer.on("tools/list", wire.result(WORKFLOW))
    client = Client(peer.url, mode=LEGACY, policy=policy, origins=Origins())
    assert await _call_whose_session_is_replaced(peer, client) == "done"


async def test_a_stream_that_is_empty_again_and_again_is_given_up(peer: Peer, policy: Policy) -> None:
    peer.on("tools/call", wire.stream(primed("s.0")))
    peer.on("GET", wire.stream())
    async with client_of(peer, replace(policy, give_up_after=0.0), mode=LEGACY) as client:
        with pytest.raises(OutcomeUnknown, match="empty"):
            await client.call_tool("look")
    assert len(peer.of("tools/call")) == 1


async def test_a_call_whose_answer_is_refused_ends_and_the_answer_is_kept(peer: Peer, policy: Policy) -> None:
    call, take = conversation(wire.frame(question("who?", 1)))
    peer.on("tools/call", call)
    peer.on("answer", wire.status(401), take)
    person = Person()
    async with client_of(peer, policy, mode=LEGACY, elicitation_callback=person) as client:
        with pytest.raises(OutcomeUnknown, match="an answer could not be given: the server answered 401"):
            await client.call_tool("look")
        assert text_of(await client.call_tool("look")) == "done"
    assert person.asked == ["who?"]
    assert not peer.of("notifications/cancelled")
