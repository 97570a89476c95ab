"""The Milepost server of the drill: a workflow with three questions and two steps, and two stateless tools."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import ToolAnnotations

from milepost import current_run, current_step, stage, step, workflow

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from drills.client.effects import Choice, Confirmation, Wish, did, go_on, how_many, receipt, which_room

mcp = MCPServer("drill")


@step(timeout=30)
async def reserve(conversation: str, room: str) -> str:
    return did(conversation, "reserve", current_step().idempotency_key, current_run().id)


@step(timeout=30)
async def pay(conversation: str, reservation: str) -> str:
    return did(conversation, "pay", current_step().idempotency_key, current_run().id)


@mcp.tool()
@workflow(stages=["choosing", "reserving", "paying"])
async def book(conversation: str, ctx: Context[Any]) -> dict[str, Any]:
    """Three questions, two effects."""
    async with stage("choosing"):
        nights = (await ctx.elicit(how_many(conversation), Wish)).data.nights
        room = (await ctx.elicit(which_room(conversation, nights), Choice)).data.room
    async with stage("reserving"):
        reserved = await reserve(conversation, room)
    async with stage("paying"):
        go_ahead = (await ctx.elicit(go_on(conversation, room), Confirmation)).data.go_ahead
        paid = await pay(conversation, reserved)
    return receipt(conversation, nights, room, go_ahead, reserve=reserved, pay=paid)


@mcp.tool()
async def charge(conversation: str, ctx: Context[Any]) -> dict[str, Any]:
    """An effect that must not be there twice, in a tool that is no workflow."""
    for part in range(4):
        await ctx.report_progress(part, 4)
        await asyncio.sleep(0.01)
    return {"conversation": conversation, "tokens": {"charge": did(conversation, "charge")}}


@mcp.tool(annotations=ToolAnnotations(idempotent_hint=True))
async def look(conversation: str, ctx: Context[Any]) -> dict[str, Any]:
    """May be called as often as anybody likes."""
    for part in range(4):
        await ctx.report_progress(part, 4)
        await asyncio.sleep(0.01)
    return {"conversation": conversation, "tokens": {"look": did(conversation, "look")}}
