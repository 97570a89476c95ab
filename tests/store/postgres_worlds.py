"""Stores on a real PostgreSQL: one server per test process, one schema per test."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from fakes import FakeClock
from milepost.seams import Store
from milepost.store.postgres import PostgresStore
from milepost.store.settings import PostgresSettings

_numbers = itertools.count(1)


@dataclass
class PostgresWorld:
    """Stores on one schema. Each has its own connections, so that two of them are as two processes."""

    url: str
    clock: FakeClock
    schema: str = field(default_factory=lambda: f"t{next(_numbers)}")
    stores: list[Store] = field(default_factory=list)

    async def open(self, **settings: Any) -> PostgresStore:
        """`settings`: what differs from the defaults (`retention`, `inline`, `entry_format`, ...)."""
        store = PostgresStore(
            f"{self.url}?schema={self.schema}",
            clock=self.clock,
            settings=PostgresSettings(**{"pool": 4, **settings}),
            time_of=self.clock.wall,
        )
        await store.open()
        self.stores.append(store)
        return store

    async def aclose(self) -> None:
        for store in self.stores:
            await store.aclose()
