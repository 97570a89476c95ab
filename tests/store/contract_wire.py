"""Conformance: sessions and streams."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milepost.core.errors import UnknownRun
from milepost.core.outside import Retention
from milepost.core.records import Delivery, Session
from milepost.seams import Store
from store.making import ANN, DONE, accept, claim_one, new_stream, ready, start, waiting
from store.worlds import SqliteWorld as World


def new_session(session_id: str = "s1") -> Session:
    return Session(session_id, "2025-11-25", {"clientInfo": {"name": "t"}}, ANN)


class SessionContract:
    async def test_a_session_is_kept_as_it_was_saved(self, store: Store, world: World) -> None:
        session = new_session()
        assert await store.save_session(session, cap=10)
        now = world.clock.wall()
        assert await store.session("s1") == replace(session, created_at=now, seen_at=now)

    async def test_saving_again_updates_and_counts_as_a_sign_of_life(self, store: Store, world: World) -> None:
        await store.save_session(new_session(), cap=1)
        born = world.clock.wall()
        world.clock.advance(5)
        changed = replace(new_session(), initialized=True, log_level="error", subscriptions=("a://b",))
        assert await store.save_session(changed, cap=1), "the cap is for new ones"
        assert await store.session("s1") == replace(changed, created_at=born, seen_at=born + 5)

    async def test_no_more_sessions_than_the_cap_are_open(self, store: Store) -> None:
        assert await store.save_session(new_session("s1"), cap=2)
        assert await store.save_session(new_session("s2"), cap=2)
        assert not await store.save_session(new_session("s3"), cap=2)
        assert await store.session("s3") is None
        await store.end_session("s1")
        assert await store.save_session(new_session("s3"), cap=2)

    async def test_an_ended_session_is_unknown_and_stays_so(self, store: Store) -> None:
        await store.save_session(new_session(), cap=1)
        await store.end_session("s1")
        assert await store.session("s1") is None
        await store.save_session(new_session(), cap=1)
        await store.sweep(limit=100)
        await store.save_session(new_session(), cap=1)
        assert await store.session("s1") is None
        await store.end_session("never was")

    async def test_an_idle_session_is_unknown_before_and_after_a_sweep(self, world: World) -> None:
        store = await world.open(retention=Retention(session_idle=100.0))
        await store.save_session(new_session(), cap=1)
        world.clock.advance(101)
        assert await store.session("s1") is None
        await store.sweep(limit=100)
        assert await store.session("s1") is None
        assert await store.save_session(new_session("s2"), cap=1), "an idle one does not count"

    async def test_an_open_question_keeps_its_session(self, world: World) -> None:
        store = await world.open(retention=Retention(session_idle=100.0))
        await store.save_session(new_session(), cap=1)
        run_id = await waiting(store)
        await store.open_stream(new_stream(run_id, session="s1"))
        world.clock.advance(101)
        await store.sweep(limit=100)
        assert await store.session("s1") is not None
        await store.answer(run_id, {1: accept()}, by=ANN, via="x")
        assert await store.session("s1") is None

    async def test_a_session_has_a_last_day(self, world: World) -> None:
        store = await world.open(retention=Retention(session_lifetime=100.0))
        await store.save_session(new_session(), cap=1)
        world.clock.advance(101)
        assert await store.session("s1") is None
        await store.sweep(limit=100)
        assert await store.session("s1") is None


class StreamContract:
    async def test_a_stream_is_kept_as_it_was_opened(self, store: Store, world: World) -> None:
        run_id = await ready(store)
        stream = new_stream(run_id, session="s1", progress_token="7", owner=ANN, attached=True)
        opened = await store.open_stream(stream)
        assert opened == replace(stream, opened_at=world.clock.wall())
        assert await store.stream(stream.id) == opened
        assert await store.stream("nope") is None

    async def test_a_stream_of_no_run_is_refused(self, store: Store) -> None:
        with pytest.raises(UnknownRun):
            await store.open_stream(new_stream("run-0"))

    async def test_a_request_of_a_session_names_one_stream(self, store: Store) -> None:
        run_id, other = await ready(store), await ready(store)
        first = await store.open_stream(new_stream(run_id, session="s1", request_id=1))
        assert await store.open_stream(new_stream(other, session="s1", request_id=1)) == first
        assert await store.stream_of_request("s1", 1) == first
        assert await store.stream_of_request("s1", "1") is None
        assert await store.stream_of_request("s2", 1) is None
        assert (await store.open_stream(new_stream(other, session="s2", request_id=1))).run_id == other
        assert (await store.open_stream(new_stream(other, request_id=1))).run_id == other

    async def test_a_closed_stream_may_be_taken_up_on_another_replica(self, store: Store, world: World) -> None:
        stream = await store.open_stream(new_stream(await ready(store)))
        await store.close_stream(stream.id, delivery=None)
        closed = await store.stream(stream.id)
        assert closed is not None
        assert (closed.replica, closed.detached_at) == (None, world.clock.wall())
        again = await store.open_stream(replace(stream, replica="r2"))
        assert (again.replica, again.detached_at) == ("r2", None)
        await store.close_stream("nope", delivery=Delivery.SENT)

    async def test_hazard_d3_a_delivery_only_ever_rises(self, store: Store, world: World) -> None:
        claim = await start(store)
        stream = await store.open_stream(new_stream(claim.run.id))
        await store.close_stream(stream.id, delivery=Delivery.SENT)

        async def delivery() -> tuple[Delivery | None, float | None]:
            loaded = await store.load(claim.run.id)
            assert loaded is not None
            return loaded.run.delivery, loaded.run.sent_at

        assert await delivery() == (None, None), "it has no result yet"
        await store.settle(claim.fence, DONE)
        sent_at = world.clock.wall()
        await store.close_stream(stream.id, delivery=Delivery.SENT)
        world.clock.advance(5)
        await store.close_stream(stream.id, delivery=Delivery.UNSENT)
        assert await delivery() == (Delivery.SENT, sent_at)
        await store.close_stream(stream.id, delivery=Delivery.CONFIRMED)
        await store.close_stream(stream.id, delivery=Delivery.SENT)
        assert await delivery() == (Delivery.CONFIRMED, sent_at)

    async def test_a_replica_that_leaves_closes_its_streams(self, store: Store, world: World) -> None:
        stream = await store.open_stream(new_stream(await ready(store)))
        await store.leave("r1")
        closed = await store.stream(stream.id)
        assert closed is not None
        assert (closed.replica, closed.detached_at) == (None, world.clock.wall())
        assert await claim_one(store, "r2") is not None
