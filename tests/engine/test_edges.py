"""What seldom happens: fences lost in mid-air, stores that fail, functions that won't end, hot calls."""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
import structlog

from engine.bench import ALICE, BOUND, Process, Talk, Workbench
from engine.test_recovery import declare_book, running, until
from milepost import step, workflow
from milepost.core import ids
from milepost.core.attempts import Batch, Claim, EndKind, Fence
from milepost.core.errors import (
    CallerError,
    ConfigurationError,
    Fenced,
    PeerError,
    QuestionExpired,
    RunCancelled,
    StoreUnavailable,
)
from milepost.core.outside import Find, Verdict
from milepost.core.records import CallContext, Delivery, Event, EventKind, Outcome, Reply, Rival, Stream
from milepost.core.states import RunState
from milepost.engine.endings import cancelled_end
from milepost.engine.heart import Heart
from milepost.engine.hub import Feed
from milepost.engine.verbs import make_spec, wrap_function


async def steal(bench: Workbench, run_id: str) -> None:
    """Somebody else owns the run now, as after a takeover."""
    await bench.execute("UPDATE run SET attempt_id = 'thief', lease_until = 0 WHERE id = $1", run_id)


# --- fences -------------------------------------------------------------------------------------


@pytest.mark.leases
async def test_hazard_b1_a_fenced_attempt_ends_and_its_result_counts_for_nothing(bench: Workbench) -> None:
    ran: list[str] = []
    gate = asyncio.Event()

    @step
    async def one() -> str:
        ran.append("one")
        if len(ran) == 1:
            await gate.wait()
        return "ok"

    @step
    async def two() -> str:
        ran.append("two")
        return "ok"

    @bench.tool
    async def work(talk: Talk) -> str:
        return str(await one()) + str(await two())

    await bench.start()
    run_id = (await bench.call("work")).run_id
    await until(lambda: ran == ["one"])
    await steal(bench, run_id)
    gate.set()
    assert await bench.result(run_id) == "okok"
    assert ran == ["one", "one", "two"], "the step in flight may show twice, nothing after it"


@pytest.mark.leases
async def test_a_fenced_attempt_tears_the_steps_that_it_can_no_longer_record(bench: Workbench) -> None:
    torn: list[str] = []
    begun: list[int] = []

    @step
    async def slow(n: int) -> int:
        begun.append(n)
        try:
            await asyncio.sleep(60 if len(begun) == 1 else 0)
        except asyncio.CancelledError:
            torn.append("torn")
            raise
        return n

    @bench.tool
    async def work(talk: Talk) -> int:
        return int(await slow(1))

    process = await bench.start()
    run_id = (await bench.call("work")).run_id
    attempt = await running(process, run_id)
    await until(lambda: attempt.waits.steps)
    await steal(bench, run_id)
    assert await bench.result(run_id) == 1
    await until(lambda: torn == ["torn"])
    with pytest.raises(Fenced):
        await attempt.pen.write()


async def test_past_the_leases_sure_end_a_step_begins_only_after_a_write(bench: Workbench) -> None:
    @step
    async def one() -> str:
        return "ok"

    @bench.tool
    async def work(talk: Talk) -> str:
        talk_attempt = bench.runs.executor.attempt(run_ids[0])
        assert talk_attempt is not None
        talk_attempt.pen.deadline = 0.0
        return str(await one())

    run_ids: list[str] = []
    process = await bench.start()
    original = process.runs.backend.begin

    def begin(claim: Any, loaded: Any = None) -> None:
        run_ids.append(claim.run.id)
        original(claim, loaded)

    process.runs.backend.begin = begin  # type: ignore[method-assign]
    run_id = (await bench.call("work")).run_id
    assert await bench.result(run_id) == "ok"


# --- a store that fails --------------------------------------------------------------------------


def fail(process: Process, verb: str, times: int, fault: Exception | None = None) -> list[int]:
    """Let a verb of the store fail so many times; returns the list of failures."""
    original = getattr(process.store, verb)
    failed: list[int] = []

    async def flaky(*args: Any, **kwargs: Any) -> Any:
        if len(failed) < times:
            failed.append(1)
            raise fault or StoreUnavailable("disk full")
        return await original(*args, **kwargs)

    setattr(process.store, verb, flaky)
    return failed


