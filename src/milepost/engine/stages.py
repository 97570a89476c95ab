"""Stages: named phases of a run that the user sees, with their own limits (DESIGN section 7).

A stage's `timeout` counts work: what was worked in it before a restart counts, waiting for a person
does not. Its marks are journal entries and events; a replay writes none twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextvars import Token
from types import TracebackType
from typing import Any, Self

import structlog

from milepost.core.codec import check_name
from milepost.core.durations import limit
from milepost.core.errors import MisplacedCall, StageTimeout
from milepost.core.records import Entry, EntryKind, EventKind, NewEvent
from milepost.core.spec import StageSpec
from milepost.engine.attempt import Attempt
from milepost.engine.context import ATTEMPT, STAGES, STEP


class OpenStage:
    """One entering of a stage, within one attempt."""

    def __init__(self, attempt: Attempt, spec: StageSpec, nth: int) -> None:
        self.spec = spec
        self._attempt = attempt
        self._nth = nth
        self._recorded = attempt.replay.stage_marks(spec.name, nth)
        self._task = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self._fired = False
        self._began_at = self._begin()

    def _begin(self) -> float:
        """Note the begin, once; returns the run's working time at which the stage began."""
        begun = _mark(self._recorded, EntryKind.STAGE_BEGIN)
        if begun is not None:
            return float(json.loads(begun.value or "0"))
        now = self._attempt.pen.working()
        self._put(EntryKind.STAGE_BEGIN, "begin", self._attempt.scale.begin(self.spec.name), json.dumps(round(now, 3)))
        self._attempt.pen.mark(stage=self.spec.name)
        return now

    def watch(self) -> None:
        """Start the clock of what is left of the stage's working time."""
        left = self._left()
        if left is not None and left > 0:
            self._timer = asyncio.get_running_loop().call_later(left, self._fire)

    def _left(self) -> float | None:
        if self.spec.timeout is None:
            return None
        return self.spec.timeout - (self._attempt.pen.working() - self._began_at)

    def check(self) -> None:
        """Raise StageTimeout if nothing is left: nothing new may start in this stage."""
        left = self._left()
        if left is not None and (self._fired or left <= 0):
            raise StageTimeout(self.spec.name, self.spec.timeout or 0.0)

    def _fire(self) -> None:
        if self._task is not None and not self._attempt.waits.closed:
            self._fired = True
            self._task.cancel()

    async def end(self, error: BaseException | None) -> StageTimeout | None:
        """Note the end; returns the error to raise if it was this stage's clock that cut it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._fired and self._task is not None:
            self._task.uncancel()
        cut = self._fired and isinstance(error, asyncio.CancelledError) and not self._attempt.waits.closed
        if cut:
            await self._let_steps_end()
        if self._attempt.waits.closed:
            return None
        if cut or error is None or isinstance(error, Exception):
            self._note_end(error)
        return StageTimeout(self.spec.name, self.spec.timeout or 0.0) if cut else None

    async def _let_steps_end(self) -> None:
        """A stage isn't left while a step that it began still works (HAZARDS C2)."""
        while steps := self._attempt.waits.steps:
            await asyncio.wait(steps)

    def _note_end(self, error: BaseException | None) -> None:
        if _mark(self._recorded, EntryKind.STAGE_END) is None:
            how = "done" if error is None else type(error).__name__
            self._put(EntryKind.STAGE_END, "end", self._attempt.scale.end(self.spec.name), json.dumps(how))
            self._attempt.pen.mark(stage="")

    def _put(self, kind: EntryKind, mark: str, progress: float, value: str) -> None:
        pen = self._attempt.pen
        pen.entry(kind, self.spec.name, occurrence=self._nth, value=value)
        body = {"stage": self.spec.name, "mark": mark, "progress": progress, "total": self._attempt.scale.total}
        pen.event(NewEvent(EventKind.STAGE, body))
        pen.mark(progress=progress)
        pen.jot()


def _mark(entries: list[Entry], kind: EntryKind) -> Entry | None:
    return next((entry for entry in entries if entry.kind is kind), None)


class stage:  # noqa: N801 - a verb of the author's
    """A named phase of the run: `async with stage("searching_data", timeout=20): ...`.

    `timeout`: working time that the stage may take, as seconds or "20s", "5m", "1h30m". Over it, what the stage
    awaits is cut, steps in flight are finished and recorded, and `StageTimeout` is raised.
    `answer_within`: how long a person has for each question asked in it ("24h"); past it the question
    raises `QuestionExpired`. Outside a run (in a unit test) it does nothing.

    Raises Unstorable for a name that not every store can keep: one with a character 0 or half a character in it.
    """

    def __init__(
        self, name: str, *, timeout: float | str | None = None, answer_within: float | str | None = None
    ) -> None:
        check_name("name of the stage", name)
        self._spec = StageSpec(name, limit(timeout), limit(answer_within))
        self._open: OpenStage | None = None
        self._token: Token[tuple[OpenStage, ...]] | None = None
        self._told: Mapping[str, Token[Any]] = {}

    async def __aenter__(self) -> Self:
        attempt = ATTEMPT.get()
        if attempt is None:
            return self
        attempt.ensure_open()
        if STEP.get() is not None:
            raise MisplacedCall("a stage can't be opened inside a step: open it around the step")
        self._open = OpenStage(attempt, self._spec, attempt.replay.enter_stage(self._spec.name))
        self._token = STAGES.set((*STAGES.get(), self._open))
        self._told = structlog.contextvars.bind_contextvars(stage=self._spec.name)
        self._open.watch()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._open is None or self._token is None:
            return
        STAGES.reset(self._token)
        structlog.contextvars.reset_contextvars(**self._told)
        timeout = await self._open.end(error)
        if timeout is not None:
            raise timeout from None
