"""From a URL to a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from milepost.core.errors import ConfigurationError
from milepost.store import SqliteStore, open_store
from milepost.store.postgres import PostgresStore


def test_a_path_is_relative_with_three_slashes_and_absolute_with_four() -> None:
    relative, absolute = open_store("sqlite:///a%20b.db"), open_store("sqlite:////var/x.db")
    assert isinstance(relative, SqliteStore)
    assert relative.path == Path.cwd() / "a b.db"
    assert isinstance(absolute, SqliteStore)
    assert absolute.path == Path("/var/x.db")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://x/y", "no scheme that is known"),
        ("milepost.db", "no scheme that is known"),
        ("postgresql://host", "names no database"),
        ("postgresql://host/", "names no database"),
        ("postgresql://host/db?schema=Big%20Name", "can't be used"),
        ("sqlite://", "does not name a file"),
        ("sqlite:///", "does not name a file"),
        ("sqlite:///:memory:", "does not name a file"),
        ("sqlite://host/x.db", "does not name a file"),
    ],
)
def test_what_is_no_store_is_refused_with_an_example(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        open_store(url)
    assert any(
        hint in str(caught.value) for hint in ("sqlite:///milepost.db", "postgresql://host:5432/NAME", "letters")
    )


def test_a_postgresql_url_names_a_database_and_perhaps_a_schema() -> None:
    store = open_store("postgresql://ann:secret@db.example:6543/tools?schema=blue&sslmode=require")
    assert isinstance(store, PostgresStore)
    assert store.where == "postgresql://db.example:6543/tools", "no password in messages"
