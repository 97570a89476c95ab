"""More calls than a replica takes on: new ones wait, fairly, and then are refused; what goes on is not disturbed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.bench import ALICE, BOB, BOUND, FAST, Talk, Workbench
from milepost import step
from milepost.core.errors import Overloaded
from milepost.core.outside import Find
from milepost.core.records import ANONYMOUS, Stream
from milepost.core.states import RunState
from milepost.engine.runs import caller_of

TIGHT = replace(FAST, attempts=5, kept_percent=20, principal_percent=60, queue=3, queue_wait=BOUND)
"""Four new calls at a time, three of one caller; the fifth attempt is for what goes on."""


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def tight(tmp_path: Path, gate: asyncio.Event) -> AsyncIterator[Workbench]:
    tight = Workbench(tmp_path / "m.db", tuning=TIGHT)

    @step
    async def work(n: int) -> int:
        await gate.wait()
        return n

    @tight.tool(same_run="always")
    async def job(talk: Talk, n: int, ask: bool = False) -> int:
        if ask:
            await talk.elicit("Sure?")
        return await work(n)

    await tight.start()
    yield tight
    gate.set()
    await tight.close()


async def waiting(bench: Workbench, number: int) -> None:
    async with asyncio.timeout(BOUND):
        while bench.runs.admission.waiting != number:
            await asyncio.sleep(0.005)


def calls(bench: Workbench, numbers: range, **more: Any) -> list[asyncio.Task[Stream]]:
    return [asyncio.create_task(bench.call("job", n=n, **more)) for n in numbers]


async def test_one_principals_flood_keeps_no_others_first_call_waiting(tight: Workbench, gate: asyncio.Event) -> None:
    flood = calls(tight, range(5))
    await waiting(tight, 2)
    run_id = (await tight.call("job", n=0, by=BOB)).run_id
    assert (await tight.state(run_id, RunState.RUNNING)).call.principal == BOB
    assert [task.done() for task in flood] == [True] * 3 + [False] * 2
    gate.set()
    for stream in await asyncio.gather(*flood):
        await tight.result(stream.run_id)
    async with asyncio.timeout(BOUND):  # a place is given back right after the result was stored, Bob's too
        while tight.runs.admission.inside:
            await asyncio.sleep(0.005)


async def test_a_call_too_many_is_refused_and_nothing_of_it_is_left(tight: Workbench) -> None:
    flood = calls(tight, range(6))
    await waiting(tight, 3)
    with pytest.raises(Overloaded, match="3 calls wait already"):
        await tight.call("job", n=99)
    assert len(await tight.runs.find(Find())) == 3
    for task in flood:
        task.cancel()
    await asyncio.wait(flood)


async def test_what_goes_on_is_not_disturbed_by_a_flood(tight: Workbench, gate: asyncio.Event) -> None:
    """Answers are taken and worked on, and a call that is made again finds its run, with the queue full."""
    asked = (await tight.call("job", n=100, ask=True)).run_id
    await tight.question(asked, "Sure?")
    await tight.state(asked, RunState.WAITING)
    flood = calls(tight, range(4)) + calls(tight, range(3), by=BOB)
    await waiting(tight, 3)
    await tight.say(asked, "Sure?")
    await tight.state(asked, RunState.RUNNING)
    first = flood[0].result()
    again = await tight.call("job", n=0)
    assert (again.run_id, again.attached) == (first.run_id, True)
    gate.set()
    await asyncio.gather(*flood)
    assert await tight.result(asked) == 100


async def test_a_flood_of_answers_is_worked_on_as_room_comes(tight: Workbench, gate: asyncio.Event) -> None:
    runs = [(await tight.call("job", n=n, ask=True)).run_id for n in range(8)]
    for run_id in runs:
        await tight.say(run_id, "Sure?")
    gate.set()
    assert [await tight.result(run_id) for run_id in runs] == list(range(8))


async def test_a_call_in_the_queue_that_is_made_again_finds_the_run_of_the_first(
    tight: Workbench, gate: asyncio.Event
) -> None:
    flood = calls(tight, range(3))
    await asyncio.gather(*flood)
    twice = [asyncio.create_task(tight.call("job", n=9, session="s", request_id=77)) for _ in range(2)]
    await waiting(tight, 2)
    gate.set()
    first, second = await asyncio.gather(*twice)
    assert (first.run_id, first.id) == (second.run_id, second.id)


async def test_nobody_in_particular_is_told_apart_by_session() -> None:
    assert caller_of(ALICE, "s1") == caller_of(ALICE, "s2") != caller_of(BOB, "s1")
    assert caller_of(ANONYMOUS, "s1") != caller_of(ANONYMOUS, "s2")
    assert caller_of(ANONYMOUS, None) == ""
