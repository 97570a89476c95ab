"""A server with one tool of each kind, for tests of the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import httpx2
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel, Field

from milepost import stage, step, workflow
from wire.serving import Raw, Server, serving


class Day(BaseModel):
    day: int = Field(ge=1, le=31)


class Seat(BaseModel):
    seat: str


class Effects(list[str]):
    """What the tools have done, in order: the outside ledger of these tests."""


class Gate(asyncio.Event):
    """What a tool waits at until the test lets it go on."""

    waiting = 0
    """How many wait at it."""

    async def wait(self) -> Literal[True]:
        self.waiting += 1
        try:
            return await super().wait()
        finally:
            self.waiting -= 1


def a_server(effects: Effects, gate: asyncio.Event | None = None) -> MCPServer:
    mcp = MCPServer("wire-sample")

    @step
    async def book(day: int, seat: str) -> str:
        effects.append(f"book {day} {seat}")
        return f"B-{day}{seat}"

    @mcp.tool()
    @workflow(stages=["asking", "booking"])
    async def trip(name: str, ctx: Context[Any]) -> str:
        """Asks twice, books once."""
        async with stage("asking"):
            day = await ctx.elicit(f"Which day, {name}?", Day)
            if day.action != "accept":
                return f"no day: {day.action}"
            seat = await ctx.elicit("Which seat?", Seat)
        async with stage("booking"):
            booking = await book(day.data.day, seat.data.seat if seat.action == "accept" else "any")
        return f"{name}: {booking}"

    @mcp.tool()
    @workflow()
    async def pair(ctx: Context[Any]) -> str:
        """Asks two questions side by side."""
        day, seat = await asyncio.gather(ctx.elicit("Which day?", Day), ctx.elicit("Which seat?", Seat))
        return f"{day.data.day} {seat.data.seat}"

    @mcp.tool()
    @workflow()
    async def letter(ctx: Context[Any]) -> str:
        """Asks the client's model."""
        drafted = await ctx.session.create_message(
            [SamplingMessage(role="user", content=TextContent(type="text", text="Dear"))], max_tokens=10
        )
        return drafted.content.text

    @mcp.tool()
    @workflow()
    async def slow(ctx: Context[Any]) -> str:
        """Works until the test lets it go on."""
        await ctx.report_progress(1, 3, "begun")
        await wait(0)
        return "done"

    @step
    async def wait(n: int) -> int:
        assert gate is not None
        await gate.wait()
        effects.append("waited")
        return n

    @mcp.tool()
    async def hot(ctx: Context[Any]) -> str:
        """Asks without being a workflow."""
        effects.append("hot begun")
        day = await ctx.elicit("Which day?", Day)
        effects.append("hot done")
        return f"hot {day.action} {day.data.day if day.action == 'accept' else ''}".strip()

    @mcp.tool()
    async def add(a: int, b: int) -> int:
        """Adds."""
        effects.append("add")
        return a + b

    @mcp.tool()
    async def held(ctx: Context[Any]) -> str:
        """Stateless, says something, and works until the test lets it go on."""
        effects.append("held begun")
        await ctx.report_progress(1, 2)
        assert gate is not None
        await gate.wait()
        effects.append("held done")
        return "let go"

    @mcp.tool()
    async def closing(ctx: Context[Any]) -> str:
        """Closes its own stream and then returns."""
        await ctx.close_sse_stream()
        effects.append("closed")
        return "after the break"

    return mcp


Make = Callable[[], MCPServer]


@asynccontextmanager
async def second_replica(
    first: Server, effects: Effects, gate: asyncio.Event, store_path: Path, **flags: Any
) -> AsyncIterator[Raw]:
    """Another replica on the store of the first."""
    async with (
        serving(a_server(effects, gate), store_path, **flags) as server,
        httpx2.AsyncClient(timeout=15) as http,
    ):
        yield Raw(http, server.url)
