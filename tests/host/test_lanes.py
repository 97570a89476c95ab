"""`milepost lanes`: the same facts as a table, as Markdown and as JSON."""

from __future__ import annotations

import io
import json

from mcp.server import MCPServer
from rich.console import Console

from host.tools_src import asks_by_helper, only_looks, well_made
from milepost.wire.lanes import FORMATS, as_json, as_markdown, as_table, as_text
from milepost.wire.target import Hosted, host


async def hosted() -> Hosted:
    mcp = MCPServer("travel")
    for fn in (only_looks, asks_by_helper, well_made):
        mcp.add_tool(fn)
    return await host(mcp)


async def test_json_holds_every_field_of_every_tool() -> None:
    body = json.loads(as_json(await hosted()))
    assert body["server"] == "travel"
    assert [t["tool"] for t in body["tools"]] == ["only_looks", "asks_by_helper", "well_made"]
    assert body["tools"][2]["lane"] == "stateful"
    assert body["tools"][2]["stages"] == ["search", "book"]
    assert body["tools"][1]["warnings"]


async def test_markdown_is_a_table_with_its_warnings_below() -> None:
    text = as_markdown(await hosted())
    assert "| tool | lane | why | asks | stages | limits |" in text
    assert "| only_looks | stateless | asks nothing | - | - | - |" in text
    assert "search > book" in text
    assert "- `asks_by_helper`: waits for answers" in text


async def test_markdown_without_warnings_has_no_list_of_them_and_survives_odd_names() -> None:
    mcp = MCPServer("travel")
    mcp.add_tool(only_looks, name="odd")
    lane = await host(mcp)
    assert "Warnings" not in as_markdown(lane)


async def test_the_table_shows_lanes_and_warnings() -> None:
    text = as_text(await hosted())
    for part in ("Tools of travel", "stateful", "hot", "! asks_by_helper: waits", "run: timeout=5m"):
        assert part in text
    out = io.StringIO()
    Console(file=out, width=200).print(as_table(await hosted()))
    assert "well_made" in out.getvalue()


async def test_a_server_without_tools_says_so() -> None:
    assert "no tools" in as_text(await host(MCPServer("empty")))
    assert set(FORMATS) == {"table", "json", "markdown"}
