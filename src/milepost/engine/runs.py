"""Runs: the engine's front door, one per replica. Surfaces call, attach, answer, watch and cancel through it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from milepost.core import ids
from milepost.core.attempts import Claimant, Created, Loaded
from milepost.core.digest import canonical_json, digest
from milepost.core.errors import CallerError, CallIdUsed, RequestIdUsed, StoreError, UnknownRun
from milepost.core.outside import Action, ActionKind, Find, Verdict
from milepost.core.records import (
    OPERATOR,
    CallContext,
    Delivery,
    JSONObject,
    Lane,
    NewRun,
    Principal,
    Question,
    QuestionState,
    Reply,
    Rival,
    Run,
    Stream,
)
from milepost.core.replies import fault
from milepost.core.same_call import (
    START_ANOTHER,
    START_OVER,
    AskWhich,
    Attach,
    Decision,
    Refuse,
    WaitToKnow,
    decide,
    is_same_call,
    which_question,
)
from milepost.core.spec import Catalogue, SameRun, WorkflowSpec
from milepost.core.states import RunState
from milepost.core.versions import Need
from milepost.engine.admission import Admission, Place
from milepost.engine.attempt import Choice, Stop
from milepost.engine.executor import Executor
from milepost.engine.hot import HotCall, lost_words
from milepost.engine.hub import Feed, Glimpse, Hub
from milepost.engine.lines import tell_begun
from milepost.engine.roster import Roster
from milepost.engine.scheduler import LeaseScheduler
from milepost.engine.tuning import Tuning
from milepost.seams import Backend, Clock, Kernel, Store

__all__ = ["Feed", "Glimpse", "HotCall", "Ruling", "Runs"]

log = structlog.get_logger("milepost.engine")

_DOUBT_PAUSE = 0.2
"""Seconds between two looks while it isn't known whether another connection lives (at most a lease)."""
_SAME_RUN_KEY = "milepost.same-run"


@dataclass(frozen=True, slots=True)
class Ruling:
    """What became of one reply, and why, in words for the person who gave it."""

    verdict: Verdict
    reason: str = ""


