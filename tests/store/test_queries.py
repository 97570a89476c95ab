"""The SQL files: found, named, complete, and the only place where SQL stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import milepost.store
from milepost.store import sqlfiles
from milepost.store.postgres import sqltext as postgres
from milepost.store.sqlfiles import SqlFiles
from milepost.store.sqlite import queries as sqlite

HERE = Path(milepost.store.__file__).parent
STORES = [sqlite, postgres]
SQL = re.compile(
    r"\b(SELECT .* FROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM|CREATE (TABLE|INDEX)|BEGIN IMMEDIATE|PRAGMA \w+ ?=)"
)


def test_fragments_are_put_in() -> None:
    assert "{{" not in sqlite.query("stream")
    assert "s.detached_at" in sqlite.query("stream")
    with pytest.raises(KeyError):
        sqlite.query("no such query")


@pytest.mark.parametrize("store", STORES)
def test_migrations_count_from_one(store: SqlFiles) -> None:
    assert [step.version for step in store.migrations()] == list(range(1, len(store.migrations()) + 1))


def test_a_migration_must_say_who_may_still_read() -> None:
    with pytest.raises(ValueError, match="min_reader"):
        sqlfiles.migration("0002_x.sql", "ALTER TABLE run ADD COLUMN x;")


def test_no_sql_stands_in_python() -> None:
    """Docstrings may speak of it; strings that are run may not hold it."""
    for file in HERE.rglob("*.py"):
        code = re.sub(r'"""(.|\n)*?"""|#[^\n]*', "", file.read_text("utf-8"))
        assert SQL.search(code) is None, file.name


@pytest.mark.parametrize("store", STORES)
def test_every_query_is_used(store: SqlFiles) -> None:
    folder = HERE / store.__name__.split(".")[-2]  # type: ignore[attr-defined]  # a module with the files' functions
    code = "".join(file.read_text("utf-8") for file in folder.glob("*.py"))
    sql = "".join(file.read_text("utf-8") for file in (folder / "sql").glob("*.sql"))
    unused = [
        name
        for name in store.texts
        if f'"{name}"' not in code and f"{{{{{name}}}}}" not in sql and not name.startswith("delete_")
    ]
    assert unused == []
