"""Writes the table of settings in docs/running.md from the fields of `milepost.settings` and their docs.

    python scripts/settings_doc.py

A test compares what stands there with what this makes, so the page can't drift from the code.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
import typing
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from milepost.core.durations import spoken
from milepost.settings import _HIDDEN, Settings

PAGE = Path(__file__).parents[1] / "docs" / "running.md"
BEGIN, END = "<!-- settings: made by scripts/settings_doc.py -->", "<!-- /settings -->"
SECTIONS = ("engine", "sessions", "http", "store", "postgres", "log")


def tables() -> str:
    """All settings as Markdown, one table for each section."""
    parts = [_table("", _own_rows())]
    for name in SECTIONS:
        parts.append(f"### `[{name}]`\n\n{_table(name, _rows(Settings.model_fields[name].default))}")
    return "\n".join(parts)


def page_with(text: str) -> str:
    """The page with the tables of today between the marks."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{tables()}\n{END}{rest.split(END)[1]}"


def _table(section: str, rows: Iterator[tuple[str, str, str]]) -> str:
    prefix = f"MILEPOST_{section.upper()}_" if section else "MILEPOST_"
    lines = [f"| `{key}` | `{prefix}{key.upper()}` | {default} | {doc} |" for key, default, doc in rows]
    return "\n".join(["| setting | in the environment | default | meaning |", "|---|---|---|---|", *lines, ""])


def _own_rows() -> Iterator[tuple[str, str, str]]:
    docs = _docs(Settings)
    for key in ("release", "single_user"):
        yield key, _shown(Settings.model_fields[key].default, str), docs[key]


def _rows(defaults: object) -> Iterator[tuple[str, str, str]]:
    kind = type(defaults)
    hints = typing.get_type_hints(kind)
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        docs |= _docs(base)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # a dataclass, of any kind
        if field.name not in _HIDDEN.get(kind, ()):
            yield field.name, _shown(getattr(defaults, field.name), hints[field.name]), docs.get(field.name, "")


def _docs(kind: type) -> Mapping[str, str]:
    """The text under each field of a class, in one line."""
    (body,) = (
        node for node in ast.parse(textwrap.dedent(inspect.getsource(kind))).body if isinstance(node, ast.ClassDef)
    )
    found: dict[str, str] = {}
    for field, after in pairwise(body.body):
        match field, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split()).replace("|", "\\|").replace("HAZARDS ", "hazard ")
    return found


def _shown(value: object, hint: object) -> str:
    if value is None:
        return "none"
    if value in ("", ()):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return "the loopback names"
    if isinstance(value, int | float) and "float" in str(hint):
        return spoken(value)
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


if __name__ == "__main__":
    PAGE.write_text(page_with(PAGE.read_text("utf-8")), "utf-8")
    sys.exit(0)
