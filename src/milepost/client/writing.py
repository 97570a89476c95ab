"""The one thread that writes a journal: in the order in which it is handed things, and at once what waits together."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final

import anyio
from anyio.lowlevel import current_token

_AT_ONCE: Final = 100
"""Statements in one commit."""


@dataclass(eq=False, slots=True)
class _Job:
    sql: str
    values: Mapping[str, Any]
    wake: Callable[..., Any]
    """Runs something in the event loop of who waits, called from any thread."""
    done: anyio.Event = field(default_factory=anyio.Event)
    changed: int = 0
    error: Exception | None = None


class Writer:
    """Writes with `db`, in autocommit mode, from its start until `close`."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="milepost-journal", daemon=True)
        self._thread.start()

    async def do(self, sql: str, values: Mapping[str, Any]) -> int:
        """One statement, durable on return. Returns the rows changed. Raises sqlite3.Error, ValueError.

        It is handed over before anything is waited for, so it is done also if its caller's task is cancelled meanwhile:
        asyncio's own `cancel()` knows no shield.
        """
        job = _Job(sql, values, _waker())
        self._jobs.put(job)
        await job.done.wait()
        if job.error is not None:
            raise job.error
        return job.changed

    def close(self) -> None:
        """Returns when all that was handed over is written."""
        self._jobs.put(None)
        self._thread.join()

    # --- in the thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        going = True
        while going:
            taken = self._taken()
            going = None not in taken
            jobs = [job for job in taken if job is not None]
            if jobs:
                self._write(jobs)
                with suppress(RuntimeError):  # nobody waits any more: the event loop is closed
                    jobs[0].wake(partial(_settle, jobs))

    def _taken(self) -> list[_Job | None]:
        """What there is to do, at least one; it is waited for."""
        taken = [self._jobs.get()]
        with suppress(Empty):
            while len(taken) < _AT_ONCE and taken[-1] is not None:
                taken.append(self._jobs.get_nowait())
        return taken

    def _write(self, jobs: Sequence[_Job]) -> None:
        try:
            if len(jobs) == 1:
                jobs[0].changed = self._db.execute(jobs[0].sql, jobs[0].values).rowcount
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for job in jobs:
                    job.changed = self._db.execute(job.sql, job.values).rowcount
                self._db.execute("COMMIT")
            except Exception:
                with suppress(sqlite3.Error):  # a full disk has rolled it back already
                    self._db.execute("ROLLBACK")
                raise
        except Exception as exc:  # also of a value that it can't hold: who waits must be told, and the thread go on
            for job in jobs:
                job.error = exc


def _settle(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        job.done.set()


def _waker() -> Callable[..., Any]:
    loop: Any = current_token().native_token
    wake: Callable[..., Any] = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon  # asyncio, or trio
    return wake
