"""A workbench for the engine: real SQLite, the real worker, and a kernel that runs plain functions.

The kernel here is a peer written by hand: it calls the author's function with a `Talk` in place of the
SDK's context. Everything else is what runs in production.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg

from milepost.core import ids
from milepost.core.attempts import Loaded
from milepost.core.errors import PeerError, StoreUnavailable
from milepost.core.records import CallContext, Event, EventKind, Outcome, Principal, Question, Reply, Run, Stream
from milepost.core.spec import Catalogue, WorkflowSpec
from milepost.core.states import FINAL, RunState
from milepost.engine.runs import Runs
from milepost.engine.scheduler import LeaseScheduler
from milepost.engine.tuning import Tuning
from milepost.engine.verbs import SPEC_ATTRIBUTE, workflow
from milepost.seams import Channel, Store
from milepost.store import SqliteStore
from milepost.store.clock import SystemClock
from milepost.store.postgres import PostgresStore
from milepost.store.settings import PostgresSettings

ALICE = Principal("issuer", "alice", "app", person=True)
BOB = Principal("issuer", "bob", "app", person=True)
FAST = Tuning(lease=2.0, lease_margin=0.3, poll=0.05, rest=0.1, hold_retry=0.05, cleanup_limit=1.0, unwind_grace=0.5)
BOUND = 10.0
"""Seconds after which a wait in a test has failed."""


@dataclass(slots=True)
class Talk:
    """What a tool's function talks to its client through, as the SDK's context would."""

    channel: Channel
    call: CallContext

    async def elicit(self, message: str, schema: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """The content of an accepted answer, else the action."""
        params = {"message": message, "requestedSchema": schema or {"type": "object"}, **more}
        result = await self.channel.ask("elicitation/create", params)
        return result["content"] if result["action"] == "accept" else result["action"]

    async def sample(self, text: str) -> str:
        result = await self.channel.ask("sampling/createMessage", {"messages": [text], "maxTokens": 10})
        return str(result["content"]["text"])

    async def log(self, text: str) -> None:
        await self.channel.notify("notifications/message", {"level": "info", "data": text})

    async def progress(self, progress: float, total: float | None = None) -> None:
        await self.channel.progress(progress, total, None)


class PlainKernel:
    """Runs functions by tool name; masks what they raise, as the SDK does."""

    def __init__(self, tools: Mapping[str, Callable[..., Awaitable[Any]]]) -> None:
        self.tools = dict(tools)

    async def execute(self, call: CallContext, channel: Channel) -> Outcome:
        try:
            value = await self.tools[call.tool](Talk(channel, call), **call.arguments)
        except PeerError as error:
            return Outcome(error={"code": error.code, "message": error.message})
        except Exception:
            return Outcome(result={"content": [{"type": "text", "text": "masked"}], "isError": True})
        return Outcome(result={"content": [{"type": "text", "text": json.dumps(value)}]})


@dataclass
class Process:
    """One replica: a store connection and an engine on it."""

    runs: Runs
    store: Store
    alive: bool = True

    async def kill(self) -> None:
        """Die without a word, as far as one process can: no attempt ends, the replica's lock is let go."""
        self.alive = False
        backend: Any = self.runs.backend
        backend._draining = True
        for task in list(backend._tasks):
            task.cancel()
        if isinstance(backend, LeaseScheduler):
            await backend.heart.stop()
            backend._news.set()
            assert backend._looking is not None
            await asyncio.wait({backend._looking})
        await self.store.aclose()
        if isinstance(self.store, SqliteStore):
            # A process that is killed leaves its lock file behind, unlocked; closing the store removed it.
            (self.store.path.with_name(self.store.path.name + ".replicas") / self.runs.replica).touch()

    async def stop(self) -> None:
        if self.alive:
            self.alive = False
            await self.runs.drain()
            await self.store.aclose()


async def until(condition: Callable[[], object]) -> None:
    """Wait until it is true."""
    async with asyncio.timeout(BOUND):
        while not condition():
            await asyncio.sleep(0.005)


async def running(process: Process, run_id: str) -> Any:
    """The attempt of this run, once it runs there."""
    await until(lambda: process.runs.executor.attempt(run_id) is not None)
    return process.runs.executor.attempt(run_id)


def fail(process: Process, verb: str, times: int = 1, fault: Exception | None = None) -> list[int]:
    """Let a verb of its store fail so many times, of a full disk if no `fault` is given; returns the failures."""
    original = getattr(process.store, verb)
    failed: list[int] = []

    async def failing(*args: Any, **kwargs: Any) -> Any:
        if len(failed) < times:
            failed.append(1)
            raise fault or StoreUnavailable("disk full")
        return await original(*args, **kwargs)

    setattr(process.store, verb, failing)
    return failed


