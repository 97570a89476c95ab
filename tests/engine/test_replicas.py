"""What two replicas on PostgreSQL show of one run: the attempt is on one, the client's stream on the other."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.bench import BOUND, Talk, Workbench
from milepost.core.records import Event, EventKind
from milepost.core.states import RunState
from milepost.engine.hub import Glimpse
from milepost.engine.verbs import stage
from milepost.store.postgres.notices import glimpse_payloads, notice_of

_schemas = itertools.count(1)


@pytest.fixture
async def pair(tmp_path: Path, postgres_url: str) -> AsyncIterator[Workbench]:
    bench = Workbench(tmp_path, postgres=f"{postgres_url}?schema=replicas{next(_schemas)}")
    yield bench
    await bench.close()


async def test_progress_and_stages_reach_a_stream_on_another_replica(pair: Workbench) -> None:
    seen, gate = asyncio.Event(), asyncio.Event()

    @pair.tool(stages=["searching", "booking"])
    async def book(talk: Talk) -> str:
        await talk.elicit("When?")
        async with stage("searching"):
            for n in range(1, 100):
                await talk.progress(n, 100)
                if seen.is_set():
                    break
                await asyncio.wait({asyncio.ensure_future(seen.wait())}, timeout=0.1)
        await gate.wait()
        return "booked"

    works, shows = await pair.start(), await pair.start(attempts=0)
    run_id = (await pair.call("book", on=works)).run_id
    await pair.state(run_id, RunState.WAITING)
    kinds: list[str] = []
    with shows.runs.feed(run_id) as feed:
        await pair.say(run_id, "When?")
        async with asyncio.timeout(BOUND):
            while not feed.over:
                item = await feed.next(1.0)
                if isinstance(item, Glimpse):
                    assert (0.0 < item.progress < 1.0, item.total) == (True, 2.0)
                    seen.set()
                    gate.set()
                elif isinstance(item, Event):
                    kinds.append(item.kind)
    assert seen.is_set()
    assert kinds.count(EventKind.STAGE) == 2
    assert kinds[-1] is EventKind.RESULT


def test_glimpses_go_out_in_as_few_notices_as_hold_them() -> None:
    gathered = {f"run-{n:032x}": json.dumps([n, 10, "x" * 200]) for n in range(100)}
    gathered["run-too-long"] = "x" * 10_000
    payloads = list(glimpse_payloads(gathered))
    assert all(len(payload.encode()) < 8000 for payload in payloads)
    shown = {run: text for payload in payloads for run, text in notice_of(payload).glimpses.items()}
    gathered.pop("run-too-long")
    assert shown == gathered
    assert len(payloads) < 6
    assert list(glimpse_payloads({})) == []
