"""One write transaction, as the verbs see it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from milepost.seams import Clock
from milepost.store.rows import Row
from milepost.store.settings import SqliteSettings
from milepost.store.sqlite.locks import LockFiles

Bindings = Sequence[Any] | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stall:
    """A time in which this process could not write, or held the write lock and did not go on."""

    ended: float
    """Boot clock."""
    lasted: float

    def kept_from_renewing(self, lease: float, now: float) -> bool:
        """Whether leases of so many seconds may have run out because of it, and be about to be renewed.

        They are renewed every third of a lease, so a shorter stall ends none; and half a lease after a longer one
        whoever lives has renewed.
        """
        return self.lasted >= lease / 3 and now - self.ended < lease / 2

    def matters(self, now: float) -> bool:
        """Whether there can be a lease for which the above still holds: it has at most three times its length."""
        return now - self.ended < self.lasted * 1.5


NO_STALL = Stall(0.0, 0.0)


class Tx:
    """A transaction that holds the database's write lock: what it read stays so until it commits.

    `wall` (UTC) and `boot` (boot clock) are read once, when the transaction begins. `changed` collects
    the ids of the runs that watchers should look at; it is told to them after the commit.
    `stall` is the longest recent time for which writing stood still.
    """

    __slots__ = ("_cursor", "_many", "boot", "boot_id", "changed", "locks", "settings", "stall", "wall")

    def __init__(self, connection: apsw.Connection, clock: Clock, locks: LockFiles, settings: SqliteSettings) -> None:
        cursor = connection.cursor()
        self._cursor: Any = cursor.execute
        self._many = cursor.executemany
        self.locks = locks
        self.settings = settings
        self.boot_id = clock.boot_id()
        self.wall = self.boot = 0.0
        self.changed: set[str] = set()
        self.stall = NO_STALL

    def begin(self, clock: Clock, stall: Stall) -> None:
        self.wall, self.boot = clock.wall(), clock.boot()
        self.changed = set()
        self.stall = stall

    def rows(self, sql: str, bindings: Bindings = ()) -> list[Row]:
        """Run a statement to its end; all its rows."""
        found: list[Row] = self._cursor(sql, bindings).fetchall()
        return found

    def row(self, sql: str, bindings: Bindings = ()) -> Row | None:
        """The first row, or None."""
        rows: list[Row] = self._cursor(sql, bindings).fetchall()
        return rows[0] if rows else None

    def many(self, sql: str, rows: Iterable[Bindings]) -> None:
        """Run a statement once per row."""
        self._many(sql, rows)
