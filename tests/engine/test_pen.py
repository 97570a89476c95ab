"""The pen: its own idea of its lease, and of who still waits for what it writes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.pens import pen
from fakes import FakeClock
from milepost.core.attempts import Appended
from milepost.core.errors import Fenced, StoreUnavailable
from milepost.core.records import EntryKind


def test_a_lease_is_sure_from_the_claim_until_the_margin_before_its_end() -> None:
    clock = FakeClock()
    held = pen(clock, clock.boot())
    clock.advance(8.9)
    assert held.fresh()
    clock.advance(0.2)
    assert not held.fresh()


def test_hazard_b1_a_process_stopped_between_its_claim_and_its_first_step_knows_of_no_lease() -> None:
    clock = FakeClock()
    claimed_at = clock.boot()
    clock.advance(12.0)
    assert not pen(clock, claimed_at).fresh()


def test_hazard_b1_a_replica_in_doubt_starts_no_step_until_it_was_heard_again() -> None:
    """A store may say that others can take this replica for gone before its lease is over."""
    clock = FakeClock()
    held = pen(clock, clock.boot())
    held.doubt(clock.boot() + 0.5)
    assert held.fresh()
    clock.advance(0.6)
    assert not held.fresh()
    held.renew(clock.boot())
    assert not held.fresh(), "a write that went through says nothing about what others believe"
    held.assure()
    assert held.fresh()


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


async def test_a_fence_is_lost_once_and_a_writer_that_left_is_not_told() -> None:
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


async def test_the_last_sheet_waits_for_the_write_before_it_whose_writer_may_be_gone() -> None:
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


async def test_a_store_that_can_not_write_until_the_lease_is_over_costs_the_fence() -> None:
    clock = FakeClock()
    held = pen(clock, clock.boot(), Slow(clock, fails=True))
    with pytest.raises(Fenced):
        await held.write()
    assert held.lost
