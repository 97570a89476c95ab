"""Same call, same run: what an equal call does while a run of it exists (DESIGN section 3).

A merged call is visible and harmless, a doubled effect is neither; so where nobody can be asked, a
call attaches. A client that names its call by a call id has said itself what is the same call: with the same id nothing
is weighed and nobody is asked. With another id, or none, the call is judged like any other, for a client that died may
have forgotten its id; but who names calls and has had a result wants another. Pure: rivals in, decision out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from milepost.core.digest import canonical_json
from milepost.core.records import CallContext, Delivery, QuestionState, Rival, Run
from milepost.core.spec import SameRun
from milepost.core.states import FINAL

GO_ON, START_OVER = "go on", "start over"
JOIN, START_ANOTHER = "join it", "start another"


@dataclass(frozen=True, slots=True)
class Start:
    """Nothing stands in the way: a new run."""


@dataclass(frozen=True, slots=True)
class Attach:
    """The call belongs to this run."""

    run_id: str


@dataclass(frozen=True, slots=True)
class AskWhich:
    """A new run is made whose first question is which of the two to keep."""

    run_id: str


@dataclass(frozen=True, slots=True)
class WaitToKnow:
    """Whether the other connection lives isn't known right now; decide again shortly."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The call id belongs to another call: no run may come of this one."""


Decision = Start | Attach | AskWhich | WaitToKnow | Refuse


@dataclass(frozen=True, slots=True)
class SameCallRules:
    """The settings of the decision, in seconds."""

    policy: SameRun = "ask"
    reattach_window: float = 120.0
    redeliver_for: float = 600.0
    redeliver_bare: float = 30.0
    """On the modern wire nothing tells a retry from a new wish, so a sent result is given again only briefly."""


def decide(rivals: Sequence[Rival], rules: SameCallRules, call: CallContext, call_id: str | None = None) -> Decision:
    """What a call does, given the runs of the same call. `call_id`: as a run keeps it."""
    by_id = next((rival.run for rival in rivals if call_id is not None and rival.run.call_id == call_id), None)
    if by_id is not None:
        return Attach(by_id.id) if is_same_call(by_id, call) else Refuse()
    if rules.policy == "never":
        return Start()
    for rival in sorted(rivals, key=lambda r: (r.run.state in FINAL, -r.run.created_at)):
        decision = _judge(rival, rules, call, named=call_id is not None)
        if not isinstance(decision, Start):
            return decision
    return Start()


def is_same_call(run: Run, call: CallContext) -> bool:
    """Whether this call is, word for word, the one that `run` was made by: its tool and all its arguments."""
    if run.call.tool != call.tool:
        return False
    return canonical_json(run.call.arguments) == canonical_json(call.arguments)


def _judge(rival: Rival, rules: SameCallRules, call: CallContext, *, named: bool) -> Decision:
    if rival.run.cancel == "client":
        return Start()  # its own client wanted no more of it: an equal call is a new wish
    if rival.run.state in FINAL:
        return _judge_finished(rival, rules, call.session, named=named)
    if rival.doubtful and not rival.live:
        return WaitToKnow()
    asks = rules.policy == "ask" and "elicitation" in call.capabilities
    if asks and (rival.live or rival.orphaned_for > rules.reattach_window):
        return AskWhich(rival.run.id)
    return Attach(rival.run.id)


def _judge_finished(rival: Rival, rules: SameCallRules, session: str | None, *, named: bool) -> Decision:
    run = rival.run
    if run.merged_into is not None or run.delivery is Delivery.CONFIRMED or run.delivery is None:
        return Start()
    if run.delivery is Delivery.UNSENT:
        return Attach(run.id)
    if session is not None and run.call.session == session:
        return Start()  # a later call of the same session: that client has gone on
    if named and run.call_id is not None:
        return Start()  # had that result been lost, its client would have come with its id
    window = rules.redeliver_for if session is not None else rules.redeliver_bare
    return Attach(run.id) if rival.sent_for <= window else Start()


def which_question(rival: Rival) -> Mapping[str, Any]:
    """The elicitation (form) that lets the person choose, showing what was answered so far."""
    first, second = (JOIN, START_ANOTHER) if rival.live else (GO_ON, START_OVER)
    where = "is still open in another window" if rival.live else "was left unfinished"
    return {
        "message": f"An earlier {rival.run.tool!r} with the same input {where}.{_answered(rival)} "
        f"Do you want to {first}, or {second}?",
        "requestedSchema": {
            "type": "object",
            "properties": {"choice": {"type": "string", "title": "Earlier run", "enum": [first, second]}},
            "required": ["choice"],
        },
    }


def _answered(rival: Rival) -> str:
    lines = [
        f"{question.params.get('message', question.method)} -> {_shown(question.reply.result)}"
        for question in rival.questions
        if question.state is QuestionState.ANSWERED and question.reply and question.reply.result
    ]
    return f" Answered so far: {'; '.join(lines)}." if lines else ""


def _shown(result: Mapping[str, Any]) -> str:
    content = result.get("content")
    if not isinstance(content, Mapping):
        return str(result.get("action", "answered"))
    return ", ".join(f"{name}: {value}" for name, value in content.items())
