"""Replicas of several releases on one store: who runs what, what new runs are given to, and what waits says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from engine.bench import ALICE, BOUND, Process, Talk, Workbench
from milepost import current_run
from milepost.core.records import Event, EventKind, Reply
from milepost.core.states import RunState
from milepost.core.versions import EVERY_TOOL

pytestmark = pytest.mark.leases
YES = Reply({"action": "accept", "content": {}})
OLD_WORDS = "no replica accepts version 1 of book; it goes on when one does"


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """The log lines of the test."""
    with structlog.testing.capture_logs() as captured:
        yield captured


def declare(bench: Workbench, version: int, *accepts: int) -> None:
    """Serve `book` in this version from now on, on replicas that start later."""

    async def book(talk: Talk) -> list[Any]:
        await talk.elicit("Sure?")
        return [current_run().version, version]

    bench.tool(book, version=version, accepts=set(accepts) or None)


async def words(on: Process, run_id: str, *, wanted: bool) -> str | None:
    """What the replica says of a run that nobody goes on with, once it says so (or, with `wanted` false, no more)."""
    async with asyncio.timeout(BOUND):
        while ((said := await on.runs.held_up(run_id)) is not None) is not wanted:
            await asyncio.sleep(0.02)
    return said


async def test_hazard_a4_a_run_that_no_replica_accepts_says_so_until_one_does(
    bench: Workbench, lines: list[Any]
) -> None:
    declare(bench, 1)
    old = await bench.start()
    run_id = (await bench.call("book")).run_id
    await bench.state(run_id, RunState.WAITING)
    kept = bench.kernel.tools["book"], bench.specs["book"]
    declare(bench, 2)
    new = await bench.start()
    assert await new.runs.held_up(run_id) is None, "it waits for a person"
    await old.stop()
    await bench.say(run_id, "Sure?")
    assert await words(new, run_id, wanted=True) == OLD_WORDS
    assert await new.runs.held_up("run-of-nobody") is None

    bench.kernel.tools["book"], bench.specs["book"] = kept
    await bench.start()
    assert await bench.result(run_id) == [1, 1]
    assert await words(new, run_id, wanted=False) is None
    told = [line for line in lines if line["event"] == "runs wait for a replica" and line["why"] == OLD_WORDS]
    assert len(told) == 1, "once, not per look"
    assert told[0]["log_level"] == "warning"
    async with asyncio.timeout(BOUND):
        while not any(line["event"] == "no run waits for a replica any more" for line in lines):
            await asyncio.sleep(0.02)


async def test_new_runs_go_to_the_release_that_they_are_given_to_and_every_replica_tells_of_them(
    bench: Workbench,
) -> None:
    declare(bench, 1)
    old = await bench.start(release="2026.11")
    new = await bench.start(release="2026.12")
    await old.store.give(EVERY_TOOL, {"2026.12": 1.0})
    run_id = (await bench.call("book", on=old)).run_id
    with old.runs.feed(run_id) as feed:
        async with asyncio.timeout(BOUND):
            while not (isinstance(item := await feed.next(1.0), Event) and item.kind is EventKind.QUESTION):
                pass
        run = await bench.state(run_id, RunState.WAITING, RunState.RUNNING)
        assert (run.given_to, run.release) == ("2026.12", "2026.11")
        question = await bench.question(run_id, "Sure?")
        await bench.state(run_id, RunState.WAITING)
        await old.runs.answer(run_id, {question.id: YES}, by=ALICE, via="test")
        assert await bench.result(run_id) == [1, 1]
    assert new.runs.executor.attempt(run_id) is None


async def test_a_release_runs_what_it_is_given_in_its_own_version(bench: Workbench) -> None:
    declare(bench, 1)
    old = await bench.start(release="2026.11")
    declare(bench, 2, 1, 2)
    await bench.start(release="2026.12")
    await old.store.give("book", {"2026.12": 1.0})
    run_id = (await bench.call("book", on=old)).run_id
    await bench.say(run_id, "Sure?")
    assert await bench.result(run_id) == [2, 2]


async def test_where_the_release_has_no_replica_new_runs_are_anybodys(bench: Workbench) -> None:
    declare(bench, 1)
    only = await bench.start(release="2026.11")
    await only.store.give("book", {"2026.12": 1.0})
    run_id = (await bench.call("book", on=only)).run_id
    await bench.say(run_id, "Sure?")
    assert await bench.result(run_id) == [1, 1]
    assert (await bench.journal(run_id)).run.given_to == ""


async def test_a_run_whose_release_has_gone_waits_for_it_and_says_so(bench: Workbench) -> None:
    declare(bench, 1)
    old = await bench.start(release="2026.11")
    new = await bench.start(release="2026.12")
    await old.store.give("book", {"2026.12": 1.0})
    run_id = (await bench.call("book", on=old)).run_id
    await bench.question(run_id, "Sure?")
    await bench.state(run_id, RunState.WAITING)
    await new.stop()
    await bench.say(run_id, "Sure?")
    said = await words(old, run_id, wanted=True)
    assert said == "no replica of release 2026.12 is there, which book was given to; it goes on when one is"
    await bench.start(release="2026.12")
    assert await bench.result(run_id) == [1, 1]
