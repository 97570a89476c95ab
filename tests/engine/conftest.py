"""The engine's tests run on each store and under each kind of scheduler."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.bench import Workbench
from engine.memory_scheduler import MemoryScheduler

_schemas = itertools.count(1)


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
        bench.postgres = f"{request.getfixturevalue('postgres_url')}?schema=engine{next(_schemas)}"
    yield bench
    await bench.close()


def _in_memory(bench: Workbench, executor: Any, claimant: Any) -> MemoryScheduler:
    return MemoryScheduler(executor._store, executor, claimant)
