"""Hot calls: no replay, they wait in their process's memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from engine.bench import ALICE, BOB, BOUND, Process, Talk, Workbench, until
from milepost.core import ids
from milepost.core.attempts import Created
from milepost.core.errors import Fenced, PeerError, QuestionExpired, RunCancelled, StoreError
from milepost.core.records import CallContext, EventKind, Outcome, QuestionState, Stream
from milepost.core.states import RunState

# --- declared by milepost.toml --------------------------------------------------------------------


async def test_hazard_a2_a_hot_call_runs_once_and_is_stuck_after_a_loss(bench: Workbench) -> None:
    ran: list[str] = []

    @bench.hot
    async def legacy(talk: Talk) -> str:
        ran.append("hold")
        answer = await talk.elicit("Sure?")
        await talk.log("thinking")
        await talk.progress(1, 2)
        if answer["v"] != "yes":
            answer = await talk.elicit(f"Really, the {len(ran)}nd time?")
        return str(answer["v"])

    first = await bench.start()
    good = (await bench.call("legacy")).run_id
    await bench.see(good, EventKind.STATE)
    await bench.say(good, "Sure?", v="yes")
    assert await bench.result(good) == "yes"
    assert ran == ["hold"], "no replay: the coroutine waited in memory"
    lost = (await bench.call("legacy", by=BOB)).run_id
    await bench.say(lost, "Sure?", by=BOB, v="perhaps")
    await bench.question(lost, "Really, the 2nd time?")
    await first.kill()
    await bench.start()
    stuck = await bench.state(lost, RunState.STUCK)
    assert "memory has ended" in str(stuck.reason)
    assert ran == ["hold", "hold"]
    await bench.runs.retry(lost)  # an operator's decision: from the top, but what was answered is not asked again
    await bench.say(lost, "Really, the 3nd time?", by=BOB, v="for good")
    assert await bench.result(lost) == "for good"
    assert ran == ["hold", "hold", "hold"]


@pytest.mark.leases
async def test_a_hot_call_that_is_run_anew_waits_for_the_question_that_is_open(bench: Workbench) -> None:
    @bench.hot
    async def legacy(talk: Talk) -> str:
        return str((await talk.elicit("Sure?"))["v"])

    first = await bench.start()
    lost = (await bench.call("legacy")).run_id
    await bench.question(lost, "Sure?")
    await first.kill()
    await bench.start()
    await bench.state(lost, RunState.STUCK)
    await bench.runs.retry(lost)
    await bench.say(lost, "Sure?", v="yes")
    assert await bench.result(lost) == "yes"
    assert len((await bench.journal(lost)).questions) == 1


@pytest.mark.leases
async def test_a_hot_call_whose_next_replica_died_too_is_not_run_again(bench: Workbench) -> None:
    """It is a suspect then, and claimed as a run that is ready: no takeover."""
    ran: list[str] = []

    @bench.hot
    async def legacy(talk: Talk) -> str:
        ran.append("hold")
        await talk.elicit("Sure?")
        return ""

    first = await bench.start()
    lost = (await bench.call("legacy")).run_id
    await bench.question(lost, "Sure?")
    await first.kill()
    await bench.execute("UPDATE run SET crashes = 1 WHERE id = $1", lost)  # taken over once, by one that died at once
    await bench.start()
    await bench.state(lost, RunState.STUCK)
    assert ran == ["hold"]


async def test_a_hot_call_can_be_cancelled(bench: Workbench) -> None:
    @bench.hot
    async def legacy(talk: Talk) -> str:
        await talk.elicit("Sure?")
        return ""

    await bench.start()
    run_id = (await bench.call("legacy")).run_id
    await bench.question(run_id, "Sure?")
    await bench.runs.cancel(run_id, reason="client")
    await bench.state(run_id, RunState.CANCELLED)


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


# --- stateless calls that ask ---------------------------------------------------------------------


def hot_context(**capabilities: Any) -> tuple[CallContext, Stream]:
    call = CallContext("legacy", {}, 1, "2025-11-25", {}, capabilities, ALICE)
    return call, Stream(ids.stream_id(b"h" * 12), "", 1, owner=ALICE)


def hot_context_again() -> tuple[CallContext, Stream]:
    call, stream = hot_context()
    return call, replace(stream, id=ids.stream_id(b"g" * 12))


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


@asynccontextmanager
async def held_append(process: Process) -> AsyncIterator[asyncio.Event]:
    """The next append of this replica waits inside its store; the event is set once it is there."""
    original = process.store.append
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def append(*args: Any, **kwargs: Any) -> Any:
        reached.set()
        await go_on.wait()
        return await original(*args, **kwargs)

    process.store.append = append  # type: ignore[method-assign]
    yield reached
    process.store.append = original  # type: ignore[method-assign]
    go_on.set()


async def test_a_question_given_up_while_it_is_written_is_closed_once_it_is(bench: Workbench) -> None:
    process = await bench.start()
    hot = await bench.runs.open_hot(*hot_context())
    async with held_append(process) as reached:
        asking = asyncio.create_task(hot.ask("elicitation/create", {"message": "Sure?"}))
        await reached.wait()
        asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert [q.state for q in (await bench.journal(hot.run_id)).questions] == [QuestionState.ANSWERED]
    await bench.see(hot.run_id, EventKind.CLOSED)
    await hot.finish(Outcome(result={"content": [{"type": "text", "text": "1"}]}))
    assert await bench.result(hot.run_id) == 1


async def test_a_question_given_up_while_its_call_is_lost_ends_as_it_was_told(bench: Workbench) -> None:
    process = await bench.start()
    hot = await bench.runs.open_hot(*hot_context())
    async with held_append(process) as reached:
        asking = asyncio.create_task(hot.ask("elicitation/create", {"message": "Sure?"}))
        await reached.wait()
        asking.cancel()
        await until(lambda: hot._pen._sheet.waiters)  # it waits for its question to be there
        hot._pen.lose()
    with pytest.raises(asyncio.CancelledError):
        await asking


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


async def test_a_store_that_keeps_the_run_of_a_hot_call_to_itself_is_an_error(bench: Workbench) -> None:
    process = await bench.start()
    original = process.store.create

    async def create(*args: Any, **kwargs: Any) -> Any:
        made = await original(*args, **{**kwargs, "claim": None})
        assert isinstance(made, Created)
        return made

    process.store.create = create  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="did not hand out"):
        await bench.runs.open_hot(CallContext("hot", {}, 1, "2025-11-25", {}, {}), Stream("stream", "", 1))
