"""The sides that the engine's benchmark compares: each runs a workflow of `n` trivial steps to its end."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
from mcp.server import MCPServer

from milepost import step, workflow
from milepost.app import Milepost
from milepost.core import ids
from milepost.core.records import CallContext, Event, EventKind, Outcome, Principal, Stream
from milepost.core.spec import Catalogue, WorkflowSpec
from milepost.engine.runs import Runs
from milepost.seams import Channel
from milepost.store import SqliteStore
from milepost.store.clock import SystemClock
from parts.prototype import Prototype, Step

Run = Callable[[int], Awaitable[Any]]
"""Runs one workflow of so many steps to its end."""
Side = Callable[[Path], AbstractAsyncContextManager[Run]]

ANN = Principal("https://id", "ann", "app", person=True)
numbers = itertools.count(1)


@step
async def price(n: int) -> int:
    return n


@workflow(same_run="never")
async def shop(n: int) -> int:
    return sum([await price(i) for i in range(n)])


class PlainKernel:
    """A kernel that calls the function and nothing else: the engine without the SDK."""

    async def execute(self, call: CallContext, channel: Channel) -> Outcome:
        value = await shop(**call.arguments)
        return Outcome(result={"content": [{"type": "text", "text": str(value)}]})


async def run_to_end(runs: Runs, tool: str, arguments: dict[str, Any]) -> None:
    """Call a workflow as the endpoint does, and read its stream to the result."""
    number = next(numbers)
    call = CallContext(
        tool, arguments, number, "2026-07-28", {"name": "bench", "version": "1"}, {"elicitation": {}}, ANN,
        trace_id="ab" * 16,
    )  # fmt: skip
    opened = await runs.call(call, Stream(ids.stream_id(os.urandom(12)), "", number, owner=ANN))
    with runs.feed(opened.run_id) as feed:
        while not feed.over:
            item = await feed.next()
    assert isinstance(item, Event)
    assert item.kind is EventKind.RESULT
    assert '"isError": true' not in str(item.body), item.body


@asynccontextmanager
async def floor(directory: Path) -> Any:
    """Not a workflow: one bare commit per step, and two for the start and the end. No thread, no loop."""
    connection = apsw.Connection(str(directory / "floor.db"))
    connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (a, b)").fetchall()

    async def run(steps: int) -> None:
        for n in range(steps + 2):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO t VALUES (?, ?)", (n, "x" * 100))
            connection.execute("COMMIT")

    yield run
    connection.close()


@asynccontextmanager
async def prototype(directory: Path) -> Any:
    bare = Prototype(directory / "prototype.db")

    async def body(recorded: Step, steps: int) -> int:
        async def work() -> int:
            return 1

        return sum([await recorded(str(n), work) for n in range(steps)])

    yield lambda steps: bare.run(lambda recorded: body(recorded, steps))
    bare.close()


@asynccontextmanager
async def engine(directory: Path) -> Any:
    store = SqliteStore(directory / "engine.db")
    await store.open()
    runs = Runs(store, PlainKernel(), Catalogue({"shop": WorkflowSpec(same_run="never")}), clock=SystemClock())
    await runs.start()
    yield lambda steps: run_to_end(runs, "shop", {"n": steps})
    await runs.drain()
    await store.aclose()


@asynccontextmanager
async def engine_and_sdk(directory: Path) -> Any:
    server = MCPServer("bench")
    server.tool(name="shop")(shop)
    app = Milepost(server, store=f"sqlite:///{directory / 'sdk.db'}")
    async with app.running() as parts:
        yield lambda steps: run_to_end(parts.runs, "shop", {"n": steps})


async def at_once(many: int, total: int, run: Run, durations: list[float]) -> None:
    """`total` workflows of three steps, `many` at a time; how long each took is added to `durations`, in seconds."""
    left = iter(range(total))
    clock = asyncio.get_running_loop().time

    async def client() -> None:
        for _ in left:
            begun = clock()
            await run(3)
            durations.append(clock() - begun)

    await asyncio.gather(*(client() for _ in range(many)))
