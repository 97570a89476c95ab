"""Functions that behave oddly: what they raise, swallow, cancel, or say too fast."""

import asyncio
from typing import Any

from engine.bench import Talk, Workbench, until
from milepost import stage, workflow
from milepost.core.records import CallContext, EntryKind, EventKind, Outcome
from milepost.core.states import RunState


class Odd(BaseException):
    """No Exception, as some libraries' own signals."""


async def test_a_kernel_that_raises_fails_the_run(bench: Workbench) -> None:
    @bench.tool
    async def work(talk: Talk) -> str:
        return "never"

    process = await bench.start()

    async def execute(call: CallContext, channel: Any) -> Outcome:
        raise KeyError("broken kernel")

    bench.kernel.execute = execute  # type: ignore[method-assign]
    assert process.alive
    assert await bench.failure((await bench.call("work")).run_id) == "Error executing tool work"


async def test_a_workflow_that_cancels_its_own_task_fails_instead_of_running_for_ever(bench: Workbench) -> None:
    @bench.tool
    async def work(talk: Talk) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)
        return ""

    await bench.start()
    run_id = (await bench.call("work")).run_id
    assert await bench.failure(run_id) == "Error executing tool work"
    assert "cancelled its own task" in str((await bench.state(run_id, RunState.FAILED)).reason)


async def test_hazard_c1_a_function_that_will_not_unwind_is_abandoned_behind_its_fence(bench: Workbench) -> None:
    over = asyncio.Event()
    stubborn: list[int] = []

    @bench.tool
    async def work(talk: Talk) -> str:
        async def never() -> None:
            while not over.is_set():
                try:
                    await over.wait()
                except asyncio.CancelledError:
                    stubborn.append(1)

        if stubborn:
            await talk.elicit("Sure?")
            return "ok"
        await asyncio.gather(never(), talk.elicit("Sure?"))
        return "wrong"

    await bench.start(unwind_grace=0.05)
    run_id = (await bench.call("work")).run_id
    await bench.state(run_id, RunState.WAITING)
    assert stubborn
    await bench.say(run_id, "Sure?")
    assert await bench.result(run_id) == "ok"
    over.set()


async def test_a_function_that_holds_on_is_abandoned_with_the_clock_of_its_stage(bench: Workbench) -> None:
    """Hazard C1, in the function itself: it swallows every signal, for longer than its stage may take."""
    over, ended, held_on, loop = asyncio.Event(), asyncio.Event(), list[int](), asyncio.get_running_loop()
    due: list[float] = []

    @bench.tool
    async def work(talk: Talk) -> str:
        if held_on:
            return str((await talk.elicit("Sure?"))["word"])
        try:
            async with stage("calling_tools", timeout=1.0):
                due.append(loop.time() + 1.0)
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
    await until(lambda: loop.time() > due[0])
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


async def test_a_workflow_called_by_a_workflow_is_a_plain_call(bench: Workbench) -> None:
    @workflow
    async def inner(n: int) -> int:
        if n < 0:
            raise ValueError("negative")
        return n + 1

    @bench.tool
    async def outer(talk: Talk) -> int:
        try:
            await inner(-1)
        except ValueError:
            return int(await inner(1))
        return 0

    await bench.start()
    assert await inner(5) == 6
    assert await bench.result((await bench.call("outer")).run_id) == 2


async def test_a_tool_that_talks_faster_than_the_store_writes_waits_for_it(bench: Workbench) -> None:
    """Fault F16: what it says is never more than so many entries ahead of what is stored."""
    ahead: list[int] = []

    @bench.tool
    async def work(talk: Talk) -> str:
        attempt = bench.runs.executor.attempt(run_ids[0])
        assert attempt is not None
        for n in range(50):
            await talk.log(str(n))
            ahead.append(attempt.pen.unwritten)
        return "said"

    run_ids: list[str] = []
    process = await bench.start(max_unwritten=10)
    original = process.runs.executor.choice_of

    async def choice_of(loaded: Any) -> Any:
        run_ids.append(loaded.run.id)
        return await original(loaded)

    process.runs.executor.choice_of = choice_of
    run_id = (await bench.call("work")).run_id
    assert await bench.result(run_id) == "said"
    assert max(ahead) <= 10
    said = [event.body["params"]["data"] for event in await bench.events(run_id) if event.kind is EventKind.NOTIFY]
    assert said == [str(n) for n in range(50)]
