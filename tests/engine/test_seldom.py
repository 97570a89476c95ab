"""What is seldom in the life of an attempt: told twice, too late, or by somebody who does not give way."""

import asyncio
from typing import Any, cast

import pytest

from engine.bench import FAST, Talk, Workbench
from engine.test_pen import pen
from engine.test_recovery import declare_book, running, until
from fakes import FakeClock
from milepost import stage, step
from milepost.core.attempts import Appended, Claimant, Created
from milepost.core.errors import Fenced, StoreError, StoreUnavailable
from milepost.core.records import CallContext, EntryKind, Stream
from milepost.core.spec import Catalogue
from milepost.core.states import RunState
from milepost.engine.executor import Executor
from milepost.engine.heart import Heart
from milepost.engine.hub import Hub
from milepost.engine.scheduler import LeaseScheduler
from milepost.store.clock import SystemClock


class Odd(BaseException):
    """No Exception, as some libraries' own signals."""


async def test_a_function_that_holds_on_is_abandoned_with_the_clock_of_its_stage(bench: Workbench) -> None:
    """Hazard C1, in the function itself: it swallows every signal, for longer than its stage may take."""
    over, ended, held_on = asyncio.Event(), asyncio.Event(), list[int]()

    @bench.tool
    async def work(talk: Talk) -> str:
        if held_on:
            return str((await talk.elicit("Sure?"))["word"])
        try:
            async with stage("calling_tools", timeout=0.1):
                try:
                    return str((await talk.elicit("Sure?"))["word"])
                except BaseException:
                    while not over.is_set():
                        try:
                            await over.wait()
                        except asyncio.CancelledError:
                            held_on.append(1)
                    return "of no account"
        finally:
            ended.set()

    await bench.start(unwind_grace=0.3)
    run_id = (await bench.call("work")).run_id
    await bench.state(run_id, RunState.WAITING)
    assert held_on
    over.set()
    await asyncio.wait_for(ended.wait(), 5)
    await bench.say(run_id, "Sure?", word="yes")
    assert await bench.result(run_id) == "yes"


async def test_what_a_function_raises_after_it_was_stopped_counts_for_nothing(bench: Workbench) -> None:
    raised: list[int] = []

    @bench.tool
    async def work(talk: Talk) -> str:
        try:
            return str((await talk.elicit("Sure?"))["word"])
        except BaseException:
            raised.append(1)
            raise Odd from None

    await bench.start()
    run_id = (await bench.call("work")).run_id
    await bench.state(run_id, RunState.WAITING)
    assert raised == [1]
    await bench.say(run_id, "Sure?", word="yes")
    assert await bench.result(run_id) == "yes"


async def test_a_cancel_that_is_asked_for_twice_is_one(bench: Workbench) -> None:
    gate = asyncio.Event()

    @step
    async def slow() -> int:
        await gate.wait()
        return 1

    @bench.tool
    async def work(talk: Talk) -> int:
        return await slow() + await slow()

    process = await bench.start()
    run_id = (await bench.call("work")).run_id
    await running(process, run_id)
    await until(lambda: process.runs.executor.attempt(run_id) is not None)
    await bench.runs.cancel(run_id, reason="client")
    await bench.runs.cancel(run_id, reason="operator")
    gate.set()
    assert (await bench.state(run_id, RunState.CANCELLED)).reason == "client"


async def test_a_call_that_was_held_back_goes_ahead_once_the_recorded_ones_are_reached(bench: Workbench) -> None:
    """Two branches in another order than before: the new call waits for the old ones, and none runs twice."""
    ran: list[str] = []
    asked: list[int] = []

    @step
    async def price(seat: str) -> str:
        ran.append(seat)
        return seat

    @step
    async def tax(country: str) -> str:
        ran.append(country)
        return country

    @bench.tool
    async def work(talk: Talk) -> str:
        if not asked:
            await asyncio.gather(price("1A"), price("1B"), tax("at"))
            asked.append(1)
            await talk.elicit("Sure?")

        async def late() -> list[str]:
            await until(lambda: len(attempt.waits._held) == 2)
            return await asyncio.gather(price("1A"), price("1B"), tax("at"))

        attempt: Any = process.runs.executor.attempt(run_id)
        new, newer, old = await asyncio.gather(price("2C"), tax("ch"), late())
        return " ".join([new, newer, *old])

    process = await bench.start()
    run_id = (await bench.call("work")).run_id
    await bench.state(run_id, RunState.WAITING)
    await bench.say(run_id, "Sure?")
    assert await bench.result(run_id) == "2C ch 1A 1B at"
    assert ran == ["1A", "1B", "at", "2C", "ch"]


