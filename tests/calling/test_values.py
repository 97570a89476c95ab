"""What was typed, or written in a file, as a value; or the reason why not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.calling.forms import Choice, Field, Kind, fields_of
from milepost.calling.values import LONGEST, Wrong, check, faults, nearest, parse, pick, strict_json, wanted


def text(**more: Any) -> Field:
    return Field("x", Kind.TEXT, **more)


SIZES = Field("x", Kind.CHOICE, choices=(Choice("s", "Small"), Choice("m", "Middle"), Choice("9", "Nine")))
BAGS = Field("x", Kind.CHOICES, choices=(Choice("a", "A bag"), Choice("b", "B bag"), Choice("c", "C")), least=1, most=2)


@pytest.mark.parametrize(
    ("field", "typed", "value"),
    [
        (text(), "  as it is ", "  as it is "),
        (text(format="date"), "2027-03-20", "2027-03-20"),
        (text(format="email"), "a@b", "a@b"),
        (text(format="uri"), "https://example.org/x?y", "https://example.org/x?y"),
        (text(format="date-time"), "2027-03-20T14:30:00Z", "2027-03-20T14:30:00Z"),
        (text(format="date-time"), "2027-03-20 14:30+01:00", "2027-03-20T14:30+01:00"),
        (text(format="never heard of"), "x", "x"),
        (Field("x", Kind.INTEGER), " -5 ", -5),
        (Field("x", Kind.NUMBER), "2", 2),
        (Field("x", Kind.NUMBER), "-2.5e3", -2500.0),
        (Field("x", Kind.NUMBER), ".5", 0.5),
        (Field("x", Kind.FLAG), "Yes", True),
        (Field("x", Kind.FLAG), "0", False),
        (SIZES, "m", "m"),
        (SIZES, "Small", "s"),
        (SIZES, "small", "s"),
        (BAGS, "a, C", ["a", "c"]),
        (BAGS, '["b"]', ["b"]),
        (Field("x", Kind.JSON), '{"a": [1]}', {"a": [1]}),
        (Field("x", Kind.JSON), "no json", "no json"),
        (Field("x", Kind.JSON, types=frozenset({"array"})), "[1]", [1]),
        (Field("x", Kind.JSON, types=frozenset({"integer", "string"})), "5", 5),
        (Field("x", Kind.INTEGER, nullable=True), "null", None),
        (text(nullable=True), "null", "null"),
    ],
)
def test_text_becomes_the_value_that_it_means(field: Field, typed: str, value: Any) -> None:
    found = parse(field, typed)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("field", "typed", "reason"),
    [
        (text(least=2), "a", "at least 2 characters, not 1"),
        (text(most=1), "ab", "at most 1 character, not 2"),
        (text(), "x" * (LONGEST + 1), "longer than 1000000"),
        (text(format="date"), "20.3.2027", "year-month-day"),
        (text(format="date"), "2027-02-30", "year-month-day"),
        (text(format="email"), "a b@c", "email address"),
        (text(format="email"), "a@b@c", "email address"),
        (text(format="uri"), "example.org", "whole web address"),
        (text(format="uri"), "http://[x", "whole web address"),
        (text(format="uri"), "https://a b", "whole web address"),
        (text(format="date-time"), "2027-03-20T14:30:00", "its zone"),
        (text(format="date-time"), "2027-03-20", "its zone"),
        (text(format="date-time"), "2027-03-20T99:00Z", "its zone"),
        (Field("x", Kind.INTEGER), "2.5", "whole number"),
        (Field("x", Kind.INTEGER), "", "whole number"),
        (Field("x", Kind.INTEGER), "1_000", "whole number"),
        (Field("x", Kind.INTEGER), "9" * 401, "whole number"),
        (Field("x", Kind.INTEGER, least=1), "0", "at least 1"),
        (Field("x", Kind.INTEGER, most=21), "22", "at most 21"),
        (Field("x", Kind.NUMBER, above=0), "0", "more than 0"),
        (Field("x", Kind.NUMBER, below=1), "1", "less than 1"),
        (Field("x", Kind.NUMBER), "1,5", "such as 2.5"),
        (Field("x", Kind.NUMBER), "nan", "such as 2.5"),
        (Field("x", Kind.NUMBER), "1e999", "must be a number"),
        (Field("x", Kind.FLAG), "maybe", "yes or no"),
        (SIZES, "x", "one of s, m or 9, not 'x'"),
        (BAGS, "", "at least 1 choice, not 0"),
        (BAGS, "a,b,c", "at most 2 choices, not 3"),
        (BAGS, "a,a", "'a' twice"),
        (Field("x", Kind.JSON, types=frozenset({"array"})), "{}", "must be JSON of type array"),
        (Field("x", Kind.JSON, types=frozenset({"array", "object"})), "[1", "must be JSON (array or object)"),
        (Field("x", Kind.JSON, types=frozenset({"number"})), "NaN", "NaN is not JSON"),
    ],
)
def test_text_that_is_no_value_gets_the_reason(field: Field, typed: str, reason: str) -> None:
    with pytest.raises(Wrong) as wrong:
        parse(field, typed)
    assert reason in str(wrong.value)


def test_a_choice_may_be_given_by_its_number_its_value_or_its_title() -> None:
    assert [pick(SIZES, each) for each in ("1", " 2 ", "s", "Middle")] == ["s", "m", "s", "m"]


def test_a_number_in_the_list_stands_for_its_place_and_one_beyond_it_for_itself() -> None:
    assert pick(SIZES, "3") == "9"
    assert pick(SIZES, "9") == "9"
    with pytest.raises(Wrong):
        pick(SIZES, "0")


def test_several_choices_are_given_by_their_numbers() -> None:
    assert pick(BAGS, "1,3") == ["a", "c"]
    assert pick(BAGS, "1 3") == ["a", "c"]
    assert pick(BAGS, "A bag, B bag") == ["a", "b"]
    with pytest.raises(Wrong, match="at least 1"):
        pick(BAGS, "")


def test_many_choices_are_not_all_named_in_a_reason() -> None:
    many = Field("x", Kind.CHOICE, choices=tuple(Choice(str(n), str(n)) for n in range(100)))
    with pytest.raises(Wrong, match=r"11, or 88 more, not 'x'"):
        parse(many, "x")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Kind.TEXT, "a", 5),
        (Kind.INTEGER, 5, True),
        (Kind.INTEGER, 5.0, 5.5),
        (Kind.NUMBER, 2.5, "2.5"),
        (Kind.NUMBER, 2, float("inf")),
        (Kind.FLAG, True, 1),
        (Kind.JSON, object(), None),
    ],
)
def test_a_value_of_another_type_is_none(kind: Kind, good: Any, bad: Any) -> None:
    assert check(Field("x", kind), good) is good
    if kind is not Kind.JSON:
        with pytest.raises(Wrong):
            check(Field("x", kind), bad)


def test_true_is_not_the_choice_1() -> None:
    with pytest.raises(Wrong):
        check(Field("x", Kind.CHOICE, choices=(Choice(1, "1"),)), value=True)
    with pytest.raises(Wrong, match="list of choices"):
        check(BAGS, "a")


def test_null_is_a_value_where_the_field_may_be_null() -> None:
    assert check(text(nullable=True), None) is None
    with pytest.raises(Wrong):
        check(text(), None)


def test_a_whole_form_is_checked_at_once() -> None:
    fields = fields_of(
        {"properties": {"day": {"type": "string", "format": "date"}, "nights": {"type": "integer", "minimum": 1}},
         "required": ["day", "nights"]}
    )  # fmt: skip
    assert faults(fields, {"day": "2027-03-20", "nights": 3}) == []
    assert faults(fields, {"dya": "2027-03-20", "nights": 0}) == [
        "there is no field 'dya': did you mean 'day'?",
        "'day' is needed",
        "'nights' must be at least 1",
    ]


def test_the_nearest_name_is_offered_and_else_all_that_there_are() -> None:
    assert nearest("pnrr", ["pnr", "day"]) == ": did you mean 'pnr'?"
    assert nearest("zzz", ["pnr", "day"]) == ": there is 'pnr' and 'day'"
    assert nearest("zzz", []) == ""


def test_json_that_only_python_takes_or_that_is_a_bomb_is_refused() -> None:
    for bad in ("NaN", "[Infinity]", "[" * 100_000, "{", "9" * 5000):
        with pytest.raises(ValueError, match=r".+"):
            strict_json(bad)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (text(), ""),
        (text(least=2, most=60), "2 to 60 characters"),
        (text(least=1), "at least 1 character"),
        (text(most=5), "at most 5 characters"),
        (text(format="date"), "a date as year-month-day, such as 2027-03-20"),
        (Field("x", Kind.INTEGER), "a whole number"),
        (Field("x", Kind.INTEGER, least=1, most=21), "a whole number, 1 to 21"),
        (Field("x", Kind.NUMBER, least=0), "a number, at least 0"),
        (Field("x", Kind.NUMBER, most=9), "a number, at most 9"),
        (Field("x", Kind.NUMBER, above=0, below=1), "a number, more than 0, less than 1"),
        (Field("x", Kind.FLAG), "yes or no"),
        (SIZES, "a number"),
        (BAGS, "numbers with commas between, 1 to 2 choices"),
        (Field("x", Kind.CHOICES), "numbers with commas between"),
        (Field("x", Kind.JSON), "a text, or JSON"),
        (Field("x", Kind.JSON, types=frozenset({"array"})), "JSON (array)"),
    ],
)
def test_a_field_says_what_it_wants(field: Field, words: str) -> None:
    assert wanted(field) == words


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_WORDS = st.sampled_from(
    ["type", "string", "integer", "number", "array", "enum", "const", "oneOf", "anyOf", "allOf", "items", "$ref",
     "#/properties/x", "minimum", "minLength", "maxItems", "format", "date", "required", "default", "properties"]
)  # fmt: skip
_SCHEMA = st.recursive(
    _JSON | _WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS, inner, max_size=6),
    max_leaves=20,
)


@given(property_=_SCHEMA, typed=st.text(max_size=20), value=_JSON)
def test_no_schema_and_no_answer_does_more_than_be_refused(property_: Any, typed: str, value: Any) -> None:
    (field, *_) = fields_of({"properties": {"x": property_}, "required": ["x"]})
    wanted(field)
    for attempt in (lambda: parse(field, typed), lambda: pick(field, typed), lambda: check(field, value)):
        try:
            attempt()
        except Wrong as reason:
            assert str(reason)  # noqa: PT017  every refusal has words
