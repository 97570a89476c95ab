"""A server of the official SDK, as it is, without Milepost. Run with the port as argument."""

from __future__ import annotations

import sys

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from pydantic import BaseModel

mcp = MCPServer("stock")


class Day(BaseModel):
    day: int


@mcp.tool()
async def trip(ctx: Context) -> str:
    """Asks, and says how far it is."""
    await ctx.report_progress(1, 2, "looking")
    answer = await ctx.elicit("Which day?", Day)
    await ctx.report_progress(2, 2, "done")
    await ctx.info("all is \x1b[2J well")
    return f"{answer.action} {getattr(answer, 'data', None)}"


if __name__ == "__main__":
    mcp.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
