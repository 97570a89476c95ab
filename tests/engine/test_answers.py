"""Answers: whose count, how often, and what is said of one that doesn't."""

from engine.bench import ALICE, BOB, Talk, Workbench
from engine.booking import declare_book
from milepost.core.outside import Find, Verdict
from milepost.core.records import EventKind, Reply
from milepost.core.states import RunState


async def test_hazard_b7_the_same_answer_again_is_acknowledged_again(bench: Workbench) -> None:
    @bench.tool
    async def ask(talk: Talk) -> str:
        await talk.elicit("A?")
        await talk.elicit("B?")
        return ""

    await bench.start()
    run_id = (await bench.call("ask")).run_id
    question = await bench.question(run_id, "A?")
    reply = {question.id: Reply({"action": "accept", "content": {"v": 1}})}
    for expected in (Verdict.ACCEPTED, Verdict.REPEATED):
        assert (await bench.runs.answer(run_id, reply, by=ALICE, via="t"))[question.id].verdict is expected
    other = {question.id: Reply({"action": "accept", "content": {"v": 2}})}
    assert (await bench.runs.answer(run_id, other, by=ALICE, via="t"))[question.id].verdict is Verdict.CLOSED


async def test_nobody_else_answers(bench: Workbench) -> None:
    @bench.tool
    async def ask(talk: Talk) -> str:
        await talk.elicit("A?")
        return ""

    await bench.start()
    run_id = (await bench.call("ask")).run_id
    question = await bench.question(run_id, "A?")
    reply = {question.id: Reply({"action": "accept", "content": {}}), 99: Reply({"action": "decline"})}
    assert {r.verdict for r in (await bench.runs.answer(run_id, reply, by=BOB, via="t")).values()} == {Verdict.UNKNOWN}
    assert (await bench.runs.answer(run_id, reply, by=ALICE, via="t"))[99].verdict is Verdict.UNKNOWN
    assert (await bench.runs.answer("run-" + "0" * 32, reply, by=ALICE, via="t"))[99].verdict is Verdict.UNKNOWN


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
