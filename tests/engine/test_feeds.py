"""Feeds: a run's events as they come, in pages, and when nobody tells of them."""

import asyncio

import pytest

from engine.bench import Talk, Workbench
from engine.booking import declare_book
from milepost.core.records import Event
from milepost.core.states import RunState
from milepost.engine.hub import Feed


async def test_a_quiet_feed_says_nothing_and_a_closed_one_is_over(bench: Workbench) -> None:
    declare_book(bench)
    await bench.start()
    run_id = (await bench.call("book")).run_id
    await bench.state(run_id, RunState.WAITING)
    feed: Feed = bench.runs.feed(run_id)
    seen = [await feed.next(0.2)]
    while seen[-1] is not None:
        seen.append(await feed.next(0.05))
    assert isinstance(seen[0], Event)
    assert await feed.next(0) is None
    feed.close()
    feed.close()
    await bench.say(run_id, "When?", day="mon")
    await bench.result(run_id)
    with bench.runs.feed(run_id) as again:
        while not again.over:
            assert await again.next(1) is not None
        assert await again.next() is None


async def test_a_long_feed_is_read_in_pages(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.engine.hub._PAGE", 2)

    @bench.tool
    async def chatter(talk: Talk) -> str:
        for n in range(5):
            await talk.log(str(n))
        return "ok"

    await bench.start()
    run_id = (await bench.call("chatter")).run_id
    await bench.result(run_id)
    with bench.runs.feed(run_id) as feed:
        numbers = []
        while not feed.over:
            event = await feed.next(1)
            assert isinstance(event, Event)
            numbers.append(event.n)
    assert numbers == [1, 2, 3, 4, 5, 6]


async def test_a_feed_finds_what_nobody_told_it(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.engine.hub._RECHECK", 0.05)
    declare_book(bench)
    process = await bench.start()
    run_id = (await bench.call("book")).run_id
    await bench.state(run_id, RunState.WAITING)
    process.runs.hub.changed = lambda _: None  # type: ignore[method-assign]
    process.runs._unwatch()
    with bench.runs.feed(run_id) as feed:
        assert isinstance(await feed.next(), Event)


async def test_two_may_watch_one_run_and_one_may_leave(bench: Workbench) -> None:
    declare_book(bench)
    process = await bench.start()
    run_id = (await bench.call("book")).run_id
    with process.runs.feed(run_id) as stays:
        with process.runs.feed(run_id):
            assert set(process.runs.hub.watched()) == {run_id}
        await bench.say(run_id, "When?", day="mon")
        async with asyncio.timeout(5):
            while not stays.over:
                await stays.next()
    assert set(process.runs.hub.watched()) == set()
