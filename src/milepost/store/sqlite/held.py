"""A run row that a transaction holds: read, changed by the rules of the state table, saved once.

Everything that a transaction says of a run goes through here, so that no verb can forget the counter, the
event or the transition that belongs to a change.
"""

from __future__ import annotations

from typing import Any

from milepost.core.attempts import Claimant, Fence
from milepost.core.errors import Fenced, StoreError
from milepost.core.records import EventKind, JSONObject, QuestionState, Run
from milepost.core.states import SHOWN, Cause, RunState, follow
from milepost.store import rows
from milepost.store.sqlite.queries import query
from milepost.store.sqlite.tx import Tx

_BY_ID, _BY_SEQ, _SAVE = query("hold_by_id"), query("hold_by_seq"), query("save_run")
_EVENT, _OPEN, _CLOSE = query("insert_event"), query("open_questions"), query("close_question")


class HeldRun:
    """One run row inside a write transaction. Change it, then `save` it."""

    def __init__(self, tx: Tx, row: rows.Row) -> None:
        self._tx = tx
        self._first = row[:12]
        (
            self.epoch, self.attempt_id, self.owner, self.crashes, self.wake_seq, self.event_seq, self.journal_seq,
            self.working, self.stage, self.progress, self.next_at, self.reason, self.cancel, self.accept_drift,
            self.rival, self.merged_into, self.outcome, self.delivery, self.sent_at, _asked, self.given_to,
            self._call_id, self.seq, self.format, self.lease_until, self.lease_boot, self.mark, self.park_for,
        ) = row[12:]  # fmt: skip
        self.id: str = row[0]
        self.state = RunState(row[4])
        self._events: list[tuple[Any, ...]] = []

    @classmethod
    def by_id(cls, tx: Tx, run_id: str) -> HeldRun | None:
        row = tx.row(_BY_ID, (run_id,))
        return cls(tx, row) if row is not None else None

    @classmethod
    def by_seq(cls, tx: Tx, seq: int) -> HeldRun:
        row = tx.row(_BY_SEQ, (seq,))
        if row is None:
            raise StoreError(f"run row {seq} is gone")
        return cls(tx, row)

    @classmethod
    def fenced(cls, tx: Tx, fence: Fence) -> HeldRun:
        """The run, if that attempt still holds it. Raises Fenced."""
        held = cls.by_id(tx, fence.run_id)
        if held is None or held.state is not RunState.RUNNING or held.attempt_id != fence.attempt_id:
            raise Fenced
        return held

    def emit(self, kind: EventKind, body: JSONObject) -> None:
        """Add an event with the run's next number."""
        self.emit_text(kind, rows.body_text(body))

    def emit_text(self, kind: str, body: str | None) -> None:
        """The same for a body that is JSON text; None stands for the run's outcome."""
        self.event_seq += 1
        self._events.append((self.seq, self.event_seq, kind, body, self._tx.wall, self._tx.settings.entry_format))

    def can(self, cause: Cause) -> bool:
        return follow(self.state, cause) is not None

    def move(self, cause: Cause) -> None:
        """Follow the state table; tells watchers where that matters to people."""
        state = follow(self.state, cause)
        if state is None:
            raise StoreError(f"run {self.id} is {self.state}, where {cause!r} leads nowhere")
        self.state = state
        if state is not RunState.RUNNING:
            self.attempt_id = self.owner = None
        if state in SHOWN:
            told = self.cancel if state is RunState.CANCELLING else self.reason
            self.emit(EventKind.STATE, {"state": state.value, **({"reason": told} if told else {})})

    def wake(self) -> None:
        self.wake_seq += 1

    def start(self, claimant: Claimant, attempt_id: str) -> None:
        """Put it under a claimant's lease and a new fence."""
        self.move(Cause.CLAIM_LAST if self.state is RunState.CANCELLING else Cause.CLAIM)
        self.account()
        self.epoch += 1
        self.attempt_id, self.owner, self.next_at = attempt_id, claimant.owner, None
        self.lease_until, self.lease_boot = self._tx.boot + claimant.lease, self._tx.boot_id
        self.mark = self._tx.boot

    def account(self) -> None:
        """Add the work done since the last account. Of an attempt that is gone, up to the end of its lease."""
        if self.attempt_id is not None:
            self.working += max(0.0, min(self._tx.boot, self.lease_until) - self.mark)
        self.mark = self._tx.boot

    def open_questions(self) -> list[rows.Row]:
        """(id, expires_at) of its open questions."""
        return self._tx.rows(_OPEN, (self.seq,))

    def close_question(self, number: int, state: QuestionState) -> None:
        """Close an open question without an answer."""
        self._tx.rows(_CLOSE, (state.value, self._tx.wall, self.seq, number))
        self.emit(EventKind.CLOSED, {"question": number, "state": state.value})

    def save(self) -> None:
        """Write its events and its row; watchers are told after the commit."""
        if self._events:
            self._tx.many(_EVENT, self._events)
            self._events = []
        self._tx.rows(
            _SAVE,
            (
                self.state.value, self._tx.wall, self.epoch, self.attempt_id, self.owner, self.crashes, self.wake_seq,
                self.event_seq, self.journal_seq, self.working, self.stage, self.progress, self.next_at, self.reason,
                self.cancel, self.accept_drift, self.merged_into, self.outcome, self.delivery, self.format,
                self.lease_until, self.lease_boot, self.mark, self.park_for, self.seq,
            ),
        )  # fmt: skip
        self._tx.changed.add(self.id)

    def as_run(self) -> Run:
        """The record, as it is now."""
        start = [*self._first[:4], self.state.value, *self._first[5:11], self._tx.wall]
        return rows.run_of(
            [
                *start, self.epoch, self.attempt_id, self.owner, self.crashes, self.wake_seq, self.event_seq,
                self.journal_seq, self.working, self.stage, self.progress, self.next_at, self.reason, self.cancel,
                self.accept_drift, self.rival, self.merged_into, self.outcome, self.delivery, self.sent_at,
                self.park_for is not None, self.given_to, self._call_id,
            ]
        )  # fmt: skip
