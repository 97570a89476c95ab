"""Several real processes on one SQLite file: who may write, and how soon the dead are replaced."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes import ShiftedClock
from milepost.store import SqliteStore
from store.children import child
from store.making import Notices, claim_one, state_of, waiting


def url_of(store: SqliteStore) -> str:
    return f"sqlite:///{store.path}"


@pytest.fixture
def real_clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
async def here(tmp_path: Path, real_clock: ShiftedClock) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "milepost.db", clock=real_clock)
    await store.open()
    await store.join("here")
    yield store
    await store.aclose()


async def test_hazard_b5_the_runs_of_a_killed_process_are_taken_over_at_once(here: SqliteStore) -> None:
    async with child(url_of(here)) as other:
        run_id = (await other.heard()).removeprefix("run ")
        assert await claim_one(here, "here") is None, "it lives"
        await other.killed()
        claim = await claim_one(here, "here")
        assert claim is not None
        assert (claim.run.id, claim.takeover, claim.run.crashes) == (run_id, True, 1)


async def test_hazard_b1_the_runs_of_a_stopped_process_are_taken_over_when_their_lease_is_over(
    here: SqliteStore, real_clock: ShiftedClock
) -> None:
    async with child(url_of(here)) as other:
        run_id = (await other.heard()).removeprefix("run ")
        assert await other.told("append") == "appended"
        other.process.send_signal(signal.SIGSTOP)
        try:
            assert await claim_one(here, "here") is None, "a stopped process keeps its lock"
            real_clock.ahead = 601.0
            claim = await claim_one(here, "here")
            assert claim is not None
            assert claim.run.id == run_id
        finally:
            other.process.send_signal(signal.SIGCONT)
        assert await other.told("append") == "fenced"


async def test_a_killed_process_keeps_what_it_was_told_is_written(here: SqliteStore) -> None:
    async with child(url_of(here)) as other:
        run_id = (await other.heard()).removeprefix("run ")
        assert await other.told("append") == "appended"
        await other.killed()
    loaded = await here.load(run_id)
    assert loaded is not None
    assert loaded.run.journal_seq == 1


async def test_an_answer_given_to_another_process_is_noticed(here: SqliteStore) -> None:
    run_id = await waiting(here)
    async with child(url_of(here)) as other:
        await other.heard()
        notices = Notices(here)
        assert await other.told(f"answer {run_id}") == "answered"
        while await notices.next() is not None:
            pass
        assert await state_of(here, run_id) == "ready"


async def test_the_streams_of_a_killed_process_are_closed_by_a_sweep(here: SqliteStore) -> None:
    async with child(url_of(here)) as other:
        run_id = (await other.heard()).removeprefix("run ")
        await other.killed()
        await here.sweep(limit=10)
        stream = await here.stream(f"s{run_id[-15:]}")
        assert stream is not None
        assert stream.replica is None
        assert stream.detached_at is not None


async def test_a_dead_replica_is_buried_when_nothing_is_left_under_it(here: SqliteStore) -> None:
    locks = here.path.with_name(here.path.name + ".replicas")
    async with child(url_of(here)) as other:
        await other.heard()
        await other.killed()
    await here.sweep(limit=10)
    assert (locks / "child").exists(), "a run of it is still to be taken over"
    assert await claim_one(here, "here") is not None
    await here.sweep(limit=10)
    assert not (locks / "child").exists()


async def test_a_process_that_returns_under_its_old_name_finds_its_runs_free(here: SqliteStore) -> None:
    async with child(url_of(here), "same") as other:
        run_id = (await other.heard()).removeprefix("run ")
        await other.killed()
    await here.join("same")
    claim = await claim_one(here, "same")
    assert claim is not None
    assert (claim.run.id, claim.takeover) == (run_id, True)
    await here.join("same")
    assert await claim_one(here, "same") is None, "joining again gives nothing away"
    stream = await here.stream(f"s{run_id[-15:]}")
    assert stream is not None
    assert stream.replica is None


async def test_a_replica_id_is_taken_by_one_process_only(here: SqliteStore) -> None:
    async with child(url_of(here), "here") as other:
        assert await other.heard() == ""
        async with asyncio.timeout(20):
            assert await other.process.wait() != 0
