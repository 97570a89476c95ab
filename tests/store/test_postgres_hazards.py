"""What can go wrong between replicas and PostgreSQL, one test for each: with real servers, networks and processes."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import pytest

from fakes import ShiftedClock
from lab.faults import Proxy
from lab.postgres import PostgresServer
from lab.toxics import Timeout
from milepost.core.attempts import Batch, Created, End, EndKind
from milepost.core.errors import Fenced, StoreError, StoreTooNew, StoreUnavailable
from milepost.core.outside import Action, ActionKind, Notice, Verdict
from milepost.core.records import EventKind, NewEvent, QuestionState
from milepost.core.states import RunState
from milepost.seams import Store
from milepost.store.postgres import PostgresStore, sqltext
from milepost.store.settings import PostgresSettings
from milepost.store.sqlfiles import Migration
from store.children import child
from store.making import (
    ANN,
    DONE,
    LEASE,
    accept,
    asking,
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

BOUND = 20.0
_numbers = itertools.count(1)
T = TypeVar("T")
Open = Callable[..., Awaitable[PostgresStore]]


@pytest.fixture
def schema() -> str:
    return f"hazard{next(_numbers)}"


@pytest.fixture
async def opened(postgres_url: str, schema: str) -> AsyncIterator[Open]:
    """Opens stores on one schema by the real clock, each as a process of its own; `url` for another way to it."""
    stores: list[PostgresStore] = []

    async def open_one(replica: str = "", *, url: str = postgres_url, clock: Any = None, **settings: Any) -> Any:
        store = PostgresStore(
            f"{url}?schema={schema}", clock=clock, settings=PostgresSettings(**{"pool": 4, "around": 0.05, **settings})
        )
        await store.open()
        stores.append(store)
        if replica:
            await store.join(replica)
        return store

    yield open_one
    for store in stores:
        await store.aclose()


async def until(check: Callable[[], Awaitable[T]]) -> T:
    """What `check` returns, once it is true."""
    async with asyncio.timeout(BOUND):
        while not (found := await check()):
            await asyncio.sleep(0.01)
        return found


@asynccontextmanager
async def proxied(postgres: PostgresServer) -> AsyncIterator[tuple[Proxy, str]]:
    async with Proxy(postgres.port) as proxy:
        yield proxy, postgres.url(port=proxy.port)


# --- unknown outcomes -----------------------------------------------------------------------------


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
    postgres_url: str, opened: Open
) -> None:
    """The server process that waited for the standby ended: its commit is on this server, and nowhere else."""
    store = await opened("r1", patience=2.0, statement_timeout=1.0, lock_timeout=0.5)
    claim = await start(store)
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    await connection.execute("SELECT pg_reload_conf()")
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
        await connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()
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


# --- races under READ COMMITTED -------------------------------------------------------------------


async def test_hazard_b3_a_hundred_races_of_suspend_answers_and_cancel(opened: Open) -> None:
    """No wake-up lost, nobody told what isn't so, no deadlock; each act over a connection of its own."""
    stores = [await opened("r1"), await opened("r2")]
    rng = random.Random(3)  # noqa: S311
    for n in range(100):
        run_id, tasks, cancelled = await race(stores, rng, with_cancel=n % 2 == 0)
        verdicts = {**tasks[1].result(), **tasks[2].result()}
        loaded = await stores[0].load(run_id)
        assert loaded is not None
        for question in loaded.questions:
            accepted = verdicts[question.id] is Verdict.ACCEPTED
            assert (question.state is QuestionState.ANSWERED) == accepted
        if cancelled:
            assert loaded.run.state is RunState.CANCELLING
        else:
            assert loaded.run.state is RunState.READY, "an answer came: it may not wait"


async def race(stores: list[PostgresStore], rng: random.Random, *, with_cancel: bool) -> Any:
    claim = await start(stores[0])
    run_id = claim.run.id
    await stores[0].append(claim.fence, asking(1, 2), lease=LEASE)
    acts: list[Callable[[], Awaitable[Any]]] = [
        lambda: stores[0].settle(claim.fence, End(EndKind.SUSPEND, 0, frozenset({1, 2}))),
        lambda: stores[0].answer(run_id, {1: accept()}, by=ANN, via="a"),
        lambda: stores[1].answer(run_id, {2: accept()}, by=ANN, via="b"),
    ]
    if with_cancel:
        acts.append(lambda: stores[1].steer(run_id, Action(ActionKind.CANCEL, "client")))
    tasks: list[Any] = [None] * len(acts)
    for place in rng.sample(range(len(acts)), len(acts)):
        tasks[place] = asyncio.ensure_future(acts[place]())
    await asyncio.gather(*tasks)
    return run_id, tasks, with_cancel


