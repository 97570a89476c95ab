"""Two releases side by side: each takes any request, and a run that nobody may run says so to whoever waits for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

from milepost import workflow
from milepost.core.versions import EVERY_TOOL
from wire.sample import Day
from wire.serving import LIMIT, Raw, Server, Sse, call, enveloped, events, serving
from wire.test_pipe import piped, shake

pytestmark = pytest.mark.anyio
ASKABLE = {"elicitation": {"form": {}}}
WHY = "no replica accepts version 1 of ticket; it goes on when one does"
QUICK = {"heartbeat": 0.1, "held_wait": 60.0}


def a_release(version: int, accepts: set[int] | None = None) -> MCPServer:
    mcp = MCPServer("releases")

    @mcp.tool()
    @workflow(version=version, accepts=accepts)
    async def ticket(ctx: Context[Any]) -> str:
        """Asks, and says which code went on."""
        day = await ctx.elicit("Which day?", Day)
        return f"version {version}: {day.data.day}"

    return mcp


class Releases:
    """Servers of several releases on one store, begun and stopped by the test."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._running: dict[int, AsyncExitStack] = {}
        self._stack = AsyncExitStack()

    async def start(self, version: int, *, accepts: set[int] | None = None, **http: Any) -> tuple[Server, Raw]:
        stack = self._running[version] = AsyncExitStack()
        flags = {"release": f"r{version}", "http": {**QUICK, **http}}
        server = await stack.enter_async_context(serving(a_release(version, accepts), self._path, **flags))
        return server, Raw(await stack.enter_async_context(httpx2.AsyncClient(timeout=15)), server.url)

    async def stop(self, version: int) -> None:
        await self._running.pop(version).aclose()

    async def close(self) -> None:
        for version in list(self._running):
            await self.stop(version)


@pytest.fixture
async def releases(store_path: Path) -> AsyncIterator[Releases]:
    releases = Releases(store_path)
    with anyio.fail_after(LIMIT * 2):
        yield releases
    await releases.close()


async def progress_that_says(stream: AsyncIterator[Sse], text: str) -> Sse:
    while True:
        event = await anext(stream)
        if event.data and event.message.get("params", {}).get("message") == text:
            return event


async def test_hazard_a4_on_a_session_the_stream_says_why_and_goes_on_when_one_does(releases: Releases) -> None:
    _, old = await releases.start(1)
    await old.open()
    async with old.stream(call("ticket", token="t")) as response:
        stream = events(response)
        async for event in stream:
            if event.data and event.message.get("method") == "elicitation/create":
                break
        place, asked = event.id, event.message["id"]
    _, new = await releases.start(2)
    await releases.stop(1)
    new.session, new.version = old.session, old.version
    answer = {"jsonrpc": "2.0", "id": asked, "result": {"action": "accept", "content": {"day": 3}}}
    assert (await new.post(answer)).status_code == 202
    async with new.listen(place) as response:
        stream = events(response)
        await progress_that_says(stream, WHY)
        await releases.start(1)
        results = [event.message async for event in stream if event.data and "result" in event.message]
    assert results[0]["result"]["content"][0]["text"] == "version 1: 3"


async def test_a_session_stream_that_is_cut_meanwhile_says_to_come_back_later(releases: Releases) -> None:
    _, old = await releases.start(1)
    await old.open()
    async with old.stream(call("ticket", token="t")) as response:
        async for event in events(response):
            if event.data and event.message.get("method") == "elicitation/create":
                break
    _, new = await releases.start(2, max_wait=0.05, heartbeat=0.01)
    await releases.stop(1)
    new.session, new.version = old.session, old.version
    answer = {"jsonrpc": "2.0", "id": event.message["id"], "result": {"action": "accept", "content": {"day": 3}}}
    assert (await new.post(answer)).status_code == 202
    while True:
        async with new.listen(event.id) as response:
            retries = [one.retry async for one in events(response) if one.retry is not None]
        if retries[-1] == 5000:
            return
        assert retries[-1] == 1000


