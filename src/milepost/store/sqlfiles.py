"""A store's SQL, read once from its `sql/*.sql`: named queries and migrations.

No SQL stands in Python. A query begins with `-- name: NAME` and may hold other ones as fragments,
`{{NAME}}`. Asking for a name that doesn't exist fails when the module that asks is imported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

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


class SqlFiles:
    """The SQL of one store: the folder `sql` of its package. `named` are the files with named queries."""

    def __init__(self, package: str | None, named: Sequence[str]) -> None:
        self._folder = resources.files(package or "") / "sql"
        self._named = named

    def query(self, name: str) -> str:
        """The text of a named query, fragments put in. Raises KeyError for a name that isn't there."""
        return _FRAGMENT.sub(lambda match: self.query(match[1]), self.texts[name])

    @cached_property
    def texts(self) -> dict[str, str]:
        """All named queries, as they stand."""
        texts: dict[str, str] = {}
        for file in self._named:
            _, *parts = _NAME.split((self._folder / file).read_text("utf-8"))
            texts |= {
                name: _COMMENT.sub("\n", text).strip() for name, text in zip(parts[::2], parts[1::2], strict=True)
            }
        return texts

    def migrations(self) -> tuple[Migration, ...]:
        """All migrations, in order; their versions count from 1 without a gap."""
        files = [file for file in self._folder.iterdir() if file.name[:4].isdigit()]
        found = [migration(file.name, file.read_text("utf-8")) for file in sorted(files, key=lambda file: file.name)]
        if [step.version for step in found] != list(range(1, len(found) + 1)):
            raise ValueError(f"migrations have a gap: {[step.version for step in found]}")
        return tuple(found)


def migration(name: str, text: str) -> Migration:
    """One migration from its file's name and text. Raises ValueError if it does not say who may still read."""
    declared = _MIN_READER.search(text)
    if declared is None:
        raise ValueError(f"{name} does not say its min_reader")
    return Migration(int(name[:4]), int(declared[1]), text)
