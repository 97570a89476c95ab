"""The peer: the least that a durable workflow can be on SQLite, with no engine around it.

One writer thread that commits together what came together (`synchronous=FULL`), a fence in every write, a step
addressed by its name. No questions, streams, events, leases of a heart, limits, time-outs, cancels, replays, or
checks of what is stored. Milepost's figures are told as ratios to it, because it runs on the same disk in the
same minute; a published figure of another day doesn't.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw

_SCHEMA = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
CREATE TABLE run (id TEXT PRIMARY KEY, status TEXT, owner TEXT, epoch INT, lease REAL, input TEXT, result TEXT)
    WITHOUT ROWID;
CREATE TABLE step (run TEXT, key TEXT, value TEXT, PRIMARY KEY (run, key)) WITHOUT ROWID;
"""
_FENCE = "UPDATE run SET lease = ? WHERE id = ? AND epoch = ? RETURNING 1"

Statements = list[tuple[str, tuple[Any, ...]]]


class Prototype:
    """Runs functions whose steps are recorded. Use `start`, `run`, `close`."""

    def __init__(self, path: Path) -> None:
        self._connection = apsw.Connection(str(path))
        self._connection.execute(_SCHEMA).fetchall()
        self._queue: queue.SimpleQueue[tuple[Statements, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write_on)
        self._thread.start()

    async def run(self, workflow: Callable[[Step], Awaitable[Any]]) -> Any:
        run = os.urandom(16).hex()
        await self._commit([("INSERT INTO run VALUES (?, 'running', 'me', 1, 0.0, '{}', NULL)", (run,))])
        result = await workflow(Step(self, run))
        done = "UPDATE run SET status = 'done', result = ? WHERE id = ? AND epoch = 1"
        await self._commit([(done, (json.dumps(result), run))])
        return result

    async def record(self, run: str, key: str, value: Any) -> None:
        entry = ("INSERT INTO step VALUES (?, ?, ?)", (run, key, json.dumps(value)))
        await self._commit([(_FENCE, (self._loop.time(), run, 1)), entry])

    async def _commit(self, statements: Statements) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((statements, future))
        await future

    def _write_on(self) -> None:
        execute = self._connection.cursor().execute
        while (job := self._queue.get()) is not None:
            jobs = [job]
            while not self._queue.empty() and (more := self._queue.get()) is not None:
                jobs.append(more)
            execute("BEGIN IMMEDIATE")
            for statements, _ in jobs:
                for sql, bindings in statements:
                    execute(sql, bindings).fetchall()
            execute("COMMIT")
            self._loop.call_soon_threadsafe(_resolve, [future for _, future in jobs])

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()
        self._connection.close()


class Step:
    """What a workflow of the prototype calls its steps through."""

    def __init__(self, prototype: Prototype, run: str) -> None:
        self._prototype = prototype
        self._run = run
        self._recorded: dict[str, Any] = {}

    async def __call__(self, key: str, work: Callable[[], Awaitable[Any]]) -> Any:
        if key not in self._recorded:
            value = self._recorded[key] = await work()
            await self._prototype.record(self._run, key, value)
        return self._recorded[key]


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        future.set_result(None)
