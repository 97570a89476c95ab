"""What one message, one stream or one header of a server must not take down: the other calls of its client."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import httpx2
import pytest

from client import peer as wire
from client.peer import Peer
from client.talking import LEGACY, Person, client_of, events_of, question, text_of
from client.test_handshake import ANSWER, WORKFLOW, opened, primed
from milepost.client import OutcomeUnknown, Policy
from milepost.client.sse import SseParser

pytestmark = pytest.mark.anyio

HUGE = '{"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": {"message": "x", "n": 1e999}}'
BAD_PING = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"_meta": 5}}
PROGRESS = {"progressToken": 1, "progress": 1, "_meta": "x"}


@pytest.mark.parametrize(
    "frames",
    [
        [wire.frame(HUGE)],
        [wire.frame(BAD_PING)],
        [wire.frame("not json")],
        [wire.frame("2026-01-01", None).replace(b"data", b"event: ping\ndata")],
        [wire.frame({"jsonrpc": "2.0", "method": "notifications/message"}, "caf\u00e9")],
        [wire.frame({"jsonrpc": "2.0", "method": "notifications/message"}, "a\x01b")],
        [wire.frame({"jsonrpc": "2.0", "method": "notifications/message"}, "x" * 100_000)],
    ],
    ids=["a number that is none", "a bad ping", "no json", "an event of another kind", "an id that is no ASCII",
         "an id with a control character", "an endless id"],
)  # fmt: skip
async def test_what_a_sessions_own_stream_says_ends_no_call_and_not_the_stream(
    peer: Peer, policy: Policy, frames: list[bytes]
) -> None:
    note = wire.frame({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    peer.on("GET", wire.stream(*frames), wire.stream(note, end=False))
    heard = anyio.Event()

    async def hear(message: Any) -> None:
        if type(message).__name__ == "ToolListChangedNotification":
            heard.set()

    peer.on("tools/call", wire.result(ANSWER))
    async with client_of(peer, policy, mode=LEGACY, message_handler=hear) as client:
        with anyio.fail_after(10):
            await heard.wait()
        assert text_of(await client.call_tool("look")) == "done"
    assert all(len(seen.headers.get("last-event-id", "")) < 2000 for seen in peer.of("GET"))


@pytest.mark.parametrize("bad", [HUGE, BAD_PING], ids=["a number that is none", "a bad ping"])
async def test_what_can_not_be_asked_is_refused_and_its_call_goes_on(peer: Peer, policy: Policy, bad: Any) -> None:
    async def asks(connection: wire.Connection) -> None:
        await connection.head(200, "content-type: text/event-stream")
        await connection.chunk(wire.frame(bad))
        await peer.until("answer")
        await connection.chunk(wire.response(ANSWER)(connection.seen))  # type: ignore[operator]
        await connection.end()

    peer.on("tools/call", asks)
    async with client_of(peer, policy, mode=LEGACY, elicitation_callback=Person()) as client:
        with anyio.fail_after(10):
            assert text_of(await client.call_tool("look")) == "done"
    assert "error" in peer.of("answer")[0].body


async def test_progress_with_odd_meta_is_progress(peer: Peer, policy: Policy) -> None:
    def odd(seen: wire.Seen) -> bytes:
        params = {"progressToken": seen.meta["progressToken"], "progress": 1, "_meta": "x"}
        return wire.frame({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    peer.on("tools/call", wire.stream(odd, wire.response(wire.TEXT)))
    async with client_of(peer, policy) as client, events_of(client):
        assert text_of(await client.call_tool("look")) == "done"


async def test_an_event_id_that_can_not_be_sent_back_is_none(peer: Peer, policy: Policy) -> None:
    peer.on("tools/list", wire.result(WORKFLOW))
    peer.on("tools/call", wire.stream(primed("caf\u00e9"), reset=True), wire.result(ANSWER))
    async with client_of(peer, policy, mode=LEGACY) as client:
        assert text_of(await client.call_tool("look")) == "done"


class Broken(httpx2.Auth):
    """Can authorize no GET."""

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        if request.method == "GET":
            raise ValueError("no token")
        yield request


async def test_an_auth_that_fails_on_the_sessions_own_stream_ends_no_call(peer: Peer) -> None:
    peer.on("tools/call", wire.result(ANSWER))
    async with client_of(peer, Policy(), mode=LEGACY, auth=Broken()) as client:
        for _ in range(3):
            assert text_of(await client.call_tool("look")) == "done"


async def test_a_server_that_ends_its_stream_at_once_is_not_asked_in_a_loop(peer: Peer) -> None:
    peer.on("GET", wire.stream(b"retry: 0\n\n"))
    peer.on("tools/call", wire.result(ANSWER))
    async with client_of(peer, Policy(first_delay=3600), mode=LEGACY) as client:
        await peer.until("GET")
        for _ in range(20):
            await client.call_tool("look")
    assert len(peer.of("GET")) == 1


async def test_a_server_that_knows_no_get_keeps_its_session(peer: Peer, policy: Policy) -> None:
    peer.on("GET", wire.status(404))
    peer.on("initialize", opened("one"), opened("two"))
    peer.on("tools/call", wire.result(ANSWER))
    async with client_of(peer, policy, mode=LEGACY) as client:
        await peer.until("GET")
        for _ in range(3):
            await client.call_tool("look")
    assert len(peer.of("initialize")) == 1


async def test_questions_outside_of_calls_are_asked_so_many_at_a_time(peer: Peer) -> None:
    few = Policy(max_open_questions=3, first_delay=0.01)
    peer.on("GET", wire.stream(*(wire.frame(question(f"{n}?", n)) for n in range(6)), end=False))
    person = Person(ready=anyio.Event())
    async with client_of(peer, few, mode=LEGACY, elicitation_callback=person):
        refused = await peer.until("answer", 3)
    assert len(person.asked) == 3
    assert all("error" in seen.body for seen in refused)


async def test_a_round_of_too_many_questions_is_not_asked(peer: Peer) -> None:
    few = Policy(max_open_questions=3, first_delay=0.01)
    many = {str(n): question(f"{n}?") for n in range(4)}
    peer.on("tools/call", wire.result({"resultType": "input_required", "inputRequests": many}))
    person = Person()
    async with client_of(peer, few, elicitation_callback=person) as client:
        with pytest.raises(OutcomeUnknown, match="asks 4 questions at once"):
            await client.call_tool("look")
    assert not person.asked


async def test_pings_without_end_are_answered_a_few_at_a_time(peer: Peer) -> None:
    ping = wire.frame({"jsonrpc": "2.0", "id": "p", "method": "ping"})
    peer.on("answer", wire.hang)
    peer.on("tools/call", wire.stream(*[ping] * 500, wire.response(ANSWER)))
    async with client_of(peer, Policy(), mode=LEGACY) as client:
        await client.call_tool("look")
        await client.session.send_ping()
    assert len(peer.of("answer")) <= 200


def test_an_event_in_tiny_pieces_takes_no_more_room_than_its_limit() -> None:
    parser = SseParser(2**17)
    tracemalloc.start()
    try:
        for _ in range(2**15):
            parser.feed(b"xy")
        for _ in range(2**14):
            parser.feed(b"\ndata:")
        assert tracemalloc.get_traced_memory()[1] < 3 * 2**17
    finally:
        tracemalloc.stop()
