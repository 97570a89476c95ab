"""What only SQLite can do wrong: full disks, failing commits, clocks, places, schemas."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import apsw
import pytest

from fakes import FakeClock, Faults
from milepost.core.attempts import Batch
from milepost.core.errors import ConfigurationError, StoreError, StoreTooNew, StoreUnavailable, Unreplayable
from milepost.core.records import EventKind, NewEvent
from milepost.store import SqliteSettings, SqliteStore
from milepost.store.sqlfiles import Migration
from milepost.store.sqlite.connection import connect, file_system
from milepost.store.sqlite.locks import LockFiles
from milepost.store.sqlite.queries import migrations, query
from store.making import (
    ANN,
    DONE,
    LEASE,
    accept,
    asking,
    claim_one,
    claimant,
    entry,
    ready,
    start,
    state_of,
    told,
    waiting,
)
from store.worlds import SqliteWorld

NOBODY = 65534


async def opened(path: Path, clock: FakeClock, faults: Faults, **settings: float) -> SqliteStore:
    kind = faults.connection()
    store = SqliteStore(
        path,
        clock=clock,
        settings=SqliteSettings(retry_pause=0.01, **settings),  # type: ignore[arg-type]
        open_connection=partial(connect, path, busy=5.0, kind=kind),
    )
    await store.open()
    return store


# --- commits that fail --------------------------------------------------------------------------


async def test_hazard_b4_a_write_that_fills_the_disk_spoils_no_other(tmp_path: Path, clock: FakeClock) -> None:
    connections: list[apsw.Connection] = []

    def small() -> apsw.Connection:
        connection = connect(tmp_path / "a.db", busy=5.0)
        connection.execute("PRAGMA max_page_count = 400")
        connections.append(connection)
        return connection

    store = SqliteStore(tmp_path / "a.db", clock=clock, open_connection=small)
    await store.open()
    claims = [await start(store) for _ in range(4)]
    large = Batch([entry(1, value='"' + "x" * 2_000_000 + '"')])
    batches = [Batch([entry(1)]), large, Batch([entry(1)]), Batch([entry(1)])]
    found = await asyncio.gather(
        *(store.append(claim.fence, batch, lease=LEASE) for claim, batch in zip(claims, batches, strict=True)),
        return_exceptions=True,
    )
    assert [isinstance(outcome, StoreUnavailable) for outcome in found] == [False, True, False, False]
    assert "full" in str(found[1])
    for claim, expected in zip(claims, (1, 0, 1, 1), strict=True):
        loaded = await store.load(claim.run.id)
        assert loaded is not None
        assert (loaded.run.journal_seq, len(loaded.entries)) == (expected, expected)
    assert store.healthy() is None
    await store.aclose()


async def test_hazard_b4_a_full_store_says_so_until_it_can_write_again(tmp_path: Path, clock: FakeClock) -> None:
    faults = Faults()
    store = await opened(tmp_path / "a.db", clock, faults)
    run_id = await waiting(store)
    faults.broken = "disk I/O error"
    with pytest.raises(StoreUnavailable):
        await store.answer(run_id, {1: accept()}, by=ANN, via="x")
    assert "disk I/O error" in (store.healthy() or "")
    faults.broken = None
    async with asyncio.timeout(10):
        while store.healthy() is not None:  # there is no event: the writer tries again by itself
            await asyncio.sleep(0)
    assert await state_of(store, run_id) == "waiting", "what failed was not done"
    await store.aclose()


@pytest.mark.parametrize("fault", ["untold", "lost"])
async def test_hazard_b7_an_unknown_commit_is_looked_up_never_guessed(
    tmp_path: Path, clock: FakeClock, fault: str
) -> None:
    faults = Faults()
    store = await opened(tmp_path / "a.db", clock, faults)
    claim = await start(store)
    await store.append(claim.fence, asking(1), lease=LEASE)
    faults.commits = [fault]
    batch = Batch([entry(1)], events=[NewEvent(EventKind.NOTIFY, {"method": "m"})])
    told_of, verdicts = await asyncio.gather(
        store.append(claim.fence, batch, lease=LEASE),
        store.answer(claim.run.id, {1: accept()}, by=ANN, via="x"),
    )
    assert (told_of.event_seq, list(verdicts.values())) == (2, ["accepted"])
    loaded = await store.load(claim.run.id)
    assert loaded is not None
    assert (loaded.run.journal_seq, loaded.run.wake_seq) == (1, 1)
    assert [event.kind for event in await told(store, claim.run.id)] == ["question", "notify", "closed"]
    assert store.healthy() is None
    await store.aclose()


async def test_hazard_b7_an_outcome_that_stays_unknown_is_told_as_such(tmp_path: Path, clock: FakeClock) -> None:
    faults = Faults()
    store = await opened(tmp_path / "a.db", clock, faults, patience=0.05)
    run_id = await waiting(store)

    def lose(execute: object) -> apsw.Cursor:
        faults.broken = "disk I/O error"
        raise apsw.IOError("disk I/O error")

    faults.commit = lose  # type: ignore[method-assign,assignment]
    with pytest.raises(StoreUnavailable, match="unknown"):
        await store.answer(run_id, {1: accept()}, by=ANN, via="x")
    await store.aclose()


async def test_hazard_b4_a_commit_that_fails_each_time_is_told_and_the_store_goes_on_after(
    tmp_path: Path, clock: FakeClock
) -> None:
    """As where the disk is full in the middle of a commit: nothing is stored, and it is known that it isn't."""
    faults = Faults()
    store = await opened(tmp_path / "a.db", clock, faults)
    run_id = await waiting(store)
    faults.commits = ["lost"] * 2
    with pytest.raises(StoreUnavailable, match="disk I/O error"):
        await store.answer(run_id, {1: accept()}, by=ANN, via="x")
    assert faults.commits == [], "it was tried once more, and no more often"
    assert store.healthy() is not None
    assert await state_of(store, run_id) == "waiting"
    assert list((await store.answer(run_id, {1: accept()}, by=ANN, via="x")).values()) == ["accepted"]
    assert store.healthy() is None
    await store.aclose()


