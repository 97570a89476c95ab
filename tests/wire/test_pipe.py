"""The pipe inside one process: what each era takes and refuses, line by line."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from milepost.core.errors import StoreUnavailable
from milepost.wire import stdio
from milepost.wire.stdio import Pipe
from wire.sample import Effects
from wire.serving import INIT, LIMIT, Server, call, enveloped, request

pytestmark = pytest.mark.anyio


class Ends:
    """Both ends of a pipe, in memory."""

    def __init__(self) -> None:
        self._in: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._out: asyncio.Queue[bytes] = asyncio.Queue()
        self.pipe: Pipe

    async def lines(self) -> AsyncIterator[bytes]:
        while (line := await self._in.get()) is not None:
            yield line

    async def write(self, data: bytes) -> None:
        await self._out.put(data)

    def say(self, message: Any) -> None:
        self._in.put_nowait(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")

    def modern(self, message: dict[str, Any], capabilities: Any = None) -> None:
        self.say(enveloped(message, capabilities)[0])

    async def hear(self) -> dict[str, Any]:
        heard: dict[str, Any] = json.loads(await self._out.get())
        return heard

    def close(self) -> None:
        self._in.put_nowait(None)


@asynccontextmanager
async def piped(server: Server) -> AsyncIterator[Ends]:
    ends = Ends()
    ends.pipe = Pipe(server.endpoint, ends.write)
    task = asyncio.create_task(ends.pipe.serve(ends.lines()))
    try:
        with anyio.fail_after(LIMIT):
            yield ends
    finally:
        ends.close()
        await task


async def shake(ends: Ends, **params: Any) -> None:
    ends.say(request("initialize", {**INIT, **params}, id=0))
    assert (await ends.hear())["result"]["protocolVersion"] == "2025-11-25"
    ends.say({"jsonrpc": "2.0", "method": "notifications/initialized"})


async def test_the_handshake_era_asks_and_answers_over_the_pipe(server: Server, effects: Effects) -> None:
    async with piped(server) as ends:
        await shake(ends)
        ends.say(call("trip", {"name": "Ann"}, id=1))
        for content in ({"day": 2}, {"seat": "5E"}):
            asked = await ends.hear()
            ends.say({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": content}})
        assert (await ends.hear())["result"]["content"][0]["text"] == "Ann: B-25E"
    assert effects == ["book 2 5E"]


async def test_over_the_pipe_an_id_names_one_call(server: Server, effects: Effects, gate: asyncio.Event) -> None:
    async with piped(server) as ends:
        await shake(ends)
        ends.say(call("held", id=1, token="t"))
        assert (await ends.hear())["method"] == "notifications/progress"
        ends.say(call("held", id=1, token="t"))
        ends.say(call("trip", {"name": "Ann"}, id=1))
        refused = await ends.hear()
        assert (refused["id"], refused["error"]["code"]) == (1, -32600)
        gate.set()
        assert (await ends.hear())["result"]["content"][0]["text"] == "let go"
        ends.say(request("ping", id=2))
        assert (await ends.hear())["id"] == 2, "the call sent twice is answered once"
    assert effects == ["held begun", "held done"]


async def test_a_refused_answer_is_asked_again_over_the_pipe(server: Server) -> None:
    async with piped(server) as ends:
        await shake(ends)
        ends.say(call("trip", {"name": "Ann"}, id=1))
        asked = await ends.hear()
        ends.say({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": {"day": 99}}})
        assert "must be at most 31" in (await ends.hear())["params"]["message"]


async def test_cancelled_calls_are_not_answered_but_the_pipe_goes_on(server: Server, effects: Effects) -> None:
    async with piped(server) as ends:
        await shake(ends)
        ends.say(call("held", id=1, token="t"))
        assert (await ends.hear())["method"] == "notifications/progress"
        ends.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        ends.say(request("ping", id=2))
        assert (await ends.hear())["id"] == 2
    assert effects == ["held begun"]


async def test_an_envelope_is_refused_on_a_pipe_of_the_handshake_era(server: Server) -> None:
    async with piped(server) as ends:
        await shake(ends)
        ends.modern(request("tools/list", {}, id=1))
        assert (await ends.hear())["error"]["code"] == -32600


async def test_the_modern_era_goes_rounds_over_the_pipe(server: Server, effects: Effects) -> None:
    async with piped(server) as ends:
        ends.modern(call("trip", {"name": "Ann"}, id=1), {"elicitation": {}})
        first = (await ends.hear())["result"]
        again = call("trip", {"name": "Ann"}, id=2)
        again["params"] |= {
            "requestState": first["requestState"],
            "inputResponses": {"q1": {"action": "accept", "content": {"day": 3}}},
        }
        ends.modern(again, {"elicitation": {}})
        assert list((await ends.hear())["result"]["inputRequests"]) == ["q2"]
        ends.modern(call("add", {"a": 1, "b": 2}, id=3))
        assert (await ends.hear())["result"]["structuredContent"] == {"result": 3}
    assert effects == ["add"]


async def test_the_modern_era_refuses_initialize_and_a_broken_envelope_in_words(server: Server) -> None:
    async with piped(server) as ends:
        ends.modern(request("server/discover", {}, id=1))
        assert "supportedVersions" in (await ends.hear())["result"]
        ends.say(request("initialize", INIT, id=2))
        refused = await ends.hear()
        assert refused["id"] == 2
        assert refused["error"]["code"] == -32022
        ends.say(request("tools/list", {}, id=3))
        assert (await ends.hear())["error"]["code"] == -32602
        ends.say({"jsonrpc": "2.0", "id": 9, "result": {}})
        ends.modern(request("ping", {}, id=4))
        assert (await ends.hear())["error"]["code"] == -32601


async def test_listening_over_the_pipe_until_it_is_cancelled(server: Server) -> None:
    async with piped(server) as ends:
        ends.modern(request("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, id="L"))
        assert (await ends.hear())["method"] == "notifications/subscriptions/acknowledged"
        ends.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "L"}})
        ends.modern(request("server/discover", {}, id=2))
        assert (await ends.hear())["id"] == 2


async def test_a_modern_call_that_is_cancelled_is_not_answered(server: Server, gate: asyncio.Event) -> None:
    async with piped(server) as ends:
        ends.modern(call("slow", id=1, token="t"))
        assert (await ends.hear())["method"] == "notifications/progress"
        ends.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        ends.modern(request("server/discover", {}, id=2))
        assert (await ends.hear())["id"] == 2
        gate.set()


async def test_noise_before_the_first_request_ends_nothing(server: Server) -> None:
    async with piped(server) as ends:
        ends.say(b"\n")
        ends.say(b"{nonsense\n")
        assert (await ends.hear())["error"]["code"] == -32700
        ends.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        ends.say({"jsonrpc": "2.0", "id": 5, "result": {}})
        await shake(ends)


async def test_a_store_that_can_not_write_is_told_over_the_pipe(server: Server, effects: Effects) -> None:
    async def full(*_args: Any, **_kwargs: Any) -> Any:
        raise StoreUnavailable("no space left")

    store = server.app.parts.store
    async with piped(server) as ends:
        await shake(ends)
        store.create = full  # type: ignore[method-assign]
        ends.say(call("trip", {"name": "Ann"}, id=1))
        refused = await ends.hear()
        del store.create  # type: ignore[attr-defined]
        assert (refused["id"], refused["error"]["code"]) == (1, -32603)
        assert "no space left" in refused["error"]["message"]
        ends.say(call("trip", {"name": "Ann"}, id=2))
        assert (await ends.hear())["method"] == "elicitation/create", "the pipe goes on"
    assert effects == []


async def test_a_fault_of_ours_is_told_without_its_text(server: Server) -> None:
    async def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError("private")

    runs = server.app.parts.runs
    async with piped(server) as ends:
        await shake(ends)
        runs.call = broken  # type: ignore[method-assign]
        ends.say(call("trip", {"name": "Ann"}, id=1))
        refused = await ends.hear()
        assert (refused["id"], refused["error"]) == (1, {"code": -32603, "message": "Internal server error"})


async def test_an_initialize_that_says_nothing_is_refused_and_may_be_made_again(server: Server) -> None:
    async with piped(server) as ends:
        ends.say(request("initialize", {}, id=0))
        assert (await ends.hear())["error"]["code"] == -32602
        await shake(ends)
        ends.say({"jsonrpc": "2.0", "id": 99, "result": {}})  # an answer to nothing: noted, and nothing more
        ends.say(request("ping", id=1))
        assert await ends.hear() == {"jsonrpc": "2.0", "id": 1, "result": {}}


async def test_list_changes_reach_the_client_over_the_pipe(server: Server) -> None:
    async with piped(server) as ends:
        await shake(ends)
        ends.say(call("add", {"a": 1, "b": 1}, id=1))
        await ends.hear()
        era: Any = ends.pipe._era
        await era._live.connection.send_tool_list_changed()
        assert (await ends.hear())["method"] == "notifications/tools/list_changed"


async def test_lines_are_read_whole_and_cut_off_where_they_are_too_long() -> None:
    end, start = os.pipe()
    long = b"x" * 100
    with os.fdopen(end, "rb") as source, anyio.fail_after(LIMIT):
        reading = stdio._lines(source, 10)
        os.write(start, b"one\n" + long + b"\n" + long[:11] + b"\ntwo")
        os.close(start)
        lines = [line async for line in reading]
    assert [lines[0], lines[-1]] == [b"one\n", b"two"]
    assert [len(line) for line in lines[1:-1]] == [11, 11], "more than the limit, so that it is refused; not all of it"


async def test_a_client_that_no_longer_reads_breaks_nothing() -> None:
    end, start = os.pipe()
    with os.fdopen(start, "wb", buffering=0) as sink:
        write = stdio._writer(sink)
        await write(b"one\n")
        assert os.read(end, 10) == b"one\n"
        os.close(end)
        await write(b"two\n")
