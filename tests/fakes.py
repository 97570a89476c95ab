"""Hand-written fakes: only for what real things can't do in a test, such as moving time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import apsw

from milepost.store import SystemClock


@dataclass
class FakeClock:
    """A clock that stands still until a test moves it. One object serves several stores, as one machine does."""

    wall_at: float = 1_800_000_000.0
    boot_at: float = 50_000.0
    monotonic_at: float = 1_000.0
    boot_name: str = field(default="boot-1")

    def wall(self) -> float:
        return self.wall_at

    def monotonic(self) -> float:
        return self.monotonic_at

    def boot(self) -> float:
        return self.boot_at

    def boot_id(self) -> str:
        return self.boot_name

    def advance(self, seconds: float) -> None:
        """Let time pass on all clocks."""
        self.wall_at += seconds
        self.boot_at += seconds
        self.monotonic_at += seconds

    def set_wall_back(self, seconds: float) -> None:
        """An administrator corrects the wall clock; nothing else moves."""
        self.wall_at -= seconds


@dataclass
class ShiftedClock:
    """The real clock, moved on by `ahead` seconds: for tests with real processes that can't wait for a lease."""

    ahead: float = 0.0
    real: SystemClock = field(default_factory=SystemClock)

    def wall(self) -> float:
        return self.real.wall() + self.ahead

    def monotonic(self) -> float:
        return self.real.monotonic() + self.ahead

    def boot(self) -> float:
        return self.real.boot() + self.ahead

    def boot_id(self) -> str:
        return self.real.boot_id()


@dataclass
class WrongClock(SystemClock):
    """The real clock of a replica whose wall clock is wrong by `off` seconds."""

    off: float = 0.0

    def wall(self) -> float:
        return super().wall() + self.off


class Faults:
    """Crash points of a SQLite connection, set by a test: what the next COMMITs and BEGINs do."""

    def __init__(self) -> None:
        self.commits: list[str] = []
        """For each coming COMMIT: `ok`, `lost` (it is not made), or `untold` (it is made, but fails)."""
        self.broken: str | None = None
        """While set, nothing can be begun, and this is why."""
        self.committed = 0

    def connection(self) -> type[apsw.Connection]:
        """A connection class with these faults."""
        faults = self

        class FaultyConnection(apsw.Connection):
            def execute(self, statements: str, *args: Any, **options: Any) -> apsw.Cursor:
                if statements.startswith("BEGIN") and faults.broken:
                    raise apsw.IOError(faults.broken)
                if statements == "COMMIT":
                    return faults.commit(super().execute)
                return super().execute(statements, *args, **options)

        return FaultyConnection

    def commit(self, execute: Callable[[str], apsw.Cursor]) -> apsw.Cursor:
        fault = self.commits.pop(0) if self.commits else "ok"
        if fault == "lost":
            raise apsw.IOError("disk I/O error")
        cursor = execute("COMMIT")
        self.committed += 1
        if fault == "untold":
            raise apsw.IOError("disk I/O error")
        return cursor