async def test_a_result_is_kept_while_the_store_can_not_write(bench: Workbench) -> None:
    ran: list[int] = []

    @step
    async def pay() -> int:
        ran.append(1)
        return 1

    @bench.tool
    async def work(talk: Talk) -> int:
        return int(await pay())

    process = await bench.start()
    failed = fail(process, "append", 2)
    assert await bench.result((await bench.call("work")).run_id) == 1
    assert len(failed) == 2
    assert len(ran) == 1


@pytest.mark.leases
async def test_a_store_that_stays_silent_costs_the_lease_and_not_the_run(bench: Workbench) -> None:
    @step
    async def pay() -> int:
        return 1

    @bench.tool
    async def work(talk: Talk) -> int:
        return int(await pay())

    def silent(*_args: Any, **_kwargs: Any) -> Any:
        raise StoreUnavailable("silent")

    process = await bench.start(lease=0.4, lease_margin=0.3)
    process.runs.backend.heart.hurry = lambda: None  # type: ignore[attr-defined]
    process.store.extend = silent  # type: ignore[method-assign]
    failed = fail(process, "append", 6)
    run_id = (await bench.call("work")).run_id
    await until(lambda: len(failed) >= 2)
    del process.store.extend
    assert await bench.result(run_id) == 1


@pytest.mark.leases
async def test_an_end_that_can_not_be_stored_is_made_again_by_the_next_attempt(bench: Workbench) -> None:
    @bench.tool
    async def work(talk: Talk) -> str:
        return "ok"

    process = await bench.start(lease=0.5, lease_margin=0.1)
    fail(process, "settle", 1)
    assert await bench.result((await bench.call("work")).run_id) == "ok"


@pytest.mark.leases
@pytest.mark.parametrize("fault", [StoreUnavailable("disk full"), ZeroDivisionError()])
async def test_the_scheduler_outlives_a_store_that_fails(bench: Workbench, fault: Exception) -> None:
    @bench.tool
    async def work(talk: Talk) -> str:
        await talk.elicit("Sure?")
        return "ok"

    process = await bench.start()
    run_id = (await bench.call("work")).run_id
    await bench.state(run_id, RunState.WAITING)
    failed = fail(process, "claim", 1, fault)
    await bench.say(run_id, "Sure?")
    assert await bench.result(run_id) == "ok"
    assert failed


@pytest.mark.leases
async def test_a_fault_inside_the_engine_costs_one_lease(bench: Workbench) -> None:
    @bench.tool
    async def work(talk: Talk) -> str:
        return "ok"

    process = await bench.start(lease=0.4, lease_margin=0.1)
    broken: list[int] = []
    original = process.runs.executor.choice_of

    async def choice_of(loaded: Any) -> Any:
        if not broken:
            broken.append(1)
            raise ZeroDivisionError
        return await original(loaded)

    process.runs.executor.choice_of = choice_of
    assert await bench.result((await bench.call("work")).run_id) == "ok"


async def test_a_run_that_vanished_is_nobodys(bench: Workbench) -> None:
    @bench.tool
    async def work(talk: Talk) -> str:
        await talk.elicit("Sure?")
        return "ok"

    process = await bench.start()
    run_id = (await bench.call("work")).run_id
    await bench.state(run_id, RunState.WAITING)
    loaded = await bench.journal(run_id)

    async def nothing(_: str) -> None:
        return None

    process.store.load = nothing  # type: ignore[method-assign]
    claim = replace_claim(loaded.run)
    with pytest.raises(Fenced):
        await process.runs.executor.execute(claim)
    del process.store.load


def replace_claim(run: Any) -> Any:
    return Claim(run, Fence(run.id, "x"), takeover=False)


async def test_a_limit_that_can_not_be_stored_is_reported(bench: Workbench) -> None:
    @bench.tool(timeout=0.05)
    async def work(talk: Talk) -> str:
        await asyncio.sleep(0.3)
        return "ok"

    process = await bench.start()
    failed = fail(process, "steer", 1)
    with structlog.testing.capture_logs() as logs:
        run_id = (await bench.call("work")).run_id
        assert await bench.result(run_id) == "ok"
    assert failed
    assert any("could not be cancelled" in line["event"] for line in logs)


# --- functions that behave oddly -----------------------------------------------------------------


async def test_a_kernel_that_raises_fails_the_run(bench: Workbench) -> None:
    @bench.tool
    async def work(talk: Talk) -> str:
        return "never"

    process = await bench.start()

    async def execute(call: CallContext, channel: Any) -> Outcome:
        raise KeyError("broken kernel")

    bench.kernel.execute = execute  # type: ignore[method-assign]
    assert process.alive
    assert await bench.failure((await bench.call("work")).run_id) == "Error executing tool work"


