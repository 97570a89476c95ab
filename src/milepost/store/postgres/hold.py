"""What keeps a replica alive in the eyes of the others: one connection, on a thread and an event loop of its own.

It holds the replica's advisory lock, carries its heartbeats, hears and sends notices, and looks around for replicas
whose lock is free. It is apart from the verbs so that neither a blocked event loop nor a crowded pool costs a lease
(HAZARDS B1). It needs a connection of its own to the database: not one through a transaction-mode pooler.

A free lock is only a hint that its replica is gone: the connection may have broken while the process lives. So the
one whose connection broke is told (`on_doubt`) before the others may act on it: they wait for `gone_after`, and it
looks around often enough, with a bound, to notice a break earlier than that.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from contextlib import suppress
from typing import Any, TypeVar

import asyncpg
import structlog

from milepost.core.attempts import Appended, Fence
from milepost.core.errors import StoreError, StoreUnavailable
from milepost.seams import Clock
from milepost.store.postgres.faults import BROKEN, in_our_words
from milepost.store.postgres.notices import Notices
from milepost.store.postgres.pool import PlainConnection, connect_options
from milepost.store.postgres.sqltext import SqlText
from milepost.store.settings import PostgresSettings

log = structlog.get_logger("milepost.store")

T = TypeVar("T")

_PAUSES = (0.02, 0.05, 0.1, 0.25, 0.5)
"""Seconds before each new try to connect; the last one goes on."""
_LOCK_TRIES, _LOCK_PAUSE = 100, 0.05
"""A dead process's lock is free when its server process has noticed: tries and seconds between them."""
_SERVERS = 100
"""Server processes that are remembered. The one that has a lock is ended by the first connection that gets through."""


