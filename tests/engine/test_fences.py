"""Fences: what an attempt does that lost its run in mid-air, or can't be sure that it has it."""

import asyncio
from typing import Any

import pytest

from engine.bench import Talk, Workbench, running, until
from milepost import step
from milepost.core.attempts import Claim, Fence
from milepost.core.errors import Fenced
from milepost.core.states import RunState


async def steal(bench: Workbench, run_id: str) -> None:
    """Somebody else owns the run now, as after a takeover."""
    await bench.execute("UPDATE run SET attempt_id = 'thief', lease_until = 0 WHERE id = $1", run_id)


@pytest.mark.leases
async def test_hazard_b1_a_fenced_attempt_ends_and_its_result_counts_for_nothing(bench: Workbench) -> None:
    ran: list[str] = []
    gate = asyncio.Event()

    @step
    async def one() -> str:
        ran.append("one")
        if len(ran) == 1:
            await gate.wait()
        return "ok"

    @step
    async def two() -> str:
        ran.append("two")
        return "ok"

    @bench.tool
    async def work(talk: Talk) -> str:
        return str(await one()) + str(await two())

    await bench.start()
    run_id = (await bench.call("work")).run_id
    await until(lambda: ran == ["one"])
    await steal(bench, run_id)
    gate.set()
    assert await bench.result(run_id) == "okok"
    assert ran == ["one", "one", "two"], "the step in flight may show twice, nothing after it"


@pytest.mark.leases
async def test_a_fenced_attempt_tears_the_steps_that_it_can_no_longer_record(bench: Workbench) -> None:
    torn: list[str] = []
    begun: list[int] = []

    @step
    async def slow(n: int) -> int:
        begun.append(n)
        try:
            await asyncio.sleep(60 if len(begun) == 1 else 0)
        except asyncio.CancelledError:
            torn.append("torn")
            raise
        return n

    @bench.tool
    async def work(talk: Talk) -> int:
        return int(await slow(1))

    process = await bench.start()
    run_id = (await bench.call("work")).run_id
    attempt = await running(process, run_id)
    await until(lambda: attempt.waits.steps)
    await steal(bench, run_id)
    assert await bench.result(run_id) == 1
    await until(lambda: torn == ["torn"])
    with pytest.raises(Fenced):
        await attempt.pen.write()


@pytest.mark.leases
async def test_hazard_b1_an_attempt_that_lost_its_lease_starts_no_step(bench: Workbench) -> None:
    ran: list[str] = []
    gate = asyncio.Event()

    @step
    async def email() -> str:
        ran.append("email")
        return "sent"

    @bench.tool
    async def tell(talk: Talk) -> str:
        await gate.wait()
        return str(await email())

    first = await bench.start()
    run_id = (await bench.call("tell")).run_id
    attempt = await running(first, run_id)
    first.runs.executor._pens.clear()  # the heart no longer beats for it
    attempt.pen.deadline = 0.0
    second = await bench.start()
    gate.set()
    first.alive = False
    assert await bench.result(run_id) == "sent"
    assert len(ran) <= 1 or attempt.pen.lost
    await first.runs.drain()
    await first.store.aclose()
    assert second.alive


async def test_past_the_leases_sure_end_a_step_begins_only_after_a_write(bench: Workbench) -> None:
    @step
    async def one() -> str:
        return "ok"

    @bench.tool
    async def work(talk: Talk) -> str:
        talk_attempt = bench.runs.executor.attempt(run_ids[0])
        assert talk_attempt is not None
        talk_attempt.pen.deadline = 0.0
        return str(await one())

    run_ids: list[str] = []
    process = await bench.start()
    original = process.runs.backend.begin

    def begin(claim: Any, loaded: Any = None) -> None:
        run_ids.append(claim.run.id)
        original(claim, loaded)

    process.runs.backend.begin = begin  # type: ignore[method-assign]
    run_id = (await bench.call("work")).run_id
    assert await bench.result(run_id) == "ok"


async def test_a_replica_in_doubt_holds_the_steps_of_all_its_attempts_back(bench: Workbench) -> None:
    gate = asyncio.Event()

    @bench.tool
    async def work(talk: Talk) -> str:
        await gate.wait()
        return "done"

    process = await bench.start()
    run_id = (await bench.call("work")).run_id
    await until(lambda: process.runs.executor.attempt(run_id) is not None)
    attempt: Any = process.runs.executor.attempt(run_id)
    process.runs.executor.doubt(0.0)
    assert not attempt.pen.fresh()
    gate.set()
    assert await bench.result(run_id) == "done"


async def test_a_run_that_vanished_is_nobodys(bench: Workbench) -> None:
    @bench.tool
    async def work(talk: Talk) -> str:
        await talk.elicit("Sure?")
        return "ok"

    process = await bench.start()
    run_id = (await bench.call("work")).run_id
    await bench.state(run_id, RunState.WAITING)
    loaded = await bench.journal(run_id)

    async def nothing(_: str) -> None:
        return None

    process.store.load = nothing  # type: ignore[method-assign]
    claim = replace_claim(loaded.run)
    with pytest.raises(Fenced):
        await process.runs.executor.execute(claim)
    del process.store.load


def replace_claim(run: Any) -> Any:
    return Claim(run, Fence(run.id, "x"), takeover=False)
