"""Stores on a real PostgreSQL: one server per test process, one schema per test; and networks before it that fail."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fakes import FakeClock
from lab.faults import Proxy
from lab.postgres import PostgresServer
from milepost.seams import Store
from milepost.store.postgres import PostgresStore
from milepost.store.settings import PostgresSettings

_numbers = itertools.count(1)
T = TypeVar("T")
Open = Callable[..., Awaitable[PostgresStore]]
BOUND = 20.0
"""Seconds after which a wait in a test has failed."""


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


async def until(check: Callable[[], Awaitable[T]]) -> T:
    """What `check` returns, once it is true."""
    async with asyncio.timeout(BOUND):
        while not (found := await check()):
            await asyncio.sleep(0.01)
        return found


@asynccontextmanager
async def proxied(postgres: PostgresServer) -> AsyncIterator[tuple[Proxy, str]]:
    async with Proxy(postgres.port) as proxy:
        yield proxy, postgres.url(port=proxy.port)
