"""Tools of every kind, as their authors wrote them: what `host` and `milepost lanes` find out about them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import anyio
from fastmcp import Context as FastContext
from fastmcp.server.dependencies import get_access_token, get_http_headers
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp_types import InputRequiredResult
from pydantic import BaseModel, field_validator

from milepost.core.spec import WorkflowSpec


class Day(BaseModel):
    day: str


class Even(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def even(cls, n: int) -> int:
        return n


def as_workflow(spec: WorkflowSpec) -> Callable[[Any], Any]:
    def mark(fn: Any) -> Any:
        fn.__milepost__ = spec
        return fn

    return mark


def stage(_name: str, **_limits: object) -> Any:
    return anyio.CancelScope()


async def seat() -> str:
    return "1A"


async def book(_ref: object) -> None: ...


book.__milepost_step__ = object()  # type: ignore[attr-defined]


async def confirm(ctx: Context) -> bool:
    return (await ctx.elicit("Sure?", Day)).action == "accept"


async def only_looks(pnr: str) -> str:
    return pnr


async def asks_by_helper(ctx: Context) -> str:
    return str(await confirm(ctx))


async def ask_day() -> Elicit[Day]:
    return Elicit("When?", Day)


async def by_resolver(day: Annotated[Day, Resolve(ask_day)]) -> str:
    return day.day


async def by_hand(ctx: Context) -> str | InputRequiredResult:
    return "x"


def plain(pnr: str) -> str:
    return pnr


@as_workflow(WorkflowSpec(stages=("search", "book"), timeout=300))
async def well_made(pnr: str, ctx: Context) -> str:
    async with stage("search", timeout=20):
        await ctx.elicit("When?", Day)
    async with stage("book", answer_within="24h"):
        await ctx.session.create_message([], max_tokens=1)
        await ctx.session.list_roots()
    return pnr


@as_workflow(WorkflowSpec(stages=("search",)))
async def full_of_traps(ctx: FastContext) -> str:
    stamp = time.time()
    await asyncio.wait_for(ctx.elicit("When?", Even), 5)
    with anyio.move_on_after(3):
        await ctx.elicit(f"It is {stamp}", Day)
    await ctx.elicit_url("Pay", "u", str(uuid.uuid4()))
    await book(uuid.uuid4())
    await ctx.set_state("a", 1)
    async with stage("unknown"):
        get_access_token()
    return str(ctx.headers) + str(get_http_headers())