async def test_a_workflow_that_cancels_its_own_task_fails_instead_of_running_for_ever(bench: Workbench) -> None:
    @bench.tool
    async def work(talk: Talk) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)
        return ""

    await bench.start()
    run_id = (await bench.call("work")).run_id
    assert await bench.failure(run_id) == "Error executing tool work"
    assert "cancelled its own task" in str((await bench.state(run_id, RunState.FAILED)).reason)


async def test_hazard_c1_a_function_that_will_not_unwind_is_abandoned_behind_its_fence(bench: Workbench) -> None:
    over = asyncio.Event()
    stubborn: list[int] = []

    @bench.tool
    async def work(talk: Talk) -> str:
        async def never() -> None:
            while not over.is_set():
                try:
                    await over.wait()
                except asyncio.CancelledError:
                    stubborn.append(1)

        if stubborn:
            await talk.elicit("Sure?")
            return "ok"
        await asyncio.gather(never(), talk.elicit("Sure?"))
        return "wrong"

    await bench.start(unwind_grace=0.05)
    run_id = (await bench.call("work")).run_id
    await bench.state(run_id, RunState.WAITING)
    assert stubborn
    await bench.say(run_id, "Sure?")
    assert await bench.result(run_id) == "ok"
    over.set()


async def test_a_workflow_called_by_a_workflow_is_a_plain_call(bench: Workbench) -> None:
    @workflow
    async def inner(n: int) -> int:
        if n < 0:
            raise ValueError("negative")
        return n + 1

    @bench.tool
    async def outer(talk: Talk) -> int:
        try:
            await inner(-1)
        except ValueError:
            return int(await inner(1))
        return 0

    await bench.start()
    assert await inner(5) == 6
    assert await bench.result((await bench.call("outer")).run_id) == 2


async def test_a_drain_between_two_branches_lets_the_one_in_flight_end(bench: Workbench) -> None:
    ran: list[str] = []
    begin, draining, end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @step
    async def slow() -> str:
        ran.append("slow")
        begin.set()
        await end.wait()
        return "s"

    @step
    async def late() -> str:
        ran.append("late")
        return "l"

    @bench.tool
    async def work(talk: Talk) -> str:
        async def second() -> str:
            await draining.wait()
            return str(await late())

        first, then = await asyncio.gather(slow(), second())
        return str(first) + then

    first = await bench.start()
    run_id = (await bench.call("work")).run_id
    await begin.wait()
    stopping = asyncio.create_task(first.stop())
    async with asyncio.timeout(5):
        while not first.runs.executor._draining:
            await asyncio.sleep(0)
    draining.set()
    await asyncio.sleep(0.05)
    assert ran == ["slow"]
    end.set()
    await stopping
    await bench.start()
    assert await bench.result(run_id) == "sl"
    assert ran == ["slow", "late"]


async def test_a_cancel_by_another_process_reaches_the_attempt(bench: Workbench) -> None:
    @bench.tool
    async def work(talk: Talk) -> str:
        await asyncio.sleep(60)
        return ""

    first = await bench.start(lease=0.6, lease_margin=0.1, cleanup_limit=0.1)
    second = await bench.start(lease=0.6, lease_margin=0.1, cleanup_limit=0.1)
    if bench.schedule is not None:  # nothing beats there, so the cancel is heard at the next write
        return
    run_id = (await bench.call("work", on=first)).run_id
    await running(first, run_id)
    await second.runs.cancel(run_id, reason="operator")
    await bench.state(run_id, RunState.CANCELLED)


# --- calls --------------------------------------------------------------------------------------


async def test_only_workflows_are_called_so(bench: Workbench) -> None:
    await bench.start()
    with pytest.raises(CallerError, match="no workflow"):
        await bench.call("nothing")


async def test_never_means_a_new_run_each_time(bench: Workbench) -> None:
    declare_book(bench, same_run="never")
    await bench.start()
    assert (await bench.call("book")).run_id != (await bench.call("book")).run_id


