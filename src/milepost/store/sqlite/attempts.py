"""The verbs of an attempt's life: create, claim, append, settle, extend. Each runs inside one transaction.

The fence is the `attempt_id`: 128 random bits that a claim writes into the run row. Lease time is the boot
clock's; an owner whose lock is free is gone at once (HAZARDS B2, B3, B5).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from milepost.core.attempts import Appended, Batch, Claim, Claimant, Created, Fence
from milepost.core.errors import Fenced, StoreError
from milepost.core.records import EntryKind, NewRun, Rival, Run, Stream
from milepost.core.states import Cause, RunState
from milepost.core.versions import Need
from milepost.store import rows
from milepost.store.sqlite import connections
from milepost.store.sqlite.held import HeldRun
from milepost.store.sqlite.locks import Holder
from milepost.store.sqlite.queries import query
from milepost.store.sqlite.tx import Tx

_RUN, _INSERT_RUN = query("run_by_id"), query("insert_run")
_RIVALS, _SAME_CALL_ID = query("rivals"), query("same_call_id")
_QUESTIONS = query("questions")
_APPEND, _EXTEND = query("append"), query("extend")
_ENTRY, _QUESTION, _EVENT = query("insert_entry"), query("insert_question"), query("insert_event")
_SAME = query("same_entries")
_NEXT_KIND, _DUE, _LEASE_OVER, _RUNNING_OF = query("next_kind"), query("due"), query("lease_over"), query("running_of")
_REPLICAS, _BEAT = query("replicas"), query("beat")
_NEED_OF_KIND, _NEED_OF_RUN = query("need_of_kind"), query("need_of_run")

_SUSPECT_LIMIT = 60.0
"""The longest pause before a suspect run is tried again, in seconds."""


class JournalGap(StoreError):
    """An append's entries don't follow the stored journal: the attempt counted wrongly. Nothing was written."""


# --- create -------------------------------------------------------------------------------------


def create(
    tx: Tx, new: NewRun, stream: Stream, known: Collection[str], claimant: Claimant | None, *, full: bool
) -> Created | Sequence[Rival]:
    """See `RunStore.create`."""
    earlier = _repeated(tx, new, stream)
    if earlier is not None:
        return earlier
    rivals = _rivals(tx, new, known)
    if rivals or full:
        return rivals
    return _insert(tx, new, stream, claimant)


def _repeated(tx: Tx, new: NewRun, stream: Stream) -> Created | None:
    """What was created before by this very call, or by the same request of the same session."""
    row = tx.row(_RUN, (new.id,))
    if row is not None:
        return Created(rows.run_of(row), connections.open_stream(tx, _on(stream, new.id)))
    same_request = connections.by_request(tx, stream)
    if same_request is None:
        return None
    row = tx.row(_RUN, (same_request.run_id,))
    return Created(rows.run_of(row), same_request) if row is not None else None


def _rivals(tx: Tx, new: NewRun, known: Collection[str]) -> list[Rival]:
    if new.call_id is not None:
        named = tx.row(_SAME_CALL_ID, {"call_id": new.call_id})
        if named is not None:  # known or not: a call id never has a second run
            return [_rival(tx, named)]
    since = tx.wall - tx.settings.retention.redeliver
    found = tx.rows(_RIVALS, {"call_key": new.call_key, "scope": new.scope, "sent_since": since})
    return [_rival(tx, row) for row in found if row[0] not in known]


def _rival(tx: Tx, row: rows.Row) -> Rival:
    run, seq = rows.run_of(row), row[rows.RUN_WIDTH]
    live, doubtful, orphaned_for = connections.liveness(tx, seq, since=run.created_at)
    questions = [rows.question_of(question) for question in tx.rows(_QUESTIONS, (seq,))]
    sent_for = max(0.0, tx.wall - run.sent_at) if run.sent_at is not None else 0.0
    return Rival(run, live, doubtful, orphaned_for, questions, sent_for)


def _insert(tx: Tx, new: NewRun, stream: Stream, claimant: Claimant | None) -> Created:
    values = rows.new_run_row(new, at=tx.wall, entry_format=1)
    fence = None
    if claimant is None:
        values += [0, None, None, 0.0, "", 0.0]
    else:
        fence = Fence(new.id, _attempt_id())
        values[4] = RunState.RUNNING.value
        values += [1, fence.attempt_id, claimant.owner, tx.boot + claimant.lease, tx.boot_id, tx.boot]
    row = tx.row(_INSERT_RUN, values)
    if row is None:
        raise StoreError("the new run was not stored")
    run = _new_run(new, tx.wall, claimant, fence)
    opened = connections.insert(tx, _on(stream, new.id), row[0])
    tx.changed.add(new.id)
    claim = Claim(run, fence, takeover=False, since=tx.boot, now=tx.wall) if fence is not None else None
    return Created(run, opened, claim)


def _new_run(new: NewRun, at: float, claimant: Claimant | None, fence: Fence | None) -> Run:
    state = RunState.RUNNING if fence is not None else RunState.READY
    return Run(
        new.id, new.tool, new.version, new.lane, state, new.call, new.call_key, new.scope, new.salt, new.release,
        at, at,
        epoch=1 if fence is not None else 0,
        attempt_id=fence.attempt_id if fence is not None else None,
        owner=claimant.owner if claimant is not None else None,
        rival=new.rival,
        given_to=new.given_to,
        call_id=new.call_id,
    )  # fmt: skip


def _on(stream: Stream, run_id: str) -> Stream:
    if stream.run_id == run_id:
        return stream
    return Stream(
        stream.id, run_id, stream.request_id, stream.session, stream.progress_token, stream.owner, stream.replica,
        stream.attached, stream.opened_at,
    )  # fmt: skip


def _attempt_id() -> str:
    return os.urandom(16).hex()


# --- claim --------------------------------------------------------------------------------------


def claim(tx: Tx, claimant: Claimant, limit: int, takeovers: int) -> Sequence[Claim]:
    """See `RunStore.claim`."""
    kinds = rows.kinds_of(claimant)
    claims: list[Claim] = []
    for seq in _orphans(tx, kinds, min(takeovers, limit), claimant.lease):
        taken = _take_over(tx, seq, claimant)
        if taken is not None:
            claims.append(taken)
    for seq in _due(tx, kinds, limit - len(claims)):
        claims.append(_start(tx, HeldRun.by_seq(tx, seq), claimant, takeover=False))
    return claims


def _due(tx: Tx, kinds: set[str], limit: int) -> list[int]:
    """Ready and cancelling runs, the longest due first. One look-up per kind that is there, not per row."""
    due: list[tuple[Any, ...]] = []
    for kind in _kinds_present(tx) if limit > 0 else ():
        if kind in kinds:
            bounds = {"kind": kind, "wall": tx.wall, "format": tx.settings.entry_format, "limit": limit}
            due += [(at, seq) for at, seq in tx.rows(_DUE, bounds)]
    return [seq for _, seq in sorted(due)[: max(limit, 0)]]


def _kinds_present(tx: Tx) -> Iterator[str]:
    kind = ""
    while (row := tx.row(_NEXT_KIND, (kind,))) is not None and row[0] is not None:
        kind = row[0]
        yield kind


def _orphans(tx: Tx, kinds: set[str], limit: int, lease: float) -> list[int]:
    """Running runs whose owner is gone, or whose lease is over and could have been renewed."""
    found: dict[int, None] = {}
    if limit <= 0:
        return []
    stalled = tx.stall.kept_from_renewing(lease, tx.boot)
    for seq, kind in _gone_owners_runs(tx) + ([] if stalled else _over(tx)):
        if kind in kinds:
            found[seq] = None
        if len(found) == limit:
            break
    return list(found)


def _gone_owners_runs(tx: Tx) -> list[rows.Row]:
    runs: list[rows.Row] = []
    for replica, *_ in tx.rows(_REPLICAS):
        if tx.locks.holder(replica) is Holder.GONE:
            runs += tx.rows(_RUNNING_OF, {"owner": replica, "format": tx.settings.entry_format})
    return runs


def _take_over(tx: Tx, seq: int, claimant: Claimant) -> Claim | None:
    """Take a run from an owner that is gone. A suspect is set aside for a while instead (HAZARDS C5)."""
    held = HeldRun.by_seq(tx, seq)
    held.crashes += 1
    settings = tx.settings
    if not settings.suspect_after <= held.crashes < settings.stuck_after:
        return _start(tx, held, claimant, takeover=True)
    held.account()
    held.move(Cause.RELEASE_LAST if held.cancel else Cause.RELEASE)
    pause = settings.suspect_pause * 2 ** (held.crashes - settings.suspect_after)
    held.next_at = tx.wall + min(pause, _SUSPECT_LIMIT)
    held.save()
    return None


def _start(tx: Tx, held: HeldRun, claimant: Claimant, *, takeover: bool) -> Claim:
    attempt_id = _attempt_id()
    held.start(claimant, attempt_id)
    held.save()
    return Claim(held.as_run(), Fence(held.id, attempt_id), takeover, tx.boot, tx.wall)


# --- what is needed -----------------------------------------------------------------------------


def needs(tx: Tx) -> set[Need]:
    """What the runs need that could be claimed now; hot ones, which any replica claims, are left out."""
    kinds = [kind for kind in _kinds_present(tx) if kind != rows.HOT]
    found = {Need(*row) for kind in kinds for row in tx.rows(_NEED_OF_KIND, (kind,))}
    orphans = {kind: seq for seq, kind in _gone_owners_runs(tx) + _over(tx) if kind != rows.HOT}
    return found | {Need(*row) for seq in orphans.values() for row in tx.rows(_NEED_OF_RUN, (seq,))}


def _over(tx: Tx) -> list[rows.Row]:
    return tx.rows(_LEASE_OVER, {"boot": tx.boot, "format": tx.settings.entry_format})


# --- append -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch in the form of rows: encoded before it is queued, so that a value that can't be is the caller's error."""

    entries: Sequence[tuple[Any, ...]]
    questions: Sequence[tuple[Any, ...]]
    events: Sequence[tuple[str, str]]
    stage: str | None
    progress: float
    progressed: bool
    """Whether something was achieved that a crash in the next step can't take back: ends a series of crashes."""


