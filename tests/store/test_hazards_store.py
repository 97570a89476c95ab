"""Backups: what a copy made while a server writes must hold, and what a copied database must not open."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from milepost.core.attempts import Batch
from milepost.core.records import EntryKind
from milepost.store import SqliteStore
from store.making import ANN, LEASE, accept, entry, start, state_of, waiting


def back_up(path: Path, copy: Path, way: str) -> None:
    """As docs/running.md says: by SQLite itself, with the standard library's module."""
    with closing(sqlite3.connect(path)) as database:
        if way == "VACUUM INTO":
            database.execute("VACUUM INTO ?", (str(copy),))
        else:
            with closing(sqlite3.connect(copy)) as target:
                database.backup(target)


@pytest.mark.parametrize("way", ["VACUUM INTO", "backup"])
async def test_hazard_e3_a_copy_by_sqlite_holds_every_acknowledged_answer_and_recorded_step(
    tmp_path: Path, way: str
) -> None:
    store = SqliteStore(tmp_path / "milepost.db")
    await store.open()
    await store.join("r1")
    claim = await start(store)
    await store.append(claim.fence, Batch([entry(1)]), lease=LEASE)
    run_id = await waiting(store)
    assert list((await store.answer(run_id, {1: accept()}, by=ANN, via="x")).values()) == ["accepted"]
    back_up(tmp_path / "milepost.db", tmp_path / "copy.db", way)
    await store.aclose()

    copy = SqliteStore(tmp_path / "copy.db")
    await copy.open()
    assert await state_of(copy, run_id) == "ready"
    loaded = await copy.load(claim.run.id)
    assert loaded is not None
    assert [kept.kind for kept in loaded.entries] == [EntryKind(entry(1).kind)]
    await copy.aclose()


async def test_hazard_e3_a_copied_database_opens_no_session_without_its_keys(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "milepost.db")
    await store.open()
    secret = store.secret("sessions")
    back_up(tmp_path / "milepost.db", tmp_path / "stolen.db", "backup")
    await store.aclose()
    stolen = SqliteStore(tmp_path / "stolen.db")
    await stolen.open()
    assert stolen.secret("sessions") != secret
    await stolen.aclose()
    assert secret.hex().encode() not in (tmp_path / "stolen.db").read_bytes()
    keys = tmp_path / "milepost.db.keys"
    (tmp_path / "kept.db.keys").write_bytes(keys.read_bytes())
    kept = SqliteStore(tmp_path / "kept.db")
    await kept.open()
    assert kept.secret("sessions") == secret
    await kept.aclose()
