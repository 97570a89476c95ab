"""What only SQLite can do wrong: full disks, failing commits, clocks, its log, plans, stalls."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import apsw
import pytest

from fakes import FakeClock, Faults
from milepost.core.attempts import Batch
from milepost.core.errors import StoreError, StoreUnavailable
from milepost.core.records import EventKind, NewEvent
from milepost.store import SqliteSettings, SqliteStore
from milepost.store.sqlite.connection import connect
from milepost.store.sqlite.locks import LockFiles
from milepost.store.sqlite.queries import query
from store.making import ANN, LEASE, accept, asking, claim_one, claimant, entry, ready, start, state_of, told, waiting
from store.worlds import SqliteWorld


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


# --- commits that fail ----------------------------------------------------------------------------


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


# --- clocks ---------------------------------------------------------------------------------------


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


# --- the log --------------------------------------------------------------------------------------


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


# --- plans ----------------------------------------------------------------------------------------


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


# --- stalls ---------------------------------------------------------------------------------------


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
