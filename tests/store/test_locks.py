"""Replica locks. Two `LockFiles` on one directory are as two processes: each file is opened anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from milepost.core.errors import ConfigurationError, StoreError
from milepost.store.sqlite import locks
from milepost.store.sqlite.locks import Holder, LockFiles


@pytest.fixture
def both(tmp_path: Path) -> tuple[LockFiles, LockFiles]:
    return LockFiles(tmp_path / "locks"), LockFiles(tmp_path / "locks")


def test_a_held_lock_is_seen_from_both_sides(both: tuple[LockFiles, LockFiles]) -> None:
    mine, other = both
    assert mine.holder("r1") is Holder.UNKNOWN
    mine.hold("r1")
    mine.hold("r1")
    assert (mine.holder("r1"), other.holder("r1")) == (Holder.HERE, Holder.ALIVE)
    assert not other.try_hold("r1")


def test_a_lock_that_was_released_leaves_nothing(both: tuple[LockFiles, LockFiles], tmp_path: Path) -> None:
    mine, other = both
    mine.hold("r1")
    mine.release("r1")
    mine.release("r1")
    assert other.holder("r1") is Holder.UNKNOWN
    assert list((tmp_path / "locks").iterdir()) == []


def test_a_file_without_a_holder_is_one_of_the_dead(both: tuple[LockFiles, LockFiles], tmp_path: Path) -> None:
    mine, _ = both
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "r1").touch()
    assert mine.holder("r1") is Holder.GONE
    mine.bury("r1")
    assert mine.holder("r1") is Holder.UNKNOWN


def test_the_living_are_not_buried(both: tuple[LockFiles, LockFiles]) -> None:
    mine, other = both
    other.hold("r1")
    mine.bury("r1")
    assert mine.holder("r1") is Holder.ALIVE


def test_a_lock_that_another_process_holds_is_refused(
    both: tuple[LockFiles, LockFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_TRIES", 2)
    mine, other = both
    mine.hold("r1")
    with pytest.raises(StoreError, match="another id"):
        other.hold("r1")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 101, "a b"])
def test_a_name_that_is_no_file_name_is_refused(both: tuple[LockFiles, LockFiles], name: str) -> None:
    mine, _ = both
    with pytest.raises(ConfigurationError, match="replica id"):
        mine.hold(name)
    assert mine.holder(name) is Holder.UNKNOWN


def test_a_file_that_was_removed_while_it_was_locked_is_not_taken_for_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "f"
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    path.unlink()
    assert not locks._still_there(handle, path)
    path.touch()
    assert not locks._still_there(handle, path)
    os.close(handle)
