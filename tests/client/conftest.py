from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from client.peer import Peer, listening
from milepost.client import Policy
from milepost.client.origins import Origins


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with listening() as peer:
        yield peer


@pytest.fixture
def policy() -> Policy:
    """Short waits, so that a test of a retry takes no time; every limit is met by counting, not by the clock."""
    return Policy(
        first_delay=0.01,
        max_delay=0.05,
        give_up_after=10.0,
        silence=2.0,
        quiet=2.0,
        poll_first=0.01,
        poll_max=0.01,
        breaker_rest=0.01,
    )


@pytest.fixture
def origins() -> Origins:
    return Origins()
