"""The server that is drilled: an official SDK server whose workflow has five stages, three questions, one sampling
and four steps with outside effects. Two more tools block the event loop, in a step and beside one.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel, Field

from milepost import current_run, current_step, stage, step, workflow

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from drills import ledger

STAGES = ["searching_data", "awaiting_choice", "calling_tools", "drafting_output", "awaiting_confirmation"]
STEPS = ("look_up", "reserve", "pay", "send")

# What 2026-07-28 calls deprecated must work all the same: these are what hosts speak today.
warnings.filterwarnings("ignore", message="The (logging|sampling) capability is deprecated")

mcp = MCPServer("drill")


class Wish(BaseModel):
    nights: int = Field(ge=1, le=30)


class Choice(BaseModel):
    room: Literal["garden", "street", "attic"]


class Confirmation(BaseModel):
    go_ahead: bool


class Receipt(BaseModel):
    """Everything that was answered and done, so that a result tells whether anything was swapped or lost."""

    conversation: str
    nights: int
    room: str
    letter: str
    go_ahead: bool
    tokens: dict[str, str]
    """What the outside gave back, by step."""


@contextmanager
def _effect(conversation: str, name: str, *passed: object) -> Iterator[str]:
    """One outside effect: noted when it begins and when it has ended. Yields its token."""
    token = uuid4().hex
    ledger.mark(
        "begin",
        conversation=conversation,
        step=name,
        call=json.dumps([name, conversation, *passed]),
        key=current_step().idempotency_key,
        run=current_run().id,
        token=token,
    )
    yield token
    ledger.mark("end", token=token)


@step(timeout=60)
async def look_up(conversation: str, nights: int, pace: float) -> str:
    with _effect(conversation, "look_up", nights) as token:
        await asyncio.sleep(pace)
    return token


@step(timeout=60)
async def reserve(conversation: str, room: str, pace: float) -> str:
    with _effect(conversation, "reserve", room) as token:
        await asyncio.sleep(pace)
    return token


@step(timeout=60)
def pay(conversation: str, reservation: str, pace: float) -> str:
    """Not `async`: it runs in a thread."""
    with _effect(conversation, "pay", reservation) as token:
        select.select(
            (), (), (), pace
        )  # what libfaketime does to `time.sleep` in a process with a wrong clock is an error
    return token


@step(timeout=60)
async def send(conversation: str, letter: str, pace: float) -> str:
    with _effect(conversation, "send", letter) as token:
        await asyncio.sleep(pace)
    return token


@mcp.tool()
@workflow(stages=STAGES)
async def book_room(conversation: str, pace: float, ctx: Context[Any]) -> Receipt:
    """Books a room: three questions, one letter by the client's model, four outside effects of `pace` seconds."""
    tokens: dict[str, str] = {}
    async with stage(STAGES[0], timeout=600):
        await ctx.info(f"{conversation}: begun")
        wish = (await ctx.elicit(f"{conversation}: how many nights?", Wish)).data
        tokens["look_up"] = await look_up(conversation, wish.nights, pace)
    async with stage(STAGES[1], answer_within="1h"):
        await ctx.info(f"{conversation}: rooms found")
        choice = (await ctx.elicit(f"{conversation}: which room, of those in {tokens['look_up']}?", Choice)).data
    async with stage(STAGES[2], timeout=600):
        tokens["reserve"] = await reserve(conversation, choice.room, pace)
        await ctx.info(f"{conversation}: reserved as {tokens['reserve']}")
        tokens["pay"] = await pay(conversation, tokens["reserve"], pace)
    async with stage(STAGES[3], timeout=600):
        letter = await _letter(conversation, tokens["pay"], ctx)
    async with stage(STAGES[4], answer_within="1h"):
        go = (await ctx.elicit(f"{conversation}: send {letter!r}?", Confirmation)).data
        tokens["send"] = await send(conversation, letter, pace)
        await ctx.info(f"{conversation}: sent")
    return Receipt(
        conversation=conversation,
        nights=wish.nights,
        room=choice.room,
        letter=letter,
        go_ahead=go.go_ahead,
        tokens=tokens,
    )


async def _letter(conversation: str, payment: str, ctx: Context[Any]) -> str:
    prompt = TextContent(type="text", text=f"{conversation}: a letter about payment {payment}")
    drafted = await ctx.session.create_message([SamplingMessage(role="user", content=prompt)], max_tokens=50)
    return drafted.content.text


@step(timeout=60)
async def block(conversation: str, seconds: float) -> str:
    """Breaks the rule that an `async def` must not block: nothing else runs on this event loop meanwhile."""
    with _effect(conversation, "block", seconds) as token:
        time.sleep(seconds)  # noqa: ASYNC251  the point of it
    return token


@step(timeout=60)
async def follow_up(conversation: str, token: str) -> str:
    with _effect(conversation, "follow_up", token) as mine:
        await asyncio.sleep(0)
    return mine


@mcp.tool()
@workflow()
async def block_in_step(conversation: str, seconds: float) -> dict[str, str]:
    """A step blocks the event loop for longer than a lease; another follows it."""
    first = await block(conversation, seconds)
    return {"block": first, "follow_up": await follow_up(conversation, first), "pid": str(os.getpid())}


@mcp.tool()
@workflow()
async def block_between_steps(conversation: str, seconds: float) -> dict[str, str]:
    """The workflow itself blocks the event loop between two steps."""
    first = await follow_up(conversation, "first")
    time.sleep(seconds)  # noqa: ASYNC251  the point of it
    return {"follow_up": first, "second": await follow_up(conversation, first), "pid": str(os.getpid())}