def prepare(batch: Batch) -> Prepared:
    """Encode a batch. Raises TypeError or ValueError for what JSON can't say."""
    return Prepared(
        [
            (e.n, e.kind.value, e.name, e.digest, e.key, e.occurrence, e.value, len(e.value) if e.value else 0)
            for e in batch.entries
        ],
        [
            (q.id, q.method, rows.body_text(q.params), q.digest, q.key, q.occurrence, q.stage, q.expires_in)
            for q in batch.questions
        ],
        [(event.kind.value, rows.body_text(event.body)) for event in batch.events],
        batch.stage,
        batch.progress or 0.0,
        bool(batch.questions) or any(entry.kind is not EntryKind.BEGUN for entry in batch.entries),
    )


def append(tx: Tx, fence: Fence, batch: Prepared, lease: float) -> Appended:
    """See `RunStore.append`. The same append again (after an unknown outcome) changes nothing."""
    seq, event_seq, journal_seq, working, wake_seq, cancel, epoch = _advance(tx, fence, batch, lease, 1)
    first = journal_seq - len(batch.entries) + 1
    if not _follows(batch.entries, first):
        _check_repeated(tx, fence.run_id, seq, epoch, first, batch)
        _, event_seq, _, working, wake_seq, cancel, _ = _advance(tx, fence, batch, lease, -1)
        return Appended(event_seq, working, wake_seq, cancel)
    insert_rows(tx, seq, epoch, event_seq - len(batch.events) + 1, batch)
    if batch.events or batch.questions:
        tx.changed.add(fence.run_id)
    return Appended(event_seq, working, wake_seq, cancel)


