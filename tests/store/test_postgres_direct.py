"""Behind a pooler in transaction mode: verbs go through it, what needs a session goes straight to the database."""

from __future__ import annotations

import pytest

from lab.postgres import free_port
from milepost.core.errors import StoreUnavailable
from milepost.seams import Store
from milepost.store.postgres import PostgresStore
from milepost.store.postgres.pool import connect_options
from milepost.store.settings import PostgresSettings
from store.making import ready

NOWHERE = f"postgresql://milepost@127.0.0.1:{free_port()}/milepost"


def settings(direct: str) -> PostgresSettings:
    return PostgresSettings(direct=direct, pool=2, patience=0.1, connect_timeout=2.0)


async def opened(url: str, direct: str) -> Store:
    store = PostgresStore(f"{url}?schema=direct", settings=settings(direct))
    await store.open()
    return store


async def test_heartbeats_and_migrations_go_straight_to_the_database_and_verbs_do_not(postgres_url: str) -> None:
    store = await opened(NOWHERE, f"{postgres_url}?schema=ignored")
    try:
        await store.join("r1")
        assert store.extend("r1", [], lease=10.0) == {}
        with pytest.raises(StoreUnavailable):
            await ready(store)
    finally:
        await store.aclose()
    with pytest.raises(StoreUnavailable):
        await opened(postgres_url, NOWHERE)


async def test_without_a_pooler_there_is_one_way(postgres_url: str) -> None:
    store = await opened(postgres_url, "")
    try:
        await store.join("r1")
        assert await ready(store)
    finally:
        await store.aclose()


def test_through_a_pooler_nothing_is_prepared_and_no_parameter_is_sent_that_it_may_not_know() -> None:
    options = connect_options(PostgresSettings(), pooled=True)
    assert options["statement_cache_size"] == 0
    assert set(options["server_settings"]) == {"application_name"}
    assert "statement_timeout" in connect_options(PostgresSettings())["server_settings"]
