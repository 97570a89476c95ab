from dataclasses import replace

import pytest

from milepost.core.records import (
    CallContext,
    Delivery,
    Lane,
    Question,
    QuestionState,
    Reply,
    Rival,
    Run,
)
from milepost.core.same_call import (
    AskWhich,
    Attach,
    Refuse,
    SameCallRules,
    Start,
    WaitToKnow,
    decide,
    which_question,
)
from milepost.core.states import RunState

RUN = Run(
    id="run-1", tool="book", version=1, lane=Lane.WORKFLOW, state=RunState.WAITING,
    call=CallContext("book", {}, 1, "2025-11-25", session="s1"), call_key="k", scope="p", salt=b"", release="",
    created_at=0.0, updated_at=0.0,
)  # fmt: skip
RULES = SameCallRules()


def rival(
    *, live: bool = False, doubtful: bool = False, orphaned_for: float = 10.0, sent_for: float = 0.0, **run: object
) -> Rival:
    return Rival(replace(RUN, **run), live, doubtful, orphaned_for, sent_for=sent_for)  # type: ignore[arg-type]


def judge(*rivals: Rival, rules: SameCallRules = RULES, session: str | None = "s2", can_ask: bool = True) -> object:
    capabilities: dict[str, object] = {"elicitation": {}} if can_ask else {}
    return decide(rivals, rules, replace(RUN.call, session=session, capabilities=capabilities))


def test_without_a_rival_a_run_starts() -> None:
    assert judge() == Start()


def test_a_recently_orphaned_run_is_taken_up_in_silence() -> None:
    assert judge(rival(orphaned_for=119)) == Attach("run-1")


def test_one_orphaned_for_longer_is_asked_about() -> None:
    assert judge(rival(orphaned_for=121)) == AskWhich("run-1")


def test_a_live_one_is_asked_about() -> None:
    assert judge(rival(live=True, orphaned_for=0)) == AskWhich("run-1")


def test_where_nobody_can_be_asked_the_call_attaches() -> None:
    assert judge(rival(live=True), can_ask=False) == Attach("run-1")
    assert judge(rival(orphaned_for=9999), can_ask=False) == Attach("run-1")


def test_always_attaches_and_never_starts() -> None:
    assert judge(rival(live=True), rules=replace(RULES, policy="always")) == Attach("run-1")
    assert judge(rival(), rules=replace(RULES, policy="never")) == Start()


def test_doubt_waits_instead_of_guessing() -> None:
    assert judge(rival(doubtful=True)) == WaitToKnow()


@pytest.mark.parametrize(
    ("delivery", "sent_for", "session", "expected"),
    [
        (Delivery.UNSENT, 0.0, "s1", Attach("run-1")),
        (Delivery.SENT, 100.0, "s1", Start()),
        (Delivery.SENT, 100.0, "s2", Attach("run-1")),
        (Delivery.SENT, 900.0, "s2", Start()),
        (Delivery.SENT, 20.0, None, Attach("run-1")),
        (Delivery.SENT, 100.0, None, Start()),
        (Delivery.CONFIRMED, 100.0, "s2", Start()),
        (None, 0.0, "s2", Start()),
    ],
)
def test_hazard_d3_a_finished_run_is_taken_up_while_its_result_may_not_have_arrived(
    delivery: Delivery | None, sent_for: float, session: str | None, expected: object
) -> None:
    assert judge(rival(state=RunState.COMPLETED, delivery=delivery, sent_for=sent_for), session=session) == expected


def test_a_merged_run_is_no_rival() -> None:
    assert judge(rival(state=RunState.CANCELLED, delivery=Delivery.UNSENT, merged_into="run-0")) == Start()


def test_a_run_that_its_client_cancelled_is_no_rival() -> None:
    assert judge(rival(state=RunState.CANCELLED, cancel="client", delivery=Delivery.UNSENT)) == Start()
    assert judge(rival(state=RunState.CANCELLING, cancel="client", orphaned_for=0)) == Start()
    assert judge(rival(state=RunState.CANCELLED, cancel="operator", delivery=Delivery.UNSENT)) == Attach("run-1")


