"""A server of the official SDK over a pipe; what it gets done is a line in LEDGER, each start a line in PIDS."""

from __future__ import annotations

import os
import time
from pathlib import Path

from mcp.server import MCPServer
from mcp_types import ToolAnnotations

mcp = MCPServer("stock")
LEDGER = Path(os.environ["LEDGER"])


def note(text: str) -> int:
    with LEDGER.open("a") as ledger:
        ledger.write(text + "\n")
    return len(LEDGER.read_text().splitlines())


@mcp.tool()
def charge(case: str) -> str:
    """Is killed the first time, after its effect."""
    if note(f"charged {case}") == 1:
        time.sleep(60)
    return "charged"


@mcp.tool(annotations=ToolAnnotations(read_only_hint=True))
def look(case: str) -> str:
    """Is killed the first time."""
    if note(f"looked at {case}") == 1:
        time.sleep(60)
    return f"seen {case}"


if __name__ == "__main__":
    with Path(os.environ["PIDS"]).open("a") as pids:
        pids.write(f"{os.getpid()}\n")
    mcp.run()
