"""The verb that ends an attempt: settle. It gives the run back in one of the seven ways of `EndKind`."""

from __future__ import annotations

from milepost.core.attempts import End, EndKind, Fence
from milepost.core.errors import StoreError
from milepost.core.records import Delivery, EventKind, QuestionState, Run
from milepost.core.states import Cause
from milepost.store import rows
from milepost.store.sqlite import attempts, connections
from milepost.store.sqlite.attempts import JournalGap, Prepared
from milepost.store.sqlite.held import HeldRun
from milepost.store.sqlite.tx import Tx

_FINAL = {
    EndKind.COMPLETE: Cause.COMPLETE,
    EndKind.FAIL: Cause.FAIL,
    EndKind.END_CANCELLED: Cause.END_CANCELLED,
    EndKind.EXPIRE: Cause.EXPIRE,
}


def settle(tx: Tx, fence: Fence, end: End, batch: Prepared) -> Run:
    """See `RunStore.settle`; `batch` is `end.batch`, prepared."""
    held = HeldRun.fenced(tx, fence)
    held.account()
    _write_batch(tx, held, batch)
    if end.kind in _FINAL:
        _finish(held, end, _FINAL[end.kind])
    elif end.kind is EndKind.SUSPEND:
        _suspend(tx, held, end)
    elif end.kind is EndKind.GIVE_UP:
        held.reason, held.next_at = _reason(end), None
        held.move(Cause.GIVE_UP)
    else:
        _release(held)
    held.save()
    return held.as_run()


def _write_batch(tx: Tx, held: HeldRun, batch: Prepared) -> None:
    expected = range(held.journal_seq + 1, held.journal_seq + 1 + len(batch.entries))
    if any(entry[0] != n for entry, n in zip(batch.entries, expected, strict=True)):
        raise JournalGap(f"run {held.id}: the journal goes on with entry {expected.start}, not {batch.entries[0][0]}")
    attempts.insert_rows(tx, held.seq, held.epoch, held.event_seq + 1, batch)
    held.journal_seq += len(batch.entries)
    held.event_seq += len(batch.events)
    held.progress = max(held.progress, batch.progress)
    if batch.stage is not None:
        held.stage = batch.stage or None
    if batch.entries or batch.events:
        held.format = max(held.format, tx.settings.entry_format)
    if batch.progressed:
        held.crashes = 0


def _suspend(tx: Tx, held: HeldRun, end: End) -> None:
    """Cancelled, awake, parked or waiting, in this order (see `End`)."""
    expiries = _withdraw(held, keep=end.asked)
    held.crashes, held.next_at = 0, None
    if held.cancel is not None:
        held.move(Cause.SUSPEND_CANCELLED)
    elif held.wake_seq > end.seen or _taken_up(tx, held):
        held.move(Cause.SUSPEND_AWAKE)
    elif end.park or held.park_for is not None:
        held.next_at = tx.wall + (held.park_for if held.park_for is not None else tx.settings.park_for)
        held.reason, held.park_for = _reason(end) or "the client closed its request", None
        held.move(Cause.SUSPEND_PARKED)
    else:
        timers = expiries if end.timer_in is None else [*expiries, tx.wall + end.timer_in]
        held.next_at = min(timers, default=None)
        held.move(Cause.SUSPEND)


def _taken_up(tx: Tx, held: HeldRun) -> bool:
    """A park was asked for while it ran, and somebody has come back since.

    Its attempt stopped because of the park, perhaps with nothing asked: nothing would wake it but going on at once.
    """
    if held.park_for is None:
        return False
    live, doubtful, _ = connections.liveness(tx, held.seq, since=tx.wall)
    if live or doubtful:
        held.park_for = None
    return live or doubtful


def _withdraw(held: HeldRun, *, keep: frozenset[int] = frozenset()) -> list[float]:
    """Withdraw open questions that aren't kept; the expiries of those that are."""
    expiries: list[float] = []
    for number, expires_at in held.open_questions():
        if number not in keep:
            held.close_question(number, QuestionState.WITHDRAWN)
        elif expires_at is not None:
            expiries.append(expires_at)
    return expiries


def _release(held: HeldRun) -> None:
    held.next_at = None
    held.move(Cause.RELEASE if held.cancel is None else Cause.RELEASE_LAST)


def _finish(held: HeldRun, end: End, cause: Cause) -> None:
    """Store the outcome and say it last; a merged run says which one to go on with instead."""
    _withdraw(held)
    held.crashes, held.next_at, held.park_for = 0, None, None
    held.reason = _reason(end) or held.reason
    if end.merged_into is not None:
        if end.merged_into == held.id:
            raise StoreError(f"run {held.id} can't be merged into itself")
        held.merged_into = end.merged_into
        held.delivery = Delivery.CONFIRMED.value
        held.outcome = rows.outcome_text(end.outcome) if end.outcome is not None else None
        held.emit(EventKind.MERGED, {"into": end.merged_into})
    else:
        held.delivery = Delivery.UNSENT.value
        held.outcome = rows.outcome_text(end.outcome)
        held.emit_text(EventKind.RESULT.value, None)
    held.move(cause)


def _reason(end: End) -> str | None:
    return rows.storable(end.reason) if end.reason is not None else None
