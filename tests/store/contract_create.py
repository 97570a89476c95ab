"""Conformance: creating a run, and which other runs stand in its way."""

from __future__ import annotations

import asyncio

from milepost.core.attempts import Created, Fence
from milepost.core.records import Delivery
from milepost.core.states import RunState
from milepost.seams import Store
from store.making import (
    DONE,
    LEASE,
    claimant,
    new_run,
    new_stream,
    ready,
    start,
    waiting,
)
from store.worlds import SqliteWorld as World


class CreateContract:
    async def test_a_created_run_is_loaded_as_it_was_given(self, store: Store) -> None:
        new = new_run(release="2026.11", rival="run-x")
        created = await store.create(new, new_stream(new.id), known=(), claim=None)
        loaded = await store.load(new.id)
        assert isinstance(created, Created)
        assert loaded is not None
        assert created.run == loaded.run
        assert loaded.run.call == new.call
        assert (loaded.run.state, loaded.run.salt, loaded.run.rival) == (RunState.READY, new.salt, "run-x")
        assert (loaded.entries, loaded.questions) == ([], [])

    async def test_a_run_may_be_created_running(self, store: Store) -> None:
        claim = await start(store)
        loaded = await store.load(claim.run.id)
        assert loaded is not None
        assert loaded.run == claim.run
        assert (claim.run.state, claim.run.owner, claim.run.epoch) == (RunState.RUNNING, "r1", 1)
        assert claim.fence == Fence(claim.run.id, claim.run.attempt_id or "")
        assert not claim.takeover

    async def test_creating_the_same_run_again_returns_the_first(self, store: Store) -> None:
        new = new_run()
        stream = new_stream(new.id)
        await store.create(new, stream, known=(), claim=claimant())
        again = await store.create(new, stream, known=(), claim=claimant())
        assert isinstance(again, Created)
        assert (again.run.id, again.stream.id, again.claim) == (new.id, stream.id, None)

    async def test_the_same_request_of_a_session_creates_nothing_and_returns_its_stream(self, store: Store) -> None:
        first, second = new_run(), new_run()
        stream = new_stream(first.id, session="s1", request_id=3)
        await store.create(first, stream, known=(), claim=None)
        again = await store.create(second, new_stream(second.id, session="s1", request_id=3), known=(), claim=None)
        other = await store.create(second, new_stream(second.id, session="s1", request_id="3"), known=(), claim=None)
        assert isinstance(again, Created)
        assert (again.run.id, again.stream.id) == (first.id, stream.id)
        assert isinstance(other, Created)
        assert other.run.id == second.id, 'the JSON-RPC ids 3 and "3" are two'

    async def test_an_unfinished_run_of_the_same_call_is_a_rival(self, store: Store) -> None:
        run_id = await waiting(store)
        old = await store.load(run_id)
        assert old is not None
        new = new_run(call_key=old.run.call_key)
        rivals = await store.create(new, new_stream(new.id), known=(), claim=None)
        assert not isinstance(rivals, Created)
        assert [(rival.run.id, rival.live, rival.doubtful) for rival in rivals] == [(run_id, True, False)]
        assert [question.id for question in rivals[0].questions] == [1]
        assert await store.load(new.id) is None
        known = await store.create(new, new_stream(new.id), known=[run_id], claim=None)
        assert isinstance(known, Created)

    async def test_another_scope_has_no_rivals(self, store: Store) -> None:
        await ready(store, call_key="k", scope="ann")
        new = new_run(call_key="k", scope="bob")
        assert isinstance(await store.create(new, new_stream(new.id), known=(), claim=None), Created)

    async def test_a_finished_run_is_a_rival_until_its_delivery_is_confirmed(self, store: Store, world: World) -> None:
        claim = await start(store, call_key="k")
        await store.settle(claim.fence, DONE)
        stream = await store.open_stream(new_stream(claim.run.id))

        async def is_rival() -> bool:
            new = new_run(call_key="k", id="run-" + "f" * 32)
            made = await store.create(new, new_stream(new.id), known=(), claim=None)
            return not isinstance(made, Created)

        assert await is_rival()
        await store.close_stream(stream.id, delivery=Delivery.SENT)
        assert await is_rival()
        world.clock.advance(601)
        assert not await is_rival(), "sent long ago"

    async def test_a_confirmed_run_is_no_rival(self, store: Store) -> None:
        claim = await start(store, call_key="k")
        await store.settle(claim.fence, DONE)
        stream = await store.open_stream(new_stream(claim.run.id))
        await store.close_stream(stream.id, delivery=Delivery.CONFIRMED)
        assert isinstance(
            await store.create(new := new_run(call_key="k"), new_stream(new.id), known=(), claim=None), Created
        )

    async def test_two_creates_of_one_call_at_once_make_one_run(self, store: Store, world: World) -> None:
        other = await world.open()
        runs = [new_run(call_key="k") for _ in range(2)]
        made = await asyncio.gather(
            *(
                s.create(new, new_stream(new.id), known=(), claim=None)
                for s, new in zip((store, other), runs, strict=True)
            )
        )
        winners = [found for found in made if isinstance(found, Created)]
        assert len(winners) == 1
        assert [rival.run.id for found in made if not isinstance(found, Created) for rival in found] == [
            winners[0].run.id
        ]

    async def test_how_long_a_rival_has_been_alone_is_known(self, store: Store, world: World) -> None:
        new = new_run(call_key="k")
        first = await store.create(new, new_stream(new.id), known=(), claim=None)
        assert isinstance(first, Created)
        await store.close_stream(first.stream.id, delivery=None)
        world.clock.advance(30)
        again = new_run(call_key="k")
        rivals = await store.create(again, new_stream(again.id), known=(), claim=None)
        assert not isinstance(rivals, Created)
        assert (rivals[0].live, rivals[0].doubtful, rivals[0].orphaned_for) == (False, False, 30.0)

    async def test_a_rival_on_a_replica_that_left_is_alone(self, store: Store, world: World) -> None:
        other = await world.open()
        await other.join("r2")
        await ready(store, call_key="k")
        loaded = new_run(call_key="k2")
        await other.create(loaded, new_stream(loaded.id, replica="r2"), known=(), claim=None)
        await other.leave("r2")
        world.clock.advance(5)
        new = new_run(call_key="k2")
        rivals = await store.create(new, new_stream(new.id), known=(), claim=None)
        assert not isinstance(rivals, Created)
        assert (rivals[0].live, rivals[0].orphaned_for) == (False, 5.0)

    async def test_a_silent_replica_leaves_its_rivals_in_doubt(self, store: Store, world: World) -> None:
        other = await world.open()
        await other.join("r2")
        new = new_run(call_key="k")
        await other.create(new, new_stream(new.id, replica="r2"), known=(), claim=None)
        other.extend("r2", [], lease=LEASE)
        world.clock.advance(60)
        again = new_run(call_key="k")
        rivals = await store.create(again, new_stream(again.id), known=(), claim=None)
        assert not isinstance(rivals, Created)
        assert (rivals[0].live, rivals[0].doubtful) == (False, True)

    async def test_a_run_with_a_call_id_is_a_rival_for_as_long_as_it_is_kept(self, store: Store, world: World) -> None:
        claim = await start(store, call_key="k", call_id="id")

        async def rivals(call_id: str | None = "id", key: str = "k", known: tuple[str, ...] = ()) -> list[str]:
            new = new_run(call_key=key, call_id=call_id)
            found = await store.create(new, new_stream(new.id), known=known, claim=claimant(), full=True)
            assert not isinstance(found, Created)
            return [rival.run.id for rival in found]

        mine = [claim.run.id]
        assert await rivals() == await rivals(key="of another call") == mine, "running"
        assert await rivals(known=(claim.run.id,)) == mine, "there is never a second one"
        assert (await rivals("another"), await rivals(None)) == (mine, mine), "an equal call, by key and scope"
        assert (await rivals("another", "x"), await rivals(None, "x")) == ([], [])
        await store.settle(claim.fence, DONE)
        stream = await store.open_stream(new_stream(claim.run.id))
        for delivery in (Delivery.SENT, Delivery.CONFIRMED):
            await store.close_stream(stream.id, delivery=delivery)
            world.clock.advance(700)
            assert await rivals() == mine, delivery
        assert await rivals(None) == [], "confirmed"
        loaded = await store.load(claim.run.id)
        assert loaded is not None
        assert loaded.run.call_id == "id"
        world.clock.advance(31 * 86400)
        await store.sweep(limit=10)
        assert await rivals() == [], "no longer kept"

    async def test_two_creates_of_one_call_id_at_once_make_one_run(self, store: Store, world: World) -> None:
        stores = [store, await world.open(), await world.open()]
        runs = [new_run(call_key="k", scope=f"session:{n}", call_id="id") for n in range(3)]
        creates = [s.create(n, new_stream(n.id), known=(), claim=None) for s, n in zip(stores, runs, strict=True)]
        made = await asyncio.gather(*creates)
        (winner,) = [found for found in made if isinstance(found, Created)]
        met = [rival.run.id for found in made if not isinstance(found, Created) for rival in found]
        assert met == [winner.run.id] * 2
