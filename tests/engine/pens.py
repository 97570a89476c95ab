"""A pen without an attempt: what it writes with is the test's."""

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