async def test_where_liveness_is_in_doubt_the_call_waits(bench: Workbench) -> None:
    declare_book(bench, same_run="always")
    process = await bench.start()
    first = await bench.call("book")
    original = process.store.create
    doubts: list[int] = []

    async def create(*args: Any, **kwargs: Any) -> Any:
        made = await original(*args, **kwargs)
        if not doubts and not hasattr(made, "run"):
            doubts.append(1)
            return [Rival(rival.run, live=False, doubtful=True, orphaned_for=0.0) for rival in made]
        return made

    process.store.create = create  # type: ignore[method-assign]
    assert (await bench.call("book")).run_id == first.run_id
    assert doubts


async def test_a_finished_rival_that_is_too_old_gives_way(bench: Workbench) -> None:
    declare_book(bench)
    rules = replace(bench.tuning.same_call, redeliver_bare=-1.0)
    await bench.start(same_call=rules)
    first = await bench.call("book")
    await bench.say(first.run_id, "When?", day="mon")
    await bench.result(first.run_id)
    await bench.runs.detach(first, delivery=Delivery.SENT)
    assert (await bench.call("book")).run_id != first.run_id


async def test_a_rival_that_was_swept_is_not_asked_about(bench: Workbench) -> None:
    declare_book(bench)
    process = await bench.start()
    first = await bench.call("book")
    await bench.state(first.run_id, RunState.WAITING)
    process.runs._rivals = Forgetful()
    original = process.store.load

    async def load(run_id: str) -> Any:
        return None if run_id == first.run_id else await original(run_id)

    process.store.load = load  # type: ignore[method-assign]
    second = await bench.call("book")
    await bench.question(second.run_id, "When?")


class Forgetful(dict[str, Any]):
    """What another replica knows of a rival: nothing."""

    def __setitem__(self, key: str, value: Any) -> None:
        return


async def test_another_replica_asks_about_a_rival_from_what_is_stored(bench: Workbench) -> None:
    declare_book(bench)
    process = await bench.start()
    first = await bench.call("book")
    await bench.state(first.run_id, RunState.WAITING)
    process.runs._rivals = Forgetful()
    second = await bench.call("book")
    await bench.say(second.run_id, "An earlier 'book'", choice="go on")
    assert (await bench.state(second.run_id, RunState.CANCELLED)).merged_into == first.run_id


async def test_runs_are_listed_and_questions_can_be_refused_without_asking_again(bench: Workbench) -> None:
    declare_book(bench)
    await bench.start()
    run_id = (await bench.call("book")).run_id
    question = await bench.question(run_id, "When?")
    wrong = {question.id: Reply({"action": "perhaps"})}
    before = len(await bench.events(run_id))
    rulings = await bench.runs.answer(run_id, wrong, by=ALICE, via="t", reask=False)
    assert rulings[question.id].verdict is Verdict.INVALID
    await bench.state(run_id, RunState.WAITING)
    assert [run.id for run in await bench.runs.find(Find(tool="book"))] == [run_id]
    events = await bench.events(run_id)
    assert sum(e.kind is EventKind.QUESTION for e in events) == 1
    assert len(events) >= before


# --- hot calls ----------------------------------------------------------------------------------


def hot_context(**capabilities: Any) -> tuple[CallContext, Stream]:
    call = CallContext("legacy", {}, 1, "2025-11-25", {}, capabilities, ALICE)
    return call, Stream(ids.stream_id(b"h" * 12), "", 1, owner=ALICE)


async def test_a_stateless_call_that_asks_gets_rows_and_waits_in_memory(bench: Workbench) -> None:
    await bench.start()
    hot = await bench.runs.open_hot(*hot_context(elicitation={}))
    asking = asyncio.create_task(hot.ask("elicitation/create", {"message": "Sure?"}))
    await bench.see(hot.run_id, EventKind.STATE)
    await hot.progress(1, 2, "half")
    await hot.progress(0.5, 2, "back")
    await bench.say(hot.run_id, "Sure?", v=1)
    assert await asking == {"action": "accept", "content": {"v": 1}}
    with pytest.raises(PeerError, match="does not support sampling"):
        await hot.ask("sampling/createMessage", {})
    await hot.notify("notifications/message", {"data": "x"})
    await hot.finish(Outcome(result={"content": [{"type": "text", "text": '"done"'}]}))
    assert await bench.result(hot.run_id) == "done"
    hot.close()


