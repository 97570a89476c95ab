"""The pipe inside one process: what each era takes and refuses, line by line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from milepost.wire.stdio import Pipe
from wire.sample import Effects
from wire.serving import INIT, LIMIT, Server, call, enveloped, request

pytestmark = pytest.mark.anyio


class Ends:
    """Both ends of a pipe, in memory."""

    def __init__(self) -> None:
        self._in: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._out: asyncio.Queue[bytes] = asyncio.Queue()

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
    task = asyncio.create_task(Pipe(server.endpoint, ends.write).serve(ends.lines()))
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
