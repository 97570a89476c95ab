"""More than a replica takes on, seen from outside: 503, Retry-After and the request's id, and what goes on goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from wire.sample import Effects, a_server
from wire.serving import LIMIT, Raw, Server, call, enveloped, events, request, serving
from wire.test_modern import ASKABLE, ask, retry
from wire.test_pipe import piped, shake

pytestmark = pytest.mark.anyio
ONE_CALL = {"calls": 1, "calls_percent": 100, "queue": 0}
TWO_ATTEMPTS = {"attempts": 2, "kept_percent": 50, "principal_percent": 50, "queue": 0}
"""One for a new call, one for what goes on."""


@asynccontextmanager
async def crowded(effects: Effects, gate: asyncio.Event, path: Path, **flags: Any) -> AsyncIterator[tuple[Server, Raw]]:
    with anyio.fail_after(LIMIT):
        async with serving(a_server(effects, gate), path, **flags) as server, httpx2.AsyncClient(timeout=15) as http:
            try:
                yield server, Raw(http, server.url)
            finally:
                gate.set()


@asynccontextmanager
async def held(raw: Raw, tool: str, *, modern: bool = False) -> AsyncIterator[None]:
    """A call that works until the gate is opened, begun."""
    message = call(tool, id=50, token="t")
    if modern:
        body, headers = enveloped(message, ASKABLE)
        opened = raw.http.stream("POST", raw.url, json=body, headers=headers)
    else:
        opened = raw.stream(message)
    async with opened as response:
        async for event in events(response):
            if event.data and event.message.get("method") == "notifications/progress":
                break
        yield


def refused(response: httpx2.Response, request_id: Any = 1) -> str:
    """The text of a refusal; asserts that it is one as it should be."""
    assert response.status_code == 503, response.text
    assert int(response.headers["retry-after"]) > 0
    body = response.json()
    assert (body["jsonrpc"], body["id"], body["error"]["code"]) == ("2.0", request_id, -32603)
    assert body["error"]["data"]["retry_after"] == int(response.headers["retry-after"])
    message: str = body["error"]["message"]
    assert "try again" in message
    return message


@pytest.mark.parametrize("modern", [False, True], ids=["handshake era", "modern era"])
async def test_a_stateless_call_too_many_is_refused_with_its_id(
    effects: Effects, gate: asyncio.Event, store_path: Path, modern: bool
) -> None:
    async with crowded(effects, gate, store_path, http=ONE_CALL) as (_, raw):
        await raw.open()
        async with held(raw, "held", modern=modern):
            message = call("add", {"a": 1, "b": 2}, id="seven")
            response = await (raw.modern(message) if modern else raw.post(message))
            assert "as much to do as it takes on" in refused(response, "seven")
            listed = request("tools/list", id=8)
            response = await (raw.modern(listed) if modern else raw.post(listed))
            assert response.status_code == 200, "what costs next to nothing is served"
            gate.set()
        while (response := await (raw.modern(message) if modern else raw.post(message))).status_code == 503:
            pass
    assert effects.count("add") == 1


@pytest.mark.parametrize("modern", [False, True], ids=["handshake era", "modern era"])
async def test_a_new_run_too_many_is_refused_and_an_answered_one_goes_on(
    effects: Effects, gate: asyncio.Event, store_path: Path, modern: bool
) -> None:
    async with crowded(effects, gate, store_path, engine=TWO_ATTEMPTS) as (_, raw):
        await raw.open()
        first = await ask(raw, call("trip", {"name": "Ann"}))
        async with held(raw, "slow", modern=modern):
            message = call("trip", {"name": "Bob"}, id=9)
            refused(await (raw.modern(message, ASKABLE) if modern else raw.post(message)), 9)
            second = await ask(raw, retry("trip", {"name": "Ann"}, first, {"q1": {"day": 6}}))
            done = await ask(raw, retry("trip", {"name": "Ann"}, second, {"q2": {"seat": "3D"}}))
            assert done["content"][0]["text"] == "Ann: B-63D"
            gate.set()
        while (await raw.modern(message, ASKABLE)).status_code == 503:
            pass


async def test_a_call_that_waits_for_a_person_takes_up_no_room(
    effects: Effects, gate: asyncio.Event, store_path: Path
) -> None:
    async with crowded(effects, gate, store_path, http=ONE_CALL) as (_, raw):
        await ask(raw, call("hot"))
        assert (await ask(raw, call("add", {"a": 1, "b": 2})))["content"][0]["text"] == "3"


async def test_a_modern_call_that_may_ask_waits_for_room_like_any_other(
    effects: Effects, gate: asyncio.Event, store_path: Path
) -> None:
    async with crowded(effects, gate, store_path, http=ONE_CALL) as (_, raw), held(raw, "held", modern=True):
        refused(await raw.modern(call("hot"), ASKABLE))
        gate.set()


async def test_over_a_pipe_it_is_said_in_words(effects: Effects, gate: asyncio.Event, store_path: Path) -> None:
    flags = {"http": ONE_CALL, "engine": TWO_ATTEMPTS}
    async with crowded(effects, gate, store_path, **flags) as (server, _), piped(server) as ends:
        await shake(ends)
        ends.say(call("held", id=1, token="t"))
        assert (await ends.hear())["method"] == "notifications/progress"
        ends.say(call("add", {"a": 1, "b": 2}, id=2))
        heard = await ends.hear()
        assert heard["id"] == 2
        assert "try again in a few seconds" in heard["error"]["message"]
        assert heard["error"]["data"]["retry_after"] > 0
        gate.set()


async def test_a_call_that_comes_again_while_it_waits_for_room_runs_once(
    effects: Effects, gate: asyncio.Event, store_path: Path
) -> None:
    async with crowded(effects, gate, store_path, http={**ONE_CALL, "queue": 5}) as (server, raw):
        await raw.open()
        async with held(raw, "held"):
            message = call("add", {"a": 1, "b": 2}, id=2)
            twice = [asyncio.create_task(raw.post(message)) for _ in range(2)]
            while server.endpoint.parts.admission.waiting < 2:
                await asyncio.sleep(0.01)
            gate.set()
            for response in await asyncio.gather(*twice):
                assert "3" in response.text
    assert effects.count("add") == 1


async def test_over_a_pipe_too_and_it_is_answered_once(effects: Effects, gate: asyncio.Event, store_path: Path) -> None:
    flags = {"http": {**ONE_CALL, "queue": 5}}
    async with crowded(effects, gate, store_path, **flags) as (server, _), piped(server) as ends:
        await shake(ends)
        ends.say(call("held", id=1, token="t"))
        assert (await ends.hear())["method"] == "notifications/progress"
        for _ in range(2):
            ends.say(call("add", {"a": 1, "b": 2}, id=2))
        while server.endpoint.parts.admission.waiting < 2:
            await asyncio.sleep(0.01)
        gate.set()
        heard = [await ends.hear() for _ in range(2)]
        ends.say(request("ping", id=3))
        heard.append(await ends.hear())
    assert sorted(message["id"] for message in heard) == [1, 2, 3]
    assert effects.count("add") == 1
