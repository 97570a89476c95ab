"""A server whose tools ask, and write down what they did: hosted by Milepost, as a process.

LEDGER names a file; every effect is a line in it.
"""

from __future__ import annotations

import os
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import ToolAnnotations
from pydantic import BaseModel

from milepost import stage, step, workflow

mcp = MCPServer("desk")
LEDGER = Path(os.environ.get("LEDGER", "ledger"))


class Name(BaseModel):
    name: str


def note(text: str) -> None:
    with LEDGER.open("a") as ledger:
        ledger.write(text + "\n")


@step()
async def book(what: str) -> str:
    note(what)
    return f"booked {what}"


@mcp.tool()
@workflow(stages=["asking", "booking"])
async def arrange(case: str, ctx: Context, questions: int = 2) -> str:
    """Ask a few times, then book once for each answer."""
    names = []
    async with stage("asking", answer_within="1h"):
        for n in range(questions):
            answer = await ctx.elicit(f"{case}: question {n}?", Name)
            names.append(answer.data.name if answer.action == "accept" else "nobody")
    async with stage("booking"):
        return "; ".join([await book(f"{case} {name}") for name in names])


@mcp.tool(annotations=ToolAnnotations(read_only_hint=True))
async def look(case: str) -> str:
    return f"seen {case}"


@mcp.tool()
async def charge(case: str) -> str:
    """Has an effect, and is no workflow: must never be called twice for one wish."""
    note(f"charged {case}")
    return "charged"
