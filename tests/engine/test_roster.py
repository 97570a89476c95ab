"""Who is there, as one replica sees it: what it asks the store for, and when it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes import FakeClock
from milepost.core.attempts import Claimant
from milepost.core.errors import StoreError
from milepost.core.records import Run
from milepost.core.versions import Need
from milepost.engine import roster as module
from milepost.engine.roster import Roster
from milepost.store import SqliteStore
from store.making import TOOL, ready

NEED = Need(TOOL, 1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "m.db")
    await store.open()
    yield store
    await store.aclose()


def a_roster(store: SqliteStore, clock: FakeClock | None = None, *, release: str = "") -> Roster:
    return Roster(store, clock or FakeClock(), Claimant("r1", 10.0, frozenset({("other", 1)}), release))


class Reads:
    """Reads runs, and counts it."""

    def __init__(self, store: SqliteStore) -> None:
        self.count = 0
        self._store = store

    async def held_up(self, roster: Roster, run_id: str) -> str | None:
        async def load() -> Run | None:
            self.count += 1
            loaded = await self._store.load(run_id)
            return loaded.run if loaded is not None else None

        return await roster.held_up(run_id, load)


async def test_while_nothing_waits_for_a_replica_no_run_is_read(store: SqliteStore) -> None:
    reads = Reads(store)
    assert await reads.held_up(a_roster(store), await ready(store)) is None
    assert reads.count == 0


async def test_a_run_that_is_not_concerned_is_read_once(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.join("r1", accepts=[("other", 1)])
    reads, roster = Reads(store), a_roster(store)
    await roster.look_at([NEED])
    concerned, other = await ready(store), await ready(store, tool="other")
    for _ in range(3):
        assert await reads.held_up(roster, other) is None
    assert reads.count == 1
    for _ in range(3):
        assert await reads.held_up(roster, concerned) is not None
    assert reads.count == 4
    assert await reads.held_up(roster, "run-unknown") is None
    monkeypatch.setattr(module, "_SEEN", 2)
    await reads.held_up(roster, concerned)
    assert len(roster._seen) == 1
    await roster.look_at([])
    assert await reads.held_up(roster, concerned) is None
    assert roster._seen == {}


async def test_what_this_replica_may_run_itself_is_not_looked_up(store: SqliteStore) -> None:
    roster = a_roster(store)
    await roster.look_at([Need("other", 1)])
    assert await Reads(store).held_up(roster, await ready(store, tool="other")) is None


async def test_the_store_is_asked_again_after_a_moment(store: SqliteStore) -> None:
    clock = FakeClock()
    roster = a_roster(store, clock)
    await store.join("r2", release="b", accepts=[(TOOL, 1)])
    assert await roster.place(TOOL, 1, b"ann") == ("", 1)
    await store.give(TOOL, {"b": 1.0})
    assert await roster.place(TOOL, 1, b"ann") == ("", 1)
    clock.advance(3)
    assert await roster.place(TOOL, 1, b"ann") == ("b", 1)


async def test_what_could_not_be_asked_is_asked_again(tmp_path: Path) -> None:
    closed = SqliteStore(tmp_path / "closed.db")
    await closed.open()
    await closed.give(TOOL, {"b": 1.0})
    clock = FakeClock()
    roster = a_roster(closed, clock)
    await closed.aclose()
    for _ in range(2):
        with pytest.raises(StoreError):
            await roster.place(TOOL, 1, b"ann")


async def test_a_replicas_own_release_runs_its_own_version(store: SqliteStore) -> None:
    await store.join("r2", release="a", accepts=[(TOOL, 1), (TOOL, 2)])
    await store.give(TOOL, {"a": 1.0})
    assert await a_roster(store, release="a").place(TOOL, 1, b"ann") == ("a", 1)
    assert await a_roster(store, release="b").place(TOOL, 1, b"ann") == ("a", 2)
