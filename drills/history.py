"""What was seen and what is stored, as plain values: the checks' only input.

Three witnesses, none of which trusts another: the clients (`Told`), the outside ledger (`ledger.Effect`) and the
store's rows (`StoredRun`), read straight from the file with SQL of our own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

FINAL = frozenset({"completed", "failed", "cancelled", "expired"})

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


class Rows:
    """The store's file, read-only. Opened anew for each look, so that nothing of ours keeps it open in between."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, sql: str, bindings: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        if not self._path.exists():
            return []
        db = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            db.set_busy_timeout(5000)
            return list(db.execute(sql, bindings))
        finally:
            db.close()

    def runs(self) -> list[StoredRun]:
        """All runs with everything that hangs off them, in order of their making."""
        found = self.ask(
            "SELECT seq, id, tool, call, state, event_seq, journal_seq, merged_into, outcome, epoch, reason, rival "
            "FROM run ORDER BY seq"
        )
        entries, questions, events, streams = self._entries(), self._questions(), self._events(), self._streams()
        return [
            StoredRun(
                id=row[1],
                tool=row[2],
                conversation=json.loads(row[3])["arguments"]["conversation"],
                state=row[4],
                event_seq=row[5],
                journal_seq=row[6],
                merged_into=row[7],
                outcome=json.loads(row[8]) if row[8] else None,
                entries=entries.get(row[0], []),
                questions=questions.get(row[0], []),
                events=events.get(row[0], []),
                streams=streams.get(row[0], []),
                epoch=row[9],
                reason=row[10],
                rival=row[11],
            )
            for row in found
        ]

    def _entries(self) -> dict[int, list[StoredEntry]]:
        made: dict[int, list[StoredEntry]] = {}
        sql = "SELECT run, n, kind, name, digest, key, occurrence, at, value FROM entry ORDER BY run, n"
        for run, *fields in self.ask(sql):
            made.setdefault(run, []).append(StoredEntry(*fields))
        return made

    def _questions(self) -> dict[int, list[StoredQuestion]]:
        made: dict[int, list[StoredQuestion]] = {}
        sql = "SELECT run, id, method, params, state, reply, answered_at FROM question ORDER BY run, id"
        for run, number, method, params, state, reply, at in self.ask(sql):
            question = StoredQuestion(number, method, json.loads(params), state, _object(reply), at)
            made.setdefault(run, []).append(question)
        return made

    def _events(self) -> dict[int, list[StoredEvent]]:
        made: dict[int, list[StoredEvent]] = {}
        sql = (
            "SELECT e.run, e.n, e.kind, coalesce(e.body, run.outcome) FROM event e JOIN run ON run.seq = e.run "
            "ORDER BY e.run, e.n"
        )
        for run, n, kind, body in self.ask(sql):
            made.setdefault(run, []).append(StoredEvent(n, kind, _object(body) or {}))
        return made

    def _streams(self) -> dict[int, list[str]]:
        made: dict[int, list[str]] = {}
        for run, stream in self.ask("SELECT run, id FROM stream"):
            made.setdefault(run, []).append(stream)
        return made

    # --- single looks, while the drill goes on ------------------------------------------------------

    def crashes(self) -> int:
        """The most crashes in a row of any run that isn't finished."""
        rows = self.ask("SELECT coalesce(max(crashes), 0) FROM run WHERE state IN ('ready', 'running', 'waiting')")
        return int(rows[0][0]) if rows else 0

    def recorded(self, run: str) -> int:
        """How many steps of a run are recorded."""
        sql = "SELECT count(*) FROM entry WHERE kind = 'done' AND run = (SELECT seq FROM run WHERE id = ?)"
        return int(self.ask(sql, (run,))[0][0])

    def answered(self, conversation: str) -> set[str]:
        """What was asked and has its answer, of one conversation."""
        sql = (
            "SELECT q.method, q.params FROM question q JOIN run ON run.seq = q.run "
            "WHERE q.state = 'answered' AND json_extract(run.call, '$.arguments.conversation') = ?"
        )
        return {text_of(method, json.loads(params)) for method, params in self.ask(sql, (conversation,))}


def _object(text: str | None) -> dict[str, Any] | None:
    if not text:
        return None
    decoded = json.loads(text)
    return decoded if isinstance(decoded, dict) else None
