"""The verbs that come from outside an attempt: answer and steer. The run row is looked at first, always."""

from __future__ import annotations

from collections.abc import Mapping

from milepost.core.outside import Action, ActionKind, Verdict
from milepost.core.records import EventKind, Principal, QuestionState, Reply, Run
from milepost.core.states import ANSWERABLE, FINAL, Cause, RunState
from milepost.store import rows
from milepost.store.sqlite import connections
from milepost.store.sqlite.held import HeldRun
from milepost.store.sqlite.queries import query
from milepost.store.sqlite.tx import Tx

_FATE, _ANSWER = query("question_fate"), query("answer_question")


def answer(tx: Tx, run_id: str, replies: Mapping[int, Reply], by: Principal, via: str) -> Mapping[int, Verdict]:
    """See `RunStore.answer`: all replies in one transaction, with one wake."""
    held = HeldRun.by_id(tx, run_id)
    if held is None:
        return dict.fromkeys(replies, Verdict.UNKNOWN)
    verdicts = {number: _judge(tx, held, number, reply, by) for number, reply in replies.items()}
    accepted = [number for number, verdict in verdicts.items() if verdict is Verdict.ACCEPTED]
    for number in accepted:
        values = (rows.reply_text(replies[number]), rows.principal_text(by), via, tx.wall, held.seq, number)
        tx.rows(_ANSWER, values)
        held.emit(EventKind.CLOSED, {"question": number, "state": QuestionState.ANSWERED.value, "via": via})
    if accepted:
        held.wake()
        if held.can(Cause.ANSWER):
            held.next_at = held.reason = None
            held.move(Cause.ANSWER)
        held.save()
    return verdicts


def _judge(tx: Tx, held: HeldRun, number: int, reply: Reply, by: Principal) -> Verdict:
    fate = tx.row(_FATE, (held.seq, number))
    if fate is None:
        return Verdict.UNKNOWN
    state, expires_at, stored, stored_by = fate
    if state == QuestionState.ANSWERED.value:
        return Verdict.REPEATED if _same(stored, stored_by, reply, by) else Verdict.CLOSED
    late = expires_at is not None and expires_at <= tx.wall
    if state != QuestionState.OPEN.value or late or held.state not in ANSWERABLE:
        return Verdict.CLOSED
    return Verdict.ACCEPTED


def _same(stored: str, stored_by: str, reply: Reply, by: Principal) -> bool:
    if rows.principal_of(stored_by).owner != by.owner:
        return False
    return rows.canonical(rows.decode(stored)) == rows.canonical(rows.decode(rows.reply_text(reply)))


def steer(tx: Tx, run_id: str, action: Action) -> Run | None:
    """See `RunStore.steer`."""
    held = HeldRun.by_id(tx, run_id)
    if held is None:
        return None
    if held.state not in FINAL and _DO[action.kind](tx, held, action):
        held.save()
    return held.as_run()


def _cancel(_tx: Tx, held: HeldRun, action: Action) -> bool:
    wanted = rows.storable(action.reason) or "client"
    if held.state is RunState.RUNNING and held.cancel is None:
        held.cancel = wanted
        held.wake()
        return True
    if not held.can(Cause.CANCEL):
        return False
    held.cancel = held.cancel or wanted
    held.next_at = None
    held.wake()
    held.move(Cause.CANCEL)
    return True


def _park(tx: Tx, held: HeldRun, action: Action) -> bool:
    live, _, _ = connections.liveness(tx, held.seq, since=tx.wall)
    if live:
        return False
    if held.state is RunState.RUNNING:
        held.park_for = action.park_for
        return True
    if not held.can(Cause.PARK):
        return False
    held.next_at = tx.wall + action.park_for
    held.reason = rows.storable(action.reason) or "the client closed its request"
    held.move(Cause.PARK)
    return True


def _attach(_tx: Tx, held: HeldRun, _action: Action) -> bool:
    wished, held.park_for = held.park_for is not None, None
    if not held.can(Cause.ATTACH):
        if wished:
            held.wake()  # its attempt is told to stop already: it goes on after that, and neither parks nor waits
        return wished
    held.next_at = held.reason = None
    held.move(Cause.ATTACH)
    return True


def _retry(_tx: Tx, held: HeldRun, action: Action) -> bool:
    if not held.can(Cause.RETRY):
        return False
    held.accept_drift = action.accept_drift
    held.crashes, held.next_at, held.reason = 0, None, None
    held.move(Cause.RETRY)
    return True


def _reask(tx: Tx, held: HeldRun, action: Action) -> bool:
    fate = tx.row(_FATE, (held.seq, action.question))
    if fate is None or fate[0] != QuestionState.OPEN.value:
        return False
    held.emit(EventKind.QUESTION, {"question": action.question, **({"note": action.note} if action.note else {})})
    return True


_DO = {
    ActionKind.CANCEL: _cancel,
    ActionKind.PARK: _park,
    ActionKind.ATTACH: _attach,
    ActionKind.RETRY: _retry,
    ActionKind.REASK: _reask,
}
