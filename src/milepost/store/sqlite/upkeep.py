"""The verb that time calls: sweep. Timers fire, what is outdated is deleted, dead replicas are buried.

Each part does at most `limit` rows, so that no sweep holds the writer for long.
"""

from __future__ import annotations

from milepost.core.outside import Swept
from milepost.core.records import QuestionState
from milepost.core.states import FINAL, Cause, RunState
from milepost.store.sqlite import attempts, connections
from milepost.store.sqlite.held import HeldRun
from milepost.store.sqlite.locks import Holder
from milepost.store.sqlite.queries import query
from milepost.store.sqlite.tx import Tx

PARKED_TOO_LONG = "expired: parked for too long"

_EXPIRED, _TIMERS, _NEXT = query("expired_questions"), query("timers_due"), query("next_timer")
_OUTDATED = query("outdated_runs")
_DELETIONS = tuple(query(f"delete_{name}") for name in ("entries", "questions", "events", "streams", "run"))
_IDLE, _ENDED, _DELETE_SESSION = query("idle_sessions"), query("ended_sessions"), query("delete_session")
_REPLICAS, _RUNS_OF, _DELETE_REPLICA = query("replicas"), query("runs_of"), query("delete_replica")


def sweep(tx: Tx, limit: int) -> Swept:
    """See `RunStore.sweep`."""
    fired = _expire_questions(tx, limit)
    fired += _fire_timers(tx, limit - len(fired))  # questions first: a run's timer may be that of its question
    deleted = _delete_runs(tx, limit)
    ended = _delete_sessions(tx, limit)
    _bury_replicas(tx)
    more = limit in (len(fired), deleted, ended)
    return Swept(tuple(dict.fromkeys(fired)), more, _next_in(tx), attempts.needs(tx))


def _expire_questions(tx: Tx, limit: int) -> list[str]:
    runs = []
    for seq, number in tx.rows(_EXPIRED, {"wall": tx.wall, "limit": limit}):
        held = HeldRun.by_seq(tx, seq)
        held.close_question(number, QuestionState.EXPIRED)
        if held.state not in FINAL:
            held.wake()
        if held.state is RunState.WAITING:
            held.next_at = None
            held.move(Cause.TIMER)
        held.save()
        runs.append(held.id)
    return runs


def _fire_timers(tx: Tx, limit: int) -> list[str]:
    runs = []
    for (seq,) in tx.rows(_TIMERS, {"wall": tx.wall, "limit": limit}):
        held = HeldRun.by_seq(tx, seq)
        held.next_at = None
        if held.state is RunState.PARKED:
            held.cancel = held.cancel or PARKED_TOO_LONG
        held.wake()
        held.move(Cause.TIMER)
        held.save()
        runs.append(held.id)
    return runs


def _delete_runs(tx: Tx, limit: int) -> int:
    outdated = tx.rows(_OUTDATED, {"before": tx.wall - tx.settings.retention.runs, "limit": limit})
    for (seq,) in outdated:
        for deletion in _DELETIONS:
            tx.rows(deletion, (seq,))
    return len(outdated)


def _delete_sessions(tx: Tx, limit: int) -> int:
    keep = tx.settings.retention
    bounds = {
        "idle_since": tx.wall - keep.session_idle,
        "born_before": tx.wall - keep.session_lifetime,
        "limit": limit,
    }
    gone = [*tx.rows(_IDLE, bounds), *tx.rows(_ENDED, bounds)][:limit]
    for (session,) in gone:
        tx.rows(_DELETE_SESSION, (session,))
    return len(gone)


def _bury_replicas(tx: Tx) -> None:
    """A dead replica's streams broke when it was last heard; its own row goes when no run is left under it."""
    for replica, beat_at, _, boot_id in tx.rows(_REPLICAS):
        holder = tx.locks.holder(replica)
        if holder is not Holder.GONE and not (holder is Holder.UNKNOWN and boot_id != tx.boot_id):
            continue
        connections.detach_replica(tx, replica, beat_at)
        runs = tx.row(_RUNS_OF, (replica,))
        if runs is not None and not runs[0]:
            tx.rows(_DELETE_REPLICA, (replica,))
            tx.locks.bury(replica)


def _next_in(tx: Tx) -> float | None:
    row = tx.row(_NEXT, {"wall": tx.wall})
    if row is None or row[0] >= 1e300:
        return None
    return max(0.0, float(row[0] - tx.wall))
