"""The records: what a store keeps and the engine reasons about.

All are immutable values. Times are UTC seconds since the epoch unless a name says otherwise
(`*_for`, `*_in`, `working`: durations in seconds). JSON travels as text (`str`) where nothing
needs to look inside, and as plain Python values where something does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from milepost.core.states import RunState

JSONObject = Mapping[str, Any]


class Lane(StrEnum):
    """How a call that has rows is executed."""

    WORKFLOW = "workflow"
    """Replayed from its journal: every attempt starts from the top."""
    HOT = "hot"
    """Held in its replica's memory while it waits; lost with it, and then never run again."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the verified token's (issuer, subject, client), never the token. All None: nobody said."""

    issuer: str | None = None
    subject: str | None = None
    client: str | None = None
    scopes: tuple[str, ...] = ()
    person: bool = False
    """Whether this is one person, so that two connections of it may share a run (DESIGN: same call, same run)."""

    @property
    def owner(self) -> tuple[str | None, str | None, str | None]:
        """What owns sessions and runs: a refreshed token with other scopes is still the same owner."""
        return (self.issuer, self.subject, self.client)


ANONYMOUS = Principal()
LOCAL_USER = Principal(subject="local", person=True)
"""The one user of stdio and of `--single-user`."""
OPERATOR = Principal(subject="operator", person=True)


@dataclass(frozen=True, slots=True)
class CallContext:
    """What every attempt of a run sees of its call, on any replica, with or without a client."""

    tool: str
    arguments: JSONObject
    request_id: str | int
    wire_version: str
    """The protocol version of the first call's wire, for example `2026-07-28`."""
    client_info: JSONObject | None = None
    capabilities: JSONObject = field(default_factory=dict)
    principal: Principal = ANONYMOUS
    session: str | None = None
    """The session's reference (a keyed hash, never the id), for logs and joins."""
    log_level: str | None = None
    trace_id: str = ""
    """32 hex digits (W3C); a run keeps one trace across sessions, replicas and rounds."""
    meta: JSONObject = field(default_factory=dict)
    """The caller's `_meta` without reserved keys and without its progress token."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be created. The caller chooses `id`, so that an unknown outcome can be read back."""

    id: str
    tool: str
    version: int
    lane: Lane
    call: CallContext
    call_key: str
    """Digest of (tool, the arguments that say "the same call"); never empty."""
    scope: str
    """Who may attach by making the same call: calls with equal `call_key` and equal `scope`."""
    salt: bytes
    """Per-run salt of all digests, 16 bytes."""
    release: str = ""
    rival: str | None = None
    """Another unfinished run of the same call; the person is first asked which of the two to keep."""
    given_to: str = ""
    """The release whose replicas alone may run its attempts; empty: any that accepts its version."""
    call_id: str | None = None
    """Digest of the owner and the call id that the caller gave. The call with it is this run's, for as long as the
    run is kept, on whatever session and however it stands."""


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a workflow, as stored."""

    id: str
    tool: str
    version: int
    lane: Lane
    state: RunState
    call: CallContext
    call_key: str
    scope: str
    salt: bytes
    release: str
    created_at: float
    updated_at: float
    epoch: int = 0
    attempt_id: str | None = None
    owner: str | None = None
    crashes: int = 0
    wake_seq: int = 0
    event_seq: int = 0
    journal_seq: int = 0
    working: float = 0.0
    """Seconds of work so far, over all attempts; waiting for a person never counts."""
    stage: str | None = None
    progress: float = 0.0
    """The highest progress ever sent for this run; progress never falls below it."""
    next_at: float | None = None
    """The one timer: question expiry, retry, parked expiry. None where nothing is due."""
    reason: str | None = None
    """Why it is stuck, parked, cancelled or failed, for people."""
    cancel: str | None = None
    """Set once a cancel was asked for: `client`, `operator`, `limit: ...` or `expired: ...`."""
    accept_drift: bool = False
    rival: str | None = None
    merged_into: str | None = None
    outcome: str | None = None
    """JSON text of an `Outcome`, once final."""
    delivery: Delivery | None = None
    sent_at: float | None = None
    park_asked: bool = False
    """The client closed its request while it ran: it is parked when its attempt is suspended."""
    given_to: str = ""
    """The release whose replicas alone may run its attempts; empty: any that accepts its version."""
    call_id: str | None = None
    """As in `NewRun`."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One server process, as the others see it."""

    id: str
    release: str = ""
    accepts: frozenset[tuple[str, int]] = frozenset()
    """(tool, workflow version) pairs that it may run attempts of."""
    beat_at: float = 0.0
    """When it was last heard."""
    alive: bool = True
    """False: it is silent for longer than a lease, but not known to be gone."""


class Delivery(StrEnum):
    """How sure we are that a result reached its client (HAZARDS D3). Only for final runs."""

    UNSENT = "unsent"
    SENT = "sent"
    CONFIRMED = "confirmed"