async def test_two_questions_of_a_hot_call_rest_together(bench: Workbench) -> None:
    await bench.start()
    hot = await bench.runs.open_hot(*hot_context())
    both = asyncio.gather(*(hot.ask("elicitation/create", {"message": f"Q{n}?"}) for n in (1, 2)))
    await bench.see(hot.run_id, EventKind.STATE)
    for n in (1, 2):
        await bench.say(hot.run_id, f"Q{n}?")
    assert len(await both) == 2
    await hot.abandon("its process goes away")
    assert await bench.failure(hot.run_id) == "its process goes away"


async def test_a_question_that_a_hot_call_no_longer_waits_for_is_closed(bench: Workbench) -> None:
    await bench.start()
    hot = await bench.runs.open_hot(*hot_context())
    asking = asyncio.create_task(hot.ask("elicitation/create", {"message": "Sure?"}))
    await bench.question(hot.run_id, "Sure?")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await bench.runs.open_questions(hot.run_id) == []
    await bench.see(hot.run_id, EventKind.CLOSED)
    await hot.finish(Outcome(result={"content": [{"type": "text", "text": "1"}]}))
    assert await bench.result(hot.run_id) == 1


async def test_a_hot_call_that_is_over_has_no_question_to_close(bench: Workbench) -> None:
    await bench.start()
    hot = await bench.runs.open_hot(*hot_context())
    asking = asyncio.create_task(hot.ask("elicitation/create", {"message": "Sure?"}))
    await bench.question(hot.run_id, "Sure?")
    hot._pen.lose()
    asking.cancel()
    with pytest.raises((asyncio.CancelledError, Fenced)):
        await asking


async def test_a_hot_call_that_is_cancelled_ends_as_such(bench: Workbench) -> None:
    await bench.start()
    hot = await bench.runs.open_hot(*hot_context())
    told: list[int] = []
    hot.on_end = lambda: told.append(1)
    asking = asyncio.create_task(hot.ask("elicitation/create", {"message": "Sure?"}))
    await bench.question(hot.run_id, "Sure?")
    await bench.runs.cancel(hot.run_id, reason="client")
    with pytest.raises(RunCancelled):
        await asking
    assert told
    await hot.finish(Outcome(result={}))
    assert (await bench.state(hot.run_id, RunState.CANCELLED)).reason == "client"


async def test_hot_calls_are_told_when_their_process_drains(bench: Workbench) -> None:
    process = await bench.start()
    hot = await bench.runs.open_hot(*hot_context())
    lost = await bench.runs.open_hot(*hot_context_again())
    lost._pen.lose()
    kept = bench.runs.keep(asyncio.Event().wait())
    await process.stop()
    assert kept.cancelled()
    await bench.start()
    run = await bench.state(hot.run_id, RunState.FAILED)
    assert "memory has ended" in bench.text(run)


def hot_context_again() -> tuple[CallContext, Stream]:
    call, stream = hot_context()
    return call, replace(stream, id=ids.stream_id(b"g" * 12))


@pytest.mark.leases
async def test_a_hot_question_that_expires_raises(bench: Workbench) -> None:
    await bench.start(answer_within=0.05)
    hot = await bench.runs.open_hot(*hot_context())
    with pytest.raises(QuestionExpired):
        async with asyncio.timeout(BOUND):
            await hot.ask("elicitation/create", {"message": "Sure?"})
    hot._question = gone  # type: ignore[method-assign]
    with pytest.raises(QuestionExpired):
        await hot.ask("elicitation/create", {"message": "Again?"})
    await hot.finish(Outcome(result={"content": [{"type": "text", "text": "1"}]}))


async def gone(_: int) -> None:
    return None


async def test_a_hot_call_whose_lease_is_lost_is_fenced(bench: Workbench) -> None:
    await bench.start()
    hot = await bench.runs.open_hot(*hot_context())
    asking = asyncio.create_task(hot.ask("elicitation/create", {"message": "Sure?"}))
    await bench.question(hot.run_id, "Sure?")
    hot._pen.lose()
    with pytest.raises(Fenced):
        await asking
    with pytest.raises(Fenced):
        await hot.finish(Outcome(result={}))


async def test_a_hot_call_says_only_so_much(bench: Workbench) -> None:
    await bench.start(max_events=1)
    hot = await bench.runs.open_hot(*hot_context())
    hot._pen.event_seq = 1
    await hot.notify("notifications/message", None)
    await hot.finish(Outcome(result={"content": [{"type": "text", "text": "1"}]}))
    kinds = [event.kind for event in await bench.events(hot.run_id)]
    assert EventKind.NOTIFY not in kinds


