"""Conformance: what the store tells of releases, of what waiting runs need, and of its own time."""

from __future__ import annotations

from milepost.core.attempts import Created
from milepost.core.outside import Action, ActionKind
from milepost.core.records import Delivery, Lane
from milepost.core.versions import EVERY_TOOL, Need
from milepost.seams import Store
from store.making import (
    ANN,
    DONE,
    LEASE,
    TOOL,
    accept,
    claim_one,
    first_stream,
    new_run,
    new_stream,
    ready,
    start,
    state_of,
    waiting,
)
from store.worlds import SqliteWorld as World


class ReleaseContract:
    async def test_which_release_new_runs_go_to_is_kept_by_tool(self, store: Store, world: World) -> None:
        other = await world.open()
        assert await store.given() == {}
        await store.give(EVERY_TOOL, {"2026.11": 1.0})
        await store.give(TOOL, {"2026.11": 95.0, "2026.12": 5.0})
        wanted = {EVERY_TOOL: {"2026.11": 1.0}, TOOL: {"2026.11": 95.0, "2026.12": 5.0}}
        assert await store.given() == await other.given() == wanted

    async def test_what_is_given_replaces_what_was_and_nothing_takes_it_away(self, store: Store) -> None:
        await store.give(EVERY_TOOL, {"a": 1.0})
        await store.give(TOOL, {"a": 1.0, "b": 1.0})
        await store.give(TOOL, {"b": 3.0})
        assert await store.given() == {EVERY_TOOL: {"a": 1.0}, TOOL: {"b": 3.0}}
        await store.give(TOOL, {})
        await store.give("never was", {})
        assert await store.given() == {EVERY_TOOL: {"a": 1.0}}

    async def test_a_new_run_keeps_the_release_that_it_was_given_to(self, store: Store) -> None:
        run_id = await ready(store, given_to="2026.12")
        await store.give(TOOL, {"2026.11": 1.0})
        loaded = await store.load(run_id)
        assert loaded is not None
        assert (loaded.run.given_to, loaded.run.release) == ("2026.12", "r")

    async def test_where_there_is_no_room_nothing_is_created(self, store: Store) -> None:
        new = new_run()
        made = await store.create(new, new_stream(new.id), known=(), claim=None, full=True)
        assert not isinstance(made, Created)
        assert list(made) == []
        assert await store.load(new.id) is None
        assert isinstance(await store.create(new, new_stream(new.id), known=(), claim=None), Created)

    async def test_where_there_is_no_room_a_rival_and_a_repetition_are_found_all_the_same(self, store: Store) -> None:
        old = await ready(store, call_key="k")
        new = new_run(call_key="k")
        rivals = await store.create(new, new_stream(new.id), known=(), claim=None, full=True)
        assert not isinstance(rivals, Created)
        assert [rival.run.id for rival in rivals] == [old]
        asked = new_run()
        stream = new_stream(asked.id, session="s1", request_id=3)
        await store.create(asked, stream, known=(), claim=None)
        again = new_run()
        same = new_stream(again.id, session="s1", request_id=3)
        repeated = await store.create(again, same, known=(), claim=None, full=True)
        assert isinstance(repeated, Created)
        assert (repeated.run.id, repeated.stream.id) == (asked.id, stream.id)

    async def test_a_sweep_says_once_what_the_runs_need_that_wait_for_a_claim(self, store: Store) -> None:
        await ready(store)
        await ready(store)
        await ready(store, tool="other", version=3)
        await ready(store, given_to="2026.12")
        await ready(store, lane=Lane.HOT)
        swept = await store.sweep(limit=100)
        assert sorted(swept.needs) == [Need("other", 3), Need(TOOL, 1), Need(TOOL, 1, "2026.12")]

    async def test_what_runs_waits_for_a_person_or_is_done_needs_nobody(self, store: Store) -> None:
        await start(store)
        run_id = await waiting(store)
        await store.settle((await start(store)).fence, DONE)
        assert list((await store.sweep(limit=100)).needs) == []
        await store.answer(run_id, {1: accept()}, by=ANN, via="x")
        assert await state_of(store, run_id) == "ready"
        assert list((await store.sweep(limit=100)).needs) == [Need(TOOL, 1)]

    async def test_a_run_to_be_cleaned_up_needs_a_replica_too(self, store: Store) -> None:
        run_id = await ready(store, version=2)
        await store.steer(run_id, Action(ActionKind.CANCEL, reason="operator"))
        assert list((await store.sweep(limit=100)).needs) == [Need(TOOL, 2)]

    async def test_a_run_whose_owner_is_gone_needs_another(self, store: Store, world: World) -> None:
        await start(store, "r2")
        assert list((await store.sweep(limit=100)).needs) == []
        world.clock.advance(LEASE + 1)
        store.extend("r1", [], lease=LEASE)
        assert list((await store.sweep(limit=100)).needs) == [Need(TOOL, 1)]


class TimeContract:
    async def test_hazard_b5_a_claim_says_what_time_the_store_has(self, store: Store, world: World) -> None:
        made = await start(store)
        assert made.now == world.clock.wall() == made.run.created_at
        await ready(store)
        world.clock.advance(5)
        claimed = await claim_one(store)
        assert claimed is not None
        assert claimed.now == world.clock.wall() == claimed.run.updated_at

    async def test_hazard_b5_a_timer_and_the_time_of_its_setting_are_by_one_clock(
        self, store: Store, world: World
    ) -> None:
        run_id = await waiting(store, 1, expires_in=60.0)
        loaded = await store.load(run_id)
        assert loaded is not None
        assert loaded.run.next_at is not None
        assert loaded.run.next_at - loaded.run.updated_at == 60.0

    async def test_hazard_b5_how_long_ago_a_result_was_sent_is_told_by_the_store(
        self, store: Store, world: World
    ) -> None:
        claim = await start(store, call_key="k")
        await store.settle(claim.fence, DONE)
        assert await _sent_for(store) == 0.0
        await store.close_stream(first_stream(claim.run.id), delivery=Delivery.SENT)
        world.clock.advance(42)
        assert await _sent_for(store) == 42.0


async def _sent_for(store: Store) -> float:
    new = new_run(call_key="k")
    rivals = await store.create(new, new_stream(new.id), known=(), claim=None, full=True)
    assert not isinstance(rivals, Created)
    return rivals[0].sent_for
