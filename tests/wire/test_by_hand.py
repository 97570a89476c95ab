"""Answering without elicitation: what is said, and how an answer is read."""

from __future__ import annotations

from typing import Any

import pytest

from milepost.core.errors import CallerError
from milepost.core.records import ANONYMOUS, CallContext, Lane, Question, Run
from milepost.core.states import RunState
from milepost.wire.by_hand import by_hand_result, question_of, replies_in, stuck_result

SCHEMA = {"type": "object", "properties": {"day": {"type": "integer"}}}


def question(number: int = 1, method: str = "elicitation/create", **params: Any) -> Question:
    return Question("run-1", number, method, {"message": "Which day?", "requestedSchema": SCHEMA, **params}, "d")


def run(reason: str | None = None) -> Run:
    call = CallContext("trip", {}, 1, "2025-11-25", principal=ANONYMOUS)
    return Run(
        "run-1",
        "trip",
        1,
        Lane.WORKFLOW,
        RunState.STUCK,
        call,
        "k",
        "s",
        b"",
        "",
        created_at=0,
        updated_at=0,
        reason=reason,
    )


def test_the_result_states_the_question_its_schema_and_how_to_answer() -> None:
    result = by_hand_result(run(), [question()], {1: "must be at most 31"})
    text = result["content"][0]["text"]
    for part in ("Which day?", '"day"', "continue_run", "run-1", "must be at most 31"):
        assert part in text
    assert result["structuredContent"]["questions"][0]["schema"] == SCHEMA


def test_a_link_is_shown() -> None:
    result = by_hand_result(run(), [question(mode="url", url="https://pay.example/1")])
    assert "https://pay.example/1" in result["content"][0]["text"]


def test_a_stuck_run_says_why_and_the_way_out() -> None:
    text = stuck_result(run("replay mismatch"))["content"][0]["text"]
    assert "replay mismatch" in text
    assert "milepost runs retry run-1" in text


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"day": 3}, {"action": "accept", "content": {"day": 3}}),
        ({"action": "decline"}, {"action": "decline"}),
        ({"action": "accept", "content": {"day": 3}}, {"action": "accept", "content": {"day": 3}}),
    ],
)
def test_bare_values_are_an_accepted_answer(answer: Any, expected: Any) -> None:
    assert replies_in({"answers": {"q1": answer}}, [question()])[1].result == expected


def test_a_field_named_action_is_a_field() -> None:
    schema = {"type": "object", "properties": {"action": {"type": "string"}}}
    asked = question(requestedSchema=schema)
    replies = replies_in({"answers": {"q1": {"action": "refund"}}}, [asked])
    assert replies[1].result == {"action": "accept", "content": {"action": "refund"}}


def test_another_kind_of_question_is_answered_by_its_own_result() -> None:
    assert replies_in({"answers": {"q1": {"roots": []}}}, [question(method="roots/list")])[1].result == {"roots": []}


@pytest.mark.parametrize("answers", [[1], "x", {"nonsense": {"day": 1}}, {"q1": 3}])
def test_answers_that_cannot_be_read_are_refused_in_words(answers: Any) -> None:
    with pytest.raises(CallerError):
        replies_in({"answers": answers}, [question()])


def test_only_our_keys_are_questions() -> None:
    assert question_of("q12") == 12
    assert [question_of(key) for key in ("", "q", "12", "qx", "q²", "q99999999999")] == [None] * 6
