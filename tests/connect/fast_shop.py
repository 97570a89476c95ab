"""A FastMCP server that asks, over HTTP on a port. Arguments: the port, the ledger's file."""

from __future__ import annotations

import sys
from pathlib import Path

from fastmcp import Context, FastMCP

mcp = FastMCP("fast-shop", version="3.0")
PORT, LEDGER = sys.argv[1:] if len(sys.argv) == 3 else ("0", "")


def write(line: str) -> None:
    with Path(LEDGER).open("a") as ledger:
        ledger.write(line + "\n")


@mcp.tool
async def order(ctx: Context) -> str:
    """Asks how many, and orders them."""
    answer = await ctx.elicit("How many?", int)
    if answer.action != "accept":
        return answer.action
    write(f"ordered {answer.data}")
    return f"ordered {answer.data}"


@mcp.tool
def add(a: int, b: int) -> int:
    return a + b


if __name__ == "__main__":
    mcp.run(transport="http", host="127.0.0.1", port=int(PORT), show_banner=False)
