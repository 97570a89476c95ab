"""What happens when a replica dies or is drained."""

import asyncio
from typing import cast

import pytest

from engine.bench import FAST, Talk, Workbench, running, until
from engine.booking import declare_book, declare_two_steps
from milepost import step
from milepost.core.attempts import Claimant
from milepost.core.spec import Catalogue
from milepost.core.states import RunState
from milepost.engine.executor import Executor
from milepost.engine.hub import Hub
from milepost.engine.scheduler import LeaseScheduler
from milepost.store.clock import SystemClock

# --- death ----------------------------------------------------------------------------------------


async def test_a_waiting_run_is_answered_on_another_replica_after_a_kill(bench: Workbench) -> None:
    ran: list[str] = []

    @step
    async def hold() -> str:
        ran.append("hold")
        return "held"

    @bench.tool
    async def book(talk: Talk) -> str:
        held = await hold()
        return held + (await talk.elicit("Sure?"))["v"]

    first = await bench.start()
    run_id = (await bench.call("book")).run_id
    await bench.state(run_id, RunState.WAITING)
    await first.kill()
    await bench.start()
    await bench.say(run_id, "Sure?", v="!")
    assert await bench.result(run_id) == "held!"
    assert ran == ["hold"]


async def test_a_killed_step_runs_again_under_the_same_key_and_recorded_ones_do_not(bench: Workbench) -> None:
    ran: list[str] = []
    stuck = asyncio.Event()

    @step
    async def hold() -> str:
        ran.append("hold")
        return "held"

    @step
    async def pay() -> str:
        ran.append("pay")
        if len(ran) == 2:
            await stuck.wait()
        return "paid"

    @bench.tool
    async def book(talk: Talk) -> list[str]:
        return [await hold(), await pay()]

    first = await bench.start()
    run_id = (await bench.call("book")).run_id
    await until(lambda: ran == ["hold", "pay"])
    await first.kill()
    await bench.start()
    assert await bench.result(run_id) == ["held", "paid"]
    assert ran == ["hold", "pay", "pay"]
    assert (await bench.journal(run_id)).run.epoch == 2


@pytest.mark.leases
async def test_hazard_c5_a_run_that_kills_its_process_again_and_again_is_stuck(bench: Workbench) -> None:
    gate = asyncio.Event()

    @bench.tool
    async def deadly(talk: Talk) -> str:
        await gate.wait()
        return "survived"

    process = await bench.start()
    run_id = (await bench.call("deadly")).run_id
    for _ in range(2):
        await running(process, run_id)
        await process.kill()
        process = await bench.start(crashes_alone=1, crashes_stuck=2)
    stuck = await bench.state(run_id, RunState.STUCK)
    assert stuck.reason is not None
    assert "died 2 times" in stuck.reason
    gate.set()
    await bench.runs.retry(run_id)
    assert await bench.result(run_id) == "survived"


@pytest.mark.leases
async def test_a_suspect_waits_for_the_others_and_then_runs_alone(bench: Workbench) -> None:
    never, gate = asyncio.Event(), asyncio.Event()
    log: list[str] = []

    @bench.tool
    async def deadly(talk: Talk) -> str:
        log.append("deadly begins")
        if len(log) == 1:
            await never.wait()
        return "survived"

    @bench.tool
    async def harmless(talk: Talk) -> str:
        await gate.wait()
        log.append("harmless ends")
        return "done"

    first = await bench.start(crashes_alone=1)
    second = await bench.start(crashes_alone=1)
    suspect = (await bench.call("deadly", on=first)).run_id
    await running(first, suspect)
    other = (await bench.call("harmless", on=second)).run_id
    await until(lambda: second.runs.executor.attempt(other) is not None)
    await first.kill()
    backend = cast("LeaseScheduler", second.runs.backend)
    await until(lambda: backend._suspects == 1)
    assert second.runs.executor.attempt(suspect) is None, "it does not run beside another"
    gate.set()
    assert await bench.result(suspect) == "survived"
    never.set()
    assert log == ["deadly begins", "harmless ends", "deadly begins"]


# --- drain ----------------------------------------------------------------------------------------


async def test_a_drained_replica_finishes_its_step_and_gives_the_run_back(bench: Workbench) -> None:
    ran, release = declare_two_steps(bench)
    first = await bench.start()
    run_id = (await bench.call("work")).run_id
    await until(lambda: ran == ["one"])
    stopping = asyncio.create_task(first.stop())
    await until(lambda: first.runs.executor._draining)
    release.set()
    await stopping
    assert ran == ["one"], "no new step starts during a drain"
    await bench.start()
    assert await bench.result(run_id) == "12"
    assert ran == ["one", "two"]


async def test_a_step_over_the_drain_limit_is_torn_and_unrecorded(bench: Workbench) -> None:
    ran: list[int] = []

    @step
    async def slow() -> str:
        ran.append(1)
        if len(ran) == 1:
            await asyncio.sleep(60)
        return "ok"

    @bench.tool
    async def work(talk: Talk) -> str:
        return str(await slow())

    first = await bench.start(drain_limit=0.05)
    run_id = (await bench.call("work")).run_id
    await until(lambda: ran == [1])
    await first.stop()
    await bench.start()
    assert await bench.result(run_id) == "ok"


async def test_a_drain_between_two_branches_lets_the_one_in_flight_end(bench: Workbench) -> None:
    ran: list[str] = []
    begin, draining, end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @step
    async def slow() -> str:
        ran.append("slow")
        begin.set()
        await end.wait()
        return "s"

    @step
    async def late() -> str:
        ran.append("late")
        return "l"

    @bench.tool
    async def work(talk: Talk) -> str:
        async def second() -> str:
            await draining.wait()
            return str(await late())

        first, then = await asyncio.gather(slow(), second())
        return str(first) + then

    first = await bench.start()
    run_id = (await bench.call("work")).run_id
    await begin.wait()
    stopping = asyncio.create_task(first.stop())
    async with asyncio.timeout(5):
        while not first.runs.executor._draining:
            await asyncio.sleep(0)
    draining.set()
    await asyncio.sleep(0.05)
    assert ran == ["slow"]
    end.set()
    await stopping
    await bench.start()
    assert await bench.result(run_id) == "sl"
    assert ran == ["slow", "late"]


async def test_an_attempt_that_begins_during_a_drain_gives_its_run_back_before_its_first_step(bench: Workbench) -> None:
    booked = declare_book(bench)
    process = await bench.start()
    process.runs.executor.release_all()
    run_id = (await bench.call("book")).run_id
    async with asyncio.timeout(5):
        while (run := await bench.runs.run(run_id)) is None or run.epoch < 2:
            await asyncio.sleep(0.005)
    assert not (await bench.journal(run_id)).questions
    assert booked == []


async def test_a_scheduler_that_never_began_may_be_drained(bench: Workbench) -> None:
    process = await bench.start()
    executor = Executor(process.store, bench.kernel, Catalogue(), Hub(process.store), SystemClock(), FAST)
    scheduler = LeaseScheduler(process.store, executor, Claimant("never", 1.0), SystemClock())
    await scheduler.drain()
    assert scheduler.claimant() is None


async def test_an_executor_by_itself_knows_no_rivals_and_tells_nobody_what_waits(bench: Workbench) -> None:
    declare_book(bench)
    process = await bench.start()
    run_id = (await bench.call("book")).run_id
    executor = Executor(process.store, bench.kernel, Catalogue(), Hub(process.store), SystemClock(), FAST)
    assert await executor.choice_of(await bench.journal(run_id)) is None
    await executor.on_needs([])
