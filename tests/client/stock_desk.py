"""Servers that aren't Milepost, for the handshake era: `stock_desk.py sdk|fastmcp PORT LEDGER`.

FastMCP's has an event store, so its streams can be read on; the SDK ships none.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastmcp import Context as FastContext
from fastmcp import FastMCP
from fastmcp.server.event_store import EventStore
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from pydantic import BaseModel

LEDGER = Path(sys.argv[3])


class Name(BaseModel):
    name: str


async def _arrange(case: str, ctx: Any) -> str:
    said = [(await ctx.elicit(f"{case}: question {n}?", Name)).data.name for n in range(2)]
    with LEDGER.open("a") as ledger:  # noqa: ASYNC230  one short line
        ledger.write(f"{case} {' '.join(said)}\n")
    return f"booked {' '.join(said)}"


sdk, fast = MCPServer("desk"), FastMCP[Any]("desk")


@sdk.tool()
async def arrange(case: str, ctx: Context[Any]) -> str:
    return await _arrange(case, ctx)


@fast.tool(name="arrange")
async def fast_arrange(case: str, ctx: FastContext) -> str:
    return await _arrange(case, ctx)


if __name__ == "__main__":
    app = sdk.streamable_http_app() if sys.argv[1] == "sdk" else fast.http_app(path="/mcp", event_store=EventStore())
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", ws="none")
