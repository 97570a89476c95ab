"""The server of the benchmarks: hosted by Milepost, and by the SDK itself."""

from __future__ import annotations

import gc
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from pydantic import BaseModel, Field

from milepost import stage, step, workflow

mcp = MCPServer("bench", log_level="WARNING")


class Day(BaseModel):
    day: int = Field(ge=1, le=31)


@step
async def price(number: int) -> int:
    return number


@mcp.tool()
@workflow(stages=["searching_data", "awaiting_confirmation"], same_run="never")
async def trip(number: int, ctx: Context[Any]) -> str:
    """Does a step, and waits for a person."""
    async with stage("searching_data"):
        found = await price(number)
    async with stage("awaiting_confirmation"):
        wish = await ctx.elicit(f"Trip {number} costs {found}: which day?", Day)
    return wish.action


@mcp.tool()
async def add(a: int, b: int) -> int:
    """Adds: a call in the stateless lane."""
    return a + b


@mcp.tool()
async def collect() -> int:
    """Collects the garbage of this process."""
    return gc.collect()
