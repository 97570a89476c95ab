"""Arguments that are mirrored in `Mcp-Param-*` headers must be what the body says (2026-07-28, custom headers)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import anyio
import httpx2
import pytest
from mcp.server import MCPServer
from mcp.server.lowlevel import Server
from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool
from pydantic import Field

from wire.serving import LIMIT, call, enveloped, serving

pytestmark = pytest.mark.anyio
MISMATCH = -32020
SCHEMA = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}


def knows_its_schemas() -> MCPServer:
    mcp = MCPServer("schemas")

    @mcp.tool()
    async def search(
        region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "", n: int = 0
    ) -> str:
        return f"found in {region}"

    return mcp


class Pages:
    """A low-level server whose tool list has two pages, and how often they were read."""

    def __init__(self) -> None:
        self.read = 0
        self.broken = False
        self.server: Server[Any] = Server("pages", on_list_tools=self.list_tools, on_call_tool=self.call_tool)

    async def list_tools(self, ctx: Any, params: Any) -> ListToolsResult:
        self.read += 1
        if self.broken:
            raise RuntimeError("no list today")
        if params is None or params.cursor is None:
            return ListToolsResult(tools=[Tool(name="plain", input_schema={"type": "object"})], next_cursor="2")
        return ListToolsResult(tools=[Tool(name="search", input_schema=SCHEMA)])

    async def call_tool(self, ctx: Any, params: Any) -> CallToolResult:
        region = (params.arguments or {}).get("region")
        return CallToolResult(content=[TextContent(type="text", text=f"found in {region}")])


async def post(url: str, message: Any, *headers: tuple[str, str]) -> dict[str, Any]:
    """The response, as JSON; headers may come twice."""
    body, more = enveloped(message)
    with anyio.fail_after(LIMIT):
        async with httpx2.AsyncClient() as http:
            answer: dict[str, Any] = (await http.post(url, json=body, headers=[*more.items(), *headers])).json()
    return answer


def text(answer: dict[str, Any]) -> str:
    return str(answer["result"]["content"][0]["text"])


@pytest.mark.parametrize("make", [knows_its_schemas, lambda: Pages().server])
async def test_a_header_must_say_what_the_argument_says(make: Callable[[], Any], store_path: Path) -> None:
    north = call("search", {"region": "north"})
    async with serving(make(), store_path) as server:
        assert text(await post(server.url, north, ("mcp-param-region", "north"))) == "found in north"
        for message, headers, words in [
            (north, [("mcp-param-region", "south")], "does not match"),
            (north, [], "is missing"),
            (call("search", {"n": 1}), [("Mcp-Param-Region", "north")], "argument is absent"),
            (call("search"), [("mcp-param-region", "north")], "argument is absent"),
            (north, [("mcp-param-region", "north"), ("mcp-param-region", "south")], "appears more than once"),
        ]:
            error = (await post(server.url, message, *headers))["error"]
            assert error["code"] == MISMATCH
            assert words in error["message"]


async def test_a_tool_list_is_walked_once_for_a_tool_and_remembered(store_path: Path) -> None:
    pages = Pages()
    async with serving(pages.server, store_path) as server:
        before = pages.read
        for _ in range(3):
            await post(server.url, call("search", {"region": "north"}), ("mcp-param-region", "north"))
        assert pages.read == before + 2, "two pages"
        assert text(await post(server.url, call("plain", {"region": "x"}))) == "found in x", "it mirrors nothing"
        assert text(await post(server.url, call("nowhere", {"region": "x"}))) == "found in x"
        assert text(await post(server.url, call("plain"), ("mcp-param-other", "x"))) == "found in None"


async def test_a_tool_list_that_fails_checks_nothing_and_breaks_no_call(store_path: Path) -> None:
    pages = Pages()
    async with serving(pages.server, store_path) as server:
        pages.broken = True
        answer = await post(server.url, call("search", {"region": "north"}), ("mcp-param-region", "south"))
        assert text(answer) == "found in north"


async def test_a_server_without_a_tool_list_checks_nothing(store_path: Path) -> None:
    hidden: Server[Any] = Server("hidden", on_call_tool=Pages().call_tool)
    async with serving(hidden, store_path) as server:
        answer = await post(server.url, call("search", {"region": "north"}), ("mcp-param-region", "south"))
        assert text(answer) == "found in north"


async def test_arguments_that_are_no_object_are_left_to_the_kernel(store_path: Path) -> None:
    message = call("search")
    message["params"]["arguments"] = ["north"]
    async with serving(knows_its_schemas(), store_path) as server:
        answer = await post(server.url, message, ("mcp-param-region", "north"))
    assert answer["error"]["code"] == -32602
