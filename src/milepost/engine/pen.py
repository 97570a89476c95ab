"""The pen of one attempt: everything it writes goes through here, under its fence, in order.

Writes that come together go out together (one append at a time, the rest waits and is merged), so ten
concurrent steps cost two commits, not ten. What nobody waits for (`jot`) lingers a few milliseconds for
company. The pen also knows how long the lease surely lasts: past `deadline` no step may start until an
append has succeeded (HAZARDS B1: the fence guards rows, not effects).

A store that can't write is waited for; one that is well, and will not take what it is given, is not asked again: the
pen runs dry, and the attempt ends with what the store said.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from milepost.core.attempts import Appended, Batch, Claim
from milepost.core.errors import Fenced, Signal, StoreUnavailable, Suspended
from milepost.core.records import Entry, EntryKind, NewEvent, NewQuestion
from milepost.seams import Clock, RunStore

log = structlog.get_logger("milepost.engine")


@dataclass(slots=True)
class _Sheet:
    """What waits to be written in the next append."""

    entries: list[Entry] = field(default_factory=list)
    questions: list[NewQuestion] = field(default_factory=list)
    events: list[NewEvent] = field(default_factory=list)
    stage: str | None = None
    progress: float | None = None
    waiters: list[asyncio.Future[None]] = field(default_factory=list)

    def batch(self, token: str) -> Batch:
        return Batch(
            tuple(self.entries), tuple(self.questions), tuple(self.events), self.stage, self.progress, token=token
        )

    @property
    def blank(self) -> bool:
        return not (self.entries or self.questions or self.events or self.waiters) and self.stage is None


@dataclass(frozen=True, slots=True)
class PenLimits:
    """Durations in seconds."""

    lease: float
    margin: float
    linger: float


class Pen:
    """Writes for one attempt. `on_dry` is called when nothing more can be written: the store refused what it was
    given, or the fence turns out to be gone (each at most once)."""

    def __init__(self, store: RunStore, claim: Claim, clock: Clock, limits: PenLimits) -> None:
        run = claim.run
        self.fence = claim.fence
        self.event_seq = run.event_seq
        self.cancel = run.cancel
        self.seen = run.wake_seq
        self.lost = False
        """The fence is gone."""
        self.refused: Exception | None = None
        """Why the store will never take what it was given."""
        self.on_dry: Callable[[], None] = _nothing
        self.on_told: Callable[[], None] = _nothing
        self._store = store
        self._clock = clock
        self._limits = limits
        self._journal_seq = run.journal_seq
        self._working = run.working
        self._working_at = clock.boot()
        started = claim.since or clock.boot()
        self._wall_at_boot = (claim.now or clock.wall()) - started
        # From the claim itself: a process that was stopped since has lost the lease without having heard of it.
        self.deadline = claim.since + limits.lease - limits.margin
        self._doubted = math.inf
        self._sheet = _Sheet()
        self._numbers = itertools.count(1)
        self._pump: asyncio.Task[None] | None = None
        self._linger: asyncio.TimerHandle | None = None

    @property
    def entries(self) -> int:
        """How many entries the journal has, with those not yet written."""
        return self._journal_seq

    @property
    def dry(self) -> bool:
        """Whether nothing more can be written."""
        return self.lost or self.refused is not None

    @property
    def unwritten(self) -> int:
        """How many entries wait to be written."""
        return len(self._sheet.entries)

    def working(self) -> float:
        """Seconds of work of the whole run up to now."""
        return self._working + max(0.0, self._clock.boot() - self._working_at)

    def wall(self) -> float:
        """UTC seconds by the store's clock, counted on from the claim: this machine's own may be wrong."""
        return self._wall_at_boot + self._clock.boot()

    def fresh(self) -> bool:
        """Whether the lease surely still holds."""
        return not self.dry and self._clock.boot() < min(self.deadline, self._doubted)

    def entry(
        self,
        kind: EntryKind,
        name: str,
        *,
        digest: str = "",
        key: str = "",
        occurrence: int = 1,
        value: str | None = None,
    ) -> None:
        """Put an entry on the next sheet."""
        self._journal_seq += 1
        size = len(value) if value is not None else 0
        self._sheet.entries.append(Entry(self._journal_seq, kind, name, digest, key, occurrence, value, size))

    def question(self, question: NewQuestion) -> None:
        self._sheet.questions.append(question)

    def event(self, event: NewEvent) -> None:
        self._sheet.events.append(event)

    def mark(self, *, stage: str | None = None, progress: float | None = None) -> None:
        if stage is not None:
            self._sheet.stage = stage
        if progress is not None:
            self._sheet.progress = progress

    def jot(self) -> None:
        """See that the sheet is written soon; nobody waits for it."""
        if self._pump is None and self._linger is None and not self.dry:
            self._linger = asyncio.get_running_loop().call_later(self._limits.linger, self._start)

    async def write(self) -> None:
        """Write the sheet; returns when it is durable. Raises Fenced, Suspended (what it is given is refused)."""
        if self.dry:
            raise Fenced if self.lost else Suspended
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sheet.waiters.append(waiter)
        self._start()
        await waiter

    def _start(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._pump is None and not self.dry:
            self._pump = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while not self._sheet.blank and not self.dry:
                sheet, self._sheet = self._sheet, _Sheet()
                await self._send(sheet)
        finally:
            self._pump = None

    async def _send(self, sheet: _Sheet) -> None:
        try:
            await self._append(self._batch(sheet))
        except Fenced:
            self.lose(sheet.waiters)
        except Exception as error:  # whatever it is, those who wait must hear of it
            self._refuse(error, sheet.waiters)
        else:
            _resolve(sheet.waiters)

    async def _append(self, batch: Batch) -> None:
        """Append, and while the store can't write, try again until the lease is over: a result is at stake."""
        pause = 0.05
        while True:
            sent_at = self._clock.boot()
            try:
                told = await self._store.append(self.fence, batch, lease=self._limits.lease)
            except StoreUnavailable:
                if self._clock.boot() > self.deadline:
                    raise Fenced from None
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
            else:
                self.told(told, sent_at)
                return

    def renew(self, sent_at: float) -> None:
        """The lease holds for a full term from `sent_at` (boot clock, before it was asked for). Any thread."""
        self.deadline = max(self.deadline, sent_at + self._limits.lease - self._limits.margin)

    def doubt(self, until: float) -> None:
        """From that boot time on the lease may be taken although its term is not over. Any thread."""
        self._doubted = min(self._doubted, until)

    def assure(self) -> None:
        """A heartbeat has come through: nobody takes this replica for gone. Any thread."""
        self._doubted = math.inf

    def told(self, appended: Appended, sent_at: float) -> None:
        """Take in what an append or a heartbeat says of the run; `sent_at` (boot clock) is before it was sent."""
        self.renew(sent_at)
        self._working, self._working_at = appended.working, self._clock.boot()
        self.event_seq = max(self.event_seq, appended.event_seq)
        if appended.cancel != self.cancel:
            self.cancel = appended.cancel
            self.on_told()

    def lose(self, waiters: Sequence[asyncio.Future[None]] = ()) -> None:
        """The fence is gone: nothing more is written, and every waiter learns it."""
        first, self.lost = not self.lost, True
        self._leave_blank(waiters, Fenced)
        if first:
            self.on_dry()

    def _refuse(self, error: Exception, waiters: Sequence[asyncio.Future[None]]) -> None:
        """The store is well and refuses: nothing of this attempt counts from here on, for its journal has a gap."""
        log.error("the store refused what an attempt recorded", run_id=self.fence.run_id, exc_info=error)
        self.refused = error
        self._leave_blank(waiters, Suspended)
        self.on_dry()

    def _leave_blank(self, waiters: Sequence[asyncio.Future[None]], why: type[Signal]) -> None:
        for waiter in [*waiters, *self._sheet.waiters]:
            if not waiter.done():
                waiter.set_exception(why())
        self._sheet = _Sheet()

    async def last_sheet(self) -> Batch:
        """Stop writing and hand over what is left, for the transaction that ends the attempt."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        while self._pump is not None:
            await asyncio.wait({self._pump})
        sheet, self._sheet = self._sheet, _Sheet()
        return self._batch(sheet)

    def _batch(self, sheet: _Sheet) -> Batch:
        """What is on the sheet, under a token that no other batch of this run has or will have."""
        return sheet.batch(f"{self.fence.attempt_id}.{next(self._numbers)}")

    def let_go(self) -> None:
        """Tell nobody anything any more."""
        self.on_dry = self.on_told = _nothing


def _nothing() -> None:
    return None


def _resolve(waiters: Sequence[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
