"""How attempts end that did not come to a result of their own: the `End` of each, and what callers are told."""

from __future__ import annotations

from milepost.core.attempts import Batch, End, EndKind
from milepost.core.records import Outcome


def refused_end(run_id: str, error: Exception) -> End:
    """The end of an attempt whose record the store will not take, now or ever: it needs a person."""
    reason = (
        f"the store refuses what the run records ({type(error).__name__}: {error}). Steps that were at work may have "
        f"had their effects without being recorded. Correct the cause, then `milepost runs retry {run_id}` goes on "
        "from what is recorded"
    )
    return End(EndKind.GIVE_UP, reason=reason)


def error_outcome(text: str) -> Outcome:
    """A tool result that says what went wrong (handshake-era form; the endpoint shapes it for its wire)."""
    return Outcome(result={"content": [{"type": "text", "text": text}], "isError": True})


def cancelled_end(reason: str, batch: Batch) -> End:
    """The end of a run whose clean-up is done; which final state it is, its reason says."""
    kind = EndKind.END_CANCELLED
    if reason.startswith("expired"):
        kind = EndKind.EXPIRE
    elif reason.startswith("limit"):
        kind = EndKind.FAIL
    return End(kind, outcome=error_outcome(f"this run was ended: {reason}"), reason=reason, batch=batch)
