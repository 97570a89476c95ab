"""The life of a run, as one table.

This is the only place that says which state may follow which. Stores check each transition
against it, and the diagram in docs/concepts.md is drawn from it, so the three can't disagree.
"""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """Where a run stands. In all but RUNNING no process holds anything: the run costs rows only."""

    READY = "ready"
    """May be claimed by any replica that accepts its workflow's version."""
    RUNNING = "running"
    """An attempt runs it under a lease and a fence."""
    WAITING = "waiting"
    """Open questions (or a retry timer); an answer or the timer makes it ready."""
    PARKED = "parked"
    """Its modern request was closed by the client: only an attach, an answer or an operator starts it."""
    CANCELLING = "cancelling"
    """May be claimed for one last attempt, in which pending questions raise and clean-up steps may run."""
    STUCK = "stuck"
    """Needs a person, and says why in `Run.reason`."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Cause(StrEnum):
    """What moves a run from one state to another."""

    CLAIM = "claim"
    CLAIM_LAST = "claim for clean-up"
    SUSPEND = "suspend"
    SUSPEND_AWAKE = "suspend, already answered"
    SUSPEND_CANCELLED = "suspend, cancel asked"
    SUSPEND_PARKED = "suspend, client closed its request"
    RELEASE = "release (drain)"
    RELEASE_LAST = "release during clean-up"
    ANSWER = "answer"
    TIMER = "timer"
    PARK = "client closed its request"
    ATTACH = "attach"
    CANCEL = "cancel"
    GIVE_UP = "needs a person"
    RETRY = "retry by an operator"
    COMPLETE = "function returned"
    FAIL = "function raised"
    END_CANCELLED = "clean-up done"
    EXPIRE = "expired"


_R = RunState
_C = Cause

TRANSITIONS: dict[tuple[RunState, Cause], RunState] = {
    (_R.READY, _C.CLAIM): _R.RUNNING,
    (_R.RUNNING, _C.CLAIM): _R.RUNNING,  # a takeover: the lease ran out or its owner is gone
    (_R.CANCELLING, _C.CLAIM_LAST): _R.RUNNING,
    (_R.RUNNING, _C.SUSPEND): _R.WAITING,
    (_R.RUNNING, _C.SUSPEND_AWAKE): _R.READY,
    (_R.RUNNING, _C.SUSPEND_CANCELLED): _R.CANCELLING,
    (_R.RUNNING, _C.SUSPEND_PARKED): _R.PARKED,
    (_R.RUNNING, _C.RELEASE): _R.READY,
    (_R.RUNNING, _C.RELEASE_LAST): _R.CANCELLING,
    (_R.RUNNING, _C.GIVE_UP): _R.STUCK,
    (_R.RUNNING, _C.COMPLETE): _R.COMPLETED,
    (_R.RUNNING, _C.FAIL): _R.FAILED,
    (_R.RUNNING, _C.END_CANCELLED): _R.CANCELLED,
    (_R.RUNNING, _C.EXPIRE): _R.EXPIRED,
    (_R.WAITING, _C.ANSWER): _R.READY,
    (_R.WAITING, _C.TIMER): _R.READY,
    (_R.WAITING, _C.PARK): _R.PARKED,
    (_R.WAITING, _C.CANCEL): _R.CANCELLING,
    (_R.READY, _C.PARK): _R.PARKED,
    (_R.READY, _C.CANCEL): _R.CANCELLING,
    (_R.PARKED, _C.ATTACH): _R.READY,
    (_R.PARKED, _C.ANSWER): _R.READY,
    (_R.PARKED, _C.RETRY): _R.READY,
    (_R.PARKED, _C.CANCEL): _R.CANCELLING,
    (_R.PARKED, _C.TIMER): _R.CANCELLING,  # parked for too long: clean up, then `expired`
    (_R.STUCK, _C.RETRY): _R.READY,
    (_R.STUCK, _C.CANCEL): _R.CANCELLING,
}

FINAL: frozenset[RunState] = frozenset({_R.COMPLETED, _R.FAILED, _R.CANCELLED, _R.EXPIRED})
UNFINISHED: frozenset[RunState] = frozenset(RunState) - FINAL
CLAIMABLE: frozenset[RunState] = frozenset({_R.READY, _R.CANCELLING})
SHOWN: frozenset[RunState] = frozenset({_R.WAITING, _R.PARKED, _R.CANCELLING, _R.STUCK})
"""States that watchers are told of by an event of their own. A final one is told by the result."""
ANSWERABLE: frozenset[RunState] = frozenset({_R.READY, _R.RUNNING, _R.WAITING, _R.PARKED})


def follow(state: RunState, cause: Cause) -> RunState | None:
    """The state that `cause` leads to from `state`, or None where the table has no such arrow."""
    return TRANSITIONS.get((state, cause))


def diagram() -> str:
    """The table as a Mermaid state diagram (docs/concepts.md holds exactly this text)."""
    lines = ["stateDiagram-v2", "    [*] --> ready: call"]
    lines += [f"    {a} --> {b}: {cause}" for (a, cause), b in TRANSITIONS.items()]
    lines += [f"    {state} --> [*]" for state in RunState if state in FINAL]
    return "\n".join(lines)
