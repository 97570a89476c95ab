"""Where an SQLite store may be and what it may find there: places, rights, file systems, older and newer schemas."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import FakeClock
from milepost.core.attempts import Batch
from milepost.core.errors import ConfigurationError, StoreTooNew, StoreUnavailable, Unreplayable
from milepost.store import SqliteStore
from milepost.store.sqlfiles import Migration
from milepost.store.sqlite.connection import file_system
from milepost.store.sqlite.queries import migrations
from store.making import ANN, DONE, LEASE, accept, claim_one, entry, start, state_of, waiting
from store.worlds import SqliteWorld

# --- places ---------------------------------------------------------------------------------------


NOBODY = 65534


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"nowhere for the store does not exist: create it"):
        await SqliteStore(tmp_path / "nowhere" / "a.db").open()


async def test_a_directory_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="is a directory"):
        await SqliteStore(tmp_path).open()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("These are not the bytes of a database, but of a letter to a friend." * 100)
    with pytest.raises(StoreUnavailable, match="not a SQLite database"):
        await SqliteStore(tmp_path / "a.db").open()


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that other users can reach (pytest keeps its own ones closed)."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_is_read_only_is_named(open_place: Path, what: str) -> None:
    """In a process without root's rights, for root may write everything."""
    path = open_place / "a.db"
    asyncio.run(_make(path))
    path.chmod(0o444 if what == "file" else 0o666)
    path.parent.chmod(0o777 if what == "file" else 0o555)
    code = (
        "import asyncio, os, sys; from pathlib import Path; from milepost.store import SqliteStore\n"
        f"if os.geteuid() == 0: os.setuid({NOBODY})\n"
        "try: asyncio.run(SqliteStore(Path(sys.argv[1])).open())\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.startswith("StoreUnavailable"), done
    assert "writable" in done.stdout


async def _make(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.aclose()


def test_network_file_systems_are_told_by_their_type(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        "2 1 0:9 / /srv/my\\040share rw,relatime shared:1 - nfs4 server:/x rw\n"
        "3 1 0:9 / /srv rw - xfs /dev/sdb rw\n"
    )
    assert file_system(Path("/srv/my share/deep"), mounts) == "nfs4"
    assert file_system(Path("/srv/other"), mounts) == "xfs"
    assert file_system(Path("/home"), mounts) == "ext4"
    assert file_system(Path("/home"), tmp_path / "none") is None


async def test_a_store_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.store.sqlite.connection.file_system", lambda _directory: "nfs4")
    with pytest.raises(ConfigurationError, match=r"network file system \(nfs4\)"):
        await SqliteStore(tmp_path / "a.db").open()


# --- schemas --------------------------------------------------------------------------------------


NEWEST = len(migrations())


def later(min_reader: int) -> tuple[Migration, ...]:
    return (*migrations(), Migration(NEWEST + 1, min_reader, "ALTER TABLE run ADD COLUMN mood TEXT;"))


async def test_hazard_e2_a_store_of_version_1_is_migrated_and_keeps_its_runs(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "a.db"
    first = SqliteStore(path, clock=clock)
    await first.open()
    run_id = await waiting(first)
    second = SqliteStore(path, clock=clock, steps=later(min_reader=1))
    await second.open()
    assert second.store_id == first.store_id
    assert await second.answer(run_id, {1: accept()}, by=ANN, via="new") == {1: "accepted"}
    claim = await claim_one(first)
    assert claim is not None, "the old replica works on beside the new one"
    await first.settle(claim.fence, DONE)
    await first.aclose()
    await second.aclose()
    reopened = SqliteStore(path, clock=clock)
    await reopened.open()
    assert await state_of(reopened, run_id) == "completed"
    await reopened.aclose()


async def test_hazard_e2_a_store_that_needs_a_newer_release_is_refused(tmp_path: Path, clock: FakeClock) -> None:
    newer = SqliteStore(tmp_path / "a.db", clock=clock, steps=later(min_reader=NEWEST + 1))
    await newer.open()
    await newer.aclose()
    with pytest.raises(StoreTooNew, match=f"needs a Milepost that knows at least schema {NEWEST + 1}"):
        await SqliteStore(tmp_path / "a.db", clock=clock).open()


@pytest.mark.parametrize("_round", range(5))
async def test_many_processes_may_make_a_store_at_once(tmp_path: Path, clock: FakeClock, _round: int) -> None:
    stores = [SqliteStore(tmp_path / "a.db", clock=clock) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    assert len({store.store_id for store in stores}) == 1
    for store in stores:
        await store.aclose()


async def test_a_run_with_entries_of_a_newer_format_can_be_listed_but_not_loaded(world: SqliteWorld) -> None:
    newer, older = await world.open(entry_format=2), await world.open(entry_format=1)
    claim = await start(newer)
    await newer.append(claim.fence, Batch([entry(1)]), lease=LEASE)
    with pytest.raises(Unreplayable, match="format 2"):
        await older.load(claim.run.id)
