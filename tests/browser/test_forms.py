"""From a question's schema to fields, and from typed values to errors: what pages build their forms of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, datetime
from enum import Enum
from typing import Any, Literal

import pytest
from playwright.async_api import BrowserContext
from pydantic import AnyUrl, BaseModel, Field

from browser.conftest import Tab
from browser.peer import peering
from travel_ops import forms


@pytest.fixture(scope="module")
async def page(context: BrowserContext) -> AsyncIterator[Tab]:
    async with peering() as peer:
        tab = await Tab(await context.new_page()).open(f"{peer.origin}/page")
        yield tab
        await tab.page.close()


async def form_of(page: Tab, schema: Any) -> Any:
    return await page.run("async (s) => (await import('/milepost/client.js')).formOf(s)", schema)


async def check(page: Tab, schema: Any, values: Any) -> Any:
    script = "async ([s, v]) => { const m = await import('/milepost/client.js'); return m.check(m.formOf(s), v); }"
    return await page.run(script, [schema, values])


def one(schema: Any, *, required: bool = True) -> Any:
    return {"type": "object", "properties": {"it": schema}, "required": ["it"] if required else []}


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Everything(BaseModel):
    text: str = Field(min_length=2, max_length=5, title="A text", description="Some words")
    day: date
    at: datetime
    link: AnyUrl
    much: float = Field(gt=0, le=10)
    many: int = Field(ge=1, le=21, default=3)
    sure: bool
    colour: Colour = Colour.RED
    size: Literal["s", "m"]
    maybe: int | None = None
    tags: list[Literal["a", "b", "c"]] = Field(max_length=2)


async def test_a_model_of_pydantic_becomes_typed_fields(page: Tab) -> None:
    fields = {field["name"]: field for field in await form_of(page, Everything.model_json_schema())}
    assert {name: field["kind"] for name, field in fields.items()} == {
        "text": "text",
        "day": "date",
        "at": "datetime",
        "link": "url",
        "much": "number",
        "many": "integer",
        "sure": "boolean",
        "colour": "choice",
        "size": "choice",
        "maybe": "integer",
        "tags": "choices",
    }
    text = {"name": "text", "title": "A text", "description": "Some words", "minLength": 2, "maxLength": 5}
    assert fields["text"] == {**text, "kind": "text", "required": True}
    assert (fields["many"]["default"], fields["many"]["minimum"], fields["many"]["required"]) == (3, 1, False)
    assert (fields["much"]["above"], fields["much"]["maximum"]) == (0, 10)
    assert [option["value"] for option in fields["colour"]["options"]] == ["red", "blue"]
    assert fields["maybe"]["required"] is False
    assert fields["tags"]["maxItems"] == 2


async def test_choices_keep_their_titles(page: Tab) -> None:
    schema = forms.choose_destination(["LIS", "VIE"]).model_json_schema()
    (field,) = await form_of(page, schema)
    assert field["options"] == [{"value": "LIS", "title": "Lisbon"}, {"value": "VIE", "title": "Vienna"}]
    named = one({"type": "string", "enum": ["a", "b"], "enumNames": ["First", "Second"]})
    assert [option["title"] for option in (await form_of(page, named))[0]["options"]] == ["First", "Second"]
    many = one({"type": "array", "items": {"anyOf": [{"const": "x", "title": "An X"}]}})
    assert (await form_of(page, many))[0]["options"] == [{"value": "x", "title": "An X"}]


@pytest.mark.parametrize(
    "schema",
    [None, {}, {"properties": None}, [], "text", {"properties": {}}],
)
async def test_what_is_no_schema_has_no_fields(page: Tab, schema: Any) -> None:
    assert await form_of(page, schema) == []


async def test_what_no_form_can_hold_says_so_and_hostile_references_end(page: Tab) -> None:
    loop = {"properties": {"it": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"$ref": "#/$defs/A"}}}
    for schema in [one({"type": "object"}), one(5), one({"type": "array"}), loop, one({"$ref": "#/nowhere"})]:
        assert (await form_of(page, schema))[0]["kind"] == "unsupported"


GOOD: list[tuple[Any, Any]] = [
    ({"type": "string"}, "x"),
    ({"type": "string", "minLength": 2, "maxLength": 2}, "🚀🚀"),
    ({"type": "string", "format": "email"}, "a@b"),
    ({"type": "string", "format": "uri"}, "https://example.org/x"),
    ({"type": "string", "format": "date"}, "2028-02-29"),
    ({"type": "string", "format": "date-time"}, "2027-03-20T09:30:00+01:00"),
    ({"type": "number"}, 1.5),
    ({"type": "integer", "minimum": 1}, 1),
    ({"type": "boolean"}, False),
    ({"enum": ["a"]}, "a"),
    ({"type": "array", "items": {"enum": ["a", "b"]}}, ["b"]),
]
BAD: list[tuple[Any, Any, str]] = [
    ({"type": "string"}, 5, "must be text"),
    ({"type": "string", "minLength": 3}, "🚀🚀", "must have at least 3 characters"),
    ({"type": "string", "maxLength": 1}, "ab", "must have at most 1 characters"),
    ({"type": "string", "format": "email"}, "a b", "must be an e-mail address"),
    ({"type": "string", "format": "uri"}, "example.org", "must be a URL, such as https://example.org"),
    ({"type": "string", "format": "date"}, "2027-02-30", "must be a date as year-month-day, such as 2027-03-20"),
    ({"type": "string", "format": "date"}, "tomorrow", "must be a date as year-month-day, such as 2027-03-20"),
    (
        {"type": "string", "format": "date-time"},
        "2027-03-20T09:30",
        "must be a time with its zone, such as 2027-03-20T09:30:00Z",
    ),
    ({"type": "number"}, "1", "must be a number"),
    ({"type": "number", "exclusiveMinimum": 0}, 0, "must be more than 0"),
    ({"type": "number", "exclusiveMaximum": 5}, 5, "must be less than 5"),
    ({"type": "integer"}, 1.5, "must be a whole number"),
    ({"type": "integer", "minimum": 1}, 0, "must be at least 1"),
    ({"type": "integer", "maximum": 9}, 10, "must be at most 9"),
    ({"type": "boolean"}, "yes", "must be yes or no"),
    ({"enum": ["a"]}, "b", "must be one of the choices"),
    ({"type": "array", "items": {"enum": ["a", "b"]}}, ["c"], "must be some of the choices"),
    ({"type": "array", "items": {"enum": ["a", "b"]}}, "a", "must be some of the choices"),
    ({"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1}, [], "needs at least 1 choices"),
    ({"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 1}, ["a", "b"], "takes at most 1 choices"),
    ({"type": "string"}, None, "is needed"),
]


async def test_values_that_fit_have_no_errors(page: Tab) -> None:
    for schema, value in GOOD:
        assert await check(page, one(schema), {"it": value}) == {}, schema


async def test_values_that_do_not_fit_are_named_with_the_reason(page: Tab) -> None:
    for schema, value, why in BAD:
        assert await check(page, one(schema), {"it": value}) == {"it": why}, schema


async def test_what_is_missing_is_only_wrong_where_it_is_needed(page: Tab) -> None:
    assert await check(page, one({"type": "string"}), {}) == {"it": "is needed"}
    assert await check(page, one({"type": "string"}, required=False), {}) == {}


async def test_what_is_typed_becomes_the_values_that_the_schema_wants(page: Tab) -> None:
    script = """async (schema) => {
        const { formOf, valuesOf } = await import("/milepost/client.js");
        document.body.innerHTML = `<form>
            <input name=text value=hi> <input name=many type=number value=7> <input name=much value=abc>
            <input name=sure type=checkbox> <input name=day type=date value=2027-03-20>
            <input name=at type=datetime-local value=2027-03-20T09:30> <input name=maybe value="">
            <select name=size><option selected>m</select>
            <select name=tags multiple><option selected>a<option>b<option selected>c</select></form>`;
        return valuesOf(formOf(schema), new FormData(document.forms[0]));
    }"""
    values = await page.run(script, Everything.model_json_schema())
    assert datetime.fromisoformat(values.pop("at")).tzinfo is not None
    assert values == {
        "text": "hi",
        "many": 7,
        "much": "abc",
        "sure": False,
        "day": "2027-03-20",
        "size": "m",
        "tags": ["a", "c"],
    }


async def test_names_that_mean_something_to_the_language_are_names_like_any_other(page: Tab) -> None:
    schema = {
        "properties": {"constructor": {"type": "string"}, "toString": {"type": "integer"}},
        "required": ["toString"],
    }
    assert await check(page, schema, {"constructor": "x"}) == {"toString": "is needed"}
