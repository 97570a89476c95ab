"""The executor: runs one attempt of a claimed run and gives it back. Who claims, and when, it doesn't know.

Leases decide that on SQLite and PostgreSQL (`engine/scheduler.py`); a small in-memory scheduler does in
the tests; some day Temporal may. Whoever it is claims a run, hands the claim over, and is told how the
run now stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

import structlog
from structlog.contextvars import bind_contextvars, reset_contextvars

from milepost.core.attempts import Claim, End, EndKind, Loaded
from milepost.core.errors import Fenced, StoreError, StoreUnavailable
from milepost.core.outside import Action, ActionKind
from milepost.core.records import Lane, Run
from milepost.core.spec import Catalogue, WorkflowSpec
from milepost.core.versions import Need
from milepost.engine.attempt import Attempt, Choice, Stop
from milepost.engine.endings import refused_end
from milepost.engine.hot import HotCall, bury
from milepost.engine.hub import Glimpse, Hub
from milepost.engine.lines import known_of, tell_begun, tell_settled
from milepost.engine.pen import Pen, PenLimits
from milepost.engine.tuning import Tuning
from milepost.seams import Clock, Kernel, RunStore

log = structlog.get_logger("milepost.engine")


class Executor:
    """Runs attempts in this process. Is the `Outside` of each."""

    def __init__(
        self, store: RunStore, kernel: Kernel, catalogue: Catalogue, hub: Hub, clock: Clock, tuning: Tuning
    ) -> None:
        self.tuning = tuning
        self.choice_of: Callable[[Loaded], Awaitable[Choice | None]] = _no_choice
        """Makes the first question of a run that has a rival; set by whoever takes calls."""
        self.on_cancel: Callable[[str], None] = lambda _: None
        """Told of a run that may be claimed for its clean-up; set by the scheduler."""
        self.on_needs: Callable[[Collection[Need]], Awaitable[None]] = _no_needs
        """Told by the scheduler what the runs need that wait for a replica."""
        self.on_room: Callable[[], None] = lambda: None
        """Told by the scheduler that there may be room for another attempt."""
        self._store = store
        self._kernel = kernel
        self._catalogue = catalogue
        self._hub = hub
        self._clock = clock
        self._attempts: dict[str, Attempt] = {}
        self._pens: dict[str, Pen] = {}
        self._when_over: dict[str, Callable[[], None]] = {}
        self._draining = False

    async def execute(self, claim: Claim, loaded: Loaded | None = None, *, pen: Pen | None = None) -> Run:
        """Run one attempt of a claimed run and give it back; returns the run as it now is.

        `loaded`: its journal, where it is known. `pen`: where one was made when it was claimed.
        Raises Fenced if it was taken over meanwhile, StoreError if the store can't be told.
        """
        bound = bind_contextvars(**known_of(claim.run, claim.fence))
        try:
            tell_begun(claim)
            try:
                run = await self._execute(claim, loaded, pen)
            finally:
                self._when_over.pop(claim.fence.attempt_id, _nothing)()
            tell_settled(run, claim.fence)
            return run
        finally:
            reset_contextvars(**bound)

    def when_over(self, claim: Claim, call: Callable[[], None]) -> None:
        """Call `call` once the attempt of this claim is over, however it ends."""
        self._when_over[claim.fence.attempt_id] = call

    async def _execute(self, claim: Claim, loaded: Loaded | None, pen: Pen | None) -> Run:
        if (end := self._without_running(claim)) is not None:
            return await self._store.settle(claim.fence, end)
        pen = pen or self.pen(claim)
        end_beat = self.keep_alive(pen)
        try:
            loaded = loaded or await self._load(claim)
            return await self._settle(claim, await self._perform(loaded, pen))
        finally:
            end_beat()

    async def _settle(self, claim: Claim, end: End) -> Run:
        """Store the end; where the store is well and refuses what the attempt last recorded, without that."""
        try:
            return await self._store.settle(claim.fence, end)
        except StoreUnavailable:
            raise
        except StoreError as error:
            log.exception("the store refused what an attempt recorded last", run_id=claim.run.id)
            return await self._store.settle(claim.fence, refused_end(claim.run.id, error))

    async def _load(self, claim: Claim) -> Loaded:
        loaded = await self._store.load(claim.run.id)
        if loaded is None:
            raise Fenced
        return Loaded(claim.run, loaded.entries, loaded.questions)

    async def _perform(self, loaded: Loaded, pen: Pen) -> End:
        run = loaded.run
        if run.lane is Lane.HOT:
            # Made stateful without `replay = "safe"`: it runs once, in memory, and is never run again.
            return await HotCall(run, pen, self._store, self._hub, self.tuning).run_with(self._kernel)
        spec = self._catalogue.specs.get(run.tool, WorkflowSpec())
        choice = await self.choice_of(loaded)
        attempt = Attempt(loaded, pen, spec=spec, tuning=self.tuning, outside=self, choice=choice)
        self._attempts[run.id] = attempt
        if self._draining:
            attempt.wish(Stop.RELEASE)
        try:
            return await attempt.perform(self._kernel)
        finally:
            self._attempts.pop(run.id, None)
            attempt.let_go()

    def _without_running(self, claim: Claim) -> End | None:
        """The end of a run that must not be run: one that kills its process, or a hot one that lost its replica."""
        run = claim.run
        if run.crashes >= self.tuning.crashes_stuck:
            reason = f"its process died {run.crashes} times while it ran; `milepost runs retry {run.id}` tries again"
            return End(EndKind.GIVE_UP, reason=reason)
        if run.lane is Lane.HOT and (claim.takeover or run.crashes):  # a suspect that was lost is claimed as ready
            return bury(run, declared=run.tool in self._catalogue.specs)
        return None

    def attempt(self, run_id: str) -> Attempt | None:
        """The attempt of this run that runs here, if one does."""
        return self._attempts.get(run_id)

    @property
    def busy(self) -> bool:
        """Whether any attempt runs here."""
        return bool(self._attempts)

    # --- leases ---------------------------------------------------------------------------------

    def pen(self, claim: Claim) -> Pen:
        """A pen for a claimed run."""
        limits = PenLimits(self.tuning.lease, self.tuning.lease_margin, self.tuning.linger)
        return Pen(self._store, claim, self._clock, limits)

    def pens(self) -> Mapping[str, Pen]:
        """The pens whose leases the heart renews, by attempt id. A copy: the heart has its own thread."""
        return dict(self._pens)

    def doubt(self, until: float) -> None:
        """From that boot time on others may take this replica for gone (`Store.on_doubt`). Any thread."""
        for pen in self.pens().values():
            pen.doubt(until)

    def keep_alive(self, pen: Pen) -> Callable[[], None]:
        """Let the heart beat for this pen until the returned function is called."""
        attempt_id = pen.fence.attempt_id
        self._pens[attempt_id] = pen

        def end() -> None:
            self._pens.pop(attempt_id, None)

        return end

    # --- stopping -------------------------------------------------------------------------------

    def release_all(self) -> None:
        """Drain: every attempt stops at its next safe point and gives its run back."""
        self._draining = True
        for attempt in list(self._attempts.values()):
            attempt.wish(Stop.RELEASE)

    def tear_all(self) -> None:
        """The drain limit is over: what is still in flight is cut and left unrecorded."""
        for attempt in list(self._attempts.values()):
            attempt.tear()

    async def cancel(self, run_id: str, reason: str) -> Run | None:
        """Ask for a cancel; an attempt that runs here stops at its next safe point."""
        run = await self._store.steer(run_id, Action(ActionKind.CANCEL, reason=reason))
        attempt = self._attempts.get(run_id)
        if run is not None and run.cancel is not None and attempt is not None and not attempt.last:
            attempt.pen.cancel = run.cancel
            attempt.wish(Stop.SUSPEND)
        self.on_cancel(run_id)
        return run

    # --- what an attempt needs from outside ------------------------------------------------------

    def show(self, run_id: str, glimpse: Glimpse) -> None:
        self._hub.show(run_id, glimpse)

    async def value(self, run_id: str, n: int) -> str:
        return await self._store.value(run_id, n)

    def limit_reached(self, run_id: str, reason: str) -> None:
        task = asyncio.get_running_loop().create_task(self.cancel(run_id, reason))
        task.add_done_callback(_look_at)


async def _no_choice(_: Loaded) -> Choice | None:
    return None


async def _no_needs(_: Collection[Need]) -> None:
    return None


def _nothing() -> None:
    return None


def _look_at(task: asyncio.Task[Run | None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a run over its limit could not be cancelled", exc_info=task.exception())
