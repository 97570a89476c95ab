import pytest

from milepost.core.records import Question, Reply
from milepost.core.replies import capability_for, fault

SCHEMA = {
    "type": "object",
    "properties": {
        "day": {"type": "string", "format": "date"},
        "seats": {"type": "integer", "minimum": 1, "maximum": 9},
        "cabin": {"type": "string", "enum": ["eco", "business"]},
        "note": {"type": "string", "minLength": 2, "maxLength": 4},
        "odd": {"type": "integer", "multipleOf": 3},
    },
    "required": ["day"],
}


def ask(method: str = "elicitation/create", **params: object) -> Question:
    return Question("run", 1, method, params, "d")


def accept(**content: object) -> Reply:
    return Reply({"action": "accept", "content": content})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "needs 'day'"),
        ({"day": "tomorrow"}, "day: must be a valid date"),
        ({"day": 3}, "day: must be of type string"),
        ({"day": "2026-12-01", "seats": 0}, "seats: must be at least 1"),
        ({"day": "2026-12-01", "seats": 10}, "seats: must be at most 9"),
        ({"day": "2026-12-01", "cabin": "first"}, "cabin: must be one of eco, business"),
        ({"day": "2026-12-01", "note": "x"}, "note: must have at least 2 characters"),
        ({"day": "2026-12-01", "note": "12345"}, "note: must have at most 4 characters"),
        ({"day": "2026-12-01", "odd": 4}, "odd: breaks the rule 'multipleOf'"),
    ],
)
def test_content_that_breaks_the_schema_is_refused_in_words(content: dict[str, object], words: str) -> None:
    reason = fault(ask(requestedSchema=SCHEMA), Reply({"action": "accept", "content": content}))
    assert reason is not None
    assert words in reason
    assert "tomorrow" not in reason, "what was given could be anything and must not reach the logs"


def test_good_content_is_an_answer() -> None:
    assert fault(ask(requestedSchema=SCHEMA), accept(day="2026-12-01", cabin="eco")) is None


@pytest.mark.parametrize("action", ["decline", "cancel"])
def test_decline_and_cancel_are_answers(action: str) -> None:
    assert fault(ask(requestedSchema=SCHEMA), Reply({"action": action})) is None


def test_the_clients_error_is_an_answer() -> None:
    assert fault(ask(), Reply(error={"code": -1, "message": "no"})) is None


def test_url_questions_need_only_an_action() -> None:
    assert fault(ask(mode="url", url="https://example.com"), Reply({"action": "accept"})) is None


@pytest.mark.parametrize(
    "reply",
    [
        Reply(),
        Reply({}),
        Reply({"action": "maybe"}),
        Reply({"action": "accept"}),
        Reply({"action": "accept", "content": 3}),
    ],
)
def test_what_is_no_elicitation_result_is_refused(reply: Reply) -> None:
    assert fault(ask(requestedSchema=SCHEMA), reply) is not None


def test_sampling_and_roots_results_have_their_fields() -> None:
    assert (
        fault(ask("sampling/createMessage"), Reply({"role": "assistant"})) == "a sampling result needs content, model"
    )
    assert fault(ask("sampling/createMessage"), Reply({"role": "assistant", "content": {}, "model": "m"})) is None
    assert fault(ask("roots/list"), Reply({"roots": []})) is None
    assert fault(ask("roots/list"), Reply({})) == "a roots result needs a list named 'roots'"


def test_each_question_needs_its_capability() -> None:
    assert [capability_for(m) for m in ("elicitation/create", "sampling/createMessage", "roots/list")] == [
        "elicitation", "sampling", "roots",
    ]  # fmt: skip
