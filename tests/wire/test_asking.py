"""Tools that wait in memory: what they hear of their client, and what their client hears of them, on both eras."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitRequest, ElicitRequestFormParams, ElicitResult

from wire.sample import Day, Effects
from wire.serving import INIT, LIMIT, Raw, Server, call, enveloped, events, serving, until
from wire.test_modern import ask, retry

pytestmark = pytest.mark.anyio


async def roots(session: Any) -> Any:
    """Asks where nobody who reads the tool's code sees it, so that the tool counts as stateless."""
    return await getattr(session, "list_" + "roots")()


def asking(effects: Effects, gate: asyncio.Event) -> MCPServer:
    mcp = MCPServer("asking")

    @mcp.tool()
    async def pings(ctx: Context[Any]) -> str:
        await ctx.session.send_ping()
        return "still here"

    @mcp.tool()
    async def asks(ctx: Context[Any]) -> str:
        try:
            return (await ctx.elicit("Which day?", Day)).action
        except MCPError as error:
            return f"heard {error.error.code} {error.error.message}"

    @mcp.tool()
    async def impatient(ctx: Context[Any]) -> str:
        params = ElicitRequestFormParams(message="Now?", requested_schema={"type": "object", "properties": {}})
        try:
            await ctx.session.send_request(ElicitRequest(params=params), ElicitResult, 0.05)
        except MCPError as error:
            return f"heard {error.error.code}"
        return "answered"

    @mcp.tool()
    async def hidden(ctx: Context[Any]) -> str:
        await roots(ctx.session)
        return "never"

    @mcp.tool()
    async def maybe(ask: bool, ctx: Context[Any]) -> str:
        try:
            await ctx.report_progress(1, 2, "thinking")
            await gate.wait()
            return (await ctx.elicit("Which day?", Day)).action if ask else "not needed"
        except asyncio.CancelledError:
            effects.append("torn")
            raise

    @mcp.tool()
    async def works(ctx: Context[Any]) -> str:
        await ctx.elicit("Which day?", Day)
        await gate.wait()
        return "done"

    return mcp


@pytest.fixture
async def server(effects: Effects, gate: asyncio.Event, store_path: Path) -> AsyncIterator[Server]:
    hasty = {"commit_after": 0.01, "ping_every": 0.02, "heartbeat": 0.05}
    async with serving(asking(effects, gate), store_path, http=hasty) as server:
        yield server


def text(response: httpx2.Response) -> str:
    return str(response.json()["result"]["content"][0]["text"])


async def test_a_ping_is_answered_although_no_client_is_asked(raw: Raw) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        assert text(await raw.post(call("pings"))) == "still here"


async def test_a_clients_error_is_raised_in_the_tool_that_asked(raw: Raw) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("asks")) as response:
            stream = events(response)
            asked = (await until(stream, method="elicitation/create")).message
            error = {"code": -32042, "message": "not now"}
            assert (await raw.post({"jsonrpc": "2.0", "id": asked["id"], "error": error})).status_code == 202
            told = (await until(stream)).message["result"]["content"][0]["text"]
    assert told == "heard -32042 not now"


async def test_a_tool_that_waits_only_so_long_is_told_that_time_is_up(raw: Raw) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("impatient")) as response:
            told = (await until(events(response))).message["result"]["content"][0]["text"]
    assert told == "heard -32001"


async def test_what_the_client_did_not_declare_is_refused_inside_the_tool(raw: Raw) -> None:
    await raw.open({**INIT, "capabilities": {}})
    with anyio.fail_after(LIMIT):
        told = (await raw.post(call("hidden"))).json()["result"]
        modern = await raw.modern(call("hidden", id=2))
    assert told["isError"] is True
    assert modern.json()["result"]["isError"] is True


@asynccontextmanager
async def modern_stream(raw: Raw, message: dict[str, Any]) -> AsyncIterator[httpx2.Response]:
    body, headers = enveloped(message, {"elicitation": {}})
    async with raw.http.stream("POST", raw.url, json=body, headers=headers) as response:
        yield response


async def test_a_modern_call_in_memory_says_on_the_way_what_it_does_and_may_end_without_asking(
    raw: Raw, gate: asyncio.Event
) -> None:
    with anyio.fail_after(LIMIT):
        async with modern_stream(raw, call("maybe", {"ask": False}, token="t")) as response:
            said = ""
            async for chunk in response.aiter_text():
                said += chunk
                if "still here" in said:  # a sign of life, while it says nothing
                    gate.set()
    assert said.index('"message":"thinking"') < said.index("still here") < said.index("not needed")


async def test_a_modern_call_in_memory_that_says_nothing_is_plain_json(raw: Raw, gate: asyncio.Event) -> None:
    gate.set()
    with anyio.fail_after(LIMIT):
        answer = await raw.modern(call("maybe", {"ask": False}), {"elicitation": {}})
    assert answer.headers["content-type"] == "application/json"
    assert text(answer) == "not needed"


async def test_a_modern_call_in_memory_whose_client_leaves_is_torn(raw: Raw, effects: Effects) -> None:
    with anyio.fail_after(LIMIT):
        async with modern_stream(raw, call("maybe", {"ask": True}, token="t")) as response:
            await until(events(response), method="notifications/progress")
        while effects != ["torn"]:
            await asyncio.sleep(0.005)


async def test_a_modern_call_in_memory_that_was_answered_says_that_it_works(raw: Raw, gate: asyncio.Event) -> None:
    with anyio.fail_after(LIMIT):
        asked = await ask(raw, call("works"))
        (key,) = asked["inputRequests"]
        async with modern_stream(raw, retry("works", {}, asked, {key: {"day": 6}})) as response:
            said = ""
            async for chunk in response.aiter_text():
                said += chunk
                if "still here" in said:
                    gate.set()
    assert said.index("still here") < said.index('"done"')
