"""The store's tests run on asyncio, as Milepost does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes import FakeClock
from milepost.seams import Store
from store.worlds import SqliteWorld


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
