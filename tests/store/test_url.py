"""From a URL to a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from milepost.core.errors import ConfigurationError
from milepost.store import SqliteStore, open_store


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
        ("postgresql://host/db", "not supported yet"),
        ("sqlite://", "does not name a file"),
        ("sqlite:///", "does not name a file"),
        ("sqlite:///:memory:", "does not name a file"),
        ("sqlite://host/x.db", "does not name a file"),
    ],
)
def test_what_is_no_store_is_refused_with_an_example(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        open_store(url)
    assert "sqlite:///milepost.db" in str(caught.value)
