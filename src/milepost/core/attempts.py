"""What an attempt takes from a store and gives back: its claim, its journal, its batches, its end.

Durations go in (`lease`, `..._in`: seconds). What a store does with each of them, its protocol says (`seams.RunStore`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from milepost.core.records import Entry, NewEvent, NewQuestion, Outcome, Question, Run, Stream


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who claims, what it may run, and for how long."""

    owner: str
    """The replica's id, as given to `join`."""
    lease: float
    """Seconds."""
    accepts: frozenset[tuple[str, int]] = frozenset()
    """(tool, workflow version) pairs that this replica may run attempts of."""
    release: str = ""
    """Runs that were given to a release are claimed by replicas of that release only."""


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to write to a run: a random `attempt_id` that a claim stored in the run row."""

    run_id: str
    attempt_id: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed run. `run` is as of after the claim; the journal is loaded after it (`load`)."""

    run: Run
    fence: Fence
    takeover: bool
    """The run was running under somebody whose lease ended: its crash count went up by one."""
    since: float = 0.0
    """A boot time (`Clock.boot`) that is surely not after the lease's beginning: from it, and not from when the claim
    is heard of, its holder counts how long the lease surely holds (HAZARDS B1). 0: unknown, so it must first write.
    """
    now: float = 0.0
    """The store's own time (UTC seconds) at the claim. What an attempt writes for others to compare with, it counts
    from here: its machine's clock may be wrong.
    """


@dataclass(frozen=True, slots=True)
class Created:
    """The new run (claimed for the caller if asked), or, with `claim` None and another id, an existing one."""

    run: Run
    stream: Stream
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A run with its journal. Entries with values above the store's inline size come without the value."""

    run: Run
    entries: Sequence[Entry]
    questions: Sequence[Question]


@dataclass(frozen=True, slots=True)
class Batch:
    """What an attempt appends in one transaction. Entry and question numbers are chosen by the attempt."""

    entries: Sequence[Entry] = ()
    """`n` gapless after the run's `journal_seq`; `at` and `epoch` are filled in by the store."""
    questions: Sequence[NewQuestion] = ()
    """Inserted as open. The store adds no event for them: the attempt puts it in `events`."""
    events: Sequence[NewEvent] = ()
    stage: str | None = None
    """The stage the run is in from now on; None leaves it, "" clears it."""
    progress: float | None = None
    token: str = field(default_factory=lambda: os.urandom(9).hex(), compare=False, repr=False)
    """Names this batch: one that is given again, for its outcome was not told, is known by it."""


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append tells the attempt about its run, so that it needs no second look."""

    event_seq: int
    working: float
    wake_seq: int
    cancel: str | None


class EndKind(StrEnum):
    """How an attempt gives its run back."""

    SUSPEND = "suspend"
    RELEASE = "release"
    GIVE_UP = "give up"
    COMPLETE = "complete"
    FAIL = "fail"
    END_CANCELLED = "end cancelled"
    EXPIRE = "expire"


@dataclass(frozen=True, slots=True)
class End:
    """The end of an attempt.

    SUSPEND becomes `cancelling` if a cancel was asked meanwhile, else `ready` if the run's wake_seq is
    above `seen`, else `parked` if `park`, else `waiting`, whose timer is the earliest of its open questions'
    expiries and `timer_in`. Open questions not in `asked` become withdrawn (with a CLOSED event each).
    The final kinds store `outcome`, withdraw all open questions, and write the RESULT event last.
    GIVE_UP is `stuck` with `reason`. RELEASE is `ready` at once (or `cancelling` during a clean-up attempt).
    """

    kind: EndKind
    seen: int = 0
    asked: frozenset[int] = frozenset()
    timer_in: float | None = None
    park: bool = False
    outcome: Outcome | None = None
    merged_into: str | None = None
    reason: str | None = None
    batch: Batch = field(default_factory=Batch)
    """Written first, in the same transaction."""
