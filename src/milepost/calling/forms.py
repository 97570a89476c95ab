"""A form: the fields that a schema asks for.

Two kinds of schema come here: `requestedSchema` of an elicitation, which is flat (MCP client/elicitation), and a tool's
input schema, which may be anything. Both were written by a server, so nothing in them is trusted to make sense: what
isn't understood becomes a field that takes JSON, and what is no object schema at all is `Unfit`. No pattern of a server
is ever compiled, and no reference outside the schema is followed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

MOST_FIELDS: Final = 200
"""More, and it is no form for a person: the specification's are "simple"."""
MOST_CHOICES: Final = 1000
"""Choices of one field that are kept; a server's list of all airports is about this long."""
_REFS: Final = 8
"""References that lead to references, before it is given up: a schema may lead in a circle."""


class Unfit(ValueError):
    """The schema is not one that a form can be made of; the text says why."""


class Kind(StrEnum):
    """How a field is asked for, and read."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    FLAG = "flag"
    CHOICE = "choice"
    CHOICES = "choices"
    JSON = "json"
    """Whatever else: given as JSON."""


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""No default. (None may be one.)"""


@dataclass(frozen=True, slots=True)
class Choice:
    value: Any
    title: str


@dataclass(frozen=True, slots=True)
class Field:
    """One thing to be filled in. Texts are the server's own: clean them before you show them."""

    name: str
    kind: Kind
    title: str = ""
    description: str = ""
    required: bool = False
    nullable: bool = False
    format: str = ""
    least: float | None = None
    """Of a number its value, of a text its characters, of choices how many."""
    most: float | None = None
    above: float | None = None
    """A number must be more than this (`exclusiveMinimum`)."""
    below: float | None = None
    choices: tuple[Choice, ...] = ()
    types: frozenset[str] = frozenset()
    """Of a JSON field: the JSON types that it takes; empty: any."""
    default: Any = field(default=MISSING)

    @property
    def has_default(self) -> bool:
        return self.default is not MISSING


Schema = Mapping[str, Any]


def fields_of(schema: object) -> tuple[Field, ...]:
    """The form's fields, in the schema's order. Raises Unfit."""
    if not isinstance(schema, Mapping):
        raise Unfit("its schema is not an object")
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        raise Unfit("the schema's 'properties' are not an object")
    if len(properties) > MOST_FIELDS:
        raise Unfit(f"it has {len(properties)} fields, more than the {MOST_FIELDS} that are shown")
    required = _names(schema.get("required"))
    fields = [_field(str(name), each, schema, str(name) in required) for name, each in properties.items()]
    known = {each.name for each in fields}
    return (*fields, *(Field(name, Kind.JSON, required=True) for name in required if name not in known))