async def test_a_cancel_does_not_wait_for_a_steps_next_try(bench: Workbench) -> None:
    tries: list[int] = []

    @step(retries=1, backoff=30)
    async def fails() -> None:
        tries.append(1)
        raise ValueError("not yet")

    @bench.tool
    async def work(talk: Talk) -> None:
        await fails()

    process = await bench.start(hold_retry=60.0)
    run_id = (await bench.call("work")).run_id

    def pauses() -> bool:
        attempt = process.runs.executor.attempt(run_id)
        return attempt is not None and attempt.waits.timer_in() is not None

    await until(pauses)
    await bench.runs.cancel(run_id, reason="client")
    await bench.state(run_id, RunState.CANCELLED)
    assert tries == [1]


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


async def test_a_heart_tells_an_attempt_that_its_lease_is_gone(bench: Workbench) -> None:
    process = await bench.start()
    held = pen(FakeClock(), 0.0)
    heart = Heart(process.store, SystemClock(), "r", lease=1.0, pens=lambda: {"x": held})
    heart._loop = asyncio.get_running_loop()
    await asyncio.to_thread(heart._beat)
    await until(lambda: held.lost)


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


async def test_a_heart_whose_loop_is_gone_says_nothing_to_it(bench: Workbench) -> None:
    process = await bench.start()
    heart = Heart(process.store, SystemClock(), "r", lease=1.0, pens=dict)
    heart._beat()
    heart._check_loop()
    assert not heart._answered


async def test_a_fence_is_lost_once_and_a_writer_that_left_is_not_told(bench: Workbench) -> None:
    held = pen(FakeClock(), 0.0)
    lost: list[int] = []
    held.on_dry = lambda: lost.append(1)
    left, waits = asyncio.Future[None](), asyncio.Future[None]()
    left.cancel()
    held.lose([left, waits])
    held.lose()
    assert lost == [1]
    with pytest.raises(Fenced):
        await waits


async def test_a_store_that_keeps_the_run_of_a_hot_call_to_itself_is_an_error(bench: Workbench) -> None:
    process = await bench.start()
    original = process.store.create

    async def create(*args: Any, **kwargs: Any) -> Any:
        made = await original(*args, **{**kwargs, "claim": None})
        assert isinstance(made, Created)
        return made

    process.store.create = create  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="did not hand out"):
        await bench.runs.open_hot(CallContext("hot", {}, 1, "2025-11-25", {}, {}), Stream("stream", "", 1))


async def test_a_stage_that_is_left_by_a_signal_of_somebody_elses_is_not_noted_as_ended(bench: Workbench) -> None:
    @bench.tool
    async def work(talk: Talk) -> str:
        async with stage("calling_tools"):
            raise Odd

    await bench.start()
    run_id = (await bench.call("work")).run_id
    assert await bench.failure(run_id) == "Error executing tool work"
    marks = [entry.kind for entry in (await bench.journal(run_id)).entries]
    assert marks == [EntryKind.STAGE_BEGIN]


async def test_two_may_watch_one_run_and_one_may_leave(bench: Workbench) -> None:
    declare_book(bench)
    process = await bench.start()
    run_id = (await bench.call("book")).run_id
    with process.runs.feed(run_id) as stays:
        with process.runs.feed(run_id):
            assert set(process.runs.hub.watched()) == {run_id}
        await bench.say(run_id, "When?", day="mon")
        async with asyncio.timeout(5):
            while not stays.over:
                await stays.next()
    assert set(process.runs.hub.watched()) == set()


class Slow:
    """A store that is asked to append, and does it when the test says so, or fails."""

    def __init__(self, clock: FakeClock, *, fails: bool = False) -> None:
        self.asked, self.gate = asyncio.Event(), asyncio.Event()
        self.clock, self.fails = clock, fails

    async def append(self, fence: Any, batch: Any, *, lease: float) -> Appended:
        self.asked.set()
        if self.fails:
            self.clock.advance(20.0)
            raise StoreUnavailable("the disk is gone")
        await self.gate.wait()
        return Appended(1, 0.0, 0, None)


async def test_the_last_sheet_waits_for_the_write_before_it_whose_writer_may_be_gone(bench: Workbench) -> None:
    clock = FakeClock()
    store = Slow(clock)
    held = pen(clock, clock.boot(), store)
    writer = asyncio.create_task(held.write())
    await asyncio.wait_for(store.asked.wait(), 5)
    held.entry(EntryKind.NOTE, "late")
    last = asyncio.create_task(held.last_sheet())
    writer.cancel()
    store.gate.set()
    assert (await last).entries == ()
    assert held.event_seq == 1


async def test_a_store_that_can_not_write_until_the_lease_is_over_costs_the_fence(bench: Workbench) -> None:
    clock = FakeClock()
    held = pen(clock, clock.boot(), Slow(clock, fails=True))
    with pytest.raises(Fenced):
        await held.write()
    assert held.lost


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
