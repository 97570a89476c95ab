"""The pen's own idea of its lease."""

from __future__ import annotations

from typing import Any, cast

from fakes import FakeClock
from milepost.core.attempts import Claim, Fence
from milepost.core.records import ANONYMOUS, CallContext, Lane, Run
from milepost.core.states import RunState
from milepost.engine.pen import Pen, PenLimits

CALL = CallContext("work", {}, 1, "2025-11-25", principal=ANONYMOUS)
RUN = Run("run-1", "work", 1, Lane.WORKFLOW, RunState.RUNNING, CALL, "key", "scope", b"salt", "", 0.0, 0.0)


def pen(clock: FakeClock, since: float, store: object = None) -> Pen:
    claim = Claim(RUN, Fence("run-1", "x"), takeover=False, since=since)
    return Pen(cast("Any", store), claim, clock, PenLimits(lease=10.0, margin=1.0, linger=0.005))


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
