"""The proof: over the database's rows, what the clients heard, and the booking system's ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from drills import checks
from drills.checks import History
from drills.history import StoredRun, Told
from milepost.demo.proof import Check

DONE = ("hold_seat", "rebook", "send_letter")
"""What is done in the outside world for each traveller, once."""


def judge(
    runs: Sequence[StoredRun], told: Sequence[Told], effects: Sequence[tuple[str, str, int]], cut: int
) -> list[Check]:
    """What must hold. `cut`: steps that may have been in flight when their replica was killed."""
    history = History(runs=runs, told=told)
    answers = sum(len(one.acks) for one in told)
    with_result = sum(one.result is not None and not one.error for one in told)
    kept = len(list(checks.acknowledged_kept(history)))
    again = len(list(checks.not_asked_again(history))) + sum("asked again" in one for t in told for one in t.complaints)
    done = Counter((pnr, kind) for pnr, kind, _ in effects)
    once = sum(times == 1 for times in done.values())
    repeated = sum(calls - 1 for *_, calls in effects)
    found = checks.violations(history)
    return [
        Check(
            "every traveller has the receipt that is stored", with_result == len(told), f"{with_result} of {len(told)}"
        ),
        Check("no answer that was acknowledged is lost", kept == 0, f"{kept} of {answers}"),
        Check("no answered question was asked again", again == 0, f"{again} of {answers}"),
        Check(
            "every effect on the outside world happened once",
            once == len(done) == len(DONE) * len(told),
            f"{once} of {len(done)}",
        ),
        Check("only steps that were killed in flight were asked for again", repeated <= cut, f"{repeated}, same key"),
        Check("journals, events and streams have no gap", not found, found[0] if found else f"{len(runs)} runs"),
    ]
