"""Hot calls: a tool that asks without being a workflow waits in its replica's memory.

Its questions, notifications and result are rows like any other run's, so any replica takes an answer
and any stream shows it. But nothing is replayed: if the process ends, the call is lost, its caller is
told so in plain words, and it is never run again (HAZARDS A2: that would repeat its effects).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from milepost.core.attempts import End, EndKind
from milepost.core.digest import question_digest
from milepost.core.errors import Fenced, PeerError, QuestionExpired, RunCancelled, Signal, StoreError
from milepost.core.records import EventKind, NewEvent, NewQuestion, Outcome, Question, QuestionState, Reply, Run
from milepost.core.replies import ELICIT, capability_for
from milepost.core.states import RunState
from milepost.engine.attempt import METHOD_NOT_FOUND, replayed
from milepost.engine.endings import cancelled_end, error_outcome
from milepost.engine.hub import Glimpse, Hub
from milepost.engine.lines import known_of, tell_settled
from milepost.engine.pen import Pen
from milepost.engine.tuning import Tuning
from milepost.seams import Kernel, RunStore

_STANDING = frozenset({QuestionState.OPEN, QuestionState.ANSWERED})


class HotCall:
    """The Channel of a call in lane `hot`, executed by one task that lives as long as the call."""

    def __init__(self, run: Run, pen: Pen, store: RunStore, hub: Hub, tuning: Tuning) -> None:
        self.run_id = run.id
        self.run = run
        self.on_end: Callable[[], None] = lambda: None
        """Called when the call can't go on (cancelled, or nothing of it can be stored): whoever runs it stops it."""
        self.on_closed: Callable[[], None] = lambda: None
        """Called once the call is over."""
        self._pen = pen
        self._store = store
        self._hub = hub
        self._tuning = tuning
        self._asked = 0
        self._numbers = 0
        self._earlier: dict[int, Question] = {}
        self._news = asyncio.Event()
        self._progress = run.progress
        self._resting: asyncio.TimerHandle | None = None
        self._given_up = False
        self._open: set[int] = set()
        self._unlisten = hub.listen(run.id, self._news.set)
        pen.on_dry = self._ended
        pen.on_told = self._ended

    @property
    def known(self) -> Mapping[str, Any]:
        """The fields of log lines that are said inside this call."""
        return known_of(self.run, self._pen.fence)

    def _ended(self) -> None:
        """The lease is lost, the store refused what was said, or a cancel was asked for."""
        self._news.set()
        self.on_end()

    def cancelled(self, reason: str) -> None:
        """A cancel was asked for on this replica."""
        self._pen.cancel = reason
        self._ended()

    async def ask(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask, and wait in memory for the answer. See seams.Channel."""
        if method != ELICIT and capability_for(method) not in self.run.call.capabilities:
            raise PeerError(METHOD_NOT_FOUND, f"the client of this run does not support {capability_for(method)}")
        self._asked += 1
        digest = question_digest(self.run.salt, method, params)
        number = self._asked_before(digest)
        if number is None:
            number = await self._put(method, params, digest)
        self._open.add(number)
        self._rest_soon()
        try:
            return replayed(await self._answered(number))
        except asyncio.CancelledError:
            await self._withdraw(number)
            raise
        finally:
            self._open.discard(number)

    async def _withdraw(self, number: int, *, written: bool = True) -> None:
        """The tool no longer waits for this answer, and works on: its client need not be asked any longer.

        A question that is on its way to the store (`written` False) is asked all the same, so it is closed once there.
        """
        if self._pen.dry or self._pen.cancel is not None or self._given_up:
            return  # the call is over, or given up here
        reply = Reply(result={"action": "cancel"})
        with anyio.CancelScope(shield=True), contextlib.suppress(StoreError, Signal):
            if not written:
                await self._pen.write()  # sheets go out in order
            await self._store.answer(self.run_id, {number: reply}, by=self.run.call.principal, via="withdrawn")

    async def _put(self, method: str, params: Mapping[str, Any], digest: str) -> int:
        self._numbers += 1
        number, within = self._numbers, self._tuning.answer_within
        self._pen.question(NewQuestion(number, method, dict(params), digest, str(number), expires_in=within))
        self._pen.event(NewEvent(EventKind.QUESTION, {"question": number}))
        try:
            await self._pen.write()
        except asyncio.CancelledError:
            await self._withdraw(number, written=False)
            raise
        return number

    def _asked_before(self, digest: str) -> int | None:
        """The same question of the call that was lost, where an operator has it run anew: it is not asked again."""
        earlier = self._earlier.get(self._asked)
        return earlier.id if earlier is not None and earlier.digest == digest else None

    def _rest_soon(self) -> None:
        """Once quiet, say that the call waits for its open questions: the modern wire answers then."""
        if self._resting is not None:
            self._resting.cancel()
        self._resting = asyncio.get_running_loop().call_later(self._tuning.quiet, self._rest)

    def _rest(self) -> None:
        self._resting = None
        if self._open and not self._pen.dry:
            self._pen.event(NewEvent(EventKind.STATE, {"state": RunState.WAITING.value}))
            self._pen.jot()

    async def _answered(self, number: int) -> Question:
        while True:
            self._news.clear()
            if self._pen.dry:
                raise Fenced
            if self._pen.cancel is not None:
                raise RunCancelled(self._pen.cancel)
            question = await self._question(number)
            if question is None or question.state is QuestionState.WITHDRAWN:
                raise QuestionExpired
            if question.state is not QuestionState.OPEN:
                return question
            await self._news.wait()

    async def _question(self, number: int) -> Question | None:
        loaded = await self._store.load(self.run_id)
        return None if loaded is None else next((q for q in loaded.questions if q.id == number), None)

    async def notify(self, method: str, params: Mapping[str, Any] | None) -> None:
        if self._pen.event_seq < self._tuning.max_events:
            self._pen.event(NewEvent(EventKind.NOTIFY, {"method": method, "params": dict(params or {})}))
            self._pen.jot()

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        if progress > self._progress:
            self._progress = progress
            self._pen.mark(progress=progress)
            self._hub.show(self.run_id, Glimpse(progress, total, message))

    async def run_with(self, kernel: Kernel) -> End:
        """Execute the whole call here (a tool made stateful without `replay = "safe"`)."""
        if self.run.epoch > 1:
            loaded = await self._store.load(self.run_id)
            questions = loaded.questions if loaded is not None else ()
            self._earlier = {question.id: question for question in questions if question.state in _STANDING}
            self._numbers = len(questions)
        main = asyncio.get_running_loop().create_task(kernel.execute(self.run.call, self))
        self.on_end = lambda: cancel_task(main)
        try:
            end = End(EndKind.COMPLETE, outcome=await asyncio.shield(main))
        except (Signal, asyncio.CancelledError) as signal:
            self._given_up = True  # before its task is cancelled: what it asks may be answered yet, in another process
            main.cancel()
            await asyncio.wait({main})
            if not isinstance(signal, Signal) and self._pen.cancel is None and not self._pen.dry:
                raise
            end = cancelled_end(self._pen.cancel or "cancelled", self._blank())
        return await self._closed(end)

    @staticmethod
    def _blank() -> Any:
        return End(EndKind.COMPLETE).batch

    async def _closed(self, end: End) -> End:
        self.close()
        if self._pen.lost:
            raise Fenced
        batch = await self._pen.last_sheet()
        if self._pen.refused is not None:
            text = f"the store refuses what the call of {self.run.tool!r} says ({self._pen.refused}), so it was ended"
            return End(EndKind.FAIL, outcome=error_outcome(text), reason=text)
        return End(end.kind, outcome=end.outcome, reason=end.reason, batch=batch)

    async def finish(self, outcome: Outcome) -> Run:
        """Store the result (the RESULT event). Raises Fenced if the call was buried meanwhile."""
        if self._pen.cancel is not None:
            return await self.abandon()
        return await self._settle(End(EndKind.COMPLETE, outcome=outcome))

    async def abandon(self, reason: str | None = None) -> Run:
        """The call ends without a result: cancelled, or its process is going away."""
        if reason is None:
            return await self._settle(cancelled_end(self._pen.cancel or "cancelled", self._blank()))
        return await self._settle(End(EndKind.FAIL, outcome=error_outcome(reason), reason=reason))

    async def _settle(self, end: End) -> Run:
        run = await self._store.settle(self._pen.fence, await self._closed(end))
        tell_settled(run, self._pen.fence)
        return run

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._unlisten()
        self.on_closed()
        if self._resting is not None:
            self._resting.cancel()


def cancel_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task; as a callback."""
    task.cancel()


def lost_words(tool: str) -> str:
    """What the caller of a lost hot call is told."""
    return (
        f"the server process that held this call of {tool!r} in its memory has ended, so the call is lost. What it did "
        "before that is not undone, and was not repeated. Call it again, or make it a workflow so that it survives."
    )


def bury(run: Run, *, declared: bool) -> End:
    """The end of a hot call whose replica is gone. `declared` (by `milepost.toml`): an operator decides."""
    text = lost_words(run.tool)
    if declared:
        return End(EndKind.GIVE_UP, reason=text)
    return End(EndKind.FAIL, outcome=error_outcome(text), reason="its replica ended")