async def asked_of_the_old(releases: Releases, capabilities: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A call that the old release asked about; the call, and its result."""
    _, old = await releases.start(1)
    message = call("ticket", token="t")
    return message, result_of(await old.modern(message, capabilities))


def answered(message: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    params = {
        **message["params"],
        "requestState": result["requestState"],
        "inputResponses": {"q1": {"action": "accept", "content": {"day": 4}}},
    }
    return {**message, "id": 2, "params": params}


async def test_hazard_a4_a_modern_call_says_why_and_goes_on_when_one_does(releases: Releases) -> None:
    message, result = await asked_of_the_old(releases, ASKABLE)
    _, new = await releases.start(2)
    await releases.stop(1)
    body, headers = enveloped(answered(message, result), ASKABLE)
    async with new.http.stream("POST", new.url, json=body, headers=headers) as response:
        stream = events(response)
        await progress_that_says(stream, WHY)
        await releases.start(1)
        last = [event.message async for event in stream][-1]
    assert last["result"]["content"][0]["text"] == "version 1: 4"


async def sent_away_by_the_new(
    releases: Releases, message: Any, capabilities: Any, *, begun: bool
) -> tuple[httpx2.Response, dict[str, Any]]:
    """The new release's response to a call that it can't keep waiting, and the result in it.

    `begun`: on a stream that was begun; else a whole response, as comes to who calls again.
    """
    _, new = await releases.start(2, heartbeat=0.1, held_wait=0.3 if begun else 0.0)
    await releases.stop(1)
    while True:
        response = await new.modern(message, capabilities)
        on_stream = response.headers["content-type"] == "text/event-stream"
        if on_stream is begun:
            return response, result_of(response)


def result_of(response: httpx2.Response) -> dict[str, Any]:
    if response.headers["content-type"] != "text/event-stream":
        whole: dict[str, Any] = response.json()["result"]
        return whole
    last = [line for line in response.text.splitlines() if line.startswith("data: ")][-1]
    result: dict[str, Any] = json.loads(last[6:])["result"]
    return result


@pytest.mark.parametrize("begun", [False, True], ids=["before a stream is begun", "on the stream"])
async def test_a_modern_call_that_waits_for_long_gets_a_state_to_come_back_with(
    releases: Releases, begun: bool
) -> None:
    message, result = await asked_of_the_old(releases, ASKABLE)
    response, sent_away = await sent_away_by_the_new(releases, answered(message, result), ASKABLE, begun=begun)
    if begun:
        assert response.text.rstrip().endswith("retry: 5000")
    else:
        assert response.headers["retry-after"] == "5"
    assert sent_away["resultType"] == "input_required"
    assert "inputRequests" not in sent_away
    assert (sent_away["_meta"]["milepost/held_up"], sent_away["_meta"]["milepost/retry_after"]) == (WHY, 5)
    _, old = await releases.start(1)
    back = {**message, "id": 3, "params": {**message["params"], "requestState": sent_away["requestState"]}}
    done = await old.modern(back, ASKABLE)
    assert result_of(done)["content"][0]["text"] == "version 1: 4"


async def test_a_client_that_can_not_be_asked_gets_a_text_and_the_runs_id(releases: Releases) -> None:
    _, result = await asked_of_the_old(releases, {})
    run_id = result["structuredContent"]["run_id"]
    message = call("continue_run", {"run_id": run_id, "answers": {"q1": {"day": 5}}})
    response, sent_away = await sent_away_by_the_new(releases, message, {}, begun=False)
    assert response.headers["retry-after"] == "5"
    assert WHY in sent_away["content"][0]["text"]
    assert "continue_run" in sent_away["content"][0]["text"]
    assert sent_away["structuredContent"] == {
        "status": "waiting_for_replica", "run_id": run_id, "reason": WHY, "retry_after": 5,
    }  # fmt: skip
    _, old = await releases.start(1)
    done = await old.modern(call("continue_run", {"run_id": run_id}), {})
    assert result_of(done)["content"][0]["text"] == "version 1: 5"


async def test_over_a_pipe_it_is_said_in_words(releases: Releases) -> None:
    """To a host that can't be asked either."""
    old, _ = await releases.start(1)
    async with piped(old) as ends:
        await shake(ends, capabilities={})
        ends.say(call("ticket", id=1))
        run_id = (await ends.hear())["result"]["structuredContent"]["run_id"]
    new, _ = await releases.start(2, heartbeat=0.05, held_wait=0.1)
    await releases.stop(1)
    async with piped(new) as ends:
        await shake(ends, capabilities={})
        ends.say(call("continue_run", {"run_id": run_id, "answers": {"q1": {"day": 6}}}, id=1, token="t"))
        told = [await ends.hear()]
        while "result" not in told[-1]:
            told.append(await ends.hear())
    assert told[-2]["params"]["message"] == WHY
    assert WHY in told[-1]["result"]["content"][0]["text"]


async def test_a_call_that_is_given_to_the_other_release_is_told_here_and_run_there(releases: Releases) -> None:
    old, raw = await releases.start(1)
    await releases.start(2)
    await old.runs.store.give(EVERY_TOOL, {"r2": 1.0})
    result = result_of(await raw.modern(call("ticket"), ASKABLE))
    done = await raw.modern(answered(call("ticket"), result), ASKABLE)
    assert result_of(done)["content"][0]["text"] == "version 2: 4"