@dataclass
class Workbench:
    """Replicas on one file, and what a client would do with them."""

    path: Path
    tuning: Tuning = FAST
    clock: Any = field(default_factory=SystemClock)
    kernel: PlainKernel = field(default_factory=lambda: PlainKernel({}))
    processes: list[Process] = field(default_factory=list)
    specs: dict[str, WorkflowSpec] = field(default_factory=dict)
    schedule: Any = None
    """Makes the scheduler of each replica; None: by lease, as in production."""
    postgres: str | None = None
    """The URL of a PostgreSQL store in place of the file."""
    requests: int = 0

    def tool(self, function: Any = None, /, **options: Any) -> Any:
        """Declare a workflow, as `@mcp.tool()` over `@workflow(...)` would."""
        if function is None:
            return lambda decorated: self.tool(decorated, **options)
        wrapped = workflow(**options)(function)
        self.kernel.tools[function.__name__] = wrapped
        self.specs[function.__name__] = getattr(wrapped, SPEC_ATTRIBUTE)
        return wrapped

    def hot(self, function: Any) -> Any:
        """Declare a tool that `milepost.toml` made stateful without `replay = "safe"`."""
        self.kernel.tools[function.__name__] = function
        self.specs[function.__name__] = WorkflowSpec(replay_safe=False)
        return function

    async def start(self, *, release: str = "", clock: Any = None, schedule: Any = None, **changes: Any) -> Process:
        """A replica. `clock`: its own, where that differs from the store's; `changes`: of the tuning."""
        store = self._store()
        await store.open()
        tuning = replace(self.tuning, **changes)
        catalogue = Catalogue(dict(self.specs))
        runs = Runs(
            store, self.kernel, catalogue, clock=clock or self.clock, tuning=tuning, release=release,
            schedule=schedule or self.schedule,
        )  # fmt: skip
        await runs.start()
        process = Process(runs, store)
        self.processes.append(process)
        return process

    def _store(self) -> Store:
        if self.postgres is None:
            return SqliteStore(self.path, clock=self.clock)
        settings = PostgresSettings(pool=4, around=0.05, around_bound=0.2, gone_after=0.3)
        # A test that moves the clock moves the database's with it.
        time_of = (lambda: None) if isinstance(self.clock, SystemClock) else self.clock.wall
        return PostgresStore(self.postgres, clock=self.clock, settings=settings, time_of=time_of)

    async def execute(self, sql: str, *values: Any) -> None:
        """Change the rows behind the engine's back. SQL that both databases take, with $1, $2, ... for values."""
        if self.postgres is None:
            with sqlite3.connect(self.path) as database:
                database.execute(re.sub(r"\$(\d)", r"?\1", sql), values)
        else:
            connection = await asyncpg.connect(self.postgres.partition("?")[0])
            await connection.execute(f"SET search_path = {self.postgres.partition('schema=')[2]}")
            await connection.execute(sql, *values)
            await connection.close()

    @property
    def runs(self) -> Runs:
        return next(process.runs for process in self.processes if process.alive)

    async def close(self) -> None:
        for process in self.processes:
            await process.stop()

    # --- a client -------------------------------------------------------------------------------

    async def call(
        self, tool: str, *, by: Principal = ALICE, session: str | None = None, on: Process | None = None,
        capabilities: Mapping[str, Any] | None = None, request_id: int | None = None, call_id: str | None = None,
        **arguments: Any,
    ) -> Stream:  # fmt: skip
        self.requests += 1
        named = self.requests if request_id is None else request_id
        capable = {"elicitation": {}, "sampling": {}, "roots": {}} if capabilities is None else capabilities
        context = CallContext(tool, arguments, named, "2025-11-25", {}, capable, by, session)
        stream = Stream(ids.stream_id(self.requests.to_bytes(12, "big")), "", named, owner=by, session=session)
        return await (on.runs if on else self.runs).call(context, stream, call_id=call_id)

    async def see(self, run_id: str, kind: EventKind, *, after: int = 0, on: Process | None = None) -> Event:
        """The next event of this kind."""
        with (on.runs if on else self.runs).feed(run_id, after=after) as feed:
            async with asyncio.timeout(BOUND):
                while True:
                    item = await feed.next(1.0)
                    if isinstance(item, Event) and item.kind is kind:
                        return item
                    assert not feed.over, f"the run ended ({item}) before any {kind}"

    async def state(self, run_id: str, *states: RunState) -> Run:
        """The run, once it is in one of these states."""
        async with asyncio.timeout(BOUND):
            while True:
                run = await self.runs.run(run_id)
                if run is not None and run.state in states:
                    return run
                assert run is None or run.state not in FINAL, f"the run is {run.state}: {run.reason} {run.outcome}"
                await asyncio.sleep(0.005)

    async def question(self, run_id: str, text: str) -> Question:
        """The open question whose message begins so, once it is asked."""
        async with asyncio.timeout(BOUND):
            while True:
                for question in await self.runs.open_questions(run_id):
                    if str(question.params.get("message", question.params.get("messages"))).startswith(text):
                        return question
                await asyncio.sleep(0.005)

    async def say(self, run_id: str, text: str, by: Principal = ALICE, **content: Any) -> Any:
        """Accept the question that begins so, with this content."""
        question = await self.question(run_id, text)
        reply = Reply({"action": "accept", "content": content})
        rulings = await self.runs.answer(run_id, {question.id: reply}, by=by, via="test")
        return rulings[question.id].verdict

    async def result(self, run_id: str) -> Any:
        """What the tool returned; asserts that it completed."""
        run = await self.state(run_id, *FINAL)
        assert run.state is RunState.COMPLETED, f"{run.state}: {run.reason}"
        return json.loads(self.text(run))

    async def failure(self, run_id: str) -> str:
        run = await self.state(run_id, *FINAL)
        assert run.state is not RunState.COMPLETED
        return self.text(run)

    @staticmethod
    def text(run: Run) -> str:
        outcome = json.loads(run.outcome or "{}")
        if outcome.get("error"):
            return str(outcome["error"]["message"])
        return str(outcome["result"]["content"][0]["text"])

    async def journal(self, run_id: str) -> Loaded:
        loaded = await self.runs.load(run_id)
        assert loaded is not None
        return loaded

    async def events(self, run_id: str) -> list[Event]:
        return list(await self.runs.store.events(run_id, after=0))
