"""A small server for the browser's tests: `milepost serve tests/browser/shop.py:mcp`, with a page of its own.

What its tools do is a line in the file that SHOP_LEDGER names: the outside ledger.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from milepost import stage, step, workflow

mcp = MCPServer("shop")


class Name(BaseModel):
    name: str = Field(pattern="^[A-Z]")
    """The browser doesn't check patterns: the server does."""


class Count(BaseModel):
    count: int = Field(ge=1, le=9)


def ledger() -> Path:
    return Path(os.environ["SHOP_LEDGER"])


def note(line: str) -> int:
    """Write a line of the ledger. Returns how many times it is there."""
    with ledger().open("a") as file:
        file.write(line + "\n")
    return ledger().read_text().splitlines().count(line)


@step
async def pack(name: str, count: int) -> str:
    note(f"pack {name} {count}")
    return f"{count} for {name}"


@mcp.tool()
@workflow(stages=["asking", "packing"])
async def order(article: str, ctx: Context[Any]) -> str:
    """Asks for a name and a count, then packs."""
    async with stage("asking"):
        name = await ctx.elicit(f"{article}: for whom?", Name)
        if name.action != "accept":
            return f"no order: {name.action}"
        count = await ctx.elicit("How many?", Count)
    async with stage("packing"):
        return await pack(name.data.name, count.data.count if count.action == "accept" else 0)


@mcp.tool()
async def charge() -> str:
    """Stateless, and the server dies under it."""
    note("charge")
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


@mcp.tool(annotations=ToolAnnotations(read_only_hint=True))
async def stock() -> str:
    """Only reads; the server dies under it the first time."""
    if note("stock") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "plenty"


@mcp.tool(name="grüße")
async def greet(name: str) -> str:
    """Has a name that no header holds as it is."""
    return f"Grüße, {name}"


@mcp.custom_route("/page", methods=["GET"])
async def page(request: Request) -> Response:
    return HTMLResponse("<!doctype html><title>shop</title>")
