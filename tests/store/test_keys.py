"""The key file: made once, private, replaced as a whole."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from milepost.core.errors import StoreUnavailable
from milepost.store.sqlite.keys import KeyFile


def test_a_secret_is_made_once_and_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "a.db.keys"
    first = KeyFile(path).secret("seal")
    assert len(first) == 32
    other = KeyFile(path)
    assert other.secret("seal") == first
    assert other.secret("session") != first
    assert KeyFile(path).secret("seal") == first


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db.keys"
    KeyFile(path).secret("seal")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "{", '{"seal": "not hex"}'])
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.db.keys"
    path.write_text(text)
    with pytest.raises(StoreUnavailable, match=r"a\.db\.keys can't be used"):
        KeyFile(path).secret("seal")
    assert path.read_text() == text


def test_a_crash_while_it_was_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.db.keys"
    first = KeyFile(path).secret("seal")
    (tmp_path / "a.db.keys.new").write_text("half a fi")
    keys = KeyFile(path)
    assert keys.secret("seal") == first
    keys.secret("another")
    assert KeyFile(path).secret("seal") == first
