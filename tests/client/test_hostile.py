"""A server that means harm, or is broken: bounded memory, a clear error, and no credential that goes elsewhere."""

from __future__ import annotations

import tracemalloc
from contextlib import nullcontext
from typing import Any

import pytest
from mcp import MCPError

from client import peer as wire
from client.peer import TEXT, Peer
from client.talking import LEGACY, client_of
from milepost.client import Client, OutcomeUnknown, Policy, Refused
from milepost.client.origins import Origins

pytestmark = pytest.mark.anyio

SMALL = Policy(first_delay=0.01, max_delay=0.02, give_up_after=2.0, silence=1.0, quiet=1.0, max_message=64 * 1024)


def flood(head: bytes, piece: bytes, times: int = 2000) -> wire.Answer:
    async def answer(connection: wire.Connection) -> None:
        await connection.head(200, "content-type: text/event-stream")
        await connection.chunk(head)
        for _ in range(times):
            await connection.chunk(piece)
        await connection.end()

    return answer


@pytest.mark.parametrize(
    ("head", "piece"),
    [(b"data: ", b"x" * 8192), (b"", b"data: " + b"x" * 8000 + b"\n"), (b":", b"x" * 8192), (b"", b"y" * 8192)],
    ids=["one endless line", "endless lines of one event", "an endless comment", "an endless field"],
)
async def test_an_endless_event_is_cut(peer: Peer, head: bytes, piece: bytes) -> None:
    peer.on("tools/call", flood(head, piece))
    async with client_of(peer, SMALL) as client:
        tracemalloc.start()
        try:
            with pytest.raises(OutcomeUnknown, match="longer than 65536 bytes"):
                await client.call_tool("look")
            assert tracemalloc.get_traced_memory()[1] < 4 * 2**20  # of the 16 MB that were offered
        finally:
            tracemalloc.stop()


async def test_a_huge_body_is_cut(peer: Peer) -> None:
    async def huge(connection: wire.Connection) -> None:
        await connection.head(200, "content-type: application/json")
        for _ in range(2000):
            await connection.chunk(b'"' + b"x" * 8190 + b'"')

    peer.on("tools/call", huge)
    async with client_of(peer, SMALL) as client:
        with pytest.raises(OutcomeUnknown, match="longer than 65536 bytes"):
            await client.call_tool("look")


async def test_a_compressed_response_is_not_unpacked(peer: Peer) -> None:
    peer.on("tools/call", wire.status(200, "content-encoding: gzip", body=b"bomb", kind="application/json"))
    async with client_of(peer, SMALL) as client:
        with pytest.raises(OutcomeUnknown, match="compressed"):
            await client.call_tool("look")


async def test_an_endless_stream_of_messages_fills_nothing_and_ends_with_the_limit(peer: Peer) -> None:
    note = wire.frame({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}})
    peer.on("tools/call", flood(b"", note, times=20_000))
    async with client_of(peer, SMALL) as client:
        with pytest.raises(MCPError, match=r"timed out|outcome is unknown"):
            await client.call_tool("look", read_timeout_seconds=0.5)


async def test_progress_without_end_does_not_renew_the_clock_for_ever(peer: Peer) -> None:
    async def moving(connection: wire.Connection) -> None:
        await connection.head(200, "content-type: text/event-stream")
        for n in range(10**9):
            params = {"progressToken": connection.seen.meta["progressToken"], "progress": n}
            await connection.chunk(wire.frame({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}))

    async def ignore(_progress: float, _total: float | None, _message: str | None) -> None:
        return None

    short = Policy(max_work=0.3)
    peer.on("tools/call", moving)
    async with client_of(peer, short) as client:
        with pytest.raises(MCPError, match="timed out"):
            await client.call_tool("look", read_timeout_seconds=0.2, progress_callback=ignore)


def progress_of(params: dict[str, Any]) -> bytes:
    return wire.frame({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})


@pytest.mark.parametrize(
    "frames",
    [
        [wire.frame({"jsonrpc": "2.0", "id": 999_999, "result": TEXT})],
        [
            wire.frame({"jsonrpc": "2.0", "id": None, "result": TEXT}),
            wire.frame({"jsonrpc": "2.0", "id": True, "result": {}}),
        ],
        [wire.frame({"jsonrpc": "2.0", "id": [1], "method": "elicitation/create"})],
        [wire.frame({"jsonrpc": "2.0", "id": 5, "method": "elicitation/create", "params": {"message": "hi"}})],
        [progress_of({"progressToken": 77, "progress": 1})],
        [progress_of({"progress": "much"})],
        [wire.frame({"jsonrpc": "2.0", "method": 7})],
    ],
    ids=["for nobody", "no id", "a list for an id", "a question", "progress for nobody", "no progress", "no method"],
)
async def test_what_is_for_nobody_is_dropped(peer: Peer, frames: list[bytes]) -> None:
    peer.on("tools/call", wire.stream(*frames, wire.response(TEXT)))
    async with client_of(peer, SMALL) as client:
        assert (await client.call_tool("look")).content


@pytest.mark.parametrize("data", ["no json", "[]", "42", '{"jsonrpc": "1.0", "id": 1, "result": {}}', '{"id": 1}'])
async def test_what_is_no_message_ends_the_call(peer: Peer, data: str) -> None:
    peer.on("tools/call", wire.stream(wire.frame(data)))
    async with client_of(peer, SMALL) as client:
        with pytest.raises(OutcomeUnknown, match="no JSON"):
            await client.call_tool("look")


