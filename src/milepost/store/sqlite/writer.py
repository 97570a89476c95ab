"""The one writer of this process: a thread that commits many callers' writes together.

Rules (HAZARDS B4, B7):
- Nobody is told anything before COMMIT has returned.
- A job alone commits at once; jobs that come while a commit is under way share the next one.
- A job that fails before it wrote anything fails alone. Any other failure may have undone more than its own
  work, so the batch is rolled back and its jobs run again, one per transaction.
- A COMMIT that failed is *unknown*: on a new connection, under the write lock, the writer's own mark says
  whether that batch is there. Only then are its callers told, or its jobs run again.
- A writer that can't write says why (`trouble`), fails its callers, and looks again until it can.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import apsw

from milepost.core.errors import Signal, StoreUnavailable
from milepost.seams import Clock
from milepost.store.settings import SqliteSettings
from milepost.store.sqlite.connection import Connect, meaning
from milepost.store.sqlite.locks import LockFiles
from milepost.store.sqlite.queries import query
from milepost.store.sqlite.tx import NO_STALL, Stall, Tx

T = TypeVar("T")
Work = Callable[[Tx], T]

CHECKPOINT = "checkpoint"
"""The lock of whoever copies the write-ahead log back: one process at a time (HAZARDS B6)."""

_BEGIN, _COMMIT, _ROLLBACK = query("begin"), query("commit"), query("rollback")
_MARK, _LAST = query("mark_batch"), query("last_batch")


class _Job:
    """One caller's work, and where its outcome goes."""

    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Work[Any], future: asyncio.Future[Any] | concurrent.futures.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None

    def resolve(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Writer:
    """Runs jobs in write transactions, on a thread of its own. Belongs to the loop that started it."""

    def __init__(self, connect: Connect, path: Path, clock: Clock, locks: LockFiles, settings: SqliteSettings) -> None:
        self.id = os.urandom(8).hex()
        self.trouble: str | None = None
        self._open = connect
        self._path = path
        self._clock = clock
        self._locks = locks
        self._settings = settings
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._notify: Callable[[Iterable[str]], None] = lambda _changed: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._connection: apsw.Connection | None = None
        self._tx: Tx | None = None
        self._stall = NO_STALL
        self._batch = 0
        self._changes = 0
        self._before = 0
        self._changed: set[str] = set()
        self._log_pages = 0
        self._checkpoint_at = settings.checkpoint_pages

    # --- called by others -------------------------------------------------------------------------

    def start(self, notify: Callable[[Iterable[str]], None]) -> None:
        """Begin. `notify` is called on the running loop with the ids of changed runs, after their commit."""
        self._notify = notify
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="milepost-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Work[T]) -> asyncio.Future[T]:
        """Queue a job; the future is done after its commit. Raises StoreUnavailable when closed or flooded."""
        self._check_open()
        assert self._loop is not None  # noqa: S101  started before anyone can submit
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Job(work, future))
        return future

    def call(self, work: Work[T], *, timeout: float) -> T:
        """Run a job from any thread but the writer's, and wait for its commit. Raises StoreUnavailable."""
        self._check_open()
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._queue.put(_Job(work, future))
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            raise StoreUnavailable(f"the store did not commit a write within {timeout:g} s") from None

    def close(self) -> None:
        """Finish what was accepted, then end. Blocks; idempotent."""
        if self._thread is None or self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _check_open(self) -> None:
        if self._closed or self._thread is None:
            raise StoreUnavailable("the store is closed")
        if self._queue.qsize() >= self._settings.max_queue:
            raise StoreUnavailable("the store can't keep up: too many writes wait; try again shortly")

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        finally:
            self._let_go()

    def _turn(self) -> bool:
        """Take what is queued and write it; False at the end."""
        try:
            first = self._queue.get(timeout=self._settings.retry_pause if self.trouble else None)
        except queue.Empty:
            self._transact([])
            return True
        jobs: list[_Job] = []
        going_on = self._gather(first, jobs)
        if jobs:
            self._transact(jobs)
            self._deliver(jobs)
        self._checkpoint()
        return going_on

    def _gather(self, first: _Job | None, jobs: list[_Job]) -> bool:
        """Add `first` and all that wait behind it, up to a batch, to `jobs`; False if the end was among them."""
        job = first
        with contextlib.suppress(queue.Empty):
            while job is not None:
                jobs.append(job)
                if len(jobs) >= self._settings.max_batch:
                    return True
                job = self._queue.get_nowait()
            return False
        return True

    def _transact(self, jobs: Sequence[_Job], *, again: bool = False) -> None:
        """Run jobs in one transaction and fill in their outcomes; with none, find out whether writing works.

        `again`: the job had its second chance; a commit that fails now is told to its caller.
        """
        try:
            tx = self._begin()
            if not self._run_jobs(tx, jobs):
                self._one_by_one(jobs)
                return
            self._end(tx, jobs, again=again)
            self._note_stall(tx.boot)
        except Exception as error:  # whatever it is, every waiter must hear of it
            self._give_up(jobs, error)

    def _begin(self) -> Tx:
        if self._connection is None or self._tx is None:
            self._connection, self._tx = self._reconnect()
        asked_at = self._clock.boot()
        try:
            self._connection.execute(_BEGIN)
        finally:
            self._note_stall(asked_at)
        self._before = self._connection.total_changes()
        self._tx.begin(self._clock, self._stall)
        return self._tx

    def _note_stall(self, since: float) -> None:
        """Writing stood still since then. A longer stall that still matters is not forgotten for a shorter one."""
        now = self._clock.boot()
        if now - since >= self._stall.lasted or not self._stall.matters(now):
            self._stall = Stall(now, now - since)

    def _reconnect(self) -> tuple[apsw.Connection, Tx]:
        connection = self._open()
        connection.set_wal_hook(self._note_log)
        return connection, Tx(connection, self._clock, self._locks, self._settings)

    def _run_jobs(self, tx: Tx, jobs: Sequence[_Job]) -> bool:
        """Run each job. False: one failed after it wrote, or SQLite rolled back; nothing of the batch stands."""
        connection = self._connected()
        for job in jobs:
            written, job.error = connection.total_changes(), None
            try:
                job.result = job.work(tx)
            except (Exception, Signal) as error:  # the caller gets it
                job.error = meaning(error, self._path)
                if isinstance(job.error, StoreUnavailable):
                    self.trouble = str(job.error)
                if not connection.in_transaction or connection.total_changes() != written:
                    self._roll_back()
                    return False
        return True

    def _one_by_one(self, jobs: Sequence[_Job]) -> None:
        """After a failed batch: each job in a transaction of its own. One that fails again keeps its error."""
        if len(jobs) > 1:
            self._again(jobs)

    def _end(self, tx: Tx, jobs: Sequence[_Job], *, again: bool) -> None:
        """Commit, or roll back where nothing was written (a claim that found nothing costs no fsync)."""
        connection = self._connected()
        if jobs and connection.total_changes() == self._before:
            self._roll_back()
            return
        self._batch += 1
        self._changes += bool(tx.changed)
        tx.rows(_MARK, (self.id, self._batch, self._changes, tx.wall))
        try:
            connection.execute(_COMMIT)
        except apsw.Error as error:
            if not self._is_stored(error):
                if again:
                    raise
                self._again(jobs)
                return
        self.trouble = None
        self._changed |= tx.changed

    def _again(self, jobs: Sequence[_Job]) -> None:
        for job in jobs:
            self._transact([job], again=True)

    def _connected(self) -> apsw.Connection:
        if self._connection is None:
            raise StoreUnavailable(f"the store {self._path} is not open")
        return self._connection

    def _roll_back(self) -> None:
        connection = self._connected()
        if connection.in_transaction:
            connection.execute(_ROLLBACK)

    # --- when it goes wrong -----------------------------------------------------------------------

    def _is_stored(self, error: Exception) -> bool:
        """COMMIT failed: look, under the write lock of a new connection, whether the batch is there."""
        pause = min(self._settings.retry_pause, 0.1)
        tries = max(1, int(self._settings.patience / pause))
        for _ in range(tries):
            try:
                self._drop()
                tx = self._begin()
                row = tx.row(_LAST, (self.id,))
                self._roll_back()
            except apsw.Error as again:
                self.trouble = str(meaning(again, self._path))
                time.sleep(pause)
            else:
                return row is not None and row[0] == self._batch
        raise StoreUnavailable(f"whether a write to {self._path} was stored is unknown: {error}; {self.trouble}")

    def _give_up(self, jobs: Sequence[_Job], error: Exception) -> None:
        """The transaction could not be begun or ended: tell the callers, start over with a new connection."""
        told = meaning(error, self._path)
        if not isinstance(told, StoreUnavailable):
            told = StoreUnavailable(f"the store {self._path} can't be used: {type(error).__name__}: {error}")
        self.trouble = str(told)
        for job in jobs:
            job.error = told
        self._drop()

    def _drop(self) -> None:
        connection, self._connection, self._tx = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(apsw.Error):
                connection.close(True)

    def _let_go(self) -> None:
        self._drop()
        while True:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return
            if job is not None:
                job.error = StoreUnavailable("the store was closed before this write was made")
                self._deliver([job])

    # --- telling ----------------------------------------------------------------------------------

    def _deliver(self, jobs: Sequence[_Job]) -> None:
        """Hand outcomes and changes over: one wake-up of the loop for all of a batch."""
        changed, self._changed = self._changed, set()
        waiting = []
        for job in jobs:
            if isinstance(job.future, asyncio.Future):
                waiting.append(job)
            else:
                job.resolve()
        if (waiting or changed) and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there any more
                self._loop.call_soon_threadsafe(self._tell, waiting, changed)

    def _tell(self, jobs: Sequence[_Job], changed: set[str]) -> None:
        for job in jobs:
            job.resolve()
        if changed:
            self._notify(changed)

    # --- the write-ahead log ----------------------------------------------------------------------

    def _note_log(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        if pages < self._log_pages:  # it was copied back whole, and begun anew
            self._checkpoint_at = self._settings.checkpoint_pages
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        """Copy the log back once it is long enough, unless another process is at it."""
        if self._log_pages < self._checkpoint_at or self._connection is None:
            return
        self._checkpoint_at = self._log_pages + self._settings.checkpoint_pages
        if self._locks.try_hold(CHECKPOINT):
            with contextlib.suppress(apsw.Error):  # what is in use is copied next time
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._locks.release(CHECKPOINT, keep_file=True)
