"""One attempt: one pass of a workflow's function over its journal, under a fence.

The function runs from the top. What is recorded returns at once; a new question is recorded, sent, and
waited for until nothing else can be done. Then the attempt is suspended: in one tick its scope is
cancelled and every pending wait raises `Suspended` (HAZARDS C1 and part 2, 4). From that tick on
nothing of it counts. How the attempt ended is read from its own record (`_stop`, `_failure`), never
from what the kernel returns, for frameworks mask, wrap and swallow exceptions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import anyio
import structlog

from milepost.core.attempts import Batch, End, EndKind, Loaded
from milepost.core.digest import question_digest
from milepost.core.errors import (
    AmbiguousCall,
    Fenced,
    LimitReached,
    MilepostError,
    MisplacedCall,
    PeerError,
    QuestionExpired,
    ReplayMismatch,
    RunCancelled,
    Signal,
    Suspended,
)
from milepost.core.records import EntryKind, EventKind, NewEvent, NewQuestion, Outcome, Question, QuestionState
from milepost.core.replay import Address, Replay
from milepost.core.replies import ELICIT, capability_for
from milepost.core.spec import WorkflowSpec
from milepost.engine.context import ATTEMPT, KEY, STAGES, STEP, RunInfo, branch
from milepost.engine.endings import cancelled_end, error_outcome, refused_end
from milepost.engine.hub import Glimpse
from milepost.engine.pen import Pen
from milepost.engine.progress import ProgressScale
from milepost.engine.tuning import Tuning
from milepost.engine.waits import Waits
from milepost.seams import Kernel

log = structlog.get_logger("milepost.engine")

METHOD_NOT_FOUND = -32601


class Stop(Enum):
    """Why an attempt was stopped before its function ended."""

    SUSPEND = "suspended"
    RELEASE = "given back"
    MISMATCH = "replay mismatch"
    LIMIT = "limit"
    LOST = "fence lost"
    REFUSED = "refused by the store"
    CLEANUP = "clean-up took too long"


@dataclass(frozen=True, slots=True)
class Choice:
    """The question that a new run of the same call begins with (DESIGN: same call, same run)."""

    params: Mapping[str, Any]
    settle: Callable[[str | None], Awaitable[bool]]
    """Given what was chosen; True: this run is merged into the other."""


class Outside(Protocol):
    """The little that an attempt needs from the process around it."""

    def show(self, run_id: str, glimpse: Glimpse) -> None:
        """Show ephemeral progress to those who watch the run."""
        ...

    async def value(self, run_id: str, n: int) -> str:
        """A journal value that was too large to come with the journal."""
        ...

    def limit_reached(self, run_id: str, reason: str) -> None:
        """The run used up its working time: cancel it."""
        ...


class Attempt:
    """The engine's side of one attempt, and the Channel that the kernel hands to the author's code."""

    def __init__(
        self,
        loaded: Loaded,
        pen: Pen,
        *,
        spec: WorkflowSpec,
        tuning: Tuning,
        outside: Outside,
        choice: Choice | None = None,
    ) -> None:
        run = loaded.run
        self.record = run
        self.info = RunInfo(
            run.id, run.tool, run.version, run.epoch, run.call.trace_id, run.call.principal, run.call.arguments
        )
        self.pen = pen
        self.spec = spec
        self.tuning = tuning
        self.replay = Replay(loaded.entries, loaded.questions)
        self.waits = Waits(tuning, self._at_rest)
        self.scale = ProgressScale(spec.stages, run.progress)
        self.last = run.cancel is not None
        """This is the one attempt in which clean-up may run."""
        self.park = False
        """The client closed its request: the run is parked when this attempt is suspended."""
        self._choice = choice
        self._outside = outside
        self._questions = len(loaded.questions)
        self._asked_in_a_row = _unproductive(loaded)
        self._notes: dict[str, int] = {}
        self._step_functions: dict[str, Callable[..., Any]] = {}
        self._depth = 0
        self._wish: Stop | None = None
        self._stop: Stop | None = None
        self._stop_error: MilepostError | None = None
        self._failure: Exception | None = None
        self._merged = False
        self._cancel_raised = False
        self._scope = anyio.CancelScope()
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        """Done once the function has ended, or was told to."""
        pen.on_dry = self._run_dry
        pen.on_told = self._hear_cancel

    # --- life -----------------------------------------------------------------------------------

    async def perform(self, kernel: Kernel) -> End:
        """Run the function once; returns how the run is to be given back. Raises Fenced if it was lost."""
        limit = self._watch_limit()
        main = self._loop.create_task(self._body(kernel))
        try:
            outcome = await self._unwound(main)
            self.waits.close()
            await self._finish_steps()
        finally:
            limit.cancel()
        if self.pen.lost:
            raise Fenced
        batch = await self.pen.last_sheet()
        if self.pen.refused is not None:
            return refused_end(self.info.id, self.pen.refused)
        return self._end(outcome, batch)

    def let_go(self) -> None:
        """Cut the rings of references that go through this attempt, after `perform`.

        Else all that it holds would wait for the collector, whose visits then cost more than the attempts do.
        """
        self.pen.let_go()
        self.waits.let_go()
        self.replay.restart()

    async def _body(self, kernel: Kernel) -> Outcome | None:
        outcome: Outcome | None = None
        token = ATTEMPT.set(self)
        with self._scope:
            outcome = await self._executed(kernel)
        ATTEMPT.reset(token)  # the scope knows this task, and the task would know this attempt
        return outcome

    async def _executed(self, kernel: Kernel) -> Outcome | None:
        try:
            if self._choice is not None and await self._choose(self._choice):
                self._merged = True
                return None
            return await kernel.execute(self.record.call, self)
        except Signal:
            return None  # what it means was noted when it was raised

    async def _choose(self, choice: Choice) -> bool:
        """Ask which of two runs of the same call to keep, and do it."""
        result = await self.ask(ELICIT, choice.params, key="milepost.same-run", identity=self.record.rival or "")
        content = result.get("content") if result.get("action") == "accept" else None
        return await choice.settle(content.get("choice") if isinstance(content, Mapping) else None)

    async def _unwound(self, main: asyncio.Task[Outcome | None]) -> Outcome | None:
        """Wait for the function; once stopped only for so long, then it is abandoned behind its fence."""
        main.add_done_callback(self._unblock)
        await self._over
        if not main.done():
            await asyncio.wait({main}, timeout=self.tuning.unwind_grace)
        if not main.done():
            log.warning("an attempt did not unwind; it is abandoned behind its fence", run_id=self.info.id)
            main.add_done_callback(_swallow)
            return None
        return self._taken(main)

    def _unblock(self, _: object = None) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _taken(self, main: asyncio.Task[Outcome | None]) -> Outcome | None:
        """What the function's task ended with; a surprise counts as the function's failure."""
        if main.cancelled():  # by the author's own code: the engine cancels its scope, never the task
            error: BaseException | None = asyncio.CancelledError("the workflow cancelled its own task")
        else:
            error = main.exception()
        if error is None:
            return main.result()
        if self._stop is None:
            log.error("the kernel raised", run_id=self.info.id, exc_info=error)
            self._failure = error if isinstance(error, Exception) else RuntimeError(repr(error))
        return None

    async def _finish_steps(self) -> None:
        """Steps in flight end and are recorded, unless the fence is gone: then they are torn."""
        while steps := self.waits.steps:
            if self.pen.lost:
                _cancel_all(steps)
            await asyncio.wait(steps)

    # --- how it ended ---------------------------------------------------------------------------

    def _end(self, outcome: Outcome | None, batch: Batch) -> End:
        match self._stop:
            case Stop.SUSPEND:
                asked = frozenset(self.waits.questions)
                return End(EndKind.SUSPEND, self.pen.seen, asked, self.waits.timer_in(), self.park, batch=batch)
            case Stop.RELEASE:
                return End(EndKind.RELEASE, batch=batch)
            case Stop.MISMATCH:
                return End(EndKind.GIVE_UP, reason=str(self._stop_error), batch=batch)
            case Stop.LIMIT:
                text = str(self._stop_error)
                return End(EndKind.FAIL, outcome=error_outcome(text), reason=text, batch=batch)
        if self._merged:
            reason = "merged into the earlier run of the same call"
            return End(EndKind.END_CANCELLED, merged_into=self.record.rival, reason=reason, batch=batch)
        if self._cancel_raised or self._stop is Stop.CLEANUP:
            return cancelled_end(self.pen.cancel or "cancelled", batch)
        if self._failure is not None or outcome is None:
            return self._failed(outcome, batch)
        return End(EndKind.COMPLETE, outcome=outcome, batch=batch)

    def _failed(self, outcome: Outcome | None, batch: Batch) -> End:
        """The function raised. Our own errors are told in full; of others the kernel decides what callers see."""
        failure = self._failure
        kind = EndKind.EXPIRE if isinstance(failure, QuestionExpired) else EndKind.FAIL
        if isinstance(failure, MilepostError):
            outcome = error_outcome(str(failure))
        reason = f"{type(failure).__name__}: {failure}" if failure is not None else "the kernel gave no result"
        return End(
            kind, outcome=outcome or error_outcome(f"Error executing tool {self.info.tool}"), reason=reason, batch=batch
        )

    def entered(self) -> None:
        """The workflow's function is entered: occurrences count anew (a framework may call it twice)."""
        self._depth += 1
        if self._depth == 1:
            self.replay.restart()
            self._notes.clear()
            self._failure = None

    def left(self, error: Exception | None) -> None:
        """The workflow's function is left, by this exception if any; what the outermost one raises counts."""
        self._depth -= 1
        if self._depth == 0 and self._stop is None:
            self._failure = error

    # --- stopping -------------------------------------------------------------------------------

    def _halt(self, stop: Stop, error: MilepostError | None = None) -> None:
        """End the attempt now: cancel its scope, and in the same tick raise Suspended in every wait."""
        if self._stop is None:
            self._stop, self._stop_error = stop, error
            self._scope.cancel()
            self.waits.close()
            self._unblock()

    def _run_dry(self) -> None:
        """Nothing more can be written. Steps in flight are torn only if the run is another attempt's by now."""
        if self.pen.lost:
            _cancel_all(self.waits.steps)
        self._halt(Stop.LOST if self.pen.lost else Stop.REFUSED)

    def wish(self, stop: Stop) -> None:
        """Asked from outside (cancel, park, drain) to stop at the next safe point: no new step starts."""
        if self._wish is None:
            self._wish = stop
        self._yield_if_idle()

    def tear(self) -> None:
        """The drain limit is over: steps in flight are cut and left unrecorded."""
        _cancel_all(self.waits.steps)
        self._halt(Stop.RELEASE)

    def _hear_cancel(self) -> None:
        """A cancel was asked for elsewhere. Never in the last attempt, which knows of it already."""
        self.wish(Stop.SUSPEND)

    @property
    def _yielding(self) -> bool:
        """Whether the attempt is to stop as soon as no step works. Clean-up goes on, but for a drain."""
        return self._wish is Stop.RELEASE or (self._wish is not None and not self.last)

    def _yield_if_idle(self) -> None:
        if self._yielding and self.waits.idle and self._wish is not None:
            self._halt(self._wish)

    def _watch_limit(self) -> asyncio.TimerHandle:
        if self.last:
            return self._loop.call_later(self.tuning.cleanup_limit, self._overrun_cleanup)
        left = (self.spec.timeout or self.tuning.run_timeout) - self.pen.working()
        return self._loop.call_later(max(0.0, left), self._reach_limit)

    def _reach_limit(self) -> None:
        limit = self.spec.timeout or self.tuning.run_timeout
        self._outside.limit_reached(self.info.id, f"limit: {limit:g} s of work for the whole run")

    def _at_rest(self, held: Address | None) -> None:
        if held is None:
            self._halt(Stop.SUSPEND)
        else:
            self._halt(Stop.MISMATCH, ReplayMismatch(str(held), str(self.replay.held_back_by(held.name))))

    # --- what the verbs share --------------------------------------------------------------------

    def ensure_open(self) -> None:
        """Raise Suspended if nothing of this attempt counts any more."""
        if self.waits.closed:
            raise Suspended

    async def admit(self, address: Address, *, is_step: bool) -> None:
        """May this call, which the journal does not answer, go ahead? Waits until it may.

        Raises RunCancelled (the run is being cancelled), StageTimeout, Suspended (also where a limit ends the run).
        """
        if self.last and not (is_step and self._cancel_raised):
            self._raise_cancelled()
        for stage in STAGES.get():
            stage.check()
        while not self.record.accept_drift and self.replay.held_back_by(address.name) is not None:
            await self.waits.hold(address)
        while self._yielding:
            self._yield_if_idle()
            await self.waits.hold(None)
        self.ensure_open()
        self._check_limits(is_step)

    def _raise_cancelled(self) -> None:
        self._cancel_raised = True
        raise RunCancelled(self.pen.cancel or "cancelled")

    def _overrun_cleanup(self) -> None:
        log.warning("the clean-up of a cancelled run took too long and was cut", run_id=self.info.id)
        _cancel_all(self.waits.steps)
        self._halt(Stop.CLEANUP)

    def _check_limits(self, is_step: bool) -> None:
        tuning, tool = self.tuning, self.info.tool
        if self.pen.entries >= tuning.max_entries:
            self._exceed(f"journal limit: {tuning.max_entries} entries; a loop in {tool!r} calls too many steps")
        if self.pen.event_seq >= tuning.max_events:
            self._exceed(f"event limit: {tuning.max_events} events; {tool!r} says too much")
        if not is_step and self._asked_in_a_row >= tuning.max_questions:
            self._exceed(
                f"question limit: {tuning.max_questions} questions in a row and no step finished between them; "
                f"a loop in {tool!r} keeps asking"
            )

    def _exceed(self, message: str) -> None:
        self._halt(Stop.LIMIT, LimitReached(message))
        raise Suspended

    def know_step(self, name: str, function: Callable[..., Any]) -> None:
        """Raise AmbiguousCall if another step function of this run has the same name: their records would mix."""
        if self._step_functions.setdefault(name, function) is not function:
            raise AmbiguousCall(f"two different steps are called {name!r}: give one of them `@step(name=...)`")

    def start_step(self, task: asyncio.Task[Any]) -> None:
        """A step works in `task` from now on."""
        self.waits.run(task, self._yield_if_idle)

    def step_finished(self) -> None:
        """A step was recorded: the run makes progress."""
        self._asked_in_a_row = 0

    def wall(self) -> float:
        """UTC seconds by the store's clock, which another replica may compare with."""
        return self.pen.wall()

    async def value(self, n: int) -> str:
        """The value of journal entry `n`."""
        return await self._outside.value(self.info.id, n)

    async def write(self) -> None:
        """Write what is on the pen's sheet; returns when it is durable. Raises Fenced, Suspended."""
        self.waits.write_begins()
        try:
            await self.pen.write()
        finally:
            self.waits.write_ends()

    # --- the channel ----------------------------------------------------------------------------

    async def ask(
        self, method: str, params: Mapping[str, Any], *, key: str | None = None, identity: str | None = None
    ) -> Mapping[str, Any]:
        """Ask the client; returns its result once one was given. See seams.Channel.

        `identity` stands for the params in the digest where these may change between attempts.
        """
        self.ensure_open()
        if STEP.get() is not None:
            raise MisplacedCall(
                "a question can't be asked inside a step: ask first, then call the step with the answer"
            )
        self._need_capability(method)
        asked = params if identity is None else {"identity": identity}
        digest = question_digest(self.record.salt, method, asked)
        address = self.replay.address(method, digest, KEY.get() if key is None else key, branch())
        recorded = self.replay.reach_question(address)
        self.waits.reached(address)
        if recorded is not None and recorded.state is not QuestionState.OPEN:
            return replayed(recorded)
        await self.admit(address, is_step=False)
        question = recorded.id if recorded is not None else await self._put(address, method, params)
        return await self.waits.answer(question)

    def _need_capability(self, method: str) -> None:
        """Sampling and roots go only to a client that declared them at the run's first call (DESIGN section 4)."""
        if method != ELICIT and capability_for(method) not in self.record.call.capabilities:
            raise PeerError(METHOD_NOT_FOUND, f"the client of this run does not support {capability_for(method)}")

    async def _put(self, address: Address, method: str, params: Mapping[str, Any]) -> int:
        """Record a new question, and so send it; returns its id."""
        self._questions += 1
        self._asked_in_a_row += 1
        specs = [stage.spec for stage in STAGES.get()]
        question = NewQuestion(
            id=self._questions,
            method=method,
            params=dict(params),
            digest=address.digest,
            key=address.key,
            occurrence=address.occurrence,
            stage=specs[-1].name if specs else None,
            expires_in=min((s.answer_within for s in specs if s.answer_within), default=self.tuning.answer_within),
        )
        self.pen.question(question)
        self.pen.event(NewEvent(EventKind.QUESTION, {"question": question.id}))
        await self.write()
        self.ensure_open()
        return question.id

    async def notify(self, method: str, params: Mapping[str, Any] | None) -> None:
        """Send a notification, once: the n-th of its kind that was sent before is not sent again (HAZARDS D1)."""
        nth = self._notes[method] = self._notes.get(method, 0) + 1
        sent_before = nth <= self.replay.notes.get(method, 0)
        if self.waits.closed or sent_before or self.pen.event_seq >= self.tuning.max_events:
            return
        self.pen.entry(EntryKind.NOTE, method, occurrence=nth)
        self.pen.event(NewEvent(EventKind.NOTIFY, {"method": method, "params": dict(params or {})}))
        if self.pen.unwritten < self.tuning.max_unwritten:
            self.pen.jot()
        else:
            await self.write()  # a tool that talks faster than the store writes waits for it

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        """Show progress within the current stage's share; it never falls below what was shown."""
        stages = STAGES.get()
        shown = self.scale.report(stages[-1].spec.name if stages else None, progress, total)
        if shown is not None and not self.waits.closed:
            self.pen.mark(progress=shown)
            self._outside.show(self.info.id, Glimpse(shown, self.scale.total or total, message))


def replayed(question: Question) -> Mapping[str, Any]:
    """The recorded reply: returned, or raised, as it came."""
    if question.state is QuestionState.EXPIRED or question.reply is None:
        raise QuestionExpired
    error = question.reply.error
    if error is not None:
        raise PeerError(int(error.get("code", 0)), str(error.get("message", "")), error.get("data"))
    return question.reply.result or {}


def _unproductive(loaded: Loaded) -> int:
    """How many questions were asked since the last finished step."""
    done = max((entry.at for entry in loaded.entries if entry.kind is EntryKind.DONE), default=0.0)
    return sum(1 for question in loaded.questions if question.asked_at > done)


def _cancel_all(tasks: Collection[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()


def _swallow(task: asyncio.Task[Any]) -> None:
    _ = task.cancelled() or task.exception()
