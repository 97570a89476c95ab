"""What was seen and what is stored, as plain values: the checks' only input.

Three witnesses, none of which trusts another: the clients (`Told`), the outside ledger (`ledger.Effect`) and the
store's rows (`StoredRun`), read with SQL of our own (`rows.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

FINAL = frozenset({"completed", "failed", "cancelled", "expired"})

Sink: TypeAlias = "Callable[[str, str, Any], None]"
"""Takes a Jepsen-style line: its type (invoke, ok, fail, info; `saw` for what came on its own), what, and its value."""

# --- what clients saw ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frame:
    """One message with an event id, as a client read it."""

    n: int
    message: Mapping[str, Any]


@dataclass(slots=True)
class Reading:
    """What one connection showed of one stream, after event `after`, in the order in which it was read."""

    stream: str
    after: int
    frames: list[Frame] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ack:
    """An answer that the server acknowledged."""

    text: str
    """What was asked, as its author wrote it."""
    reply: Mapping[str, Any]


@dataclass(slots=True)
class Told:
    """One conversation, from its client's side."""

    name: str
    era: str
    acks: list[Ack] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """What no correct client should ever meet: a lost session, a refused answer, an answered question again."""
    progress: list[list[float]] = field(default_factory=list)
    """Progress values, by request."""
    breaks: int = 0
    """Connections that were cut while something was to come on them."""
    drops: int = 0
    """Connections that the client itself closed, with the server alive, to come back at once."""
    asked_which: int = 0
    """How often it was asked whether to join an earlier run of the same call."""
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    sink: Sink | None = field(default=None, compare=False, repr=False)

    def saw(self, what: str, *facts: Any) -> None:
        """Take something in and pass it on to be recorded: only so does a conversation's history change."""
        _SEEN[what](self, *facts)
        if self.sink is not None:
            self.sink("saw", what, facts)

    def acknowledged(self, text: str, reply: Mapping[str, Any]) -> None:
        self.acks.append(Ack(text, reply))

    def complained(self, what: str) -> None:
        self.complaints.append(what)

    def broke(self) -> None:
        self.breaks += 1

    def dropped(self) -> None:
        self.drops += 1

    def was_asked_which(self) -> None:
        self.asked_which += 1

    def opened(self, stream: str, after: int) -> None:
        self.readings.append(Reading(stream, after))

    def read(self, n: int, message: Mapping[str, Any]) -> None:
        """On the stream that was opened last."""
        self.readings[-1].frames.append(Frame(n, message))

    def requested(self) -> None:
        self.progress.append([])

    def progressed(self, value: float) -> None:
        """For the last request."""
        self.progress[-1].append(value)

    def finished(self, result: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> None:
        self.result, self.error = result, error


_SEEN: Mapping[str, Callable[..., None]] = {
    method.__name__: method
    for method in (
        Told.acknowledged,
        Told.complained,
        Told.broke,
        Told.dropped,
        Told.was_asked_which,
        Told.opened,
        Told.read,
        Told.requested,
        Told.progressed,
        Told.finished,
    )
}


@dataclass(frozen=True, slots=True)
class Disruption:
    """A process that was killed (`until` is None: for good) or stopped for a while. UTC seconds."""

    pid: int
    at: float
    until: float | None = None


# --- what is stored -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredEntry:
    n: int
    kind: str
    name: str
    digest: str
    key: str
    occurrence: int
    at: float
    value: str | None = None

    @property
    def address(self) -> tuple[str, str, str, int]:
        return (self.name, self.digest, self.key, self.occurrence)


@dataclass(frozen=True, slots=True)
class StoredQuestion:
    id: int
    method: str
    params: Mapping[str, Any]
    state: str
    reply: Mapping[str, Any] | None = None
    answered_at: float | None = None

    @property
    def text(self) -> str:
        return text_of(self.method, self.params)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    n: int
    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StoredRun:
    id: str
    tool: str
    conversation: str
    state: str
    event_seq: int
    journal_seq: int
    merged_into: str | None
    outcome: Mapping[str, Any] | None
    entries: Sequence[StoredEntry] = ()
    questions: Sequence[StoredQuestion] = ()
    events: Sequence[StoredEvent] = ()
    streams: Sequence[str] = ()
    epoch: int = 0
    reason: str | None = None
    rival: str | None = None

    @property
    def ghost(self) -> bool:
        """A call whose client had gone before a stopped server read it: it only asks whether to join the earlier run
        of the same call, nothing of its workflow has begun, and it expires.
        """
        return self.rival is not None and self.state in ("parked", "waiting") and not self.entries


def text_of(method: str, params: Mapping[str, Any]) -> str:
    """What a question asks, as its author wrote it: the notes that a server may add come after a blank line."""
    if method == "elicitation/create":
        return str(params.get("message", "")).split("\n\n", 1)[0]
    if method == "sampling/createMessage":
        return str(params["messages"][0]["content"]["text"])
    return method