def _advance(tx: Tx, fence: Fence, batch: Prepared, lease: float, direction: int) -> rows.Row:
    """The guard: raise the run's counters (or, with -1, take that back) if the attempt holds it. Raises Fenced."""
    row = tx.row(
        _APPEND,
        {
            "run": fence.run_id, "attempt": fence.attempt_id, "boot": tx.boot, "wall": tx.wall, "lease": lease,
            "entries": direction * len(batch.entries), "events": direction * len(batch.events), "stage": batch.stage,
            "progress": batch.progress, "progressed": batch.progressed, "format": tx.settings.entry_format,
        },
    )  # fmt: skip
    if row is None:
        raise Fenced
    return row


def _follows(entries: Sequence[tuple[Any, ...]], first: int) -> bool:
    return all(entry[0] == n for n, entry in enumerate(entries, first))


def _check_repeated(tx: Tx, run_id: str, seq: int, epoch: int, first: int, batch: Prepared) -> None:
    """Entries that don't follow the journal must be the ones that stand there already. Raises JournalGap."""
    for n, kind, name, digest, key, occurrence, _value, _size in batch.entries:
        stored = tx.row(_SAME, (seq, n, kind, name, digest, key, occurrence, epoch))
        if stored is None or not stored[0]:
            raise JournalGap(
                f"run {run_id}: its journal goes on with entry {first}, but entry {n} ({kind} {name!r}) was given"
            )


def insert_rows(tx: Tx, seq: int, epoch: int, first_event: int, batch: Prepared) -> None:
    form, at = tx.settings.entry_format, tx.wall
    if batch.entries:
        tx.many(_ENTRY, [(seq, *entry, at, epoch, form) for entry in batch.entries])
    if batch.questions:
        tx.many(
            _QUESTION,
            [(seq, *question[:-1], at, at + question[-1] if question[-1] is not None else None)
             for question in batch.questions],
        )  # fmt: skip
    if batch.events:
        tx.many(_EVENT, [(seq, n, kind, body, at, form) for n, (kind, body) in enumerate(batch.events, first_event)])


# --- extend -------------------------------------------------------------------------------------


def extend(tx: Tx, owner: str, attempts: Sequence[Fence], lease: float) -> Mapping[str, Appended]:
    """See `RunStore.extend`."""
    beat(tx, owner, lease)
    held: dict[str, Appended] = {}
    for fence in attempts:
        row = tx.row(
            _EXTEND, {"run": fence.run_id, "attempt": fence.attempt_id, "boot": tx.boot, "lease": lease}
        )  # fmt: skip
        if row is not None:
            held[fence.attempt_id] = Appended(*row)
    return held


def beat(tx: Tx, replica: str, lease: float) -> None:
    """Note that a replica is awake, and for how long that may be believed."""
    tx.rows(_BEAT, {"id": replica, "wall": tx.wall, "until": tx.boot + lease, "boot_id": tx.boot_id})