async def test_a_declared_hot_call_whose_process_is_shut_down_unwinds(bench: Workbench) -> None:
    @bench.hot
    async def legacy(talk: Talk) -> str:
        await asyncio.sleep(60)
        return ""

    process = await bench.start(drain_limit=0.05, unwind_grace=0.05)
    await bench.call("legacy")
    backend: Any = process.runs.backend
    await until(lambda: backend._tasks)
    for task in list(backend._tasks):
        task.cancel()
    await until(lambda: not backend._tasks)


# --- feeds and the heart ------------------------------------------------------------------------


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


@pytest.mark.leases
async def test_a_blocked_loop_is_reported_and_loses_no_lease(bench: Workbench) -> None:
    @bench.tool
    async def blocking(talk: Talk) -> str:
        threading.Event().wait(1.2)
        return "ok"

    await bench.start(lease=0.6, lease_margin=0.1)
    with structlog.testing.capture_logs() as logs:
        run_id = (await bench.call("blocking")).run_id
        assert await bench.result(run_id) == "ok"
    assert any("event loop is blocked" in line["event"] for line in logs)
    assert (await bench.journal(run_id)).run.epoch == 1


async def test_the_heart_goes_on_whatever_the_store_raises(bench: Workbench) -> None:
    await bench.start()
    beats: list[int] = []

    class Broken:
        def extend(self, *_: Any, **__: Any) -> Any:
            beats.append(1)
            raise RuntimeError("a bug")

    heart = Heart(Broken(), bench.clock, "r", lease=0.03, pens=dict)  # type: ignore[arg-type]
    with structlog.testing.capture_logs():
        heart.start()
        await until(lambda: len(beats) > 1)
        await heart.stop()


async def test_the_heart_goes_on_when_the_store_does_not(bench: Workbench) -> None:
    process = await bench.start()

    class Silent:
        def extend(self, *_: Any, **__: Any) -> Any:
            raise StoreUnavailable("disk full")

    heart = Heart(Silent(), bench.clock, "r", lease=0.03, pens=dict)  # type: ignore[arg-type]
    with structlog.testing.capture_logs() as logs:
        heart.start()
        await until(lambda: any("leases could not be renewed" in line["event"] for line in logs))
        await heart.stop()
    await heart.stop()
    assert process.alive


# --- declarations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nonsense": 1}, "no option 'nonsense'"),
        ({"same_run": "sometimes"}, "'ask', 'always' or 'never'"),
        ({"version": 0}, "whole number"),
        ({"version": "2"}, "whole number"),
        ({"stages": ["a", "a"]}, "twice"),
    ],
)
def test_a_workflow_declared_wrongly_is_refused_in_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make_spec(options)


def test_a_workflow_must_be_async() -> None:
    def sync() -> None: ...

    with pytest.raises(ConfigurationError, match="async def"):
        wrap_function(sync, make_spec({}))


def test_a_version_always_accepts_itself() -> None:
    assert make_spec({"version": 3, "accepts": {2}}).accepts == {2, 3}


def test_cancelled_ends_say_which_state_they_mean() -> None:
    kinds = [cancelled_end(reason, Batch()).kind for reason in ("client", "limit: 5 s", "expired: parked too long")]
    assert kinds == [EndKind.END_CANCELLED, EndKind.FAIL, EndKind.EXPIRE]


async def test_a_tool_that_talks_faster_than_the_store_writes_waits_for_it(bench: Workbench) -> None:
    """Fault F16: what it says is never more than so many entries ahead of what is stored."""
    ahead: list[int] = []

    @bench.tool
    async def work(talk: Talk) -> str:
        attempt = bench.runs.executor.attempt(run_ids[0])
        assert attempt is not None
        for n in range(50):
            await talk.log(str(n))
            ahead.append(attempt.pen.unwritten)
        return "said"

    run_ids: list[str] = []
    process = await bench.start(max_unwritten=10)
    original = process.runs.executor.choice_of

    async def choice_of(loaded: Any) -> Any:
        run_ids.append(loaded.run.id)
        return await original(loaded)

    process.runs.executor.choice_of = choice_of
    run_id = (await bench.call("work")).run_id
    assert await bench.result(run_id) == "said"
    assert max(ahead) <= 10
    said = [event.body["params"]["data"] for event in await bench.events(run_id) if event.kind is EventKind.NOTIFY]
    assert said == [str(n) for n in range(50)]