class Hold:
    """One replica process's hold on the store. Its methods may be called from any thread, once `start` was."""

    def __init__(
        self, url: str, where: str, sql: SqlText, settings: PostgresSettings, clock: Clock,
        time_of: Callable[[], float | None],
    ) -> None:  # fmt: skip
        self._url = url
        self._where = where
        self._sql = sql
        self._settings = settings
        self._clock = clock
        self._time_of = time_of
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._one_at_a_time = asyncio.Lock()
        self._connection: PlainConnection | None = None
        self._joined: dict[str, tuple[str, str]] = {}
        """Replica id to (release, accepts): what it says of itself with each heartbeat."""
        self._servers: deque[int] = deque(maxlen=_SERVERS)
        """The server processes that may have our locks: of this connection, or of broken ones that they still serve."""
        self._judges_from = 0.0
        self._untold: deque[tuple[str, bool]] = deque()
        self._telling = False
        self._ended = False
        self._tasks: list[asyncio.Task[None]] = []
        self._lost = asyncio.Event()
        self.notices = Notices(settings, sql.channel, self._send)
        self.on_doubt: Callable[[float], None] = lambda _until: None
        self.on_orphans: Callable[[], None] = lambda: None

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect and begin. Blocks. Raises StoreUnavailable."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="milepost-hold", daemon=True)
        self._thread.start()
        self.run(self._begin(), self._settings.connect_timeout * 2)

    async def _begin(self) -> None:
        await self._connect()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._stay_connected()), loop.create_task(self._look_around_on())]

    def close(self) -> None:
        """Send what is left to tell, let go of every lock, end the thread. Blocks. Idempotent."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        with suppress(StoreError):
            self.run(self._end(), self._settings.connect_timeout)
        self._ended = True
        self._loop = self._thread = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    async def _end(self) -> None:
        self._ended = True
        self._gather()
        with suppress(Exception):
            await self.notices.aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close(timeout=1.0)

    def run(self, work: Awaitable[T], bound: float) -> T:
        """Run `work` on the hold's loop and wait for it, at most `bound` seconds. Blocks."""
        if self._loop is None:
            raise StoreUnavailable("the store is not open")
        future: Future[T] = asyncio.run_coroutine_threadsafe(_bounded(work, bound), self._loop)
        try:
            return future.result(bound + 1)
        except (NotInTime, TimeoutError) as error:
            raise StoreUnavailable(f"the store {self._where} did not answer within {bound:g} s") from error
        except (*BROKEN, asyncpg.PostgresError) as error:
            raise in_our_words(error, self._where) from error

    # --- the connection -----------------------------------------------------------------------------

    async def _connect(self) -> None:
        """A new connection with all that hangs on it: the locks, the ears."""
        connection: PlainConnection = await asyncpg.connect(
            self._url, connection_class=PlainConnection, **connect_options(self._settings)
        )
        self._servers.append(connection.get_server_pid())
        try:
            for replica in self._joined:
                await connection.fetch(self._sql["end_former"], replica, list(self._servers))
                await self._lock(connection, replica)
            if self._settings.notices:
                await connection.add_listener(self._sql.channel, self._heard)
        except BaseException:
            connection.terminate()
            raise
        connection.add_termination_listener(self._broke)
        self._connection = connection
        self.notices.own_sender = connection.get_server_pid()

    async def _lock(self, connection: PlainConnection, replica: str) -> None:
        """Take the replica's lock. Raises StoreError if another process has it."""
        for _ in range(_LOCK_TRIES):
            if await connection.fetchval(self._sql["take_lock"], replica):
                return
            await asyncio.sleep(_LOCK_PAUSE)
        raise StoreError(f"another process is already the replica {replica!r}; give this one another id")

    def _heard(self, _connection: object, sender: int, _channel: str, payload: str) -> None:
        self.notices.heard(sender, payload)

    def _broke(self, connection: object) -> None:
        """The connection is gone: from now on the others may come to believe that this replica is."""
        if connection is not self._connection:
            return
        self._connection = None
        self._judges_from = math.inf
        self._lost.set()
        if not self._ended and self._joined:
            self._doubt()

    def _doubt(self) -> None:
        self.on_doubt(self._clock.boot())

    async def _stay_connected(self) -> None:
        while True:
            await self._lost.wait()
            self._lost.clear()
            log.warning("the store's heartbeat connection broke; connecting anew", store=self._where)
            await self._connect_anew()
            # Others may be connecting anew as well: their locks are not free because they are gone.
            if self._connection is not None:
                self._judges_from = self._clock.boot() + 2 * self._settings.gone_after
            self.notices.missed()

    async def _connect_anew(self) -> None:
        for n in range(1_000_000_000):
            try:
                await self._connect()
                await self._beat_all()
            except (*BROKEN, StoreError, asyncpg.PostgresError) as error:
                log.debug("no connection yet", error=str(error))
                self._drop()
                await asyncio.sleep(_PAUSES[min(n, len(_PAUSES) - 1)] * random.uniform(0.5, 1.5))  # noqa: S311
            else:
                return

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
        self._lost.clear()

    async def _fetch(self, name: str, *values: Any) -> Sequence[Sequence[Any]]:
        async with self._one_at_a_time:
            if self._connection is None:
                raise StoreUnavailable(f"the store {self._where} can't be reached right now")
            connection = self._connection
            try:
                rows: Sequence[Sequence[Any]] = await connection.fetch(
                    self._sql[name], *values, timeout=min(self._settings.gone_after, self._settings.extend_bound)
                )
            except BROKEN:
                connection.terminate()  # it may be half open; a new one tells
                raise
            return rows

    # --- replicas -----------------------------------------------------------------------------------

    @property
    def judges(self) -> bool:
        """Whether this replica may take others for gone. Not right after a break: they may be coming back as well."""
        return self._clock.boot() >= self._judges_from

    @property
    def here(self) -> list[str]:
        """The replicas of this process."""
        return list(self._joined)

    async def join(self, replica: str, release: str, accepts: str) -> None:
        """Take the replica's lock, and say that it is awake."""
        if replica not in self._joined:
            async with self._one_at_a_time:
                if self._connection is None:
                    raise StoreUnavailable(f"the store {self._where} can't be reached right now")
                await self._lock(self._connection, replica)
            await self._fetch("free_replica", self._time_of(), replica)
        self._joined[replica] = (release, accepts)
        await self._beat(replica, [], self._settings.first_beat)

    async def leave(self, replica: str) -> None:
        await self._fetch("free_replica", self._time_of(), replica)
        await self._fetch("delete_replica", replica)
        if self._joined.pop(replica, None) is not None:
            await self._fetch("give_lock", replica)

    async def extend(self, owner: str, attempts: Sequence[Fence], lease: float) -> Mapping[str, Appended]:
        """See `RunStore.extend`."""
        rows = await self._beat(owner, attempts, lease)
        return {attempt_id: Appended(*told) for attempt_id, *told in rows}

    async def _beat(self, replica: str, attempts: Sequence[Fence], lease: float) -> Sequence[Sequence[Any]]:
        release, accepts = self._joined.get(replica, ("", "[]"))
        runs, fences = [fence.run_id for fence in attempts], [fence.attempt_id for fence in attempts]
        return await self._fetch("extend", self._time_of(), replica, release, accepts, runs, fences, lease)

    async def _beat_all(self) -> None:
        for replica in list(self._joined):
            await self._beat(replica, [], self._settings.gone_after)

    # --- looking around -----------------------------------------------------------------------------

    async def _look_around_on(self) -> None:
        while True:
            await asyncio.sleep(self._settings.around * random.uniform(0.8, 1.0))  # noqa: S311 - to drift apart
            if self._connection is not None:
                with suppress(StoreError, asyncpg.PostgresError, *BROKEN):
                    await self._look_around()

    async def _look_around(self) -> None:
        """Is anybody gone? And is this connection still there? One that is silent puts the replica in doubt."""
        alarm = asyncio.get_running_loop().call_later(self._settings.around_bound, self._doubt)
        try:
            rows = await self._fetch("look_around", self._time_of(), self.here, self.judges, self._settings.gone_after)
        finally:
            alarm.cancel()
        if rows[0][0]:
            self.on_orphans()

    # --- notices --------------------------------------------------------------------------------------

    def tell(self, runs: Collection[str], *, work: bool) -> None:
        """Tell the other replicas, soon. Any thread."""
        loop = self._loop
        if not self._settings.notices or loop is None:
            return
        for run in runs:
            self._untold.append((run, work))
        if not self._telling:  # one hop to the other thread serves all that comes until it is made
            self._telling = True
            with suppress(RuntimeError):  # closed meanwhile
                loop.call_soon_threadsafe(self._gather)

    def show(self, run: str, text: str) -> None:
        """Show the other replicas something of a run that is not kept. Any thread."""
        loop = self._loop
        if self._settings.notices and loop is not None:
            with suppress(RuntimeError):  # closed meanwhile
                loop.call_soon_threadsafe(self.notices.show, run, text)

    def _gather(self) -> None:
        self._telling = False
        while self._untold:
            self.notices.add(*self._untold.popleft())

    async def _send(self, payload: str) -> None:
        with suppress(StoreError, asyncpg.PostgresError, *BROKEN):
            await self._fetch("notify", self._sql.channel, payload)


async def _bounded(work: Awaitable[T], bound: float) -> T:
    async with asyncio.timeout(bound):
        return await work
