"""A store that is well and will not take what it is given: the attempt ends and says why, and nobody waits for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.bench import ALICE, Talk, Workbench, fail
from engine.pens import pen
from fakes import FakeClock
from milepost import step
from milepost.core.attempts import Appended
from milepost.core.errors import Fenced, StoreError, Suspended
from milepost.core.records import CallContext, EntryKind, Outcome, Stream
from milepost.core.states import RunState
from milepost.store.sqlite.attempts import JournalGap

FAULTS = [StoreError("a value can't be stored"), JournalGap("entry 3 was given"), ZeroDivisionError("a fault of ours")]


class Refusing:
    """A store that refuses what it is asked to append, once the test lets it."""

    def __init__(self, fault: Exception) -> None:
        self.asked, self.gate, self.times = asyncio.Event(), asyncio.Event(), 0
        self._fault = fault

    async def append(self, fence: Any, batch: Any, *, lease: float) -> Appended:
        self.times += 1
        self.asked.set()
        await self.gate.wait()
        raise self._fault


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_is_refused_is_not_tried_again_and_all_who_wait_are_told(fault: Exception) -> None:
    clock, store, dry = FakeClock(), Refusing(fault), list[str]()
    held = pen(clock, clock.boot(), store)
    held.on_dry = lambda: dry.append("lost" if held.lost else "refused")
    held.entry(EntryKind.DONE, "one")
    writers = [asyncio.create_task(held.write()) for _ in range(2)]
    await asyncio.wait_for(store.asked.wait(), 5)
    held.entry(EntryKind.DONE, "two")
    writers.append(asyncio.create_task(held.write()))
    await asyncio.sleep(0)
    store.gate.set()
    told = await asyncio.wait_for(asyncio.gather(*writers, return_exceptions=True), 5)
    assert [type(error) for error in told] == [Suspended] * 3
    assert (store.times, dry, held.refused) == (1, ["refused"], fault)
    assert not held.fresh()
    held.jot()
    with pytest.raises(Suspended):
        await held.write()
    assert (await held.last_sheet()).entries == ()
    held.lose()
    assert dry == ["refused", "lost"]
    with pytest.raises(Fenced):
        await held.write()


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_run_whose_record_is_refused_is_stuck_and_says_why(bench: Workbench, fault: Exception) -> None:
    ran: list[str] = []
    gate = asyncio.Event()

    @step
    async def hold() -> str:
        ran.append("hold")
        return "held"

    @step
    async def pay() -> str:
        await gate.wait()
        ran.append("paid")
        return "paid"

    @bench.tool
    async def book(talk: Talk) -> list[str]:
        return list(await asyncio.gather(hold(), pay()))

    process = await bench.start()
    fail(process, "append", fault=fault)
    run_id = (await bench.call("book")).run_id
    async with asyncio.timeout(10):
        while process.runs.executor.attempt(run_id) is None or not process.runs.executor.attempt(run_id).pen.dry:
            await asyncio.sleep(0.005)
    gate.set()
    run = await bench.state(run_id, RunState.STUCK)
    assert f"{type(fault).__name__}: {fault}" in str(run.reason)
    assert "milepost runs retry" in str(run.reason)
    assert ran == ["hold", "paid"], "a step at work is not torn"
    await bench.runs.retry(run_id)
    assert await bench.result(run_id) == ["held", "paid"]


@pytest.mark.leases
async def test_a_journal_that_does_not_go_on_where_the_attempt_believes_ends_it(bench: Workbench) -> None:
    """As it is on both databases: no fault of a fake's."""
    gate = asyncio.Event()

    @step
    async def hold() -> str:
        await gate.wait()
        return "held"

    @bench.tool
    async def book(talk: Talk) -> str:
        return str(await hold())

    await bench.start(linger=0.0)
    run_id = (await bench.call("book")).run_id
    async with asyncio.timeout(10):
        while not (await bench.journal(run_id)).entries:
            await asyncio.sleep(0.005)
    await bench.execute("UPDATE run SET journal_seq = journal_seq + 5 WHERE id = $1", run_id)
    gate.set()
    run = await bench.state(run_id, RunState.STUCK)
    assert "goes on with entry 7" in str(run.reason)
    await bench.runs.retry(run_id)
    assert await bench.result(run_id) == "held"


@pytest.mark.leases
async def test_an_end_whose_last_record_is_refused_is_stored_without_it(bench: Workbench) -> None:
    @bench.tool
    async def book(talk: Talk) -> str:
        await talk.log("done")
        return "ok"

    process = await bench.start(linger=60.0)
    refused = fail(process, "settle", fault=StoreError("half a character"))
    run_id = (await bench.call("book")).run_id
    run = await bench.state(run_id, RunState.STUCK)
    assert refused
    assert "half a character" in str(run.reason)
    await bench.runs.retry(run_id)
    assert await bench.result(run_id) == "ok"


async def test_a_hot_call_whose_record_is_refused_is_told(bench: Workbench) -> None:
    began: list[int] = []

    @bench.hot
    async def unchanged(talk: Talk) -> str:
        began.append(1)
        return str((await talk.elicit("Sure?"))["v"])

    process = await bench.start()
    fail(process, "append", fault=StoreError("a value can't be stored"))
    run_id = (await bench.call("unchanged")).run_id
    run = await bench.state(run_id, RunState.FAILED)
    assert "a value can't be stored" in bench.text(run)
    assert began == [1]


async def test_a_call_in_memory_whose_record_is_refused_is_told(bench: Workbench) -> None:
    process = await bench.start()
    call = CallContext("hot", {}, 1, "2025-11-25", {}, {"elicitation": {}}, ALICE)
    hot = await bench.runs.open_hot(call, Stream("A" * 16, "", 1, owner=ALICE))
    fail(process, "append", fault=StoreError("a value can't be stored"))
    ended = asyncio.Event()
    hot.on_end = ended.set
    with pytest.raises(Suspended):
        await hot.ask("elicitation/create", {"message": "Sure?"})
    assert ended.is_set()
    with pytest.raises(Fenced):
        await hot._answered(1)
    run = await hot.finish(Outcome(result={"content": []}))
    assert run.state is RunState.FAILED
    assert "a value can't be stored" in bench.text(run)
