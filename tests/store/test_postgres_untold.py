"""Commits of PostgreSQL whose outcome was not told: found out on a new connection, never guessed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import pytest

from lab.faults import Proxy
from lab.postgres import PostgresServer
from lab.toxics import Timeout
from milepost.core.attempts import Batch, Created
from milepost.core.errors import StoreUnavailable
from milepost.core.outside import Verdict
from milepost.core.records import EventKind, NewEvent
from milepost.core.states import RunState
from milepost.store.postgres import PostgresStore
from store.making import (
    ANN,
    DONE,
    LEASE,
    accept,
    claim_one,
    claimant,
    entry,
    new_run,
    new_stream,
    ready,
    start,
    state_of,
    told,
    waiting,
)
from store.postgres_worlds import BOUND, Open, proxied, until

T = TypeVar("T")


async def warmed(opened: Open, url: str) -> PostgresStore:
    """A store with one connection that has prepared every verb: what is sent next is done, told or not."""
    store = await opened("r1", url=url, pool=1)
    run_id = await waiting(store)
    await store.answer(run_id, {1: accept()}, by=ANN, via="x")
    claim = await claim_one(store)
    assert claim is not None
    await store.settle(claim.fence, DONE)
    return store


@asynccontextmanager
async def untold(
    proxy: Proxy, work: Awaitable[T], done: Callable[[], Awaitable[Any]]
) -> AsyncIterator[asyncio.Task[T]]:
    """`work` is done by the database (`done` says when), but its answer is lost with the connection."""
    toxic = proxy.add(Timeout(stream="downstream"))
    task = asyncio.ensure_future(work)
    await until(done)
    assert not task.done()
    proxy.reset()
    proxy.remove(toxic)
    async with asyncio.timeout(BOUND):
        yield task
        await task


async def test_hazard_b7_an_append_whose_answer_was_lost_is_there_once(postgres: PostgresServer, opened: Open) -> None:
    direct = await opened()
    async with proxied(postgres) as (proxy, url):
        store = await warmed(opened, url)
        claim = await start(store)
        batch = Batch([entry(1)], events=[NewEvent(EventKind.NOTIFY, {"n": 1})])

        async def done() -> bool:
            loaded = await direct.load(claim.run.id)
            return loaded is not None and len(loaded.entries) == 1

        async with untold(proxy, store.append(claim.fence, batch, lease=LEASE), done) as append:
            assert (await append).event_seq == 1
        assert len(await told(direct, claim.run.id)) == 1
        said = await store.append(claim.fence, Batch(events=[NewEvent(EventKind.NOTIFY, {"n": 2})]), lease=LEASE)
        assert said.event_seq == 2


async def test_hazard_b7_events_alone_are_not_said_twice(postgres: PostgresServer, opened: Open) -> None:
    """There is no entry to know them by: the append's own token is the proof."""
    direct = await opened()
    async with proxied(postgres) as (proxy, url):
        store = await warmed(opened, url)
        claim = await start(store)
        say = store.append(claim.fence, Batch(events=[NewEvent(EventKind.NOTIFY, {})]), lease=LEASE)
        async with untold(proxy, say, lambda: direct.events(claim.run.id, after=0)):
            pass
        assert len(await told(direct, claim.run.id)) == 1


async def test_a_batch_that_its_writer_gave_up_and_writes_again_is_not_said_twice(
    postgres: PostgresServer, opened: Open
) -> None:
    """The verb's patience is over before the database answers again; the pen's is not."""
    direct = await opened()
    async with proxied(postgres) as (proxy, url):
        store = await opened("r1", url=url, pool=1, patience=0.1, statement_timeout=1.0)
        claim = await start(store)
        batch = Batch(events=[NewEvent(EventKind.NOTIFY, {})])
        await store.append(claim.fence, Batch(events=[NewEvent(EventKind.NOTIFY, {})]), lease=LEASE)
        async with proxy.with_toxic(Timeout(stream="downstream")):
            with pytest.raises(StoreUnavailable):
                await store.append(claim.fence, batch, lease=LEASE)
        assert len(await told(direct, claim.run.id)) == 2
        await until(lambda: _goes_through(store, claim.run.id))
        said = await store.append(claim.fence, batch, lease=LEASE)
        assert said.event_seq == 2
        assert len(await told(direct, claim.run.id)) == 2


async def _goes_through(store: PostgresStore, run_id: str) -> bool:
    try:
        return await store.load(run_id) is not None
    except StoreUnavailable:
        return False


