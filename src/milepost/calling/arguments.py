"""A tool's arguments from flags, read by its input schema. Pure but for `whole`, which may read a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcp_types import Tool

from milepost.calling.forms import Field, Kind, Unfit, fields_of
from milepost.calling.values import Wrong, faults, nearest, parse, strict_json
from milepost.core.errors import ConfigurationError


def pairs(flags: Sequence[str]) -> dict[str, str]:
    """`k=v` flags as a mapping. Raises ConfigurationError."""
    given: dict[str, str] = {}
    for flag in flags:
        name, equals, value = flag.partition("=")
        if not equals or not name:
            raise ConfigurationError(f"{flag!r} is not of the form name=value")
        if not _is_text(flag):
            raise ConfigurationError(f"the argument {name!r} is no text in UTF-8")
        if name in given:
            raise ConfigurationError(f"the argument {name!r} is given twice: write a list as JSON, {name}='[...]'")
        given[name] = value
    return given


def _is_text(flag: str) -> bool:
    """Whether it can be sent. A shell hands on any bytes; those that are no UTF-8 come as halves of characters."""
    try:
        flag.encode()
    except UnicodeEncodeError:
        return False
    return True


def whole(text: str | None) -> dict[str, Any]:
    """`--args`: a JSON object, or `@file` with one (`@-`: from stdin). Raises ConfigurationError."""
    if text is None:
        return {}
    try:
        value = strict_json(_content(text[1:]) if text.startswith("@") else text)
    except OSError as exc:
        raise ConfigurationError(f"--args: {text[1:]} can't be read: {exc.strerror}") from None
    except ValueError as exc:
        raise ConfigurationError(f"--args is not valid JSON: {exc}") from None
    if not isinstance(value, dict):
        raise ConfigurationError('--args must be an object, such as \'{"pnr": "QK7P2M"}\'')
    return value


def _content(name: str) -> str:
    return sys.stdin.read() if name == "-" else Path(name).read_text()


def named(tools: Sequence[Tool], name: str) -> Tool:
    """The tool of this name. Raises ConfigurationError."""
    for tool in tools:
        if tool.name == name:
            return tool
    raise ConfigurationError(f"the server has no tool {name!r}{nearest(name, [tool.name for tool in tools])}")


def fields(tool: Tool) -> tuple[Field, ...]:
    """What the tool takes. Raises ConfigurationError where its schema is none."""
    try:
        return fields_of(tool.input_schema)
    except Unfit as reason:
        raise ConfigurationError(f"{tool.name!r} can't be called from here: {reason}") from None


def read(tool: Tool, texts: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that were given; `texts` are stronger than `values`. Raises ConfigurationError."""
    known = {field.name: field for field in fields(tool)}
    for name in (*texts, *values):
        if name in known:
            continue
        if not tool.input_schema.get("additionalProperties"):
            raise ConfigurationError(f"{tool.name!r} has no argument {name!r}{nearest(name, list(known))}")
        known[name] = Field(name, Kind.JSON)
    arguments = {**values, **{name: _parsed(known[name], text) for name, text in texts.items()}}
    if wrong := faults([known[name] for name in arguments], arguments):
        raise ConfigurationError(f"{tool.name!r} can't be called so: {'; '.join(wrong[:5])}")
    return arguments


def _parsed(field: Field, text: str) -> Any:
    try:
        return parse(field, text)
    except Wrong as reason:
        raise ConfigurationError(f"the argument {field.name!r} {reason}") from None


def missing(tool: Tool, arguments: Mapping[str, Any]) -> list[Field]:
    """What the tool needs and wasn't given."""
    return [field for field in fields(tool) if field.required and field.name not in arguments]