class EntryKind(StrEnum):
    """What a journal entry records."""

    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"
    RETRY = "retry"
    STAGE_BEGIN = "stage_begin"
    STAGE_END = "stage_end"
    NOTE = "note"


ENTRY_FORMAT = 1
"""Format number of entries and events that this release writes; it reads all up to it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a run's journal. `n` is gapless from 1; (kind, name, digest, key, occurrence) addresses it."""

    n: int
    kind: EntryKind
    name: str
    digest: str = ""
    key: str = ""
    occurrence: int = 1
    value: str | None = None
    """JSON text. None where there is none, or where a store left a large one out of `load` (see `size`)."""
    size: int = 0
    """Length of `value` in characters, also where it was left out."""
    at: float = 0.0
    epoch: int = 0


class QuestionState(StrEnum):
    """A question is open until exactly one of the others happens."""

    OPEN = "open"
    ANSWERED = "answered"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Reply:
    """The one accepted reply to a question: a result (as the client sent it) or the client's error."""

    result: JSONObject | None = None
    error: JSONObject | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What a run asks its client. `id` counts from 1 within the run and is never used twice."""

    run_id: str
    id: int
    method: str
    params: JSONObject
    digest: str
    key: str = ""
    occurrence: int = 1
    state: QuestionState = QuestionState.OPEN
    stage: str | None = None
    asked_at: float = 0.0
    expires_at: float | None = None
    reply: Reply | None = None
    by: Principal | None = None
    via: str | None = None
    """How the reply came: an event id (a sending), `mrtr`, `tool`, `link`, `operator`."""
    answered_at: float | None = None


@dataclass(frozen=True, slots=True)
class NewQuestion:
    """A question to record. The attempt chooses `id` (its question count + 1)."""

    id: int
    method: str
    params: JSONObject
    digest: str
    key: str = ""
    occurrence: int = 1
    stage: str | None = None
    expires_in: float | None = None


class EventKind(StrEnum):
    """What a run says to whoever watches it."""

    QUESTION = "question"
    """body: {"question": id, "note": str?}. Also emitted again when an answer was refused (with the note)."""
    CLOSED = "closed"
    """body: {"question": id, "state": QuestionState, "via": str?}"""
    STAGE = "stage"
    """body: {"stage": str, "mark": "begin"|"end", "progress": float, "total": float}"""
    PROGRESS = "progress"
    """body: {"progress": float, "total": float?, "message": str?}"""
    NOTIFY = "notify"
    """body: {"method": str, "params": object?}: any other notification, `notifications/message` among them."""
    STATE = "state"
    """body: {"state": RunState, "reason": str?}: written by the store at each transition people care about."""
    MERGED = "merged"
    """body: {"into": run id}: watchers go on with that run."""
    RESULT = "result"
    """body: the `Outcome` as JSON; always the last event of a run."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    kind: EventKind
    body: JSONObject


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a run. `n` is gapless from 1, assigned under the run row's lock."""

    run_id: str
    n: int
    kind: EventKind
    body: JSONObject
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run ends with: a tool result as the kernel shaped it (handshake form), or a JSON-RPC error."""

    result: JSONObject | None = None
    error: JSONObject | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """The durable record of a handshake-era client connection."""

    id: str
    version: str
    client_params: JSONObject
    """The `initialize` params as the client sent them."""
    owner: Principal
    created_at: float = 0.0
    seen_at: float = 0.0
    initialized: bool = False
    log_level: str | None = None
    subscriptions: tuple[str, ...] = ()
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Stream:
    """One request's view of a run's events: it lends them its request id and progress token."""

    id: str
    """96 random bits: unguessable, for event ids (`<stream>.<n>`) and sendings are made from it."""
    run_id: str
    request_id: str | int
    session: str | None = None
    """The session's id, None on the modern wire."""
    progress_token: str | int | None = None
    owner: Principal = ANONYMOUS
    replica: str | None = None
    """The replica that holds its live connection; None once it broke or was closed."""
    attached: bool = False
    """Whether it found its run by the same call (the result says so in `_meta`)."""
    opened_at: float = 0.0
    detached_at: float | None = None


@dataclass(frozen=True, slots=True)
class Rival:
    """A run of the same call, and how alive its other connections are; input to `core.same_call`."""

    run: Run
    live: bool
    """A stream of it is held by a replica that is alive."""
    doubtful: bool
    """A stream of it is held by a replica of which that isn't known right now."""
    orphaned_for: float
    """Seconds since the last of its streams broke; 0 while one is live."""
    questions: Sequence[Question] = ()
    """Its questions so far, so that the person can be shown what was answered."""
    sent_for: float = 0.0
    """Seconds since its result was first sent, by the store's clock; 0 where it wasn't."""