async def test_an_append_that_no_standby_has_is_not_told_as_done_when_it_is_made_again(
    postgres: PostgresServer, postgres_url: str, opened: Open
) -> None:
    """The server process that waited for the standby ended: its commit is on this server, and nowhere else."""
    store = await opened("r1", patience=2.0, statement_timeout=1.0, lock_timeout=0.5)
    claim = await start(store)
    connection = await asyncpg.connect(postgres_url)
    await asyncio.to_thread(postgres.wait_for_standbys, "nobody")
    try:
        append = asyncio.ensure_future(store.append(claim.fence, Batch([entry(1)]), lease=LEASE))

        async def ended() -> bool:
            return bool(
                await connection.fetchval(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' LIMIT 1"
                )
            )

        await until(ended)
        with pytest.raises(StoreUnavailable):
            await append
    finally:
        await connection.close()
        await asyncio.to_thread(postgres.set, "synchronous_standby_names", "")
    said = await store.append(claim.fence, Batch([entry(1)]), lease=LEASE)
    assert said.event_seq == 0


async def test_hazard_b7_an_end_whose_answer_was_lost_is_one_end(postgres: PostgresServer, opened: Open) -> None:
    direct = await opened()
    async with proxied(postgres) as (proxy, url):
        store = await warmed(opened, url)
        claim = await start(store)

        async def done() -> bool:
            return await state_of(direct, claim.run.id) == "completed"

        async with untold(proxy, store.settle(claim.fence, DONE), done) as settle:
            assert (await settle).state is RunState.COMPLETED
        assert [event.kind for event in await told(direct, claim.run.id)] == [EventKind.RESULT]


async def test_hazard_b7_an_answer_whose_acknowledgement_was_lost_is_acknowledged(
    postgres: PostgresServer, opened: Open
) -> None:
    direct = await opened()
    async with proxied(postgres) as (proxy, url):
        store = await warmed(opened, url)
        run_id = await waiting(store)

        async def done() -> bool:
            return await state_of(direct, run_id) == "ready"

        async with untold(proxy, store.answer(run_id, {1: accept()}, by=ANN, via="mrtr"), done) as answer:
            assert (await answer)[1] in (Verdict.ACCEPTED, Verdict.REPEATED)
        loaded = await direct.load(run_id)
        assert loaded is not None
        assert loaded.run.wake_seq == 1


async def test_hazard_b7_a_run_whose_creation_was_not_told_is_its_creators(
    postgres: PostgresServer, opened: Open
) -> None:
    direct = await opened()
    async with proxied(postgres) as (proxy, url):
        store = await warmed(opened, url)
        new = new_run()
        create = store.create(new, new_stream(new.id), known=(), claim=claimant())
        async with untold(proxy, create, lambda: direct.load(new.id)) as task:
            made = await task
        assert isinstance(made, Created)
        assert made.claim is not None
        await store.append(made.claim.fence, Batch([entry(1)]), lease=LEASE)


async def test_a_creation_made_again_while_the_first_still_waits_is_no_rival_of_itself(
    postgres: PostgresServer, postgres_url: str, opened: Open, schema: str
) -> None:
    async with proxied(postgres) as (proxy, url):
        store = await warmed(opened, url)
        new = new_run()
        other = await asyncpg.connect(postgres_url)

        async def waiting_for_it() -> int:
            return int(
                await other.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            )

        async with other.transaction():
            key = f"{schema} call {new.scope} {new.call_key}"
            await other.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", key)
            create = asyncio.ensure_future(store.create(new, new_stream(new.id), known=(), claim=claimant()))
            await until(waiting_for_it)
            proxy.reset()  # the first one's server process waits on, and then makes the run

            async def both_wait() -> bool:
                return await waiting_for_it() == 2

            await until(both_wait)
        made = await create
        await other.close()
        assert isinstance(made, Created)
        assert made.claim is not None
        await store.append(made.claim.fence, Batch([entry(1)]), lease=LEASE)


async def test_hazard_b7_claims_that_were_not_told_are_told_again(postgres: PostgresServer, opened: Open) -> None:
    direct = await opened()
    async with proxied(postgres) as (proxy, url):
        store = await warmed(opened, url)
        run_ids = [await ready(store) for _ in range(3)]

        async def done() -> bool:
            return await state_of(direct, run_ids[0]) == "running"

        async with untold(proxy, store.claim(claimant(), limit=2, takeovers=0), done) as claims:
            found = await claims
        assert [claim.run.id for claim in found] == run_ids[:2]
        assert [claim.run.crashes for claim in found] == [0, 0]


async def test_a_takeover_that_was_not_told_is_told_as_one(postgres: PostgresServer, opened: Open) -> None:
    """A hot run is buried then, and not run."""
    direct = await opened("r2")
    async with proxied(postgres) as (proxy, url):
        store = await warmed(opened, url)
        lost = await start(direct, "r2", lease=-1.0)

        async def done() -> bool:
            loaded = await direct.load(lost.run.id)
            return loaded is not None and loaded.run.owner == "r1"

        async with untold(proxy, store.claim(claimant(), limit=2, takeovers=1), done) as claims:
            found = await claims
        assert [(claim.run.id, claim.takeover) for claim in found] == [(lost.run.id, True)]
