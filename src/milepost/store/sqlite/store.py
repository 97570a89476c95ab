"""The SQLite store: one file, many processes of one machine, one writer thread in each.

This module only puts the parts together: verbs are functions of a transaction (`attempts`, `settling`,
`outside`, `upkeep`, `connections`), which the writer runs and commits; reads go past it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import apsw

from milepost.core.attempts import Appended, Batch, Claim, Claimant, Created, End, Fence, Loaded
from milepost.core.errors import UnknownRun
from milepost.core.outside import Action, Find, Finding, Notice, Swept, Verdict
from milepost.core.records import Delivery, Event, NewRun, Principal, Replica, Reply, Rival, Run, Session, Stream
from milepost.core.versions import Given, Shares
from milepost.seams import Clock, Store
from milepost.store import rows
from milepost.store.clock import SystemClock
from milepost.store.settings import SqliteSettings
from milepost.store.sqlfiles import Migration
from milepost.store.sqlite import attempts, connections, outside, settling, upkeep
from milepost.store.sqlite.connection import check_place, connect, connect_reader, translated
from milepost.store.sqlite.dumping import dumped
from milepost.store.sqlite.keys import KeyFile
from milepost.store.sqlite.locks import LockFiles
from milepost.store.sqlite.migrate import migrate
from milepost.store.sqlite.queries import migrations, query
from milepost.store.sqlite.reading import Reader
from milepost.store.sqlite.tx import Tx
from milepost.store.sqlite.watching import Watch
from milepost.store.sqlite.writer import Writer
from milepost.store.tables import Table

_EARLIER_BOOTS, _FORGET_WRITERS = query("settle_earlier_boots"), query("forget_writers")
_STATES, _DAMAGE = query("states"), query("damage")
_DELETE_REPLICA, _END_LEASES, _INTRODUCE = query("delete_replica"), query("end_leases"), query("introduce")
_WRITER_KEPT = 86400.0
"""Seconds after which the mark of a writer that is gone may be forgotten."""

_NO_BATCH = attempts.prepare(Batch())


class SqliteStore(Store):
    """`Store` on one SQLite file. Belongs to the event loop on which it was opened."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock | None = None,
        settings: SqliteSettings | None = None,
        open_connection: Callable[[], apsw.Connection] | None = None,
        steps: Sequence[Migration] | None = None,
    ) -> None:
        self.path = path
        self._clock: Clock = clock or SystemClock()
        self._settings = settings or SqliteSettings()
        self._open_connection = open_connection or partial(connect, path, busy=self._settings.busy)
        self._steps = steps or migrations()
        self._locks = LockFiles(path.with_name(path.name + ".replicas"))
        self._keys = KeyFile(path.with_name(path.name + ".keys"))
        self._writer = Writer(self._open_connection, path, self._clock, self._locks, self._settings)
        self._reader = Reader(path, self._clock, self._settings)
        self._watch = Watch(self._reader, self._writer.id, self._settings)
        self.store_id = ""

    # --- life -------------------------------------------------------------------------------------

    async def open(self) -> None:
        await asyncio.to_thread(self._prepare)
        self._writer.start(self._watch.tell)
        await self._writer.submit(_tidy)

    def _prepare(self) -> None:
        check_place(self.path)
        with translated(self.path):
            connection = self._open_connection()
            try:
                self.store_id = migrate(connection, self._steps, wall=self._clock.wall())
            finally:
                connection.close()
        self._reader.open()

    async def aclose(self) -> None:
        self._watch.close()
        await asyncio.to_thread(self._let_go)

    def _let_go(self) -> None:
        self._writer.close()
        self._reader.close()
        self._locks.release_all()

    async def join(self, replica: str, *, release: str = "", accepts: Collection[tuple[str, int]] = ()) -> None:
        newly = await asyncio.to_thread(self._locks.hold, replica)
        shown = {"id": replica, "release": release, "accepts": rows.accepts_text(accepts)}
        await self._writer.submit(lambda tx: _join(tx, shown, newly=newly))

    async def leave(self, replica: str) -> None:
        await self._writer.submit(lambda tx: _leave(tx, replica))
        await asyncio.to_thread(self._locks.release, replica)

    async def check(self) -> Sequence[Finding]:
        return await asyncio.to_thread(self._check)

    def _check(self) -> list[Finding]:
        with translated(self.path):
            connection = connect_reader(self.path, busy=self._settings.busy)
            try:
                held = ", ".join(f"{count:,} {state}" for state, count in connection.execute(_STATES).fetchall())
                damage = connection.execute(_DAMAGE).fetchall()[0][0]
            finally:
                connection.close()
        version = apsw.sqlite_lib_version()
        whole = damage == "ok"
        return [
            Finding(f"SQLite {version} at {self.path}; other programs that write it need at least 3.51.3"),
            Finding(f"runs: {held or 'none'}"),
            Finding(
                "the file is whole (quick_check)" if whole else f"the file is damaged ({damage}): restore a backup",
                fine=whole,
            ),
        ]

    @contextmanager
    def dumped(self) -> Iterator[tuple[Iterator[Table], dict[str, bytes]]]:
        """All tables, and the secrets that were made. For a store that no server works on."""
        with translated(self.path):
            connection = connect_reader(self.path, busy=self._settings.busy)
            try:
                with dumped(connection) as tables:
                    yield tables, self._keys.all()
            finally:
                connection.close()

    def healthy(self) -> str | None:
        return self._writer.trouble

    def secret(self, name: str) -> bytes:
        return self._keys.secret(name)

    async def replicas(self) -> Sequence[Replica]:
        return await self._writer.submit(connections.replicas)

    async def given(self) -> Given:
        return self._reader.given()

    async def give(self, tool: str, shares: Shares) -> None:
        await self._writer.submit(lambda tx: connections.give(tx, tool, shares))

    def watch(
        self, listener: Callable[[Notice], None], watched: Callable[[], Collection[str]] = tuple
    ) -> Callable[[], None]:
        return self._watch.add(listener)

    def glimpse(self, run_id: str, text: str) -> None:
        """Not shown: processes on one file notice each other by commits only."""

    def on_doubt(self, listener: Callable[[float], None]) -> None:
        """Never: a replica's lock is the kernel's, and is lost only with its process."""

    # --- runs -------------------------------------------------------------------------------------

    async def create(
        self, new: NewRun, stream: Stream, *, known: Collection[str], claim: Claimant | None, full: bool = False
    ) -> Created | Sequence[Rival]:
        return await self._writer.submit(lambda tx: attempts.create(tx, new, stream, known, claim, full=full))

    async def claim(self, claimant: Claimant, *, limit: int, takeovers: int) -> Sequence[Claim]:
        return await self._writer.submit(lambda tx: attempts.claim(tx, claimant, limit, takeovers))

    async def append(self, fence: Fence, batch: Batch, *, lease: float) -> Appended:
        prepared = attempts.prepare(batch)
        return await self._writer.submit(lambda tx: attempts.append(tx, fence, prepared, lease))

    async def settle(self, fence: Fence, end: End) -> Run:
        prepared = attempts.prepare(end.batch)
        return await self._writer.submit(lambda tx: settling.settle(tx, fence, end, prepared))

    def extend(self, owner: str, attempts_: Sequence[Fence], *, lease: float) -> Mapping[str, Appended]:
        bound = self._settings.extend_bound
        return self._writer.call(lambda tx: attempts.extend(tx, owner, attempts_, lease), timeout=bound)

    async def answer(
        self, run_id: str, replies: Mapping[int, Reply], *, by: Principal, via: str
    ) -> Mapping[int, Verdict]:
        return await self._writer.submit(lambda tx: outside.answer(tx, run_id, replies, by, via))

    async def steer(self, run_id: str, action: Action) -> Run | None:
        return await self._writer.submit(lambda tx: outside.steer(tx, run_id, action))

    async def sweep(self, *, limit: int) -> Swept:
        return await self._writer.submit(lambda tx: upkeep.sweep(tx, limit))

    async def load(self, run_id: str) -> Loaded | None:
        return await self._reader.load(run_id)

    async def value(self, run_id: str, n: int) -> str:
        value = await self._reader.value(run_id, n)
        if value is None:
            raise UnknownRun(f"run {run_id} has no value at journal entry {n}")
        return value

    async def events(self, run_id: str, *, after: int, limit: int = 500) -> Sequence[Event]:
        return await self._reader.events(run_id, after, limit)

    async def find(self, query: Find) -> Sequence[Run]:
        return await self._reader.find(query)

    # --- sessions and streams ---------------------------------------------------------------------

    async def save_session(self, session: Session, *, cap: int) -> bool:
        return await self._writer.submit(lambda tx: connections.save_session(tx, session, cap))

    async def session(self, session_id: str) -> Session | None:
        return self._reader.session(session_id)

    async def end_session(self, session_id: str) -> None:
        await self._writer.submit(lambda tx: connections.end_session(tx, session_id))

    async def open_stream(self, stream: Stream) -> Stream:
        return await self._writer.submit(lambda tx: connections.open_stream(tx, stream))

    async def stream(self, stream_id: str) -> Stream | None:
        return self._reader.stream(stream_id)

    async def stream_of_request(self, session: str, request_id: int | str) -> Stream | None:
        return self._reader.stream_of_request(session, request_id)

    async def close_stream(self, stream_id: str, *, delivery: Delivery | None) -> None:
        await self._writer.submit(lambda tx: connections.close_stream(tx, stream_id, delivery))


def _tidy(tx: Tx) -> None:
    """At start: leases of an earlier boot are over, marks of writers long gone are forgotten."""
    tx.rows(_EARLIER_BOOTS, {"boot": tx.boot, "boot_id": tx.boot_id})
    tx.rows(_FORGET_WRITERS, (tx.wall - _WRITER_KEPT,))


def _join(tx: Tx, shown: dict[str, str], *, newly: bool) -> None:
    """Who holds the lock anew knows that an earlier process of this name is dead: its runs and streams are free."""
    replica = shown["id"]
    if newly:
        connections.detach_replica(tx, replica, tx.wall)
        tx.rows(_END_LEASES, {"boot": tx.boot, "owner": replica})
    attempts.beat(tx, replica, tx.settings.first_beat)
    tx.rows(_INTRODUCE, shown)


def _leave(tx: Tx, replica: str) -> None:
    connections.detach_replica(tx, replica, tx.wall)
    tx.rows(_END_LEASES, {"boot": tx.boot, "owner": replica})
    tx.rows(_DELETE_REPLICA, (replica,))