class Runs:
    """Everything a surface may do with runs."""

    def __init__(
        self,
        store: Store,
        kernel: Kernel,
        catalogue: Catalogue,
        *,
        clock: Clock,
        tuning: Tuning | None = None,
        replica: str | None = None,
        release: str = "",
        schedule: Callable[[Executor, Claimant], Backend] | None = None,
    ) -> None:
        self.store = store
        self.catalogue = catalogue
        self.tuning = tuning or Tuning()
        self.replica = replica or f"replica-{secrets.token_hex(6)}"
        self.hub = Hub(store)
        self.executor = Executor(store, kernel, catalogue, self.hub, clock, self.tuning)
        self.executor.choice_of = self._choice_of
        self._claimant = Claimant(self.replica, self.tuning.lease, catalogue.accepted(), release)
        self.roster = Roster(store, clock, self._claimant)
        make = schedule or (lambda executor, claimant: LeaseScheduler(store, executor, claimant, clock))
        self.backend: Backend = make(self.executor, self._claimant)
        self.admission = Admission(self.tuning.new_calls(), has_room=self.backend.has_room)
        self.executor.on_cancel = self.backend.wake
        self.executor.on_needs = self.roster.look_at
        self.executor.on_room = self.admission.admit
        self.hub.elsewhere = self.backend.elsewhere
        self._clock = clock
        self._release = release
        self._noise = secrets.token_bytes
        self._kept: set[asyncio.Task[Any]] = set()
        self._hot: dict[str, HotCall] = {}
        self._unwatch: Callable[[], None] = lambda: None
        self._rivals: dict[str, Rival] = {}
        self._call_secret = b""

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Join the store as a replica and begin to work. The store is open."""
        await self.store.join(self.replica, release=self._release, accepts=self._claimant.accepts)
        self.store.on_doubt(self.executor.doubt)
        self._call_secret = self.store.secret("same-call")
        self._unwatch = self.store.watch(self.hub.changed, self.hub.watched)
        self.backend.start()

    async def drain(self) -> None:
        """Take no more work, give every run back, end what was kept, leave the store. Idempotent."""
        await self.backend.drain()
        for hot in list(self._hot.values()):
            await self._give_up_hot(hot)
        for task in list(self._kept):
            task.cancel()
        if self._kept:
            await asyncio.wait(set(self._kept), timeout=self.tuning.unwind_grace)
        self._unwatch()
        await self.store.leave(self.replica)

    async def _give_up_hot(self, hot: HotCall) -> None:
        try:
            await hot.abandon(lost_words(hot.run.tool))
        except BaseException as error:
            log.warning("a hot call could not be ended", run_id=hot.run_id, error=repr(error))

    def keep(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` in a task that the engine owns: it outlives the request that began it, and ends at drain."""
        task = asyncio.get_running_loop().create_task(work)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        return task

    # --- calls ----------------------------------------------------------------------------------

    async def call(self, call: CallContext, stream: Stream, *, call_id: str | None = None) -> Stream:
        """Start a run of a workflow, or attach to the one that this call belongs to (same call, same run).

        `stream.run_id` is ignored; the stored stream comes back with its run and whether it was attached.
        The same call again, with the same (session, request id), gets the stream of the first; with the same `call_id`
        (`ids.CALL_ID`), a stream on the run of the first. Raises CallerError (RequestIdUsed, CallIdUsed, where another
        call has that id), Overloaded (there is no room for a new run).
        """
        spec = self.catalogue.specs.get(call.tool)
        if spec is None:
            raise CallerError(f"{call.tool!r} is no workflow of this server")
        who = caller_of(call.principal, call.session)
        new = await self._new_run(call, spec, stream, call_id, who)
        place = self.admission.enter_nowait(who)
        rivals: dict[str, Rival] = {}
        try:
            while True:
                made = await self._create(new, stream, rivals, full=place is None)
                if isinstance(made, Created):
                    if made.stream.id != stream.id:
                        _check_repeated(made.run, new)
                    place = self._begun(made, place)
                    return made.stream
                if not made:
                    place = await self.admission.enter(who)
                    continue
                rivals.update((rival.run.id, rival) for rival in made)
                match self._decide(call, new.call_id, rivals, self._policy(spec)):
                    case Attach(run_id):
                        return await self._attach(run_id, replace(stream, attached=True))
                    case AskWhich(run_id):
                        new = replace(new, rival=run_id)
                        self._rivals[new.id] = rivals[run_id]
                    case WaitToKnow():
                        rivals.clear()
                        await asyncio.sleep(_DOUBT_PAUSE)
                    case Refuse():
                        raise CallIdUsed
                # Else Start: none of the rivals stands in the way.
        finally:
            if place is not None:
                place.leave()

    def _policy(self, spec: WorkflowSpec) -> SameRun:
        return spec.same_run or self.tuning.same_call.policy

    def _decide(self, call: CallContext, call_id: str | None, rivals: Mapping[str, Rival], policy: SameRun) -> Decision:
        rules = replace(self.tuning.same_call, policy=policy)
        return decide(list(rivals.values()), rules, call, call_id)

    async def _create(
        self, new: NewRun, stream: Stream, rivals: Mapping[str, Rival], *, full: bool
    ) -> Created | Sequence[Rival]:
        stream = replace(stream, run_id=new.id, replica=self.replica)
        mine = new.lane is Lane.HOT or self.roster.may_run(Need(new.tool, new.version, new.given_to))
        claim = self.backend.claimant() if mine else None
        return await self.store.create(new, stream, known=rivals.keys(), claim=claim, full=full)

    def _begun(self, made: Created, place: Place | None) -> Place | None:
        """Begin the attempt of a run that was made; its place is its own from then on, and else comes back."""
        if made.claim is None:
            self.backend.wake(made.run.id)
            return place
        if place is not None and made.run.lane is not Lane.HOT:  # a hot one waits for its person inside its attempt
            self.executor.when_over(made.claim, place.leave)
            place = None
        self.hub.made(made.run.id)
        self.backend.begin(made.claim, Loaded(made.claim.run, (), ()))
        return place

    async def _new_run(
        self, call: CallContext, spec: WorkflowSpec, stream: Stream, call_id: str | None, who: str
    ) -> NewRun:
        run_id = ids.run_id(self._clock.wall(), self._noise(10))
        given_to, version = "", spec.version
        if spec.replay_safe:
            given_to, version = await self.roster.place(call.tool, spec.version, who.encode() or self._noise(16))
        return NewRun(
            id=run_id,
            tool=call.tool,
            version=version,
            lane=Lane.WORKFLOW if spec.replay_safe else Lane.HOT,
            call=call,
            call_key=self._call_key(call, spec.same_run_by),
            scope=_scope(call, stream) if self._policy(spec) != "never" else run_id,
            salt=self._noise(16),
            release=self._release,
            given_to=given_to,
            call_id=self._id_key(call.principal, call_id),
        )

    def _call_key(self, call: CallContext, by: Sequence[str] | None) -> str:
        said = call.arguments if by is None else {name: call.arguments.get(name) for name in by}
        return digest(self._call_secret, call.tool, canonical_json(said))

    def _id_key(self, principal: Principal, call_id: str | None) -> str | None:
        """Of nothing but the caller and the id, so that the same id with other arguments is seen, and refused."""
        if call_id is None:
            return None
        return digest(self._call_secret, "call id", canonical_json(list(principal.owner)), call_id)

    async def open_hot(self, call: CallContext, stream: Stream) -> HotCall:
        """Give a stateless call that asks, closes its stream or runs long a run in lane `hot`."""
        run_id = ids.run_id(self._clock.wall(), self._noise(10))
        new = NewRun(
            run_id,
            call.tool,
            1,
            Lane.HOT,
            call,
            call_key=run_id,
            scope=run_id,
            salt=self._noise(16),
            release=self._release,
        )
        stream = replace(stream, run_id=run_id, replica=self.replica)
        made = await self.store.create(new, stream, known=(), claim=self._claimant)
        if isinstance(made, Created) and made.stream.id != stream.id:
            raise RequestIdUsed(stream.request_id)
        if not isinstance(made, Created) or made.claim is None:
            raise StoreError("the store did not hand out the run that was just made")
        tell_begun(made.claim)
        pen = self.executor.pen(made.claim)
        hot = HotCall(made.claim.run, pen, self.store, self.hub, self.tuning)
        end = self.executor.keep_alive(pen)

        def closed() -> None:
            self._hot.pop(run_id, None)
            end()

        self._hot[run_id] = hot
        hot.on_closed = closed
        return hot

    async def attach(self, run_id: str, stream: Stream) -> Stream:
        """Open a stream on an existing run by its handle. A parked run goes on. Raises UnknownRun, RequestIdUsed."""
        run = await self.run(run_id)
        if run is None or run.call.principal.owner != stream.owner.owner:
            raise UnknownRun(f"there is no run {run_id!r} of yours")
        return await self._attach(run_id, stream)

    async def _attach(self, run_id: str, stream: Stream) -> Stream:
        opened = await self.store.open_stream(replace(stream, run_id=run_id, replica=self.replica))
        if opened.run_id != run_id:
            raise RequestIdUsed(stream.request_id)
        attempt = self.executor.attempt(run_id)
        if attempt is not None:
            attempt.park = False
        run = await self.store.steer(run_id, Action(ActionKind.ATTACH))
        if run is not None and run.state is RunState.READY:
            self.backend.wake(run_id)
        return opened

    async def detach(self, stream: Stream, *, delivery: Delivery | None = None, park: bool = False) -> None:
        """The stream's connection is gone. Idempotent.

        `delivery`: SENT once the final frame was written, CONFIRMED on proof that it arrived.
        `park`: the client closed a modern request, which is a cancellation of that request: a step in flight
        is finished and recorded, then the run is parked, unless another live stream is on it.
        """
        await self.store.close_stream(stream.id, delivery=delivery)
        if not park:
            return
        run = await self.store.steer(stream.run_id, Action(ActionKind.PARK, park_for=self.tuning.park_for))
        attempt = self.executor.attempt(stream.run_id)
        if run is not None and run.state is RunState.RUNNING and run.park_asked and attempt is not None:
            attempt.park = True
            attempt.wish(Stop.SUSPEND)

    # --- reading --------------------------------------------------------------------------------

    async def run(self, run_id: str) -> Run | None:
        """The run as it is now, or None."""
        loaded = await self.store.load(run_id) if ids.RUN_ID.match(run_id) else None
        return None if loaded is None else loaded.run

    async def held_up(self, run_id: str) -> str | None:
        """Why nobody goes on with a run although it is a replica's turn, in words; None where that isn't so."""
        return await self.roster.held_up(run_id, lambda: self.run(run_id))

    async def load(self, run_id: str) -> Loaded | None:
        """The run with its journal and questions, or None."""
        return await self.store.load(run_id)

    async def find(self, query: Find) -> Sequence[Run]:
        """List runs, newest first."""
        return await self.store.find(query)

    async def open_questions(self, run_id: str) -> Sequence[Question]:
        """The run's open questions, in order."""
        loaded = await self.store.load(run_id)
        return [] if loaded is None else [q for q in loaded.questions if q.state is QuestionState.OPEN]

    def feed(self, run_id: str, *, after: int = 0) -> Feed:
        """Watch a run from an event on. Use as a context manager, or close it."""
        return self.hub.feed(run_id, after)

    # --- answering and steering -----------------------------------------------------------------

    async def answer(
        self, run_id: str, replies: Mapping[int, Reply], *, by: Principal, via: str, reask: bool = True
    ) -> Mapping[int, Ruling]:
        """Check replies against their questions and record the good ones: one transaction, one wake.

        A bad one leaves its question open; with `reask` the question is shown again with the reason.
        Returns once everything is durable.
        """
        loaded = await self.store.load(run_id)
        if loaded is None or not _may_answer(loaded.run, by):
            return {number: Ruling(Verdict.UNKNOWN, "there is no such question of yours") for number in replies}
        questions = {question.id: question for question in loaded.questions}
        rulings = {n: _check(questions.get(n), reply) for n, reply in replies.items()}
        good = {n: reply for n, reply in replies.items() if rulings[n] is None}
        verdicts = await self.store.answer(run_id, good, by=by, via=via) if good else {}
        self.backend.wake(run_id)
        if reask:
            await self._reask(run_id, rulings)
        return {n: rulings[n] or Ruling(verdicts[n], _WORDS[verdicts[n]]) for n in replies}

    async def _reask(self, run_id: str, rulings: Mapping[int, Ruling | None]) -> None:
        for number, ruling in rulings.items():
            if ruling is not None and ruling.verdict is Verdict.INVALID:
                action = Action(ActionKind.REASK, question=number, note=ruling.reason)
                await self.store.steer(run_id, action)

    async def cancel(self, run_id: str, *, reason: str) -> Run | None:
        """Cancel: one last attempt may clean up. Returns the run, None if there is none."""
        hot = self._hot.get(run_id)
        run = await self.executor.cancel(run_id, reason)
        if hot is not None and run is not None and run.cancel is not None:
            hot.cancelled(run.cancel)
        return run

    async def retry(self, run_id: str, *, accept_drift: bool = False) -> Run | None:
        """The way out of `stuck` and `parked`."""
        run = await self.store.steer(run_id, Action(ActionKind.RETRY, accept_drift=accept_drift))
        self.backend.wake(run_id)
        return run

    # --- same call, same run --------------------------------------------------------------------

    async def _choice_of(self, loaded: Loaded) -> Choice | None:
        """The question with which a run begins that has a rival; what it says is pinned once it was asked."""
        rival_id = loaded.run.rival
        if rival_id is None:
            return None
        asked = next((q for q in loaded.questions if q.key == _SAME_RUN_KEY), None)
        params: JSONObject | None = asked.params if asked is not None else await self._ask_about(loaded.run, rival_id)
        if params is None:
            return None

        async def settle(chosen: str | None) -> bool:
            if chosen == START_OVER:
                await self.executor.cancel(rival_id, "its caller started over")
            return chosen not in (START_OVER, START_ANOTHER)

        return Choice(params, settle)

    async def _ask_about(self, run: Run, rival_id: str) -> JSONObject | None:
        known = self._rivals.pop(run.id, None)
        if known is not None:
            return which_question(known)
        rival = await self.store.load(rival_id)
        if rival is None:
            return None
        return which_question(Rival(rival.run, live=False, doubtful=False, orphaned_for=0.0, questions=rival.questions))


