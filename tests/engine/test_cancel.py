"""Cancelling: the last attempt, what it may still do, and who hears of it."""

import asyncio

from engine.bench import ALICE, Talk, Workbench, running, until
from engine.booking import two_steps
from milepost import step
from milepost.core.attempts import Batch, EndKind
from milepost.core.outside import Verdict
from milepost.core.records import EntryKind, EventKind, Reply
from milepost.core.states import RunState
from milepost.engine.endings import cancelled_end


async def test_hazard_c1_a_cancelled_run_gets_one_last_attempt_to_clean_up(bench: Workbench) -> None:
    done: list[str] = []

    @step
    async def hold() -> str:
        done.append("hold")
        return "12A"

    @step
    async def release(seat: str) -> None:
        done.append(f"release {seat}")

    @bench.tool
    async def book(talk: Talk) -> str:
        seat = await hold()
        try:
            await talk.elicit("Sure?")
        except BaseException as error:
            if type(error).__name__ == "RunCancelled":
                await release(seat)
            raise
        return "booked"

    await bench.start()
    run_id = (await bench.call("book")).run_id
    await bench.state(run_id, RunState.WAITING)
    await bench.runs.cancel(run_id, reason="client")
    run = await bench.state(run_id, RunState.CANCELLED)
    assert done == ["hold", "release 12A"]
    assert run.reason == "client"
    assert (await bench.events(run_id))[-1].kind is EventKind.RESULT


async def test_cancelling_a_running_run_finishes_its_step_and_starts_no_other(bench: Workbench) -> None:
    one, two, ran, gate = two_steps()

    @step
    async def undo() -> None:
        ran.append("undo")

    @bench.tool
    async def work(talk: Talk) -> str:
        first = await one()
        try:
            return str(first + await two())
        finally:
            await undo()

    await bench.start()
    run_id = (await bench.call("work")).run_id
    await until(lambda: ran == ["one"])
    await bench.runs.cancel(run_id, reason="operator")
    gate.set()
    await bench.state(run_id, RunState.CANCELLED)
    assert ran == ["one", "undo"]
    recorded = [e for e in (await bench.journal(run_id)).entries if e.kind is EntryKind.DONE]
    assert len(recorded) == 2


async def test_clean_up_that_takes_too_long_is_cut(bench: Workbench) -> None:
    @step
    async def forever() -> None:
        await asyncio.sleep(60)

    @bench.tool
    async def work(talk: Talk) -> str:
        try:
            await talk.elicit("Sure?")
        finally:
            await forever()
        return ""

    await bench.start(cleanup_limit=0.1)
    run_id = (await bench.call("work")).run_id
    await bench.state(run_id, RunState.WAITING)
    await bench.runs.cancel(run_id, reason="client")
    await bench.state(run_id, RunState.CANCELLED)


async def test_a_run_over_its_working_time_is_cancelled_and_fails(bench: Workbench) -> None:
    @bench.tool(timeout=0.1)
    async def work(talk: Talk) -> str:
        await asyncio.sleep(60)
        return ""

    await bench.start()
    run_id = (await bench.call("work")).run_id
    assert "limit: 0.1 s of work" in await bench.failure(run_id)
    assert (await bench.state(run_id, RunState.FAILED)).state is RunState.FAILED


async def test_a_late_answer_to_a_cancelled_run_is_told_so(bench: Workbench) -> None:
    @bench.tool
    async def ask(talk: Talk) -> str:
        await talk.elicit("Sure?")
        return ""

    await bench.start()
    run_id = (await bench.call("ask")).run_id
    question = await bench.question(run_id, "Sure?")
    await bench.state(run_id, RunState.WAITING)
    await bench.runs.cancel(run_id, reason="client")
    await bench.state(run_id, RunState.CANCELLED)
    rulings = await bench.runs.answer(
        run_id, {question.id: Reply({"action": "accept", "content": {}})}, by=ALICE, via="t"
    )
    assert rulings[question.id].verdict is Verdict.CLOSED
    assert "closed" in rulings[question.id].reason


async def test_a_cancel_by_another_process_reaches_the_attempt(bench: Workbench) -> None:
    @bench.tool
    async def work(talk: Talk) -> str:
        await asyncio.sleep(60)
        return ""

    first = await bench.start(lease=0.6, lease_margin=0.1, cleanup_limit=0.1)
    second = await bench.start(lease=0.6, lease_margin=0.1, cleanup_limit=0.1)
    if bench.schedule is not None:  # nothing beats there, so the cancel is heard at the next write
        return
    run_id = (await bench.call("work", on=first)).run_id
    await running(first, run_id)
    await second.runs.cancel(run_id, reason="operator")
    await bench.state(run_id, RunState.CANCELLED)


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


def test_cancelled_ends_say_which_state_they_mean() -> None:
    kinds = [cancelled_end(reason, Batch()).kind for reason in ("client", "limit: 5 s", "expired: parked too long")]
    assert kinds == [EndKind.END_CANCELLED, EndKind.FAIL, EndKind.EXPIRE]
