"""Replicas on PostgreSQL: wrong clocks, broken and silent connections, and who may take over from whom."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from fakes import ShiftedClock
from lab.postgres import PostgresServer
from lab.toxics import Timeout
from milepost.core.attempts import Batch
from milepost.core.errors import Fenced
from milepost.core.outside import Notice
from milepost.core.records import EventKind, NewEvent
from milepost.store.postgres import PostgresStore
from store.children import child
from store.making import DONE, LEASE, claim_one, entry, start
from store.postgres_worlds import BOUND, Open, proxied, until

# --- leases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [-300.0, 300.0])
async def test_hazard_b5_a_replica_whose_clock_is_wrong_steals_nothing_and_loses_nothing(
    opened: Open, ahead: float
) -> None:
    store, wrong = await opened("r1"), await opened("r2", clock=ShiftedClock(ahead))
    claim = await start(store)
    assert await claim_one(wrong, "r2") is None
    mine = await start(wrong, "r2")
    assert await claim_one(store) is None
    await wrong.append(mine.fence, Batch([entry(1)]), lease=LEASE)
    await store.append(claim.fence, Batch([entry(1)]), lease=LEASE)


async def test_hazard_b5_the_runs_of_a_killed_process_are_taken_over_long_before_their_lease_ends(
    opened: Open, postgres_url: str, schema: str
) -> None:
    store = await opened("r1", gone_after=0.3)
    async with child(f"{postgres_url}?schema={schema}") as other:
        run_id = (await other.heard()).removeprefix("run ")
        assert await claim_one(store) is None
        await other.killed()
        taken = await until(lambda: claim_one(store))
        assert (taken.run.id, taken.takeover) == (run_id, True)


async def test_hazard_b1_a_replica_whose_connection_broke_is_in_doubt_before_others_may_act(
    postgres_url: str, opened: Open
) -> None:
    store, other = await opened("r1"), await opened("r2", gone_after=0.3)
    claim = await start(store)
    doubted: list[float] = []
    store.on_doubt(doubted.append)
    pid = store._hold.notices.own_sender
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("SELECT pg_terminate_backend($1)", pid)
    await connection.close()

    async def is_back() -> bool:
        return store._hold.notices.own_sender not in (0, pid)

    await until(is_back)
    assert doubted
    held = await asyncio.to_thread(store.extend, "r1", [claim.fence], lease=LEASE)
    assert set(held) == {claim.fence.attempt_id}
    assert await claim_one(other, "r2") is None, "it has its lock again"
    assert {replica.id for replica in await other.replicas()} == {"r1", "r2"}


async def test_hazard_b1_a_silent_connection_puts_its_replica_in_doubt_and_a_new_one_is_made(
    postgres: PostgresServer, opened: Open
) -> None:
    """Half open: nothing breaks, nothing comes. The look around notices, within its bound."""
    async with proxied(postgres) as (proxy, url):
        store = await opened("r1", url=url, around_bound=0.1, gone_after=0.3)
        doubted = asyncio.Event()
        loop = asyncio.get_running_loop()
        store.on_doubt(lambda _until: loop.call_soon_threadsafe(doubted.set))
        pid = store._hold.notices.own_sender

        async def is_dropped() -> bool:
            return store._hold._connection is None

        async with proxy.with_toxic(Timeout()):
            async with asyncio.timeout(BOUND):
                await doubted.wait()
            await until(is_dropped)

        async def is_back() -> bool:
            return store._hold.notices.own_sender not in (0, pid)

        await until(is_back)


async def test_a_replica_comes_back_although_the_server_has_not_noticed_that_its_connection_broke(
    postgres: PostgresServer, opened: Open
) -> None:
    """The network forgot the connection: for hours its server process holds the replica's lock."""
    async with proxied(postgres) as (proxy, url):
        store = await opened("r1", url=url, gone_after=0.3)
        claim = await start(store)
        pid = store._hold.notices.own_sender
        links, tasks = list(proxy.links), list(proxy._tasks)
        for link in links:
            setattr(link, "close", lambda: None)  # noqa: B010 - the server's end stays open
        for task in tasks:
            task.cancel()

        async def is_back() -> bool:
            return store._hold._connection is not None and store._hold.notices.own_sender != pid

        await until(is_back)
        held = await asyncio.to_thread(store.extend, "r1", [claim.fence], lease=LEASE)
        assert set(held) == {claim.fence.attempt_id}
        for link in links:
            link._writers[1].transport.abort()


async def test_hazard_b3_after_a_break_of_everybodys_connections_nobody_takes_over(
    postgres: PostgresServer, opened: Open
) -> None:
    """All come back at their own pace: a lock that is free right after that is no sign of death."""
    async with proxied(postgres) as (proxy, url):
        stores = [await opened(f"r{n}", url=url, gone_after=20.0) for n in (1, 2)]
        claims = [await start(store, f"r{n}", lease=0.05) for n, store in enumerate(stores, 1)]
        pids = [store._hold.notices.own_sender for store in stores]
        proxy.reset()

        async def are_back() -> bool:
            return all(store._hold.notices.own_sender not in (0, pid) for store, pid in zip(stores, pids, strict=True))

        await until(are_back)
        assert [await claim_one(store, f"r{n}") for n, store in enumerate(stores, 1)] == [None, None]
        for store, claim in zip(stores, claims, strict=True):
            await store.append(claim.fence, Batch([entry(1)]), lease=LEASE)


async def test_a_late_settle_of_a_fenced_attempt_is_refused_after_the_next_one_has_ended(opened: Open) -> None:
    store = await opened("r1")
    claim = await start(store, lease=0.01)
    taken = await until(lambda: claim_one(store, "r2"))
    await store.settle(taken.fence, DONE)
    with pytest.raises(Fenced):
        await store.settle(claim.fence, DONE)


# --- notices --------------------------------------------------------------------------------------


async def heard_of(store: PostgresStore, run_id: str) -> asyncio.Event:
    heard = asyncio.Event()

    def listen(notice: Notice) -> None:
        if notice.runs is None or run_id in notice.runs:
            heard.set()

    store.watch(listen, lambda: [run_id])
    return heard


@pytest.mark.parametrize("notices", [True, False])
async def test_hazard_d2_a_change_elsewhere_is_heard_of_with_and_without_notices(opened: Open, notices: bool) -> None:
    store, other = await opened("r1", notices=notices), await opened("r2", notices=notices)
    claim = await start(store)
    heard = await heard_of(other, claim.run.id)
    await store.append(claim.fence, Batch(events=[NewEvent(EventKind.NOTIFY, {})]), lease=LEASE)
    async with asyncio.timeout(BOUND):
        await heard.wait()


async def test_hazard_d2_a_notice_that_was_lost_costs_a_look_and_no_message(opened: Open) -> None:
    silent, other = await opened("r1", notices=False), await opened("r2", look=0.05)
    claim = await start(silent)
    heard = await heard_of(other, claim.run.id)
    async with asyncio.timeout(BOUND):
        await heard.wait()  # the first look
        heard.clear()
        await silent.append(claim.fence, Batch(events=[NewEvent(EventKind.NOTIFY, {})]), lease=LEASE)
        await heard.wait()
