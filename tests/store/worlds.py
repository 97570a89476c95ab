"""What a conformance test runs in: a data set with a fake clock, and stores opened on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakes import FakeClock
from milepost.seams import Store
from milepost.store import SqliteSettings, SqliteStore


@dataclass
class SqliteWorld:
    """Stores on one SQLite file. Each has its own locks, so that two of them are as two processes."""

    path: Path
    clock: FakeClock
    stores: list[Store] = field(default_factory=list)

    async def open(self, **settings: Any) -> SqliteStore:
        """`settings`: what differs from the defaults (`retention`, `inline`, `entry_format`, ...)."""
        store = SqliteStore(self.path, clock=self.clock, settings=SqliteSettings(**settings))
        await store.open()
        self.stores.append(store)
        return store

    async def aclose(self) -> None:
        for store in self.stores:
            await store.aclose()
