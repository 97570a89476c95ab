"""Stores that fail for a while: what it costs a run, and what it doesn't."""

import asyncio
from typing import Any

import pytest
import structlog

from engine.bench import Talk, Workbench, fail, until
from milepost import step
from milepost.core.errors import StoreUnavailable
from milepost.core.states import RunState


async def test_a_result_is_kept_while_the_store_can_not_write(bench: Workbench) -> None:
    ran: list[int] = []

    @step
    async def pay() -> int:
        ran.append(1)
        return 1

    @bench.tool
    async def work(talk: Talk) -> int:
        return int(await pay())

    process = await bench.start()
    failed = fail(process, "append", 2)
    assert await bench.result((await bench.call("work")).run_id) == 1
    assert len(failed) == 2
    assert len(ran) == 1


@pytest.mark.leases
async def test_a_store_that_stays_silent_costs_the_lease_and_not_the_run(bench: Workbench) -> None:
    @step
    async def pay() -> int:
        return 1

    @bench.tool
    async def work(talk: Talk) -> int:
        return int(await pay())

    def silent(*_args: Any, **_kwargs: Any) -> Any:
        raise StoreUnavailable("silent")

    process = await bench.start(lease=0.4, lease_margin=0.3)
    process.runs.backend.heart.hurry = lambda: None  # type: ignore[attr-defined]
    process.store.extend = silent  # type: ignore[method-assign]
    failed = fail(process, "append", 6)
    run_id = (await bench.call("work")).run_id
    await until(lambda: len(failed) >= 2)
    del process.store.extend
    assert await bench.result(run_id) == 1


@pytest.mark.leases
async def test_an_end_that_can_not_be_stored_is_made_again_by_the_next_attempt(bench: Workbench) -> None:
    @bench.tool
    async def work(talk: Talk) -> str:
        return "ok"

    process = await bench.start(lease=0.5, lease_margin=0.1)
    fail(process, "settle", 1)
    assert await bench.result((await bench.call("work")).run_id) == "ok"


@pytest.mark.leases
@pytest.mark.parametrize("fault", [StoreUnavailable("disk full"), ZeroDivisionError()])
async def test_the_scheduler_outlives_a_store_that_fails(bench: Workbench, fault: Exception) -> None:
    @bench.tool
    async def work(talk: Talk) -> str:
        await talk.elicit("Sure?")
        return "ok"

    process = await bench.start()
    run_id = (await bench.call("work")).run_id
    await bench.state(run_id, RunState.WAITING)
    failed = fail(process, "claim", 1, fault)
    await bench.say(run_id, "Sure?")
    assert await bench.result(run_id) == "ok"
    assert failed


@pytest.mark.leases
async def test_a_fault_inside_the_engine_costs_one_lease(bench: Workbench) -> None:
    @bench.tool
    async def work(talk: Talk) -> str:
        return "ok"

    process = await bench.start(lease=0.4, lease_margin=0.1)
    broken: list[int] = []
    original = process.runs.executor.choice_of

    async def choice_of(loaded: Any) -> Any:
        if not broken:
            broken.append(1)
            raise ZeroDivisionError
        return await original(loaded)

    process.runs.executor.choice_of = choice_of
    assert await bench.result((await bench.call("work")).run_id) == "ok"


async def test_a_limit_that_can_not_be_stored_is_reported(bench: Workbench) -> None:
    @bench.tool(timeout=0.05)
    async def work(talk: Talk) -> str:
        await asyncio.sleep(0.3)
        return "ok"

    process = await bench.start()
    failed = fail(process, "steer", 1)
    with structlog.testing.capture_logs() as logs:
        run_id = (await bench.call("work")).run_id
        assert await bench.result(run_id) == "ok"
    assert failed
    assert any("could not be cancelled" in line["event"] for line in logs)
