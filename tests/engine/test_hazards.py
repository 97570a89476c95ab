"""Hazards that concern several parts of the engine at once; docs/reliability.md lists them all."""

from __future__ import annotations

from engine.bench import Talk, Workbench
from milepost import current_run, step
from milepost.core.outside import Verdict
from milepost.core.records import OPERATOR, EventKind, Principal, Reply
from milepost.core.states import RunState


async def test_hazard_a4_a_new_version_takes_answers_and_leaves_the_attempt_to_the_old_one(bench: Workbench) -> None:
    ran: list[str] = []

    @bench.tool(version=1)
    async def book(talk: Talk) -> str:
        answer = await talk.elicit("Sure?")
        ran.append("attempt")
        return f"old code, {answer['v']}"

    old = await bench.start()
    run_id = (await bench.call("book")).run_id
    await bench.question(run_id, "Sure?")
    await bench.state(run_id, RunState.WAITING)
    await old.stop()

    keep = bench.kernel.tools["book"], bench.specs["book"]

    async def newer(talk: Talk) -> str:
        ran.append("wrong code")
        return "new code"

    newer.__name__ = "book"
    bench.tool(newer, version=2)
    await bench.start()
    assert await bench.say(run_id, "Sure?", v="yes") is Verdict.ACCEPTED
    await bench.runs.store.sweep(limit=100)
    assert (await bench.state(run_id, RunState.READY)).version == 1
    assert ran == []

    bench.kernel.tools["book"], bench.specs["book"] = keep
    await bench.start()
    assert await bench.result(run_id) == "old code, yes"
    assert ran == ["attempt"]


async def test_hazard_a4_a_version_that_accepts_the_older_goes_on_with_its_runs(bench: Workbench) -> None:
    @bench.tool(version=1)
    async def book(talk: Talk) -> str:
        return f"1 {(await talk.elicit('Sure?'))['v']}"

    old = await bench.start()
    run_id = (await bench.call("book")).run_id
    await bench.question(run_id, "Sure?")
    await old.stop()

    async def newer(talk: Talk) -> str:
        return f"2 {(await talk.elicit('Sure?'))['v']}"

    newer.__name__ = "book"
    bench.tool(newer, version=2, accepts={1})
    await bench.start()
    await bench.say(run_id, "Sure?", v="yes")
    assert await bench.result(run_id) == "2 yes"


async def test_hazard_d5_an_attempt_that_an_operator_woke_sees_the_first_callers_world(bench: Workbench) -> None:
    seen: list[object] = []

    @bench.tool
    async def book(talk: Talk) -> str:
        seen.append((dict(talk.call.capabilities), talk.call.principal, talk.call.wire_version, talk.call.request_id))
        await talk.elicit("Sure?")
        return "with a letter" if "sampling" in talk.call.capabilities else "from a template"

    first = await bench.start()
    run_id = (await bench.call("book", capabilities={"elicitation": {}})).run_id
    question = await bench.question(run_id, "Sure?")
    await bench.state(run_id, RunState.WAITING)
    await first.kill()
    await bench.start()
    reply = Reply({"action": "accept", "content": {}})
    rulings = await bench.runs.answer(run_id, {question.id: reply}, by=OPERATOR, via="operator")
    assert rulings[question.id].verdict is Verdict.ACCEPTED
    assert await bench.result(run_id) == "from a template"
    assert len(seen) == 2
    assert seen[0] == seen[1]


async def test_hazard_e1_whoever_schedules_a_killed_run_goes_on_and_its_step_ran_once(bench: Workbench) -> None:
    """Runs, as all of the engine's tests, by lease and under a scheduler that knows only wake-ups and the claim."""
    ran: list[str] = []

    @step
    async def hold() -> str:
        ran.append(current_run().id)
        return "held"

    @bench.tool
    async def book(talk: Talk) -> str:
        held = await hold()
        first = await talk.elicit("First?")
        second = await talk.elicit("Second?")
        return f"{held} {first['v']} {second['v']}"

    process = await bench.start()
    run_id = (await bench.call("book")).run_id
    for text in ("First?", "Second?"):
        await bench.question(run_id, text)
        await bench.state(run_id, RunState.WAITING)
        await process.kill()
        process = await bench.start()
        await bench.say(run_id, text, v=text[0])
    assert await bench.result(run_id) == "held F S"
    assert ran == [run_id]


async def test_hazard_p2_5_what_the_engine_refuses_is_told_although_the_sdk_masks_exceptions(bench: Workbench) -> None:
    @step
    async def pay() -> str:
        raise ConnectionError("the bank is closed")

    @bench.tool
    async def book(talk: Talk) -> str:
        return await pay()

    await bench.start()
    run_id = (await bench.call("book")).run_id
    said = await bench.failure(run_id)
    assert "pay" in said
    assert "the bank is closed" in said
    assert (await bench.journal(run_id)).run.state is RunState.FAILED


async def test_hazard_p2_21_events_keep_one_order_over_attempts_and_replicas(bench: Workbench) -> None:
    @bench.tool
    async def book(talk: Talk) -> str:
        await talk.log("begun")
        await talk.elicit("First?")
        await talk.log("going on")
        await talk.elicit("Second?")
        return "done"

    process = await bench.start()
    run_id = (await bench.call("book")).run_id
    for text in ("First?", "Second?"):
        await bench.question(run_id, text)
        await bench.state(run_id, RunState.WAITING)
        await process.kill()
        process = await bench.start()
        await bench.say(run_id, text)
    await bench.result(run_id)
    events = await bench.events(run_id)
    assert [event.n for event in events] == list(range(1, len(events) + 1))
    kinds = [event.kind for event in events if event.kind in (EventKind.QUESTION, EventKind.NOTIFY, EventKind.RESULT)]
    both = [EventKind.NOTIFY, EventKind.QUESTION]
    assert kinds == [*both, *both, EventKind.RESULT]


async def test_a_token_whose_subject_is_called_operator_is_nobodys_operator(bench: Workbench) -> None:
    @bench.tool
    async def book(talk: Talk) -> str:
        return str((await talk.elicit("Sure?"))["v"])

    await bench.start()
    run_id = (await bench.call("book")).run_id
    question = await bench.question(run_id, "Sure?")
    reply = Reply({"action": "accept", "content": {"v": "stolen"}})
    stranger = Principal("https://issuer", "operator", "app", person=True)
    rulings = await bench.runs.answer(run_id, {question.id: reply}, by=stranger, via="test")
    assert rulings[question.id].verdict is Verdict.UNKNOWN
    assert await bench.say(run_id, "Sure?", v="mine") is Verdict.ACCEPTED
    assert await bench.result(run_id) == "mine"
