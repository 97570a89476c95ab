"""A replica whose wall clock is wrong by five minutes harms nobody: what is compared is the store's own time (F18)."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime

import pytest

import milepost
from engine.bench import ALICE, BOUND, Talk, Workbench
from fakes import WrongClock
from milepost import step
from milepost.core.attempts import Claimant
from milepost.core.records import Delivery, EntryKind
from milepost.core.states import RunState
from milepost.engine.executor import Executor
from milepost.engine.scheduler import LeaseScheduler

WRONG = pytest.mark.parametrize("off", [300.0, -300.0], ids=["ahead", "behind"])
BACKOFF = 0.4


@WRONG
@pytest.mark.leases
async def test_hazard_b5_a_retry_is_due_by_the_stores_clock_on_every_replica(bench: Workbench, off: float) -> None:
    tries: list[int] = []

    @step(retries=3, backoff=BACKOFF)
    async def pay() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("busy")
        return "paid"

    @bench.tool
    async def book(talk: Talk) -> str:
        return await pay()

    wrong = await bench.start(clock=WrongClock(off))
    run_id = (await bench.call("book")).run_id
    await bench.state(run_id, RunState.WAITING)
    await wrong.stop()
    await bench.start(clock=WrongClock(-off))
    assert await bench.result(run_id) == "paid"
    (retry,) = [entry for entry in (await bench.journal(run_id)).entries if entry.kind is EntryKind.RETRY]
    due = json.loads(retry.value or "")["due"]
    assert -0.1 < due - retry.at <= BACKOFF, "the store's own time, within the time that a write takes"


@WRONG
@pytest.mark.leases
async def test_hazard_b5_a_timer_is_set_by_the_stores_clock(bench: Workbench, off: float) -> None:
    timers: asyncio.Queue[float] = asyncio.Queue()

    class Watched(LeaseScheduler):
        def wake_at(self, run_id: str, seconds: float) -> None:
            timers.put_nowait(seconds)
            super().wake_at(run_id, seconds)

    @bench.tool
    async def book(talk: Talk) -> str:
        async with milepost.stage("asking", answer_within=60):
            await talk.elicit("Sure?")
        return ""

    clock = WrongClock(off)

    def watched(executor: Executor, claimant: Claimant) -> LeaseScheduler:
        return Watched(executor._store, executor, claimant, clock)

    await bench.start(clock=clock, schedule=watched)
    await bench.call("book")
    async with asyncio.timeout(BOUND):
        assert 0 < await timers.get() <= 60


@WRONG
async def test_hazard_b5_a_result_sent_a_moment_ago_is_given_again_whatever_the_replicas_clock(
    bench: Workbench, off: float
) -> None:
    @bench.tool
    async def book(talk: Talk) -> str:
        return "booked"

    first = await bench.start()
    stream = await bench.call("book", on=first, by=ALICE)
    assert await bench.result(stream.run_id) == "booked"
    await first.runs.detach(stream, delivery=Delivery.SENT)
    wrong = await bench.start(clock=WrongClock(off))
    again = await bench.call("book", on=wrong, by=ALICE)
    assert (again.run_id, again.attached) == (stream.run_id, True)


@WRONG
async def test_hazard_b5_what_time_it_is_a_workflow_is_told_by_the_store(bench: Workbench, off: float) -> None:
    @bench.tool
    async def book(talk: Talk) -> str:
        return (await milepost.now()).isoformat()

    await bench.start(clock=WrongClock(off))
    run_id = (await bench.call("book")).run_id
    told = datetime.fromisoformat(await bench.result(run_id)).timestamp()
    assert abs(told - (await bench.journal(run_id)).run.created_at) < 60
