from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.bench import Workbench
from engine.memory_scheduler import MemoryScheduler


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test runs under the scheduler with leases and, unless it is about leases, the in-memory one."""
    if "bench" in metafunc.fixturenames:
        about_leases = metafunc.definition.get_closest_marker("leases") is not None
        metafunc.parametrize("bench", ["lease"] if about_leases else ["lease", "memory"], indirect=True)


@pytest.fixture
async def bench(request: Any, tmp_path: Path) -> AsyncIterator[Workbench]:
    bench = Workbench(tmp_path / "m.db")
    if request.param == "memory":
        bench.schedule = partial(_in_memory, bench)
    yield bench
    await bench.close()


def _in_memory(bench: Workbench, executor: Any, claimant: Any) -> MemoryScheduler:
    return MemoryScheduler(executor._store, executor, claimant)
