"""What is said to and by a store from outside an attempt: replies and actions, lists, sweeps, notices."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from milepost.core.records import Principal
from milepost.core.states import RunState
from milepost.core.versions import Need


class Verdict(StrEnum):
    """What became of one reply."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    """Equal to the accepted one, from the same owner: acknowledged again."""
    CLOSED = "closed"
    """Answered otherwise, expired, withdrawn, or the run is final."""
    UNKNOWN = "unknown"
    INVALID = "invalid"
    """Breaks the question's schema. The engine's verdict: an invalid reply never reaches a store."""


class ActionKind(StrEnum):
    """What may be done to a run from outside an attempt."""

    CANCEL = "cancel"
    """`cancelling` at once, or, while running, the wish is noted (`cancel`) and the attempt told of it."""
    PARK = "park"
    """Only if no live stream is left on it. While running, noted: the attempt parks when it suspends."""
    ATTACH = "attach"
    """Parked becomes ready."""
    RETRY = "retry"
    """Stuck or parked becomes ready; `accept_drift` is stored, the crash count starts anew."""
    REASK = "reask"
    """Writes another QUESTION event for an open question, with `note` (why an answer was refused)."""


@dataclass(frozen=True, slots=True)
class Action:
    kind: ActionKind
    reason: str = ""
    accept_drift: bool = False
    question: int = 0
    note: str = ""
    park_for: float = 900.0
    """Seconds until a parked run expires."""


@dataclass(frozen=True, slots=True)
class Find:
    """Which runs to list, newest first."""

    states: Collection[RunState] | None = None
    tool: str | None = None
    owner: Principal | None = None
    """Only runs whose principal has the same owner."""
    older_than: str | None = None
    """Page on: only runs created before the run with this id."""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep changed."""

    runs: Sequence[str] = ()
    """Runs whose timer fired."""
    more: bool = False
    """The limit was reached; sweep again soon."""
    next_in: float | None = None
    """Seconds until the next timer that is known, None if there is none."""
    needs: Collection[Need] = ()
    """What it takes to run the workflows that wait for a claim, or whose owner is gone: each kind once, met or not."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What watchers are told after a commit. Only ever a hint: it may be merged with others, doubled, or lost."""

    runs: Collection[str] | None
    """The runs that changed; None: some did, look yourself."""
    work: bool = False
    """Another process left something to do: a run that may be claimed, or a cancel of one that runs."""
    glimpses: Mapping[str, str] = field(default_factory=dict)
    """By run, the latest that another process showed of it (`Store.glimpse`)."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things are kept, in seconds. `sweep` deletes by it; open questions keep their session."""

    runs: float = 30 * 86400.0
    """A final run with its journal and events."""
    session_idle: float = 86400.0
    session_lifetime: float = 30 * 86400.0
    redeliver: float = 600.0
    """A result that was sent but not confirmed is still a rival (attached to) for so long."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that an operator should know about a store."""

    what: str
    """One sentence; where `fine` is false it says what to do."""
    fine: bool = True
