"""Code that changed under a run, or seems to: what the journal holds and the function no longer calls."""

import asyncio
from typing import Any

from engine.bench import Talk, Workbench, until
from milepost import key, step
from milepost.core.states import RunState


async def test_hazard_a1_an_argument_that_changes_per_attempt_is_a_replay_mismatch(bench: Workbench) -> None:
    ran: list[int] = []

    @step
    async def charge(nonce: int) -> int:
        ran.append(nonce)
        return nonce

    @bench.tool
    async def pay(talk: Talk) -> int:
        value = await charge(len(ran))
        await talk.elicit("Sure?")
        return int(value)

    await bench.start()
    run_id = (await bench.call("pay")).run_id
    await bench.say(run_id, "Sure?")
    stuck = await bench.state(run_id, RunState.STUCK)
    assert stuck.reason is not None
    assert "replay mismatch" in stuck.reason
    assert stuck.reason.count("charge") == 2
    assert "--accept-drift" in stuck.reason
    assert ran == [0], "nothing was run"


async def test_hazard_a1_a_question_that_changes_per_attempt_is_a_replay_mismatch(bench: Workbench) -> None:
    asked: list[int] = []

    @bench.tool
    async def pay(talk: Talk) -> str:
        asked.append(1)
        await talk.elicit(f"Pay bill {len(asked)}?")
        return "paid"

    await bench.start()
    run_id = (await bench.call("pay")).run_id
    await bench.say(run_id, "Pay bill 1?")
    await bench.state(run_id, RunState.STUCK)
    await bench.runs.retry(run_id, accept_drift=True)
    await bench.say(run_id, "Pay bill 3?")
    stuck_or_waiting = await bench.state(run_id, RunState.WAITING, RunState.READY, RunState.RUNNING)
    assert stuck_or_waiting.accept_drift


async def test_a_retry_without_accepting_the_drift_is_stuck_again_and_older_code_goes_on(bench: Workbench) -> None:
    wording = ["Old?"]

    @bench.tool
    async def ask(talk: Talk) -> str:
        await talk.elicit(wording[0])
        return "ok"

    await bench.start()
    run_id = (await bench.call("ask")).run_id
    await bench.state(run_id, RunState.WAITING)
    wording[0] = "New?"
    await bench.say(run_id, "Old?")
    await bench.state(run_id, RunState.STUCK)
    await bench.runs.retry(run_id)
    await bench.state(run_id, RunState.STUCK)
    wording[0] = "Old?"
    await bench.runs.retry(run_id)
    assert await bench.result(run_id) == "ok"


async def test_branches_that_come_in_another_order_are_no_mismatch(bench: Workbench) -> None:
    pauses = [0.0, 0.05]

    @step
    async def look(name: str) -> str:
        return name

    @bench.tool
    async def both(talk: Talk) -> list[str]:
        async def one(name: str, pause: float) -> str:
            await asyncio.sleep(pause)
            with key(name):
                return str(await look(name))

        found = await asyncio.gather(one("a", pauses[0]), one("b", pauses[1]))
        pauses.reverse()
        await talk.elicit("Go on?")
        return list(found)

    await bench.start()
    run_id = (await bench.call("both")).run_id
    await bench.say(run_id, "Go on?")
    assert await bench.result(run_id) == ["a", "b"]


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
