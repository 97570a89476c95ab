"""Values in the form of the verbs' arguments, and what a verb need not send back because the caller knows it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from milepost.core.attempts import Batch, Claimant, End, EndKind
from milepost.core.records import EntryKind, NewRun, Run, Stream
from milepost.core.states import Cause, RunState
from milepost.store import rows
from milepost.store.postgres.faults import JournalGap

_CAUSES = {
    EndKind.COMPLETE: Cause.COMPLETE,
    EndKind.FAIL: Cause.FAIL,
    EndKind.END_CANCELLED: Cause.END_CANCELLED,
    EndKind.EXPIRE: Cause.EXPIRE,
    EndKind.GIVE_UP: Cause.GIVE_UP,
}
_FINAL = frozenset(_CAUSES) - {EndKind.GIVE_UP}


def cause_of(kind: EndKind) -> str | None:
    """The cause that a kind of end stands for; None where the run's own state decides."""
    cause = _CAUSES.get(kind)
    return cause.value if cause is not None else None


def outcome_of(end: End) -> str | None:
    """The outcome's text for a final kind. A merged run may have none."""
    if end.kind not in _FINAL or (end.merged_into is not None and end.outcome is None):
        return None
    return rows.outcome_text(end.outcome)


def storable(text: str | None) -> str | None:
    """Text without what PostgreSQL can't keep: half characters, and the character 0."""
    return rows.storable(text).replace("\0", "?") if text is not None else None


def fences(count: int) -> list[str]:
    """So many attempt ids: 128 random bits each."""
    noise = os.urandom(16 * count).hex()
    return [noise[32 * n : 32 * n + 32] for n in range(count)]


def of_new_run(new: NewRun) -> tuple[list[str | None], int, bytes]:
    """p_run, p_version, p_salt of `verbs.create`."""
    texts = [
        new.id, new.tool, new.lane.value, rows.call_text(new.call), new.call_key, new.scope, new.release, new.rival,
        new.given_to, rows.run_kind(new), rows.owner_text(new.call.principal), new.call_id,
    ]  # fmt: skip
    return texts, new.version, new.salt


def of_stream(stream: Stream) -> list[str | None]:
    """p_stream of `verbs.create` and `verbs.open_stream`."""
    token = rows.id_text(stream.progress_token) if stream.progress_token is not None else None
    return [
        stream.id, rows.id_text(stream.request_id), stream.session, token, rows.principal_text(stream.owner),
        stream.replica,
    ]  # fmt: skip


def new_run(new: NewRun, at: float, claimant: Claimant | None, attempt_id: str | None) -> Run:
    """The run as `verbs.create` has just stored it."""
    claimed = claimant is not None
    return Run(
        new.id, new.tool, new.version, new.lane, RunState.RUNNING if claimed else RunState.READY, new.call,
        new.call_key, new.scope, new.salt, new.release, at, at,
        epoch=int(claimed),
        attempt_id=attempt_id,
        owner=claimant.owner if claimant is not None else None,
        rival=new.rival,
        given_to=new.given_to,
        call_id=new.call_id,
    )  # fmt: skip


def opened(stream: Stream, run_id: str, at: float) -> Stream:
    """The stream as `verbs.create` has just stored it."""
    return Stream(
        stream.id, run_id, stream.request_id, stream.session, stream.progress_token, stream.owner, stream.replica,
        stream.attached, stream.opened_at or at,
    )  # fmt: skip


def of_batch(batch: Batch) -> tuple[int, str | None, str | None, str | None, str | None, float, bool]:
    """p_first, p_entries, p_questions, p_events, p_stage, p_progress, p_progressed.

    Raises TypeError or ValueError for what JSON can't say, JournalGap for entries that don't follow each other.
    """
    first = batch.entries[0].n if batch.entries else 0
    if any(entry.n != n for n, entry in enumerate(batch.entries, first)):
        raise JournalGap(f"the entries {[entry.n for entry in batch.entries]} don't follow each other")
    entries = [
        (e.n, e.kind.value, e.name, e.digest, e.key, e.occurrence, e.value, len(e.value) if e.value else 0)
        for e in batch.entries
    ]
    questions = [
        (q.id, q.method, rows.body_text(q.params), q.digest, q.key, q.occurrence, q.stage, q.expires_in)
        for q in batch.questions
    ]
    events = [(event.kind.value, rows.body_text(event.body)) for event in batch.events]
    progressed = bool(batch.questions) or any(entry.kind is not EntryKind.BEGUN for entry in batch.entries)
    return first, _json(entries), _json(questions), _json(events), batch.stage, batch.progress or 0.0, progressed


def _json(items: Sequence[Any]) -> str | None:
    return rows.encode(items) if items else None