async def test_a_job_that_fails_in_the_middle_undoes_only_itself(tmp_path: Path, clock: FakeClock) -> None:
    store = await opened(tmp_path / "a.db", clock, Faults())
    claims = [await start(store) for _ in range(5)]
    await store.append(claims[2].fence, asking(1), lease=LEASE)
    batches = [Batch([entry(1)])] * 5
    batches[2] = Batch([entry(1)], asking(1).questions)  # question 1 is there already
    found = await asyncio.gather(
        *(store.append(claim.fence, batch, lease=LEASE) for claim, batch in zip(claims, batches, strict=True)),
        return_exceptions=True,
    )
    assert [isinstance(outcome, StoreError) for outcome in found] == [False, False, True, False, False]
    loaded = await store.load(claims[2].run.id)
    assert loaded is not None
    assert loaded.run.journal_seq == 0
    await store.aclose()


async def test_a_claim_that_finds_nothing_costs_no_commit(tmp_path: Path, clock: FakeClock) -> None:
    faults = Faults()
    store = await opened(tmp_path / "a.db", clock, faults)
    before = faults.committed
    assert await claim_one(store) is None
    await store.sweep(limit=10)
    assert faults.committed == before
    await store.aclose()


async def test_many_callers_share_a_commit(tmp_path: Path, clock: FakeClock) -> None:
    faults = Faults()
    store = await opened(tmp_path / "a.db", clock, faults)
    before = faults.committed
    await asyncio.gather(*(ready(store) for _ in range(200)))
    assert faults.committed - before < 100
    await store.aclose()


