"""One open response: how its end is judged."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from milepost.wire.follow import Ended, Hold

pytestmark = pytest.mark.anyio


def _parts() -> Any:
    """As much of the wire's parts as a response that is told asks for."""
    return SimpleNamespace(traffic=SimpleNamespace(stream=lambda _: nullcontext()), watching=lambda *_: nullcontext())


async def _told() -> None:
    return None


async def test_a_story_told_to_a_client_that_stays_is_told() -> None:
    never = asyncio.Event()
    assert await Hold(_parts(), never.wait, "s").tell(_told()) is Ended.TOLD


async def test_hazard_d3_a_result_that_meets_its_clients_departure_does_not_count_as_told() -> None:
    async def left_long_ago() -> None:
        for _ in range(3):  # passes of the loop until a closed socket's end has come to us
            await asyncio.sleep(0)

    assert await Hold(_parts(), left_long_ago, "s").tell(_told()) is Ended.GONE
