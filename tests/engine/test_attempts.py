"""The happy path is the recovery path: every answer starts a new attempt."""

import asyncio
import gc
import weakref

import pytest

from engine.bench import ALICE, BOB, Talk, Workbench, until
from milepost import current_run, key, now, stage, step, uuid
from milepost.core.errors import QuestionExpired
from milepost.core.outside import Verdict
from milepost.core.records import EntryKind, EventKind, Reply
from milepost.core.states import RunState
from milepost.engine.context import ATTEMPT


async def test_a_workflow_without_questions_runs_to_its_result(bench: Workbench) -> None:
    @bench.tool
    async def greet(talk: Talk, name: str) -> str:
        return f"hello {name}"

    await bench.start()
    stream = await bench.call("greet", name="Ann")
    assert await bench.result(stream.run_id) == "hello Ann"


async def test_an_answer_goes_on_where_the_question_was_asked(bench: Workbench) -> None:
    effects: list[str] = []

    @step
    async def hold(seat: str) -> str:
        effects.append(seat)
        return f"held {seat}"

    @bench.tool
    async def book(talk: Talk) -> list[str]:
        seat = await talk.elicit("Which seat?")
        held = await hold(seat["seat"])
        sure = await talk.elicit("Sure?")
        return [held, sure["sure"]]

    await bench.start()
    run_id = (await bench.call("book")).run_id
    assert await bench.say(run_id, "Which seat?", seat="12A") is Verdict.ACCEPTED
    await bench.say(run_id, "Sure?", sure="yes")
    assert await bench.result(run_id) == ["held 12A", "yes"]
    assert effects == ["12A"]


async def test_what_an_attempt_held_is_freed_when_it_is_over_without_the_collector(bench: Workbench) -> None:
    held: list[weakref.ref[object]] = []

    @bench.tool
    async def book(talk: Talk) -> str:
        held.append(weakref.ref(ATTEMPT.get()))
        return "ok"

    await bench.start()
    gc.disable()
    try:
        await bench.result((await bench.call("book")).run_id)
        await until(lambda: held[0]() is None)
    finally:
        gc.enable()


async def test_a_waiting_run_holds_nothing(bench: Workbench) -> None:
    @bench.tool
    async def book(talk: Talk) -> str:
        await talk.elicit("Sure?")
        return "ok"

    process = await bench.start()
    run_id = (await bench.call("book")).run_id
    run = await bench.state(run_id, RunState.WAITING)
    assert run.attempt_id is None
    async with asyncio.timeout(5):
        while process.runs.executor.busy:
            await asyncio.sleep(0.005)


async def test_hazard_c1_questions_asked_side_by_side_go_out_together(bench: Workbench) -> None:
    @bench.tool
    async def plan(talk: Talk) -> list[str]:
        async def later() -> str:
            await asyncio.sleep(0)
            return str((await talk.elicit("Second?"))["v"])

        first, second = await asyncio.gather(talk.elicit("First?"), later())
        return [first["v"], second]

    await bench.start()
    run_id = (await bench.call("plan")).run_id
    await bench.state(run_id, RunState.WAITING)
    assert [q.params["message"] for q in await bench.runs.open_questions(run_id)] == ["First?", "Second?"]
    await bench.say(run_id, "Second?", v="b")
    await bench.say(run_id, "First?", v="a")
    assert await bench.result(run_id) == ["a", "b"]
    assert len((await bench.journal(run_id)).questions) == 2, "nothing was asked twice"


@pytest.mark.parametrize("shape", ["shield", "task", "swallow", "loop", "wait_for"])
async def test_hazard_c1_no_shape_of_code_escapes_suspension(bench: Workbench, shape: str) -> None:
    async def ask(talk: Talk) -> object:
        match shape:
            case "shield":
                return await asyncio.shield(talk.elicit("Q?"))
            case "task":
                return await asyncio.get_running_loop().create_task(talk.elicit("Q?"))
            case "wait_for":
                return await asyncio.wait_for(talk.elicit("Q?"), 5)
            case "swallow":
                try:
                    return await talk.elicit("Q?")
                except BaseException:
                    return {"v": "fell through"}
            case _:
                while True:
                    try:
                        return await talk.elicit("Q?")
                    except asyncio.CancelledError:
                        continue

    @bench.tool
    async def tricky(talk: Talk) -> object:
        return await ask(talk)

    await bench.start()
    run_id = (await bench.call("tricky")).run_id
    await bench.state(run_id, RunState.WAITING)
    assert len((await bench.journal(run_id)).questions) == 1
    await bench.say(run_id, "Q?", v="answer")
    assert await bench.result(run_id) == {"v": "answer"}


