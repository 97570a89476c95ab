"""The heart: leases are renewed from a thread of their own, whatever becomes of the loop and the store."""

import asyncio
import threading
from typing import Any

import pytest
import structlog

from engine.bench import Talk, Workbench, until
from engine.pens import pen
from fakes import FakeClock
from milepost.core.errors import StoreUnavailable
from milepost.engine.heart import Heart
from milepost.store.clock import SystemClock


@pytest.mark.leases
async def test_a_blocked_loop_is_reported_and_loses_no_lease(bench: Workbench) -> None:
    @bench.tool
    async def blocking(talk: Talk) -> str:
        threading.Event().wait(1.2)
        return "ok"

    await bench.start(lease=0.6, lease_margin=0.1)
    with structlog.testing.capture_logs() as logs:
        run_id = (await bench.call("blocking")).run_id
        assert await bench.result(run_id) == "ok"
    assert any("event loop is blocked" in line["event"] for line in logs)
    assert (await bench.journal(run_id)).run.epoch == 1


async def test_the_heart_goes_on_whatever_the_store_raises(bench: Workbench) -> None:
    await bench.start()
    beats: list[int] = []

    class Broken:
        def extend(self, *_: Any, **__: Any) -> Any:
            beats.append(1)
            raise RuntimeError("a bug")

    heart = Heart(Broken(), bench.clock, "r", lease=0.03, pens=dict)  # type: ignore[arg-type]
    with structlog.testing.capture_logs():
        heart.start()
        await until(lambda: len(beats) > 1)
        await heart.stop()


async def test_the_heart_goes_on_when_the_store_does_not(bench: Workbench) -> None:
    process = await bench.start()

    class Silent:
        def extend(self, *_: Any, **__: Any) -> Any:
            raise StoreUnavailable("disk full")

    heart = Heart(Silent(), bench.clock, "r", lease=0.03, pens=dict)  # type: ignore[arg-type]
    with structlog.testing.capture_logs() as logs:
        heart.start()
        await until(lambda: any("leases could not be renewed" in line["event"] for line in logs))
        await heart.stop()
    await heart.stop()
    assert process.alive


async def test_a_heart_tells_an_attempt_that_its_lease_is_gone(bench: Workbench) -> None:
    process = await bench.start()
    held = pen(FakeClock(), 0.0)
    heart = Heart(process.store, SystemClock(), "r", lease=1.0, pens=lambda: {"x": held})
    heart._loop = asyncio.get_running_loop()
    await asyncio.to_thread(heart._beat)
    await until(lambda: held.lost)


async def test_a_heart_whose_loop_is_gone_says_nothing_to_it(bench: Workbench) -> None:
    process = await bench.start()
    heart = Heart(process.store, SystemClock(), "r", lease=1.0, pens=dict)
    heart._beat()
    heart._check_loop()
    assert not heart._answered
