"""What the author's code is inside of: the attempt, the step, the stages, the branch key.

Context variables, because they follow an author's tasks (gather, task groups, threads) by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from milepost.core.records import JSONObject, Principal

if TYPE_CHECKING:
    from milepost.engine.attempt import Attempt
    from milepost.engine.stages import OpenStage


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What `current_run()` tells: equal in every attempt of the run, but for `epoch`."""

    id: str
    tool: str
    version: int
    epoch: int
    """Which attempt this is, counted from 1: for logs, never for decisions."""
    trace_id: str
    principal: Principal
    arguments: JSONObject


@dataclass(frozen=True, slots=True)
class StepInfo:
    """What `current_step()` tells."""

    name: str
    tries: int
    """Which try this is, counted from 1."""
    make_key: Callable[[], str] = field(repr=False)

    @property
    def idempotency_key(self) -> str:
        """The same for every try of this step, in every attempt: give it to the outside service."""
        return self.make_key()  # when it is asked for: most steps never do


ATTEMPT: ContextVar[Attempt | None] = ContextVar("milepost_attempt", default=None)
STEP: ContextVar[StepInfo | None] = ContextVar("milepost_step", default=None)
STAGES: ContextVar[tuple[OpenStage, ...]] = ContextVar("milepost_stages", default=())
KEY: ContextVar[str] = ContextVar("milepost_key", default="")


def branch() -> Hashable:
    """The concurrent branch that the caller is on: its asyncio task."""
    return asyncio.current_task()