async def test_hazard_p2_7_decline_cancel_and_errors_are_answers_and_are_replayed(bench: Workbench) -> None:
    @bench.tool
    async def ask(talk: Talk) -> list[object]:
        first = await talk.elicit("A?")
        try:
            await talk.elicit("B?")
        except Exception as error:
            second = str(error)
        await talk.elicit("C?")
        return [first, second]

    await bench.start()
    run_id = (await bench.call("ask")).run_id
    a = await bench.question(run_id, "A?")
    await bench.runs.answer(run_id, {a.id: Reply({"action": "decline"})}, by=ALICE, via="t")
    b = await bench.question(run_id, "B?")
    await bench.runs.answer(run_id, {b.id: Reply(error={"code": -5, "message": "broken"})}, by=ALICE, via="t")
    await bench.say(run_id, "C?")
    assert await bench.result(run_id) == ["decline", "broken"]


async def test_an_answer_that_breaks_the_schema_is_asked_again_with_the_reason(bench: Workbench) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    @bench.tool
    async def ask(talk: Talk) -> int:
        return int((await talk.elicit("N?", schema))["n"])

    await bench.start()
    run_id = (await bench.call("ask")).run_id
    assert await bench.say(run_id, "N?", n="three") is Verdict.INVALID
    events = [e for e in await bench.events(run_id) if e.kind is EventKind.QUESTION]
    assert "n: must be of type integer" in events[-1].body["note"]
    assert await bench.say(run_id, "N?", n=3) is Verdict.ACCEPTED
    assert await bench.result(run_id) == 3


async def test_hazard_p2_7_sampling_goes_only_to_a_client_that_declared_it(bench: Workbench) -> None:
    @bench.tool
    async def draft(talk: Talk) -> str:
        try:
            return await talk.sample("write")
        except Exception as error:
            return f"template: {error}"

    await bench.start()
    able = (await bench.call("draft")).run_id
    question = await bench.question(able, "['write'")
    reply = Reply({"role": "assistant", "model": "m", "content": {"type": "text", "text": "Dear"}})
    await bench.runs.answer(able, {question.id: reply}, by=ALICE, via="t")
    assert await bench.result(able) == "Dear"
    unable = (await bench.call("draft", by=BOB, capabilities={"elicitation": {}})).run_id
    assert "does not support sampling" in await bench.result(unable)


async def test_now_and_uuid_are_the_same_in_every_attempt(bench: Workbench) -> None:
    seen: list[tuple[str, str]] = []

    @bench.tool
    async def stamp(talk: Talk) -> str:
        seen.append(((await now()).isoformat(), str(await uuid())))
        await talk.elicit("Go on?")
        return current_run().tool

    await bench.start()
    run_id = (await bench.call("stamp")).run_id
    await bench.say(run_id, "Go on?")
    assert await bench.result(run_id) == "stamp"
    assert len(seen) == 2
    assert seen[0] == seen[1]


async def test_keys_tell_equal_calls_of_concurrent_branches_apart(bench: Workbench) -> None:
    drawn: list[int] = []

    @step
    async def draw() -> int:
        drawn.append(len(drawn))
        return len(drawn)

    @bench.tool
    async def lots(talk: Talk) -> list[int]:
        async def one(name: str) -> int:
            with key(name):
                return int(await draw())

        both = await asyncio.gather(one("ann"), one("bob"))
        await talk.elicit("Keep?")
        return list(both)

    await bench.start()
    run_id = (await bench.call("lots")).run_id
    await bench.say(run_id, "Keep?")
    assert sorted(await bench.result(run_id)) == [1, 2]
    assert len(drawn) == 2