async def test_a_store_whose_write_lock_is_held_elsewhere_says_so_and_goes_on_after(world: SqliteWorld) -> None:
    store = await world.open(busy=0.02, retry_pause=0.01)
    run_id = await waiting(store)
    other = connect(store.path, busy=1.0)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="another process has held the write lock"):
        await store.answer(run_id, {1: accept()}, by=ANN, via="x")
    with pytest.raises(StoreUnavailable):
        await asyncio.to_thread(store.extend, "r1", [], lease=LEASE)
    assert store.healthy() is not None
    assert await state_of(store, run_id) == "waiting", "reads go on"
    other.execute("ROLLBACK")
    other.close()
    assert await store.answer(run_id, {1: accept()}, by=ANN, via="x") == {1: "accepted"}
    assert store.healthy() is None


async def test_a_caller_that_gives_up_waiting_harms_nobody(tmp_path: Path, clock: FakeClock) -> None:
    store = await opened(tmp_path / "a.db", clock, Faults())
    run_id = await waiting(store)
    impatient = asyncio.ensure_future(store.answer(run_id, {1: accept()}, by=ANN, via="x"))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await ready(store)
    assert await state_of(store, run_id) == "ready", "what was queued is done"
    await store.aclose()


async def test_a_closed_store_refuses_and_does_not_hang(tmp_path: Path, clock: FakeClock) -> None:
    store = await opened(tmp_path / "a.db", clock, Faults())
    await store.aclose()
    with pytest.raises(StoreUnavailable, match="closed"):
        await ready(store)


async def test_a_flooded_writer_refuses(tmp_path: Path, clock: FakeClock) -> None:
    store = await opened(tmp_path / "a.db", clock, Faults(), max_queue=3)
    found = await asyncio.gather(*(ready(store) for _ in range(50)), return_exceptions=True)
    assert any(isinstance(outcome, StoreUnavailable) and "keep up" in str(outcome) for outcome in found)
    await store.aclose()


# --- clocks -------------------------------------------------------------------------------------


async def test_hazard_b5_a_wall_clock_that_is_set_back_freezes_no_takeover(world: SqliteWorld) -> None:
    store = await world.open()
    await start(store)
    world.clock.set_wall_back(3600.0)
    world.clock.boot_at += LEASE + 1
    assert await claim_one(store, "r2") is not None


async def test_hazard_b5_a_wall_clock_that_is_set_forward_steals_nothing(world: SqliteWorld) -> None:
    store = await world.open()
    await start(store)
    world.clock.set_wall_back(-3600.0)
    assert await claim_one(store, "r2") is None


async def test_hazard_b5_after_a_reboot_every_lease_is_over_and_its_work_is_kept(world: SqliteWorld) -> None:
    store = await world.open()
    claim = await start(store)
    world.clock.advance(2)
    await store.append(claim.fence, Batch([entry(1)]), lease=LEASE)
    await store.aclose()
    world.clock.boot_at, world.clock.boot_name = 5.0, "boot-2"
    again = await world.open()
    taken = await claim_one(again)
    assert taken is not None
    assert taken.takeover
    assert taken.run.working == pytest.approx(2 + LEASE)


# --- the log ------------------------------------------------------------------------------------


async def test_hazard_b6_this_sqlite_has_no_wal_reset_bug(world: SqliteWorld) -> None:
    store = await world.open()
    assert tuple(int(part) for part in apsw.sqlite_lib_version().split(".")) >= (3, 51, 3)
    connection = connect(store.path, busy=1.0)
    pragmas = {
        name: connection.pragma(name)
        for name in ("journal_mode", "synchronous", "wal_autocheckpoint", "mmap_size", "temp_store", "trusted_schema")
    }
    connection.close()
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "wal_autocheckpoint": 0,
        "mmap_size": 0,
        "temp_store": 2,
        "trusted_schema": 0,
    }