def test_an_unfinished_run_comes_before_a_finished_one() -> None:
    finished = rival(id="run-2", state=RunState.COMPLETED, delivery=Delivery.UNSENT, created_at=9.0)
    assert judge(finished, rival()) == Attach("run-1")


def test_the_question_shows_what_was_answered() -> None:
    answered = Question(
        "run-1", 1, "elicitation/create", {"message": "When?"}, "d", state=QuestionState.ANSWERED,
        reply=Reply({"action": "accept", "content": {"day": "2026-12-01"}}),
    )  # fmt: skip
    declined = replace(answered, id=2, params={}, reply=Reply({"action": "decline"}))
    asked = which_question(Rival(RUN, False, False, 300.0, (answered, declined)))
    assert "When? -> day: 2026-12-01; elicitation/create -> decline" in asked["message"]
    assert asked["requestedSchema"]["properties"]["choice"]["enum"] == ["go on", "start over"]


def test_of_a_live_run_it_offers_to_join() -> None:
    asked = which_question(Rival(RUN, True, False, 0.0))
    assert asked["requestedSchema"]["properties"]["choice"]["enum"] == ["join it", "start another"]
    assert "Answered so far" not in asked["message"]


@pytest.mark.parametrize("policy", ["ask", "always", "never"])
@pytest.mark.parametrize(
    "found",
    [
        rival(call_id="mine", live=True),
        rival(call_id="mine", doubtful=True),
        rival(call_id="mine", orphaned_for=9999),
        rival(call_id="mine", state=RunState.PARKED),
        rival(call_id="mine", state=RunState.COMPLETED, delivery=Delivery.SENT, sent_for=9999),
        rival(call_id="mine", state=RunState.CANCELLED, delivery=Delivery.CONFIRMED),
    ],
)
def test_a_call_id_leads_to_its_run_however_it_stands_and_whatever_the_policy_says(found: Rival, policy: str) -> None:
    rules = replace(RULES, policy=policy)  # type: ignore[arg-type]
    assert decide([found], rules, RUN.call, "mine") == Attach("run-1")


@pytest.mark.parametrize("call", [{"tool": "cancel"}, {"arguments": {"day": 1}}, {"arguments": {"day": 1.0}}])
def test_a_call_id_that_names_another_call_is_refused(call: dict[str, object]) -> None:
    found = rival(call_id="mine")
    assert decide([found], RULES, replace(RUN.call, **call), "mine") == Refuse()  # type: ignore[arg-type]
    assert decide([found], RULES, replace(RUN.call, session="s9", request_id=7, trace_id="x"), "mine") == Attach(
        "run-1"
    )


@pytest.mark.parametrize("theirs", [None, "theirs"])
def test_an_equal_call_with_another_id_is_judged_like_any_other(theirs: str | None) -> None:
    """Its client may have died, and forgotten the id."""
    call = replace(RUN.call, capabilities={"elicitation": {}})
    assert decide([rival(call_id=theirs)], RULES, call, "mine") == Attach("run-1")
    assert decide([rival(call_id=theirs, live=True, orphaned_for=0)], RULES, call, "mine") == AskWhich("run-1")
    unsent = rival(call_id=theirs, state=RunState.COMPLETED, delivery=Delivery.UNSENT)
    assert decide([unsent], RULES, call, "mine") == Attach("run-1")


def test_who_names_calls_and_was_sent_a_result_wants_another() -> None:
    def sent(call_id: str | None) -> Rival:
        return rival(call_id=call_id, state=RunState.COMPLETED, delivery=Delivery.SENT, sent_for=1.0)

    call = replace(RUN.call, session=None)
    assert decide([sent("theirs")], RULES, call, "mine") == Start()
    assert decide([sent(None)], RULES, call, "mine") == Attach("run-1")
    assert decide([sent("theirs")], RULES, call) == Attach("run-1")
