"""A server for `test_slow_reader.py`: a workflow that says much, and a plain tool."""

from mcp.server import MCPServer
from mcp.server.mcpserver import Context

from milepost import current_run, workflow

mcp = MCPServer("chatter")
LINE = "x" * 4000
_ended: list[str] = []


@mcp.tool()
@workflow(same_run="never")
async def chatter(lines: int, ctx: Context) -> str:
    for n in range(lines):
        await ctx.session.send_log_message("info", f"{n} {LINE}")  # type: ignore[arg-type]
    _ended.append(current_run().id)
    return "said"


@mcp.tool()
async def add(a: int, b: int) -> int:
    return a + b


@mcp.tool()
async def ended() -> int:
    """How many of them have said everything."""
    return len(_ended)
