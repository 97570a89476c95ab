"""Answers from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from milepost.calling.answers import Answers, Asked, Unfitting
from milepost.calling.forms import Field, Kind
from milepost.calling.person import Said
from milepost.core.errors import ConfigurationError

DAY = (Field("day", Kind.TEXT, required=True, format="date"),)


def asked(text: str = "When?", *keys: str, fields: Any = DAY, of_model: bool = False) -> Asked:
    return Asked(keys, text, fields, of_model)


PAGE = asked("Open", fields=None)
MODEL = asked("system: be kind", fields=None, of_model=True)
GOOD = {"day": "2027-03-20"}


def test_a_list_is_given_in_order_and_then_there_is_nothing() -> None:
    answers = Answers([GOOD, "decline", {"action": "cancel"}])
    assert answers.for_question(asked()) == Said("accept", GOOD)
    assert answers.unused == ["answer 2", "answer 3"]
    assert answers.for_question(asked()) == Said("decline")
    assert answers.for_question(asked()) == Said("cancel")
    assert answers.for_question(asked()) is None
    assert answers.unused == []


def test_a_question_is_found_by_its_key_before_its_text_and_by_a_part_of_it_last() -> None:
    given = {"when": "cancel", "When do you fly?": "decline", "q3": GOOD}
    question = asked("When do you fly?", "q3", "7")
    answers = Answers(given)
    assert [answers.for_question(question) for _ in range(4)] == [
        Said("accept", GOOD), Said("decline"), Said("cancel"), None,
    ]  # fmt: skip


def test_an_answer_is_given_once_and_a_list_of_them_one_after_the_other() -> None:
    answers = Answers({"when": [{"day": "2027-03-20"}, {"day": "2027-03-21"}]})
    assert [answers.for_question(asked()) for _ in range(3)] == [
        Said("accept", {"day": "2027-03-20"}), Said("accept", {"day": "2027-03-21"}), None,
    ]  # fmt: skip


def test_an_empty_name_is_part_of_no_question() -> None:
    assert Answers({"": "accept"}).for_question(asked()) is None


def test_the_long_form_is_the_same_answer() -> None:
    assert Answers([{"action": "accept", "content": GOOD}]).for_question(asked()) == Said("accept", GOOD)


def test_a_field_named_action_is_a_field() -> None:
    form = (Field("action", Kind.TEXT, required=True), Field("x", Kind.TEXT))
    given = {"action": "accept", "x": "y"}
    assert Answers([given]).for_question(asked(fields=form)) == Said("accept", given)


def test_a_form_without_fields_is_accepted_by_a_word() -> None:
    assert Answers(["accept"]).for_question(asked(fields=())) == Said("accept", {})


def test_a_page_is_accepted_by_a_word_and_by_nothing_else() -> None:
    assert Answers(["accept"]).for_question(PAGE) == Said("accept")
    with pytest.raises(Unfitting, match='a link is answered with "accept"'):
        Answers([GOOD]).for_question(PAGE)


def test_a_model_is_answered_with_a_text() -> None:
    assert Answers([{"text": "Dear you"}]).for_question(MODEL) == Said("accept", text="Dear you")
    assert Answers(["Dear you"]).for_question(MODEL) == Said("accept", text="Dear you")
    assert Answers(["decline"]).for_question(MODEL) == Said("decline")
    for bad in ({"day": "x"}, {"text": " "}, 5, "accept"):
        with pytest.raises(Unfitting, match="a model's answer is"):
            Answers([bad]).for_question(MODEL)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"day": "soon"}, "'day' must be a date"),
        ({"dya": "2027-03-20"}, "there is no field 'dya': did you mean 'day'?"),
        ({}, "'day' is needed"),
        ("accept", "'day' is needed"),
        (5, "a form is answered with an object"),
        ("yes", "a form is answered with an object"),
        (None, "'day' is needed"),
    ],
)
def test_an_answer_that_breaks_the_form_is_named_with_its_reason(given: Any, reason: str) -> None:
    with pytest.raises(Unfitting) as unfitting:
        Answers([given]).for_question(asked())
    assert str(unfitting.value).startswith("'answer 1' of the answers file does not fit 'When?': ")
    assert reason in str(unfitting.value)


def test_only_a_file_that_speaks_for_a_model_lets_the_server_ask_one() -> None:
    assert Answers([{"text": "Dear you"}]).for_model
    assert not Answers([GOOD]).for_model
    assert not Answers().for_model


def test_no_file_has_no_answers() -> None:
    assert Answers.read(None).for_question(asked()) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "is not valid JSON"), ("5", "wants a list of answers, or an object"), ('"accept"', "wants a list"),
     ("NaN", "NaN is not JSON"), (b"\xff\xfe", "is not valid JSON")],
)  # fmt: skip
def test_a_file_that_can_not_be_read_is_one_sentence(tmp_path: Path, content: str | bytes, reason: str) -> None:
    path = tmp_path / "answers.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError) as wrong:
        Answers.read(path)
    assert reason in str(wrong.value)


def test_a_file_that_is_not_there_or_not_a_file_is_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(ConfigurationError, match="can't be read"):
            Answers.read(path)
