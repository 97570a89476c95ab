"""All reads, on connections that can't write. A read sees one snapshot and holds nothing up.

Small ones run right on the event loop (docs/decisions/0002 has the figures: a hop to a thread costs more
than the read); what may be large is read in a thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import apsw

from milepost.core.attempts import Loaded
from milepost.core.errors import Unreplayable
from milepost.core.outside import Find
from milepost.core.records import Event, Run, Session, Stream
from milepost.core.versions import Given
from milepost.seams import Clock
from milepost.store import rows
from milepost.store.settings import SqliteSettings
from milepost.store.sqlite.connection import connect_reader, translated
from milepost.store.sqlite.queries import query

T = TypeVar("T")

_RUN, _ENTRIES, _QUESTIONS, _VALUE = query("run_by_id"), query("entries"), query("questions"), query("value")
_EVENTS, _FIND = query("events"), query("find")
_SESSION, _SESSION_ASKS = query("session"), query("session_asks")
_STREAM, _BY_REQUEST = query("stream"), query("stream_by_request")
_BEGIN, _END = query("begin_read"), query("commit")
_GIVEN = query("given")
_DATA_VERSION, _OTHERS = query("data_version"), query("changes_by_others")

_NEAR_BUSY = 100
"""Milliseconds that a read on the loop may wait; readers of a write-ahead log wait only for its recovery."""
_JOURNAL_SEQ = 18
_FORMAT = rows.RUN_WIDTH + 1


class Reader:
    """One read connection for the loop, and one for each of a few threads."""

    def __init__(self, path: Path, clock: Clock, settings: SqliteSettings) -> None:
        self._path = path
        self._clock = clock
        self._settings = settings
        self._near: apsw.Connection | None = None
        self._far: list[apsw.Connection] = []
        self._threads: ThreadPoolExecutor | None = None
        self._own = threading.local()

    def open(self) -> None:
        self._near = self._connect_near()
        self._threads = ThreadPoolExecutor(self._settings.read_threads, "milepost-reader")

    def close(self) -> None:
        """Blocks until the reads under way are done."""
        if self._threads is not None:
            self._threads.shutdown(wait=True)
        for connection in [*self._far, *([self._near] if self._near is not None else [])]:
            connection.close(True)
        self._far, self._near = [], None

    # --- runs -------------------------------------------------------------------------------------

    async def load(self, run_id: str) -> Loaded | None:
        """Raises Unreplayable for a run with entries of a newer format."""
        with translated(self._path):
            near = self._near_connection()
            row = near.execute(_RUN, (run_id,)).fetchone()
            if row is None:
                return None
            if row[_JOURNAL_SEQ] <= self._settings.near_entries:
                return self._load(near, run_id)
        return await self._in_thread(lambda connection: self._load(connection, run_id))

    def _load(self, connection: apsw.Connection, run_id: str) -> Loaded | None:
        connection.execute(_BEGIN)
        try:
            row = connection.execute(_RUN, (run_id,)).fetchone()
            if row is None:
                return None
            self._check_format(row)
            seq = row[rows.RUN_WIDTH]
            entries = connection.execute(_ENTRIES, {"run": seq, "inline": self._settings.inline}).fetchall()
            questions = connection.execute(_QUESTIONS, (seq,)).fetchall()
        finally:
            connection.execute(_END)
        return Loaded(rows.run_of(row), [rows.entry_of(e) for e in entries], [rows.question_of(q) for q in questions])

    def _check_format(self, row: rows.Row) -> None:
        if row[_FORMAT] > self._settings.entry_format:
            raise Unreplayable(
                f"run {row[0]} has journal entries of format {row[_FORMAT]}; this release knows "
                f"{self._settings.entry_format}. A newer release goes on with it."
            )

    async def value(self, run_id: str, n: int) -> str | None:
        row = await self._in_thread(lambda connection: connection.execute(_VALUE, (run_id, n)).fetchone())
        return row[0] if row is not None else None

    async def events(self, run_id: str, after: int, limit: int) -> Sequence[Event]:
        """The first few on the loop; a reader that is far behind gets the rest from a thread."""
        first = min(limit, self._settings.near_events)
        with translated(self._path):
            found = _events(self._near_connection(), run_id, after, first)
        if len(found) < first or first == limit:
            return found
        last = found[-1].n
        return [*found, *await self._in_thread(lambda connection: _events(connection, run_id, last, limit - first))]

    async def find(self, query_: Find) -> Sequence[Run]:
        states = rows.encode([state.value for state in query_.states]) if query_.states is not None else None
        owner = rows.owner_text(query_.owner) if query_.owner is not None else None
        bindings = {
            "states": states, "tool": query_.tool, "principal": owner, "older_than": query_.older_than,
            "limit": query_.limit,
        }  # fmt: skip
        return await self._in_thread(
            lambda connection: [rows.run_of(row) for row in connection.execute(_FIND, bindings).fetchall()]
        )

    # --- sessions and streams ---------------------------------------------------------------------

    def session(self, session_id: str) -> Session | None:
        with translated(self._path):
            near = self._near_connection()
            row = near.execute(_SESSION, (session_id,)).fetchone()
            if row is None:
                return None
            session = rows.session_of(row)
            asks = self._is_idle(session) and bool(near.execute(_SESSION_ASKS, (session_id,)).fetchall()[0][0])
        return session if self._is_known(session, asks) else None

    def _is_idle(self, session: Session) -> bool:
        return self._clock.wall() - session.seen_at > self._settings.retention.session_idle

    def _is_known(self, session: Session, asks: bool) -> bool:
        """Not ended, not too old, and not idle for too long unless one of its runs still asks."""
        too_old = self._clock.wall() - session.created_at > self._settings.retention.session_lifetime
        return not session.ended and not too_old and (asks or not self._is_idle(session))

    def stream(self, stream_id: str) -> Stream | None:
        with translated(self._path):
            row = self._near_connection().execute(_STREAM, (stream_id,)).fetchone()
        return rows.stream_of(row) if row is not None else None

    def stream_of_request(self, session: str, request_id: int | str) -> Stream | None:
        with translated(self._path):
            row = self._near_connection().execute(_BY_REQUEST, (session, rows.id_text(request_id))).fetchone()
        return rows.stream_of(row) if row is not None else None

    # --- releases ---------------------------------------------------------------------------------

    def given(self) -> Given:
        shares: dict[str, dict[str, float]] = {}
        with translated(self._path):
            found: Sequence[rows.Row] = self._near_connection().execute(_GIVEN).fetchall()
        for tool, release, weight in found:
            shares.setdefault(tool, {})[release] = weight
        return shares

    # --- changes ----------------------------------------------------------------------------------

    def data_version(self) -> int:
        """A number that changes with each commit by another connection, our writer's among them."""
        with translated(self._path):
            version: Sequence[rows.Row] = self._near_connection().execute(_DATA_VERSION).fetchall()
        return int(version[0][0])

    def changes_by_others(self, writer: str) -> float:
        """A number that changes when another process changes runs."""
        with translated(self._path):
            total: Sequence[rows.Row] = self._near_connection().execute(_OTHERS, (writer,)).fetchall()
        return float(total[0][0])

    # --- connections ------------------------------------------------------------------------------

    def _near_connection(self) -> apsw.Connection:
        if self._near is None:
            self._near = self._connect_near()
        return self._near

    def _connect_near(self) -> apsw.Connection:
        connection = connect_reader(self._path, busy=self._settings.busy)
        connection.set_busy_timeout(_NEAR_BUSY)
        return connection

    async def _in_thread(self, read: Callable[[apsw.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read_far, read)

    def _read_far(self, read: Callable[[apsw.Connection], T]) -> T:
        with translated(self._path):
            connection: apsw.Connection | None = getattr(self._own, "connection", None)
            if connection is None:
                connection = connect_reader(self._path, busy=self._settings.busy)
                self._own.connection = connection
                self._far.append(connection)
            return read(connection)


def _events(connection: apsw.Connection, run_id: str, after: int, limit: int) -> list[Event]:
    found = connection.execute(_EVENTS, {"run": run_id, "after": after, "limit": limit}).fetchall()
    try:
        return [rows.event_of(run_id, row) for row in found]
    except KeyError as error:
        raise Unreplayable(f"run {run_id} has events of a kind that this release doesn't know: {error}") from None
