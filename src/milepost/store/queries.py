"""The store's SQL, read once from `sql/*.sql`: named queries and migrations.

No SQL stands in Python. A query begins with `-- name: NAME` and may hold other ones as fragments,
`{{NAME}}`. Asking for a name that doesn't exist fails when the module that asks is imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

_FILES = ("runs.sql", "wire.sql")
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_FRAGMENT = re.compile(r"\{\{(\w+)\}\}")
_MIN_READER = re.compile(r"^-- min_reader: (\d+)$", re.MULTILINE)
_COMMENT = re.compile(r"--[^\n]*\n")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema: `0007_name.sql` leads to version 7."""

    version: int
    min_reader: int
    """The lowest schema version whose code may still read and write a store that has this step."""
    sql: str


def query(name: str) -> str:
    """The text of a named query, fragments put in. Raises KeyError for a name that isn't there."""
    return _FRAGMENT.sub(lambda match: query(match[1]), _texts()[name])


@cache
def _texts() -> dict[str, str]:
    texts: dict[str, str] = {}
    for file in _FILES:
        _, *parts = _NAME.split((resources.files(__package__) / "sql" / file).read_text("utf-8"))
        texts |= {name: _COMMENT.sub("\n", text).strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}
    return texts


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations, in order; their versions count from 1 without a gap."""
    files = [file for file in (resources.files(__package__) / "sql").iterdir() if file.name[:4].isdigit()]
    found = [_migration(file.name, file.read_text("utf-8")) for file in sorted(files, key=lambda file: file.name)]
    if [step.version for step in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"migrations have a gap: {[step.version for step in found]}")
    return tuple(found)


def _migration(name: str, text: str) -> Migration:
    declared = _MIN_READER.search(text)
    if declared is None:
        raise ValueError(f"{name} does not say its min_reader")
    return Migration(int(name[:4]), int(declared[1]), text)