def _names(value: object) -> list[str]:
    """The names that are required, once each, as far as there are any."""
    names = [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
    return list(dict.fromkeys(names[:MOST_FIELDS]))


def _field(name: str, schema: object, root: Schema, required: bool) -> Field:
    plain, nullable = _plain(schema, root)
    shaped = _shape(Field(name, Kind.JSON), plain)
    return replace(
        shaped,
        title=_text(plain, "title"),
        description=_text(plain, "description"),
        required=required,
        nullable=nullable,
        default=plain.get("default", MISSING),
    )


def _text(schema: Schema, key: str) -> str:
    value = schema.get(key)
    return value if isinstance(value, str) else ""


# --- what a property's schema comes down to ------------------------------------------------------


def _plain(schema: object, root: Schema) -> tuple[Schema, bool]:
    """The schema with its own references followed, and without the `null` that may stand beside one type."""
    plain = _followed(schema, root)
    nullable = False
    for key in ("anyOf", "oneOf"):
        options = plain.get(key)
        if not isinstance(options, list) or _constants(options):
            continue
        others = [each for each in options if not _is_null(each)]
        nullable |= len(others) < len(options)
        rest = {name: value for name, value in plain.items() if name != key}
        plain = {**_followed(others[0], root), **rest} if len(others) == 1 else {**rest, "types": _types(others, root)}
    types = plain.get("type")
    if isinstance(types, list):
        others = [each for each in types if each != "null"]
        nullable |= len(others) < len(types)
        rest = {name: value for name, value in plain.items() if name != "type"}
        plain = {**rest, "type": others[0]} if len(others) == 1 else {**rest, "types": others}
    return plain, nullable


def _followed(schema: object, root: Schema) -> Schema:
    """The schema that a local reference leads to, what stands beside the reference on top of it."""
    plain: dict[str, Any] = dict(schema) if isinstance(schema, Mapping) else {}
    for _ in range(_REFS):
        target = plain.pop("$ref", None)
        if target is None and isinstance(both := plain.get("allOf"), list) and len(both) == 1:
            plain.pop("allOf")
            found: object = both[0]
        elif target is None:
            return plain
        else:
            found = _at(target, root)
        plain = {**(found if isinstance(found, Mapping) else {}), **plain}
    return {}


def _at(reference: object, root: Schema) -> object:
    """What `#/$defs/Name` names; None for anything else."""
    found: object = root
    for part in str(reference).removeprefix("#/").split("/") if str(reference).startswith("#/") else [""]:
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found


def _is_null(schema: object) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") == "null"


def _types(options: Iterable[object], root: Schema) -> list[str]:
    """The JSON types of several options; none where one of them doesn't say."""
    types = [_followed(each, root).get("type") for each in options]
    return [each for each in types if isinstance(each, str)] if all(isinstance(each, str) for each in types) else []


# --- its kind ------------------------------------------------------------------------------------

_KINDS: Final[Mapping[Any, Kind]] = {
    "string": Kind.TEXT,
    "integer": Kind.INTEGER,
    "number": Kind.NUMBER,
    "boolean": Kind.FLAG,
}
_COUNTED: Final[Mapping[Kind, tuple[str, str]]] = {
    Kind.TEXT: ("minLength", "maxLength"),
    Kind.INTEGER: ("minimum", "maximum"),
    Kind.NUMBER: ("minimum", "maximum"),
    Kind.CHOICES: ("minItems", "maxItems"),
}


def _shape(blank: Field, schema: Schema) -> Field:
    """The kind, with the limits and choices that belong to it."""
    if choices := _choices(schema):
        return replace(blank, kind=Kind.CHOICE, choices=choices)
    name = schema.get("type")
    if name == "array" and (choices := _choices(schema.get("items"))):
        return _limited(replace(blank, kind=Kind.CHOICES, choices=choices), schema)
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        types = schema.get("types", [name] if isinstance(name, str) else [])
        return replace(blank, types=frozenset(each for each in types if isinstance(each, str)))
    limited = _limited(replace(blank, kind=kind), schema)
    if kind is Kind.TEXT:
        return replace(limited, format=_text(schema, "format"))
    return limited


def _limited(shaped: Field, schema: Schema) -> Field:
    least, most = _COUNTED.get(shaped.kind, ("", ""))
    limited = replace(shaped, least=_number(schema.get(least)), most=_number(schema.get(most)))
    if shaped.kind not in (Kind.INTEGER, Kind.NUMBER):
        return limited
    above, below = _number(schema.get("exclusiveMinimum")), _number(schema.get("exclusiveMaximum"))
    return replace(limited, above=above, below=below)


def _number(value: object) -> float | None:
    """A limit, if it is one. Whole numbers stay whole: people read them."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def _choices(schema: object) -> tuple[Choice, ...]:
    """What may be chosen; empty where the schema offers no choice."""
    if not isinstance(schema, Mapping):
        return ()
    if isinstance(values := schema.get("enum"), list):
        names = schema.get("enumNames")  # the form of 2025-06-18, which servers still send
        titles = names if isinstance(names, list) and len(names) == len(values) else values
        return tuple(
            Choice(value, spelled(title)) for value, title in list(zip(values, titles, strict=True))[:MOST_CHOICES]
        )
    if "const" in schema:
        return (Choice(schema["const"], _text(schema, "title") or spelled(schema["const"])),)
    return _constants(schema.get("oneOf")) or _constants(schema.get("anyOf"))


def _constants(options: object) -> tuple[Choice, ...]:
    """`[{"const": ..., "title": ...}, ...]` as choices; empty if it isn't all that."""
    if not isinstance(options, list) or not options:
        return ()
    if not all(isinstance(each, Mapping) and "const" in each for each in options):
        return ()
    return tuple(
        Choice(each["const"], _text(each, "title") or spelled(each["const"])) for each in options[:MOST_CHOICES]
    )


def spelled(value: object) -> str:
    """A JSON value as people write it on a command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return value if isinstance(value, str) else str(value)