async def test_hazard_b3_one_claim_takes_no_more_than_it_may_whatever_the_plan(
    postgres_url: str, schema: str, opened: Open
) -> None:
    """A sub-query with LIMIT and SKIP LOCKED, run once per row, would claim them all."""
    store = await opened("r1")
    for _ in range(40):
        await ready(store)
    connection = await asyncpg.connect(postgres_url)
    for setting in ("enable_hashjoin", "enable_mergejoin", "enable_seqscan", "enable_material"):
        await connection.execute(f"ALTER ROLE CURRENT_USER SET {setting} = off")
    try:
        forced = await opened("r2")
        assert len(await forced.claim(claimant("r2"), limit=5, takeovers=8)) == 5
    finally:
        await connection.execute("ALTER ROLE CURRENT_USER RESET ALL")
        await connection.close()


# --- leases and replicas --------------------------------------------------------------------------


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


# --- the database goes away -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_of_the_database_is_a_stall_and_then_work_goes_on(mode: Any) -> None:
    with PostgresServer() as server:
        store = PostgresStore(server.url(), settings=PostgresSettings(pool=4))
        await store.open()
        await store.join("r1")
        claims = [await start(store) for _ in range(8)]
        appends = [asyncio.ensure_future(work(store, claim, 30)) for claim in claims]
        await asyncio.to_thread(server.restart, mode)
        async with asyncio.timeout(BOUND):
            await asyncio.gather(*appends)
        assert store.healthy() is None
        for claim in claims:
            loaded = await store.load(claim.run.id)
            assert loaded is not None
            assert [e.n for e in loaded.entries] == list(range(1, 31))
            await told(store, claim.run.id)
        await store.aclose()


async def work(store: Store, claim: Any, steps: int) -> None:
    for n in range(1, steps + 1):
        await store.append(claim.fence, Batch([entry(n)], events=[NewEvent(EventKind.NOTIFY, {"n": n})]), lease=LEASE)


async def test_hazard_b2_an_acknowledged_answer_survives_a_failover_to_a_synchronous_standby() -> None:
    with PostgresServer() as primary:
        standby = await asyncio.to_thread(primary.add_standby, "second")
        async with Proxy(primary.port) as proxy:
            store = PostgresStore(primary.url(port=proxy.port), settings=PostgresSettings(pool=4))
            await store.open()
            await store.join("r1")
            run_ids = [await waiting(store) for _ in range(20)]
            answers = [asyncio.ensure_future(store.answer(r, {1: accept()}, by=ANN, via="x")) for r in run_ids]
            await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
            acknowledged = [r for r, task in zip(run_ids, answers, strict=True) if task.done()]
            await asyncio.to_thread(primary.kill)
            await asyncio.to_thread(standby.promote)
            proxy.upstream = standby.port
            async with asyncio.timeout(BOUND):
                await asyncio.gather(*answers)
            assert acknowledged
            assert {await state_of(store, run_id) for run_id in run_ids} == {"ready"}
            await store.aclose()


async def test_a_database_that_is_away_is_told_to_readyz_and_to_callers_in_the_end() -> None:
    with PostgresServer() as server:
        store = PostgresStore(server.url(), settings=PostgresSettings(pool=2, patience=0.3, connect_timeout=1.0))
        await store.open()
        await asyncio.to_thread(server.stop, "immediate")
        with pytest.raises(StoreUnavailable, match="can't be reached"):
            await ready(store)
        assert "can't be reached" in (store.healthy() or "")
        await asyncio.to_thread(server.start)
        await ready(store)
        assert store.healthy() is None
        await store.aclose()


async def test_a_value_that_can_not_be_stored_is_told_and_the_store_is_well(opened: Open) -> None:
    store = await opened("r1")
    with pytest.raises(StoreError, match="can't be stored") as caught:
        await ready(store, tool="with \x00 in it")
    assert not isinstance(caught.value, StoreUnavailable)
    assert store.healthy() is None


async def test_no_database_and_no_such_user_are_told_in_words(postgres: PostgresServer) -> None:
    for url in (postgres.url("nowhere"), "postgresql://milepost@127.0.0.1:1/db"):
        with pytest.raises(StoreUnavailable, match=r"nowhere|can't be"):
            await PostgresStore(url, settings=PostgresSettings(connect_timeout=1.0)).open()


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


# --- schemas and builds ---------------------------------------------------------------------------


NEXT = len(sqltext.migrations()) + 1
"""The version of a step that this build doesn't have."""