async def test_hazard_b6_one_process_at_a_time_copies_the_log_back(world: SqliteWorld) -> None:
    store = await world.open(checkpoint_pages=50)
    log = store.path.with_name(store.path.name + "-wal")
    another = LockFiles(store.path.with_name(store.path.name + ".replicas"))

    async def grow() -> int:
        claim = await start(store)
        for n in range(1, 60):
            await store.append(claim.fence, Batch([entry(n, value='"' + "x" * 20_000 + '"')]), lease=LEASE)
        return log.stat().st_size

    assert await grow() < 1_000_000, "copied back every 50 pages"
    another.hold("checkpoint")
    assert await grow() > 1_400_000, "another process is at it"
    another.release("checkpoint")
    assert len({await grow() for _ in range(2)}) == 1, "the log is used again from its start"


# --- places -------------------------------------------------------------------------------------


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


# --- schemas ------------------------------------------------------------------------------------


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


# --- plans --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["next_kind", "due", "lease_over", "timers_due", "expired_questions", "rivals", "same_call_id"]
)
async def test_what_is_due_is_found_by_an_index(world: SqliteWorld, name: str) -> None:
    store = await world.open()
    connection = connect(store.path, busy=1.0)
    sql = query(name)
    bindings = dict.fromkeys([part.split()[0].strip("),") for part in sql.split(":")[1:]], 0)
    plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", bindings or ("",)).fetchall()
    connection.close()
    assert all("USING" in row[3] and "INDEX" in row[3] for row in plan if "run" in row[3] or "question" in row[3]), plan


# --- stalls -------------------------------------------------------------------------------------


async def test_hazard_b1_after_a_stall_of_the_store_the_living_renew_before_anyone_takes_over(
    tmp_path: Path, clock: FakeClock
) -> None:
    """A process that is stopped inside a transaction holds the write lock: nobody can renew a lease meanwhile."""
    world = SqliteWorld(tmp_path / "a.db", clock)
    living, stopped = await world.open(), await world.open()
    await living.join("r1")
    await stopped.join("r2")
    claim = await start(living, "r1")

    await stopped._writer.submit(lambda tx: _stop(clock, stopped))
    assert await claim_one(stopped, "r2") is None
    assert (await asyncio.to_thread(living.extend, "r1", [claim.fence], lease=LEASE)).keys() == {claim.fence.attempt_id}
    clock.advance(LEASE - 1)
    assert await claim_one(stopped, "r2") is None

    await stopped._writer.submit(lambda tx: _stop(clock, stopped))
    clock.advance(LEASE / 2 + 1)
    taken = await claim_one(stopped, "r2")
    assert taken is not None
    assert taken.takeover
    await world.aclose()


async def test_hazard_b1_a_claim_that_waited_for_the_write_lock_takes_over_from_nobody_alive(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Its own renewals wait behind it; without this a replica takes its runs over from itself."""
    world = SqliteWorld(tmp_path / "a.db", clock)
    store = await world.open()
    await store.join("r1")
    claim = await start(store, "r1")
    blocker = connect(tmp_path / "a.db", busy=5.0)
    blocker.execute("BEGIN IMMEDIATE")
    claiming = store.claim(claimant("r1"), limit=1, takeovers=8)
    task = asyncio.ensure_future(claiming)
    await asyncio.sleep(0)  # it is queued, and waits for the lock
    while store._writer._queue.qsize():
        await asyncio.sleep(0.001)
    clock.advance(LEASE + 1)
    blocker.execute("COMMIT")
    blocker.close()
    assert await task == []
    await store.append(claim.fence, Batch([entry(1)]), lease=LEASE)
    await world.aclose()


def _stop(clock: FakeClock, store: SqliteStore) -> None:
    """As if the process were stopped right here, for longer than a lease, and then went on and wrote."""
    clock.advance(LEASE + 1)
    store._writer._connection.execute("UPDATE store SET created_at = created_at")  # type: ignore[union-attr]
