"""What a schema asks for: each form of MCP's client/elicitation, tools' input schemas, and hostile ones."""

from __future__ import annotations

from typing import Any

import pytest

from milepost.calling.forms import MISSING, MOST_CHOICES, MOST_FIELDS, Choice, Field, Kind, Unfit, fields_of


def one(schema: Any, **root: Any) -> Field:
    """The only field, made of this property."""
    (field,) = fields_of({"type": "object", "properties": {"x": schema}, **root})
    return field


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string"}, Kind.TEXT),
        ({"type": "string", "format": "date"}, Kind.TEXT),
        ({"type": "number"}, Kind.NUMBER),
        ({"type": "integer"}, Kind.INTEGER),
        ({"type": "boolean"}, Kind.FLAG),
        ({"type": "string", "enum": ["a", "b"]}, Kind.CHOICE),
        ({"type": "string", "oneOf": [{"const": "a", "title": "A"}]}, Kind.CHOICE),
        ({"type": "array", "items": {"type": "string", "enum": ["a", "b"]}}, Kind.CHOICES),
        ({"type": "array", "items": {"anyOf": [{"const": "a", "title": "A"}]}}, Kind.CHOICES),
        ({"type": "array", "items": {"type": "string"}}, Kind.JSON),
        ({"type": "object"}, Kind.JSON),
        ({}, Kind.JSON),
    ],
)
def test_each_form_of_a_property_has_its_kind(schema: Any, kind: Kind) -> None:
    assert one(schema).kind is kind


def test_a_text_keeps_its_format_lengths_title_and_default() -> None:
    field = one(
        {"type": "string", "title": "Your name", "description": "As in your passport", "minLength": 2, "maxLength": 60,
         "format": "email", "default": "a@b.c"},
        required=["x"],
    )  # fmt: skip
    assert field == Field(
        "x", Kind.TEXT, "Your name", "As in your passport", required=True, format="email", least=2, most=60,
        default="a@b.c",
    )  # fmt: skip


def test_a_number_keeps_all_its_limits() -> None:
    field = one({"type": "number", "minimum": 1, "maximum": 2.5, "exclusiveMinimum": 0, "exclusiveMaximum": 3})
    assert (field.least, field.most, field.above, field.below) == (1, 2.5, 0, 3)


def test_choices_carry_their_titles_in_every_way_of_giving_them() -> None:
    titled = (Choice("a", "First"), Choice("b", "Second"))
    constants = [{"const": "a", "title": "First"}, {"const": "b", "title": "Second"}]
    assert one({"type": "string", "oneOf": constants}).choices == titled
    assert one({"type": "string", "anyOf": constants}).choices == titled
    assert one({"type": "string", "enum": ["a", "b"], "enumNames": ["First", "Second"]}).choices == titled
    assert one({"type": "array", "items": {"anyOf": constants}, "minItems": 1, "maxItems": 2}).choices == titled
    assert one({"enum": ["a", 1, None, True]}).choices == (
        Choice("a", "a"), Choice(1, "1"), Choice(None, "null"), Choice(True, "true"),
    )  # fmt: skip


def test_names_that_do_not_fit_their_values_are_not_used() -> None:
    assert one({"enum": ["a", "b"], "enumNames": ["First"]}).choices == (Choice("a", "a"), Choice("b", "b"))


def test_how_many_choices_may_be_made_is_kept() -> None:
    field = one({"type": "array", "items": {"enum": ["a"]}, "minItems": 1, "maxItems": 3})
    assert (field.least, field.most) == (1, 3)


def test_no_default_and_a_default_of_null_are_two_things() -> None:
    assert one({"type": "string"}).default is MISSING
    assert not one({"type": "string"}).has_default
    assert one({"type": "string", "default": None}).default is None


# --- tools' input schemas ------------------------------------------------------------------------


def test_a_type_that_may_be_null_is_that_type() -> None:
    for schema in (
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
        {"type": ["integer", "null"], "minimum": 1},
    ):
        field = one(schema)
        assert (field.kind, field.nullable, field.least) == (Kind.INTEGER, True, 1)


def test_several_types_are_read_as_json_of_these_types() -> None:
    assert one({"anyOf": [{"type": "integer"}, {"type": "string"}]}).types == {"integer", "string"}
    assert one({"type": ["integer", "string"]}).types == {"integer", "string"}
    assert one({"anyOf": [{"type": "integer"}, {"$ref": "#/nowhere"}]}).types == frozenset()


def test_references_within_the_schema_are_followed() -> None:
    day = {"type": "string", "format": "date", "title": "Day"}
    assert one({"$ref": "#/$defs/Day"}, **{"$defs": {"Day": day}}).format == "date"
    assert one({"allOf": [{"$ref": "#/$defs/Day"}], "title": "When"}, **{"$defs": {"Day": day}}).title == "When"
    assert one({"anyOf": [{"$ref": "#/$defs/a~1b"}, {"type": "null"}]}, **{"$defs": {"a/b": day}}).nullable


@pytest.mark.parametrize(
    "reference", ["#/$defs/A", "https://example.org/x.json", "#/$defs/A/x/y", "", 5, "#", "file:///etc/passwd"]
)
def test_a_reference_that_leads_nowhere_or_in_a_circle_asks_for_json(reference: Any) -> None:
    field = one({"$ref": reference}, **{"$defs": {"A": {"$ref": "#/$defs/A"}}})
    assert field.kind is Kind.JSON


# --- hostile -------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [None, [], "object", 5, True, {"properties": []}, {"properties": "x"}])
def test_what_is_no_object_schema_is_unfit(schema: Any) -> None:
    with pytest.raises(Unfit):
        fields_of(schema)


def test_too_many_fields_are_unfit_and_too_many_choices_are_cut() -> None:
    with pytest.raises(Unfit, match="201 fields"):
        fields_of({"properties": {str(n): {} for n in range(MOST_FIELDS + 1)}})
    assert len(one({"enum": [str(n) for n in range(MOST_CHOICES * 2)]}).choices) == MOST_CHOICES


@pytest.mark.parametrize(
    "schema",
    [
        None,
        [],
        True,
        {"type": 5},
        {"type": {}},
        {"type": []},
        {"type": [[], {}]},
        {"anyOf": 5},
        {"anyOf": [5, None]},
        {"oneOf": []},
        {"oneOf": [{"const": "a"}, 5]},
        {"enum": "abc"},
        {"enum": []},
        {"type": "array", "items": 5},
        {"allOf": [5]},
        {"type": "never heard of"},
    ],
)
def test_a_property_that_makes_no_sense_asks_for_json(schema: Any) -> None:
    assert one(schema).kind is Kind.JSON


def test_limits_titles_and_names_of_the_wrong_type_are_left_out() -> None:
    field = one({"type": "string", "title": 5, "description": [], "minLength": "2", "maxLength": True, "format": {}})
    assert field == Field("x", Kind.TEXT)
    assert fields_of({"properties": {"x": {"type": "integer", "minimum": float("nan")}}})[0].least is None
    assert fields_of({"properties": {"x": {"type": "string"}}, "required": "x"})[0].required is False
    assert fields_of({"properties": {"x": {"type": "string"}}, "required": [5, {}]})[0].required is False


def test_a_required_name_without_a_property_is_asked_for_as_json() -> None:
    assert fields_of({"required": ["ghost", "ghost"]}) == (Field("ghost", Kind.JSON, required=True),)


def test_a_schema_without_properties_is_a_form_without_fields() -> None:
    assert fields_of({"type": "object"}) == ()