async def test_hazard_e2_two_builds_with_different_verbs_work_on_one_store(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await opened("r1")
    text = sqltext._verbs()
    monkeypatch.setattr(sqltext, "_verbs", lambda: text + "\n-- another build\n")
    new = await opened("r2")
    monkeypatch.undo()
    assert old._sql.verbs_schema != new._sql.verbs_schema
    run_id = await waiting(old)
    assert await new.answer(run_id, {1: accept()}, by=ANN, via="x") == {1: Verdict.ACCEPTED}
    claim = await claim_one(new, "r2")
    assert claim is not None
    await new.settle(claim.fence, DONE)
    assert await state_of(old, run_id) == "completed"


async def test_hazard_e2_a_migration_is_made_once_and_an_older_build_works_on(opened: Open, schema: str) -> None:
    old = await opened("r1")
    later = (*sqltext.migrations(), Migration(NEXT, 1, "ALTER TABLE milepost.run ADD COLUMN mood text"))
    news = [PostgresStore(f"{old._url}?schema={schema}", steps=later) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in news))
    claim = await start(old)
    await old.append(claim.fence, Batch([entry(1)]), lease=LEASE)
    assert (await news[0].settle(claim.fence, DONE)).state is RunState.COMPLETED
    for store in news:
        await store.aclose()


async def test_hazard_e2_a_store_that_needs_a_newer_release_is_refused(opened: Open, schema: str) -> None:
    old = await opened("r1")
    newer = PostgresStore(
        f"{old._url}?schema={schema}", steps=(*sqltext.migrations(), Migration(NEXT, NEXT, "SELECT 1"))
    )
    await newer.open()
    await newer.aclose()
    with pytest.raises(StoreTooNew, match=f"needs a Milepost that knows at least schema {NEXT}"):
        await opened()


async def test_a_user_who_may_make_no_schema_is_told_who_may(postgres: PostgresServer) -> None:
    postgres.sql("CREATE ROLE guest LOGIN")
    with pytest.raises(StoreUnavailable, match="milepost store migrate"):
        await PostgresStore(f"postgresql://guest@127.0.0.1:{postgres.port}/postgres?schema=guests").open()


async def test_the_secrets_come_from_a_key_if_one_is_given(opened: Open) -> None:
    kept, given, same = await opened(), await opened(secret_key=b"k" * 32), await opened(secret_key=b"k" * 32)
    assert kept.secret("sessions") != given.secret("sessions") == same.secret("sessions")


# --- what it costs --------------------------------------------------------------------------------


async def test_hazard_c6_what_is_due_is_found_by_an_index_and_appends_stay_within_their_page(
    postgres: PostgresServer, opened: Open, schema: str
) -> None:
    store = await opened("r1")
    for _ in range(300):
        await waiting(store, expires_in=1000.0)
    await store.aclose()  # its servers count what they did when they end
    store = await opened("r1")
    claim = await start(store)
    postgres.sql(f"ANALYZE {schema}.run, {schema}.question")
    before = await scanned(postgres, schema)
    for n in range(1, 101):
        await store.append(claim.fence, Batch([entry(n)]), lease=LEASE)
        assert await claim_one(store) is None
    await store.sweep(limit=100)
    await store.aclose()
    after = await scanned(postgres, schema)
    assert after[0] - before[0] < 3000, "rows read: the waiting ones are not among them"
    assert after[2] - before[2] >= 0.8 * (after[1] - before[1]), "updates that touched no index"


async def scanned(postgres: PostgresServer, schema: str) -> tuple[int, int, int]:
    """(rows read without an index, updates, of these within their page) of the runs' table, once all is counted."""
    columns = "seq_tup_read, n_tup_upd, n_tup_hot_upd"
    sql = f"SELECT {columns} FROM pg_stat_user_tables WHERE schemaname = '{schema}' AND relname = 'run'"  # noqa: S608

    async def settled() -> tuple[int, int, int] | None:
        first = postgres.sql(sql)[0]
        await asyncio.sleep(0.5)  # the counters come in by themselves, with a delay of the server's
        second = postgres.sql(sql)[0]
        return tuple(int(n) for n in second) if first == second else None  # type: ignore[return-value]

    return await until(settled)


async def test_a_late_settle_of_a_fenced_attempt_is_refused_after_the_next_one_has_ended(opened: Open) -> None:
    store = await opened("r1")
    claim = await start(store, lease=0.01)
    taken = await until(lambda: claim_one(store, "r2"))
    await store.settle(taken.fence, DONE)
    with pytest.raises(Fenced):
        await store.settle(claim.fence, DONE)
