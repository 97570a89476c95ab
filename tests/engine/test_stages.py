"""Stages: what counts against their limits, what ends them, and where their progress stands."""

from __future__ import annotations

import asyncio
import json

import pytest

from engine.bench import ALICE, Talk, Workbench, fail
from fakes import FakeClock
from milepost import stage, step
from milepost.core.errors import Unstorable
from milepost.core.records import EntryKind, EventKind
from milepost.core.states import RunState


async def test_hazard_p2_5_a_stage_over_its_limit_fails_the_run_and_names_itself(bench: Workbench) -> None:
    @bench.tool
    async def tool(talk: Talk) -> str:
        async with stage("searching", timeout=0.05):
            await asyncio.sleep(5)
        return ""

    await bench.start()
    assert await bench.failure((await bench.call("tool")).run_id) == (
        "stage 'searching' took longer than its limit of 0.05 s of work"
    )


@pytest.fixture
def clock(bench: Workbench) -> FakeClock:
    """Work takes as long as a test says, however busy the machine is."""
    bench.clock = FakeClock()
    return bench.clock


async def test_hazard_c4_waiting_for_a_person_does_not_count_against_a_stage(
    bench: Workbench, clock: FakeClock
) -> None:
    @bench.tool
    async def tool(talk: Talk) -> str:
        async with stage("asking", timeout=100):
            await talk.elicit("Sure?")
            await note()
        return "ok"

    @step
    async def note() -> None: ...

    await bench.start()
    run_id = (await bench.call("tool")).run_id
    await bench.state(run_id, RunState.WAITING)
    clock.advance(120)
    await bench.say(run_id, "Sure?")
    assert await bench.result(run_id) == "ok"


async def test_work_before_a_question_counts_after_it_too(bench: Workbench, clock: FakeClock) -> None:
    @step
    async def work(n: int) -> None:
        clock.advance(60)

    @bench.tool
    async def tool(talk: Talk) -> str:
        async with stage("working", timeout=100):
            await work(1)
            await talk.elicit("More?")
            await work(2)
            await work(3)
        return "ok"

    await bench.start(lease=1000.0)
    run_id = (await bench.call("tool")).run_id
    await bench.say(run_id, "More?")
    assert "stage 'working'" in await bench.failure(run_id)
    assert (await kinds(bench, run_id)).count(EntryKind.DONE) == 2


async def test_a_step_in_flight_is_finished_and_recorded_before_its_stage_is_left(
    bench: Workbench, clock: FakeClock
) -> None:
    cut = asyncio.Event()

    @step
    async def work() -> None:
        await cut.wait()

    @bench.tool
    async def tool(talk: Talk) -> str:
        async with stage("working", timeout=0.05):
            try:
                await work()
            finally:
                cut.set()
        return "ok"

    await bench.start()
    run_id = (await bench.call("tool")).run_id
    assert "stage 'working'" in await bench.failure(run_id)
    assert (await kinds(bench, run_id))[-2:] == [EntryKind.DONE, EntryKind.STAGE_END]


async def kinds(bench: Workbench, run_id: str) -> list[EntryKind]:
    return [entry.kind for entry in (await bench.journal(run_id)).entries]


async def test_nothing_new_starts_in_a_stage_that_is_used_up(bench: Workbench) -> None:
    ran: list[int] = []

    @step
    async def work() -> None:
        ran.append(1)

    @bench.tool
    async def tool(talk: Talk) -> str:
        try:
            async with stage("short", timeout=0.05):
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    await work()
        except Exception as error:
            return str(error)
        return ""

    await bench.start()
    assert "stage 'short'" in await bench.result((await bench.call("tool")).run_id)
    assert not ran


async def test_an_exception_in_a_stage_is_the_authors_and_ends_it(bench: Workbench) -> None:
    @bench.tool(stages=["a"])
    async def tool(talk: Talk) -> str:
        try:
            async with stage("a"):
                raise ValueError("no")
        except ValueError:
            return "caught"
        return ""

    await bench.start()
    run_id = (await bench.call("tool")).run_id
    assert await bench.result(run_id) == "caught"
    ends = [e for e in (await bench.journal(run_id)).entries if e.kind is EntryKind.STAGE_END]
    assert [json.loads(e.value or "") for e in ends] == ["ValueError"]


async def test_progress_inside_a_stage_moves_within_its_share(bench: Workbench) -> None:
    release = asyncio.Event()

    @bench.tool(stages=["a", "b"])
    async def tool(talk: Talk) -> str:
        async with stage("a"):
            await talk.progress(1, 2)
            await release.wait()
            await talk.progress(0.5, 2)
        return ""

    await bench.start()
    run_id = (await bench.call("tool")).run_id
    with bench.runs.feed(run_id) as feed:
        async with asyncio.timeout(5):
            while not hasattr(item := await feed.next(1), "message"):
                assert item is None or item.kind is not EventKind.RESULT
        release.set()
        assert 0.01 < item.progress < 1
        assert item.total == 2
    await bench.result(run_id)
    assert ALICE.person


@pytest.mark.parametrize("name", ["a\0b", "half \ud83d"])
async def test_a_stages_name_that_no_store_can_keep_is_refused_at_once(bench: Workbench, name: str) -> None:
    @bench.tool
    async def book(talk: Talk) -> str:
        async with stage(name):
            return "ok"

    await bench.start()
    said = await bench.failure((await bench.call("book")).run_id)
    assert "can't be stored: take another name" in said
    with pytest.raises(Unstorable):
        step(name=name)(fail)
