"""The PostgreSQL store passes the conformance suite."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fakes import FakeClock
from store.contract import StoreContract
from store.postgres_worlds import PostgresWorld


@pytest.fixture
async def world(postgres_url: str, clock: FakeClock) -> AsyncIterator[PostgresWorld]:
    world = PostgresWorld(postgres_url, clock)
    yield world
    await world.aclose()


class TestPostgresStore(StoreContract):
    """Every test of the contract, on a real server."""
