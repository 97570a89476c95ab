"""A call that its caller named by a call id is one run, however often it is made, wherever, and whatever else holds."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from engine.bench import BOB, FAST, Talk, Workbench
from engine.booking import declare_book
from milepost import step
from milepost.core.errors import CallIdUsed, Overloaded, RequestIdUsed
from milepost.core.outside import Find
from milepost.core.records import ANONYMOUS, Delivery
from milepost.core.states import RunState

ID = "0b7e51d6-8c5c-4d0e-9a6e-5a5ce0b1a7d3"
OTHER = "wish_2.5a5ce0b1a7d3"


async def asked(bench: Workbench, run_id: str) -> list[str]:
    return [str(question.params["message"]) for question in await bench.runs.open_questions(run_id)]


@pytest.mark.parametrize("same_run", ["ask", "always", "never"])
async def test_whatever_the_workflow_says_of_equal_calls_it_is_attached_in_silence(
    bench: Workbench, same_run: Any
) -> None:
    booked = declare_book(bench, same_run=same_run)
    await bench.start()
    first = await bench.call("book", call_id=ID)
    await bench.question(first.run_id, "When?")
    live = await bench.call("book", call_id=ID)
    assert (live.run_id, live.attached, first.attached) == (first.run_id, True, False)
    assert await asked(bench, first.run_id) == ["When?"]
    await bench.say(first.run_id, "When?", day="sat")
    assert await bench.result(first.run_id) == "sat"
    assert booked == ["sat"]


async def test_one_that_was_left_for_long_goes_on_without_a_question(bench: Workbench) -> None:
    declare_book(bench)
    await bench.start(same_call=replace(FAST.same_call, reattach_window=0.0))
    first = await bench.call("book", call_id=ID)
    await bench.question(first.run_id, "When?")
    await bench.runs.detach(first)
    again = await bench.call("book", call_id=ID)
    assert (again.run_id, again.attached) == (first.run_id, True)
    assert await asked(bench, first.run_id) == ["When?"]


async def test_nobody_in_particular_finds_a_run_from_any_session(bench: Workbench) -> None:
    declare_book(bench, same_run="never")
    await bench.start()
    runs = [
        (await bench.call("book", by=ANONYMOUS, session=session, call_id=ID)).run_id for session in ("s1", "s2", None)
    ]
    assert len(set(runs)) == 1
    assert (await bench.call("book", by=BOB, call_id=ID)).run_id not in runs, "another's id is another id"


async def test_hazard_d3_a_result_is_given_again_also_after_it_was_confirmed(bench: Workbench) -> None:
    booked = declare_book(bench)
    await bench.start()
    first = await bench.call("book", session="s1", call_id=ID)
    await bench.say(first.run_id, "When?", day="sat")
    await bench.result(first.run_id)
    for delivery in (Delivery.SENT, Delivery.CONFIRMED):
        await bench.runs.detach(first, delivery=delivery)
        for session in ("s1", "s2", None):
            again = await bench.call("book", session=session, call_id=ID)
            assert (again.run_id, again.attached) == (first.run_id, True), (delivery, session)
    assert booked == ["sat"]


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_a_run_that_ended_badly_is_not_started_anew(bench: Workbench, how: str) -> None:
    began: list[int] = []

    @step
    async def begin() -> None:
        began.append(1)

    @bench.tool
    async def work(talk: Talk) -> None:
        await begin()
        await talk.elicit("Sure?")
        raise ValueError("no")

    await bench.start()
    run_id = (await bench.call("work", call_id=ID)).run_id
    await bench.question(run_id, "Sure?")
    await (bench.runs.cancel(run_id, reason="client") if how == "cancelled" else bench.say(run_id, "Sure?"))
    await bench.failure(run_id)
    assert (await bench.call("work", call_id=ID)).run_id == run_id
    assert began == [1]


async def test_a_parked_run_is_woken(bench: Workbench) -> None:
    gate, ran = asyncio.Event(), list[str]()

    @step
    async def one() -> None:
        ran.append("one")
        await gate.wait()

    @bench.tool
    async def work(talk: Talk) -> str:
        await one()
        return "ok"

    await bench.start()
    first = await bench.call("work", call_id=ID)
    async with asyncio.timeout(10):
        while not ran:
            await asyncio.sleep(0.005)
    await bench.runs.detach(first, park=True)
    gate.set()
    await bench.state(first.run_id, RunState.PARKED)
    assert (await bench.call("work", call_id=ID)).run_id == first.run_id
    assert await bench.result(first.run_id) == "ok"
    assert ran == ["one"]


async def test_calls_with_different_ids_are_wishes_of_their_own_where_nothing_merges_them(bench: Workbench) -> None:
    declare_book(bench, same_run="never")
    await bench.start()
    runs = [(await bench.call("book", call_id=call_id)).run_id for call_id in (ID, OTHER, None, None)]
    assert len(set(runs)) == 4
    assert [(await bench.call("book", call_id=call_id)).run_id for call_id in (ID, OTHER)] == runs[:2]


async def test_hazard_d3_a_client_that_died_and_forgot_its_id_finds_its_run(bench: Workbench) -> None:
    declare_book(bench, same_run="always")
    await bench.start()
    first = await bench.call("book", call_id=ID)
    assert (await bench.call("book", call_id=OTHER)).run_id == first.run_id
    assert (await bench.call("book")).run_id == first.run_id
    await bench.say(first.run_id, "When?", day="sat")
    assert await bench.result(first.run_id) == "sat"


async def test_an_id_with_another_tool_or_other_arguments_is_refused(bench: Workbench) -> None:
    @bench.tool(same_run_by=["n"])
    async def double(talk: Talk, n: int, note: str = "") -> int:
        return 2 * n

    @bench.tool
    async def triple(talk: Talk, n: int, note: str = "") -> int:
        return 3 * n

    await bench.start()
    first = await bench.call("double", session="s1", call_id=ID, n=1, note="a")
    for tool, arguments in (("double", {"n": 1, "note": "b"}), ("double", {"n": 1}), ("triple", {"n": 1, "note": "a"})):
        with pytest.raises(CallIdUsed, match="another tool or with other arguments"):
            await bench.call(tool, call_id=ID, **arguments)
        with pytest.raises(CallIdUsed):
            await bench.call(tool, session="s1", request_id=1, call_id=ID, **arguments)
    assert await bench.result(first.run_id) == 2
    again = await bench.call("double", session="s1", request_id=1, call_id=ID, n=1, note="a")
    assert again.id == first.id, "the same request, sent twice"
    with pytest.raises(RequestIdUsed):
        await bench.call("double", session="s1", request_id=1, call_id=OTHER, n=1, note="a")
    assert len(await bench.runs.find(Find())) == 1


async def test_hazard_d3_calls_with_one_id_at_once_on_two_replicas_are_one_run(bench: Workbench) -> None:
    booked = declare_book(bench, same_run="never")
    replicas = [await bench.start(), await bench.start()]
    calls = [bench.call("book", by=ANONYMOUS, session=f"s{n}", on=replicas[n % 2], call_id=ID) for n in range(6)]
    streams = await asyncio.gather(*calls)
    (run_id,) = {stream.run_id for stream in streams}
    assert sorted(stream.attached for stream in streams) == [False] + [True] * 5
    await bench.say(run_id, "When?", by=ANONYMOUS, day="sat")
    assert await bench.result(run_id) == "sat"
    assert booked == ["sat"]


@pytest.mark.leases
async def test_a_call_is_found_after_its_replica_was_killed(bench: Workbench) -> None:
    declare_book(bench, same_run="never")
    process = await bench.start()
    first = await bench.call("book", by=ANONYMOUS, session="s1", call_id=ID)
    await bench.state(first.run_id, RunState.WAITING)
    await process.kill()
    await bench.start()
    assert (await bench.call("book", by=ANONYMOUS, session="s2", call_id=ID)).run_id == first.run_id
    await bench.say(first.run_id, "When?", by=ANONYMOUS, day="sun")
    assert await bench.result(first.run_id) == "sun"


@pytest.mark.leases  # the scheduler in memory has room for all
async def test_where_there_is_no_room_for_a_new_run_one_is_found_by_its_id(bench: Workbench) -> None:
    gate = asyncio.Event()

    @step
    async def work() -> None:
        await gate.wait()

    @bench.tool(same_run="never")
    async def job(talk: Talk) -> str:
        await work()
        return "done"

    await bench.start(attempts=2, kept_percent=50, principal_percent=100, queue=0)
    first = await bench.call("job", call_id=ID)
    with pytest.raises(Overloaded):
        await bench.call("job", call_id=OTHER)
    assert (await bench.call("job", call_id=ID)).run_id == first.run_id
    gate.set()
    assert await bench.result(first.run_id) == "done"


@pytest.mark.leases  # as above
async def test_one_that_waits_for_room_and_is_made_again_is_one_run(bench: Workbench) -> None:
    gate, ran = asyncio.Event(), list[int]()

    @step
    async def work(n: int) -> int:
        await gate.wait()
        ran.append(n)
        return n

    @bench.tool(same_run="never")
    async def job(talk: Talk, n: int) -> int:
        return await work(n)

    await bench.start(attempts=2, kept_percent=50, principal_percent=100, queue=4)
    await bench.call("job", n=1)
    twice = [asyncio.create_task(bench.call("job", session=s, call_id=ID, n=2)) for s in ("s1", "s2")]
    async with asyncio.timeout(10):
        while bench.runs.admission.waiting != 2:
            await asyncio.sleep(0.005)
    gate.set()
    first, second = await asyncio.gather(*twice)
    assert first.run_id == second.run_id
    assert await bench.result(first.run_id) == 2
    assert sorted(ran) == [1, 2]


async def test_a_tool_that_may_not_be_replayed_is_not_run_again_either(bench: Workbench) -> None:
    began: list[str] = []

    @bench.hot
    async def unchanged(talk: Talk) -> str:
        began.append(talk.call.tool)
        return str((await talk.elicit("Sure?"))["v"])

    await bench.start()
    first = await bench.call("unchanged", session="s1", by=ANONYMOUS, call_id=ID)
    await bench.question(first.run_id, "Sure?")
    assert (await bench.call("unchanged", session="s2", by=ANONYMOUS, call_id=ID)).run_id == first.run_id
    await bench.say(first.run_id, "Sure?", by=ANONYMOUS, v="yes")
    assert await bench.result(first.run_id) == "yes"
    assert began == ["unchanged"]
