"""The store's tests run on asyncio, as Milepost does."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fakes import FakeClock
from milepost.seams import Store
from milepost.store.postgres import PostgresStore
from milepost.store.settings import PostgresSettings
from store.postgres_worlds import Open
from store.worlds import SqliteWorld

_schemas = itertools.count(1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def world(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteWorld]:
    """One data set, on which a test may open as many stores ("processes") as it likes."""
    world = SqliteWorld(tmp_path / "milepost.db", clock)
    yield world
    await world.aclose()


@pytest.fixture
async def store(world: SqliteWorld) -> Store:
    store = await world.open()
    await store.join("r1")
    return store


@pytest.fixture
def schema() -> str:
    return f"hazard{next(_schemas)}"


@pytest.fixture
async def opened(postgres_url: str, schema: str) -> AsyncIterator[Open]:
    """Opens stores on one schema by the real clock, each as a process of its own; `url` for another way to it."""
    stores: list[PostgresStore] = []

    async def open_one(replica: str = "", *, url: str = postgres_url, clock: Any = None, **settings: Any) -> Any:
        store = PostgresStore(
            f"{url}?schema={schema}", clock=clock, settings=PostgresSettings(**{"pool": 4, "around": 0.05, **settings})
        )
        await store.open()
        stores.append(store)
        if replica:
            await store.join(replica)
        return store

    yield open_one
    for store in stores:
        await store.aclose()
