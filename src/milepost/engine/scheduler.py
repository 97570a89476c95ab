"""The scheduler for stores with leases: finds runs that are due and has an attempt made of each.

It is told of work by `wake` and looks by itself every `poll` seconds, so a lost notice costs latency and
nothing else. Takeovers from dead replicas are few at a time; a run that killed its process runs alone.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import structlog

from milepost.core.attempts import Claim, Claimant, Loaded
from milepost.core.errors import Fenced, StoreError
from milepost.core.records import Run
from milepost.core.states import RunState
from milepost.engine.executor import Executor
from milepost.engine.heart import Heart
from milepost.engine.lines import known_of
from milepost.engine.pen import Pen
from milepost.seams import Clock, RunStore

log = structlog.get_logger("milepost.engine")

_SWEEP_EVERY = 1.0
"""Seconds between two looks at the timers where none is known to be due earlier."""
_SWEEP_LIMIT = 500
"""Timers fired in one transaction: bounded, so that nobody waits long behind it."""
_CLAIM_LIMIT = 50
"""Runs claimed in one transaction, for the same reason."""
_JITTER = 0.2
"""Share of the poll interval by which replicas drift apart."""


class LeaseScheduler:
    """A `Backend` on leases."""

    def __init__(self, store: RunStore, executor: Executor, claimant: Claimant, clock: Clock) -> None:
        self.heart = Heart(store, clock, claimant.owner, lease=claimant.lease, pens=executor.pens)
        self._store = store
        self._executor = executor
        self._claimant = claimant
        self._clock = clock
        self._tuning = executor.tuning
        self._tasks: set[asyncio.Task[None]] = set()
        self._suspects = 0
        self._alone = asyncio.Lock()
        self._news = asyncio.Event()
        self._draining = False
        self._looking: asyncio.Task[None] | None = None
        self._next_sweep = 0.0
        self._cut_short = False
        """The last look may have left something that is due, for there was no room for more."""

    # --- Backend --------------------------------------------------------------------------------

    def start(self) -> None:
        self.heart.start()
        self._looking = asyncio.get_running_loop().create_task(self._look_on(), name="milepost-scheduler")

    async def drain(self) -> None:
        self._draining = True
        self._news.set()
        if self._looking is not None:
            await asyncio.wait({self._looking})
        self._executor.release_all()
        await self._ended(self._tuning.drain_limit)
        self._executor.tear_all()
        await self._ended(self._tuning.unwind_grace)
        await self.heart.stop()

    async def _ended(self, within: float) -> None:
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=within)

    def has_room(self) -> bool:
        return len(self._tasks) < self._tuning.attempts and not self._suspects and not self._draining

    def claimant(self) -> Claimant | None:
        return self._claimant if self.has_room() else None

    def begin(self, claim: Claim, loaded: Loaded | None = None) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(claim, loaded), name=claim.run.id)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        """Room for another: for a new call, or for what the last look found no room for."""
        self._tasks.discard(task)
        self._executor.on_room()
        if self._cut_short:
            self._news.set()

    def wake(self, run_id: str) -> None:
        self._news.set()

    def wake_at(self, run_id: str, seconds: float) -> None:
        due = self._clock.monotonic() + seconds
        if due < self._next_sweep:
            self._next_sweep = due
            self._news.set()

    def elsewhere(self) -> None:
        self._news.set()
        if self._executor.busy:
            self.heart.hurry()

    # --- looking for work -----------------------------------------------------------------------

    async def _look_on(self) -> None:
        while not self._draining:
            self._news.clear()
            pause = self._tuning.poll
            try:
                pause = await self.look()
            except StoreError as error:
                log.warning("the store can't be asked for work", error=str(error))
            except Exception:  # whatever it is: a replica that stopped looking would stand still, and look well
                log.exception("looking for work failed")
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._news.wait()

    async def look(self) -> float:
        """One look: fire due timers, claim what is due, start it. Returns the seconds until the next look."""
        await self._sweep()
        await self._claim()
        until_sweep = max(0.0, self._next_sweep - self._clock.monotonic())
        poll = self._tuning.poll * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - to drift apart
        return min(poll, until_sweep + 0.001)

    async def _sweep(self) -> None:
        if self._clock.monotonic() < self._next_sweep:
            return
        swept = await self._store.sweep(limit=_SWEEP_LIMIT)
        wait = 0.0 if swept.more else min(_SWEEP_EVERY, swept.next_in if swept.next_in is not None else _SWEEP_EVERY)
        self._next_sweep = self._clock.monotonic() + wait
        await self._executor.on_needs(swept.needs)

    async def _claim(self) -> None:
        free = min(_CLAIM_LIMIT, self._tuning.attempts - len(self._tasks))
        self._cut_short = free <= 0
        if free <= 0 or self._suspects:
            return
        claims = await self._store.claim(self._claimant, limit=free, takeovers=self._tuning.takeovers)
        for claim in claims:
            self.begin(claim)
        if len(claims) == free or sum(claim.takeover for claim in claims) >= self._tuning.takeovers:
            self._news.set()

    # --- attempts -------------------------------------------------------------------------------

    async def _serve(self, claim: Claim, loaded: Loaded | None) -> None:
        """One attempt, whatever comes of it: a failure here may cost this run its lease, never another's."""
        try:
            if claim.run.crashes >= self._tuning.crashes_alone:
                run = await self._execute_alone(claim)
            else:
                run = await self._executor.execute(claim, loaded)
        except Fenced:
            log.info("the run belongs to another attempt now", **known_of(claim.run, claim.fence))
        except StoreError as error:
            fields = known_of(claim.run, claim.fence)
            log.error("the end of an attempt could not be stored; its lease will run out", error=str(error), **fields)
        except Exception:
            log.exception("an attempt failed inside the engine", **known_of(claim.run, claim.fence))
        else:
            self._settled(run)

    def _settled(self, run: Run) -> None:
        if run.state in (RunState.READY, RunState.CANCELLING):
            self.wake(run.id)
        elif run.next_at is not None:
            self.wake_at(run.id, max(0.0, run.next_at - run.updated_at))  # both by the store's clock

    async def _execute_alone(self, claim: Claim) -> Run:
        """A suspect runs alone, so that it takes nobody with it if it kills the process again (HAZARDS C5)."""
        pen: Pen = self._executor.pen(claim)
        end_beat = self._executor.keep_alive(pen)
        self._suspects += 1
        try:
            async with self._alone:
                if others := {task for task in self._tasks if self._executor.attempt(task.get_name())}:
                    await asyncio.wait(others)
                return await self._executor.execute(claim, pen=pen)
        finally:
            self._suspects -= 1
            end_beat()
            self._executor.on_room()
            self._news.set()
