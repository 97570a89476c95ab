"""What can go wrong on PostgreSQL, one test for each: races, outages, schemas, and what it costs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from lab.faults import Proxy
from lab.postgres import PostgresServer
from milepost.core.attempts import Batch, End, EndKind
from milepost.core.errors import StoreError, StoreTooNew, StoreUnavailable
from milepost.core.outside import Action, ActionKind, Verdict
from milepost.core.records import EventKind, NewEvent, QuestionState
from milepost.core.states import RunState
from milepost.seams import Store
from milepost.store.postgres import PostgresStore, sqltext
from milepost.store.settings import PostgresSettings
from milepost.store.sqlfiles import Migration
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
from store.postgres_worlds import BOUND, Open, until

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


# --- what is told in words ------------------------------------------------------------------------


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


async def test_a_user_who_may_make_no_schema_is_told_who_may(postgres: PostgresServer) -> None:
    postgres.sql("CREATE ROLE guest LOGIN")
    with pytest.raises(StoreUnavailable, match="milepost store migrate"):
        await PostgresStore(f"postgresql://guest@127.0.0.1:{postgres.port}/postgres?schema=guests").open()


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
