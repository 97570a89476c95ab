"""The SQL of the PostgreSQL store, with the names of its two schemas put in.

In the files `milepost.` stands for the schema of the tables, which all builds share, and `verbs.` for the schema of
this build's functions. That one is named by a digest of the functions' text, so a build whose verbs differ brings its
own set and leaves those of the others alone: old and new replicas work side by side, each by its own rules.
"""

from __future__ import annotations

import json
import re
from functools import cache, cached_property
from hashlib import sha256
from importlib import resources

from milepost.core.errors import ConfigurationError
from milepost.core.states import ANSWERABLE, SHOWN, TRANSITIONS, RunState
from milepost.store.rows import HOT
from milepost.store.sqlfiles import SqlFiles

_FILES = SqlFiles(__package__, ("reads.sql",))
_VERB_FILES = ("verbs_parts.sql", "verbs.sql")
_PLACE = re.compile(r"\b(milepost|verbs)\b(?=\.|;?\s*$)", re.MULTILINE)
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,40}\Z")

query, texts, migrations = _FILES.query, _FILES.texts, _FILES.migrations


@cache
def _verbs() -> str:
    """The functions' text, with the values of `core` put in."""
    folder = resources.files(__package__) / "sql"
    text = "\n".join((folder / name).read_text("utf-8") for name in _VERB_FILES)
    table = {f"{state}: {cause}": target.value for (state, cause), target in TRANSITIONS.items()}
    values = {
        "transitions": json.dumps(table).replace("'", "''"),
        "shown": _array(SHOWN),
        "answerable": _array(ANSWERABLE),
        "hot": HOT,
    }
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def _array(states: frozenset[RunState]) -> str:
    return "{" + ",".join(sorted(states)) + "}"


class SqlText:
    """The texts for one schema. Raises ConfigurationError for a name that can't be one."""

    def __init__(self, schema: str) -> None:
        if _SCHEMA.match(schema) is None:
            raise ConfigurationError(
                f"the schema {schema!r} can't be used: at most 41 small letters, digits and underscores"
            )
        self.schema = schema
        self.verbs_schema = f"{schema}_{sha256(_verbs().encode()).hexdigest()[:10]}"
        self.channel = schema
        self._known: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        """A named query."""
        if name not in self._known:
            self._known[name] = self.placed(query(name))
        return self._known[name]

    @cached_property
    def verbs(self) -> str:
        """The script that makes this build's functions."""
        return self.placed(_verbs()).replace("{{tables}}", self.schema)

    def placed(self, text: str) -> str:
        """The text with the schemas' names put in."""
        return _PLACE.sub(lambda found: self.schema if found[1] == "milepost" else self.verbs_schema, text)
