"""A client that leaves at the moment at which its call becomes part of an earlier run."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from milepost.core.outside import Find
from milepost.core.records import Stream
from wire.sample import Effects, a_server
from wire.serving import LIMIT, Raw, Server, accept, call, enveloped, events, serving, until
from wire.test_modern import ASKABLE, ask, retry

pytestmark = pytest.mark.anyio

ANN = {"name": "Ann"}


@pytest.fixture
async def server(effects: Effects, store_path: Path) -> AsyncIterator[Server]:
    """Where a call made again is asked at once which of the two runs to keep."""
    flags: dict[str, Any] = {"single_user": True, "engine": {"reattach_window": 0}}
    async with serving(a_server(effects), store_path, **flags) as server:
        yield server


async def held(server: Server) -> asyncio.Event:
    """The store tells nobody when it has opened a stream on the run that there is; the event says that it has."""
    (earlier,) = await server.runs.find(Find())
    original, reached = server.runs.store.open_stream, asyncio.Event()

    async def open_stream(stream: Stream) -> Stream:
        opened: Stream = await original(stream)
        if stream.run_id == earlier.id:
            reached.set()
            await asyncio.Event().wait()
        return opened

    server.runs.store.open_stream = open_stream
    return reached


async def none_live(store: Path) -> None:
    """Returns once no stream counts as connected."""
    with closing(sqlite3.connect(store)) as rows:
        while rows.execute("SELECT count(*) FROM stream WHERE replica IS NOT NULL").fetchone() != (0,):
            await asyncio.sleep(0.01)


async def test_leaving_a_stream_while_it_moves_to_the_earlier_run_closes_both(
    server: Server, raw: Raw, store_path: Path
) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("trip", ANN, id=1)) as response:
            await until(events(response), method="elicitation/create")
        await none_live(store_path)
        reached = await held(server)
        async with raw.stream(call("trip", ANN, id=2)) as response:
            stream = events(response)
            which = await until(stream, method="elicitation/create")
            assert (await raw.post(accept(which.message, choice="go on"))).status_code == 202
            await reached.wait()
        await none_live(store_path)


async def test_leaving_a_request_while_it_moves_to_the_earlier_run_closes_both(
    server: Server, store_path: Path
) -> None:
    async with httpx2.AsyncClient(timeout=15) as http:
        raw = Raw(http, server.url)
        with anyio.fail_after(LIMIT):
            await ask(raw, call("trip", ANN))
            reached = await held(server)
            which = await ask(raw, call("trip", ANN, id=2))
            body, headers = enveloped(retry("trip", ANN, which, {"q1": {"choice": "go on"}}), ASKABLE)
            leaving = asyncio.create_task(http.post(server.url, json=body, headers=headers))
            await reached.wait()
            leaving.cancel()
            await none_live(store_path)