async def test_a_response_for_another_request_is_no_result(peer: Peer) -> None:
    async def other(connection: wire.Connection) -> None:
        body = b'{"jsonrpc": "2.0", "id": "another", "result": {}}'
        await wire.status(200, body=body, kind="application/json")(connection)

    peer.on("tools/call", other)
    async with client_of(peer, SMALL) as client:
        with pytest.raises(OutcomeUnknown, match="for another request"):
            await client.call_tool("look")


async def test_an_error_that_breaks_the_rules_is_still_an_error(peer: Peer) -> None:
    async def odd(connection: wire.Connection) -> None:
        body = b'{"jsonrpc": "2.0", "id": %d, "error": {"code": true, "message": 5}}' % connection.seen.id
        await wire.status(200, body=body, kind="application/json")(connection)

    peer.on("tools/call", odd)
    async with client_of(peer, SMALL) as client:
        with pytest.raises(MCPError, match="without a message"):
            await client.call_tool("look")


@pytest.mark.parametrize("name", ["with space", "x" * 2000, "caf\u00e9"])
async def test_a_session_id_that_can_not_be_sent_is_refused(peer: Peer, name: str) -> None:
    async def named(connection: wire.Connection) -> None:
        await wire.result(wire.INITIALIZE, f"mcp-session-id: {name}")(connection)

    peer.on("initialize", named)
    with pytest.raises(Refused, match="session id"):
        async with Client(peer.url, mode=LEGACY, policy=SMALL, origins=Origins()):
            pytest.fail("no such session")


async def test_a_session_id_with_control_characters_is_no_http(peer: Peer) -> None:
    peer.on("initialize", wire.result(wire.INITIALIZE, "mcp-session-id: a\x01b"))
    with pytest.raises(Exception, match=r"no HTTP|session id"):
        async with Client(peer.url, mode=LEGACY, policy=SMALL, origins=Origins()):
            pytest.fail("no such session")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_credentials_never_follow_a_redirect_elsewhere(peer: Peer, code: int) -> None:
    async with wire.listening() as elsewhere:
        peer.on("tools/call", wire.status(code, f"location: {elsewhere.url}"))
        peer.on("GET", wire.status(code, f"location: {elsewhere.url}"))
        headers = {"authorization": "Bearer secret", "x-api-key": "secret"}
        async with client_of(peer, SMALL, mode=LEGACY, headers=headers) as client:
            with pytest.raises(Refused, match="not followed"):
                await client.call_tool("look")
            await peer.until("GET")
        assert not elsewhere.seen


async def test_a_redirect_that_brings_credentials_of_its_own_is_not_followed(peer: Peer) -> None:
    with_user = peer.url.replace("http://", "http://user:pass@")
    peer.on("tools/call", wire.status(307, f"location: {with_user}"))
    async with client_of(peer, SMALL) as client:
        with pytest.raises(Refused, match="not followed"):
            await client.call_tool("look")


async def test_redirects_in_a_circle_end(peer: Peer) -> None:
    peer.on("tools/call", wire.status(308, "location: /mcp"))
    async with client_of(peer, SMALL) as client:
        with pytest.raises(Refused, match="more than 5 redirects"):
            await client.call_tool("look")


@pytest.mark.parametrize("after", ["99999999999", "-1", "soon", "Mon, 99 Foo 2099", "1e9"])
async def test_an_absurd_retry_after_keeps_nobody_waiting(peer: Peer, after: str) -> None:
    peer.on("tools/call", wire.status(429, f"retry-after: {after}"), wire.result(TEXT))
    async with client_of(peer, SMALL) as client:
        with pytest.raises(Refused) if after.isdigit() else nullcontext():
            assert (await client.call_tool("look")).content


async def test_a_server_of_another_kind_is_told_apart(peer: Peer) -> None:
    peer.on("initialize", wire.status(200, body=b"<html>hello</html>", kind="text/html"))
    with pytest.raises(OutcomeUnknown, match="without a response"):
        async with Client(peer.url, mode=LEGACY, policy=SMALL, origins=Origins()):
            pytest.fail("it is no MCP server")


@pytest.mark.parametrize("bad", ["", "no url", "ftp://example.org/mcp", "http://", "/mcp"])
def test_a_url_that_is_none_is_refused_at_once(bad: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        Client(bad)


async def test_a_tool_list_that_lies_about_itself_is_survived(peer: Peer) -> None:
    odd: dict[str, Any] = {
        "tools": [None, {"name": 5}, {"annotations": []}, {"name": "look", "_meta": "x"}],
        "nextCursor": 3,
    }
    peer.on("tools/list", wire.result(odd))
    peer.on("tools/call", wire.drop)
    async with client_of(peer, SMALL) as client:
        with pytest.raises(OutcomeUnknown):
            await client.call_tool("look")


async def test_a_tool_list_without_end_is_left(peer: Peer) -> None:
    few = Policy(first_delay=0.01, max_tool_pages=5)
    peer.on("tools/list", wire.result({"tools": [], "nextCursor": "again"}))
    peer.on("tools/call", wire.drop)
    async with client_of(peer, few) as client:
        with pytest.raises(OutcomeUnknown):
            await client.call_tool("look")
    assert len(peer.of("tools/list")) == 5
