"""A server whose tools ask for one thing each, for tests of `milepost call`. Nothing here is nice to a terminal."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, SamplingMessage, TextContent

from milepost import stage, step, workflow

mcp = MCPServer("counter")

FORGED = "\x1b[2J\x1b]0;owned\x07[bold red]Hello[/] \u202egnp.exe\x9b31m"

EVERYTHING: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "title": "Your name", "minLength": 2, "maxLength": 10},
        "mail": {"type": "string", "format": "email"},
        "nights": {"type": "integer", "minimum": 1, "maximum": 21, "default": 3},
        "window": {"type": "boolean", "default": False},
        "class": {"type": "string", "oneOf": [{"const": "e", "title": "Economy"}, {"const": "b", "title": "Business"}]},
        "bags": {
            "type": "array",
            "items": {"anyOf": [{"const": "s", "title": "Small"}, {"const": "l", "title": "Large"}]},
        },
    },
    "required": ["name", "nights", "class"],
}


@mcp.tool()
@workflow()
async def fill(ctx: Context) -> str:
    """Asks a form of every kind of field."""
    answer = await ctx.session.elicit_form("All about your trip", EVERYTHING, ctx.request_id)
    return f"{answer.action}: {answer.content}"


@mcp.tool()
@workflow()
async def visit(ctx: Context, label: str = "") -> str:
    """Asks to open a page. `label` makes a call another wish than the one before."""
    answer = await ctx.elicit_url("Pay for your trip.", "https://pay.example.org/t?id=5", "pay-5")
    return answer.action


@mcp.tool()
@workflow(stages=["\x1b[2Jstage"])
async def rude(ctx: Context) -> str:
    """Says what a terminal should not obey."""
    schema = {"type": "object", "properties": {"x": {"type": "string", "title": FORGED, "enum": ["a", FORGED]}}}
    async with stage("\x1b[2Jstage"):
        answer = await ctx.session.elicit_form(FORGED, schema, ctx.request_id)
    return f"{FORGED} {answer.action}"


@mcp.tool()
@workflow()
async def letter(ctx: Context) -> str:
    """Asks the client's model."""
    ask = SamplingMessage(role="user", content=TextContent(type="text", text="Write a letter."))
    reply = await ctx.session.create_message(messages=[ask], max_tokens=50, related_request_id=ctx.request_id)
    return f"{reply.model}: {getattr(reply.content, 'text', '')!r}"


@mcp.tool()
@workflow()
async def pair(ctx: Context) -> str:
    """Asks two questions at the same time."""
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    both = [ctx.session.elicit_form(f"The {name} number", schema, ctx.request_id) for name in ("first", "second")]
    first, second = await asyncio.gather(*both)
    return f"{first.content} {second.content}"


@mcp.tool()
@workflow()
async def where(ctx: Context) -> str:
    """Asks for the roots."""
    found = await ctx.session.list_roots()
    return " ".join(str(root.uri) for root in found.roots)


@step(timeout=60)
def long_step() -> str:
    """Works until the file that COUNTER_GATE names is there."""
    gate = Path(os.environ["COUNTER_GATE"])
    gate.with_suffix(".begun").touch()
    while not gate.exists():
        time.sleep(0.05)
    return "done"


@mcp.tool()
@workflow(stages=["calling_tools"])
async def work(label: str) -> str:
    """Works for long. `label` makes a call another wish than the one before."""
    async with stage("calling_tools"):
        return await long_step()


@mcp.tool()
def typed(
    n: int, ratio: float = 0.5, on: bool = False, tags: list[str] | None = None,
    size: Literal["small", "large"] = "small", text: str = "", more: dict[str, int] | None = None,
) -> str:  # fmt: skip
    """Says what it was given."""
    return repr((n, ratio, on, tags, size, text, more))


@mcp.tool()
def fails() -> str:
    """Can't do it."""
    raise ToolError("no seat is free")


@mcp.tool()
def picture() -> Image:
    """A picture."""
    return Image(data=b"\x89PNG", format="png")


@mcp.tool()
def structured() -> CallToolResult:
    """A result without a word."""
    return CallToolResult(content=[], structured_content={"a": 1})