async def test_hazard_a3_without_keys_the_same_call_from_two_branches_is_an_error(bench: Workbench) -> None:
    @step
    async def draw() -> int:
        return 1

    @bench.tool
    async def lots(talk: Talk) -> list[int]:
        return list(await asyncio.gather(draw(), draw()))

    await bench.start()
    assert "own key" in await bench.failure((await bench.call("lots")).run_id)


async def test_hazard_d1_a_replay_sends_no_notification_twice(bench: Workbench) -> None:
    @bench.tool(stages=["one", "two"])
    async def talkative(talk: Talk) -> str:
        await talk.log("begin")
        async with stage("one"):
            await talk.elicit("A?")
            await talk.log("middle")
        async with stage("two"):
            await talk.elicit("B?")
        return "done"

    await bench.start()
    run_id = (await bench.call("talkative")).run_id
    await bench.say(run_id, "A?")
    await bench.say(run_id, "B?")
    await bench.result(run_id)
    events = await bench.events(run_id)
    assert [e.body["params"]["data"] for e in events if e.kind is EventKind.NOTIFY] == ["begin", "middle"]
    marks = [(e.body["stage"], e.body["mark"]) for e in events if e.kind is EventKind.STAGE]
    assert marks == [("one", "begin"), ("one", "end"), ("two", "begin"), ("two", "end")]
    progress = [e.body["progress"] for e in events if e.kind is EventKind.STAGE]
    assert progress == sorted(progress)


async def test_hazard_d2_events_are_numbered_without_a_gap(bench: Workbench) -> None:
    @bench.tool
    async def ask(talk: Talk) -> str:
        for n in range(3):
            await talk.elicit(f"Q{n}?")
        return "ok"

    await bench.start()
    run_id = (await bench.call("ask")).run_id
    for n in range(3):
        await bench.say(run_id, f"Q{n}?")
    await bench.result(run_id)
    events = await bench.events(run_id)
    assert [e.n for e in events] == list(range(1, len(events) + 1))
    assert events[-1].kind is EventKind.RESULT


async def test_an_expired_question_may_be_caught_and_is_replayed(bench: Workbench) -> None:
    @bench.tool
    async def patient(talk: Talk) -> str:
        try:
            async with stage("asking", answer_within=0.05):
                await talk.elicit("Soon?")
        except QuestionExpired:
            await talk.elicit("Later?")
            return "later"
        return "soon"

    await bench.start()
    run_id = (await bench.call("patient")).run_id
    await bench.say(run_id, "Later?")
    assert await bench.result(run_id) == "later"


async def test_an_expired_question_that_nobody_catches_ends_the_run(bench: Workbench) -> None:
    @bench.tool
    async def patient(talk: Talk) -> str:
        async with stage("asking", answer_within="0.05s"):
            await talk.elicit("Soon?")
        return "soon"

    await bench.start()
    run_id = (await bench.call("patient")).run_id
    assert "expired" in await bench.failure(run_id)
    assert (await bench.state(run_id, RunState.EXPIRED)).state is RunState.EXPIRED


async def test_what_the_author_raises_fails_the_run_and_stays_masked(bench: Workbench) -> None:
    @bench.tool
    async def broken(talk: Talk) -> str:
        raise RuntimeError("secret detail")

    await bench.start()
    run_id = (await bench.call("broken")).run_id
    assert await bench.failure(run_id) == "masked"
    run = await bench.state(run_id, RunState.FAILED)
    assert run.reason == "RuntimeError: secret detail"


async def test_a_step_is_recorded_as_begun_and_done(bench: Workbench) -> None:
    @step
    async def work() -> int:
        return 1

    @bench.tool
    async def tool(talk: Talk) -> int:
        return int(await work())

    await bench.start()
    run_id = (await bench.call("tool")).run_id
    await bench.result(run_id)
    assert [e.kind for e in (await bench.journal(run_id)).entries] == [EntryKind.BEGUN, EntryKind.DONE]
