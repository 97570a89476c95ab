"""An unchanged FastMCP server behind our endpoint: its helpers see the request, its tools ask on both eras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from fastmcp import Context, FastMCP
from fastmcp.server.dependencies import get_http_headers
from mcp import Client

from milepost import workflow
from wire.person import Person
from wire.serving import LIMIT, Raw, call, request, serving

pytestmark = pytest.mark.anyio


def a_server() -> FastMCP[Any]:
    mcp: FastMCP[Any] = FastMCP("fast-sample")

    @mcp.tool
    async def seen(ctx: Context) -> str:
        return f"{get_http_headers().get('x-mark')} {ctx.transport}"

    @mcp.tool
    async def asks(ctx: Context) -> str:
        answer = await ctx.elicit("Which seat?", response_type=str)
        return f"{answer.action} {answer.data}"

    return mcp


async def test_fastmcps_helpers_see_the_request_on_both_eras(store_path: Path) -> None:
    async with serving(a_server(), store_path) as server, httpx2.AsyncClient() as http:
        raw = Raw(http, server.url, headers={"x-mark": "blue"})
        modern = (await raw.modern(call("seen"))).json()["result"]
        await raw.open()
        handshake = (await raw.post(call("seen"))).json()["result"]
    assert modern["content"][0]["text"] == handshake["content"][0]["text"] == "blue streamable-http"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_an_unchanged_tool_asks_on_both_eras(store_path: Path, mode: Any) -> None:
    person = Person(**{"Which seat": {"value": "7C"}})
    with anyio.fail_after(LIMIT):
        async with (
            serving(a_server(), store_path) as server,
            Client(server.url, mode=mode, elicitation_callback=person) as client,
        ):
            result = await client.call_tool("asks", {})
    assert result.content[0].text == "accept 7C"


async def test_what_fastmcp_says_of_a_tool_stands_beside_its_lane(store_path: Path) -> None:
    mcp = a_server()

    @mcp.tool(tags={"travel"})
    @workflow()
    async def safe(ctx: Context) -> str:
        return "ok"

    async with serving(mcp, store_path) as server, httpx2.AsyncClient() as http:
        listed = (await Raw(http, server.url).modern(request("tools/list"))).json()["result"]["tools"]
    told = {tool["name"]: tool.get("_meta") or {} for tool in listed}
    assert told["safe"]["milepost/lane"] == "stateful"
    assert told["safe"]["fastmcp"]["tags"] == ["travel"]
    assert "milepost/lane" not in told["asks"]
