from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from wire.sample import Effects, Gate, a_server
from wire.serving import Raw, Server, serving


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def effects() -> Effects:
    return Effects()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return tmp_path / "wire.db"


@pytest.fixture
async def server(effects: Effects, gate: asyncio.Event, store_path: Path) -> AsyncIterator[Server]:
    async with serving(a_server(effects, gate), store_path) as server:
        yield server


@pytest.fixture
async def raw(server: Server) -> AsyncIterator[Raw]:
    async with httpx2.AsyncClient(timeout=15) as http:
        yield Raw(http, server.url)