_WORDS = {
    Verdict.ACCEPTED: "",
    Verdict.REPEATED: "",
    Verdict.CLOSED: "the question is closed: it was answered already, it expired, or it is no longer asked",
    Verdict.UNKNOWN: "there is no such question",
    Verdict.INVALID: "",
}


def _check(question: Question | None, reply: Reply) -> Ruling | None:
    """A ruling against a reply, or None where the store may decide."""
    if question is None:
        return Ruling(Verdict.UNKNOWN, _WORDS[Verdict.UNKNOWN])
    if question.state is not QuestionState.OPEN:
        return None
    reason = fault(question, reply)
    return None if reason is None else Ruling(Verdict.INVALID, reason)


def _check_repeated(run: Run, new: NewRun) -> None:
    """The request's id has its run already: raises RequestIdUsed, CallIdUsed where that is another call's."""
    if new.call_id is not None and run.call_id == new.call_id and not is_same_call(run, new.call):
        raise CallIdUsed
    if (run.call_key, run.call_id) != (new.call_key, new.call_id):
        raise RequestIdUsed(new.call.request_id)


def _may_answer(run: Run, by: Principal) -> bool:
    return by == OPERATOR or run.call.principal.owner == by.owner


def caller_of(principal: Principal, session: str | None) -> str:
    """Whose work a call counts as: its principal's, or, where nobody said who calls, its session's; "" for nobody's."""
    return canonical_json(list(principal.owner)) if any(principal.owner) else session or ""


def _scope(call: CallContext, stream: Stream) -> str:
    """Who may attach by making the same call (DESIGN section 3): a person anywhere, a session, else nobody."""
    principal = call.principal
    if principal.person:
        return "person:" + canonical_json(list(principal.owner))
    return f"session:{call.session}" if call.session else f"stream:{stream.id}"
