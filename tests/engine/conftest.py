"""The engine's tests run on each store and under each kind of scheduler."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from engine.bench import Workbench
from engine.memory_scheduler import MemoryScheduler

_SCHEMA = "engine"
"""Of each test process's own PostgreSQL: to make one costs more than most of these tests."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """By lease on SQLite and on PostgreSQL; and, unless it is about leases, under the scheduler in memory."""
    if "bench" in metafunc.fixturenames:
        about_leases = metafunc.definition.get_closest_marker("leases") is not None
        worlds = ["lease", "postgres"] if about_leases else ["lease", "postgres", "memory"]
        metafunc.parametrize("bench", worlds, indirect=True)


@pytest.fixture
async def bench(request: Any, tmp_path: Path) -> AsyncIterator[Workbench]:
    bench = Workbench(tmp_path / "m.db")
    if request.param == "memory":
        bench.schedule = partial(_in_memory, bench)
    elif request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        await _emptied(url)
        bench.postgres = f"{url}?schema={_SCHEMA}"
    yield bench
    await bench.close()


def _in_memory(bench: Workbench, executor: Any, claimant: Any) -> MemoryScheduler:
    return MemoryScheduler(executor._store, executor, claimant)


async def _emptied(url: str) -> None:
    """Take out what the test before left; the version and the root secret belong to the schema, and stay."""
    connection = await asyncpg.connect(url)
    try:
        named = "SELECT tablename FROM pg_tables WHERE schemaname = $1 AND tablename NOT IN ('store', 'secret')"
        for (table,) in await connection.fetch(named, _SCHEMA):
            await connection.execute(f"DELETE FROM {_SCHEMA}.{table}")  # noqa: S608  names of our own
    finally:
        await connection.close()
