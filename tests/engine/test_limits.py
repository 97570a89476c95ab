"""Loops meet a limit: of entries, questions, events."""

from engine.bench import Talk, Workbench
from milepost import step


async def test_hazard_c6_a_loop_of_steps_meets_the_journal_limit(bench: Workbench) -> None:
    @step
    async def one(n: int) -> int:
        return n

    @bench.tool
    async def loop(talk: Talk) -> str:
        n = 0
        while True:
            n += await one(n)
            n += 1

    await bench.start(max_entries=20)
    assert "journal limit: 20 entries" in await bench.failure((await bench.call("loop")).run_id)


async def test_a_loop_of_questions_meets_its_limit(bench: Workbench) -> None:
    @bench.tool
    async def nag(talk: Talk) -> str:
        n = 0
        while True:
            n += 1
            await talk.elicit(f"Q{n}?")

    await bench.start(max_questions=2)
    run_id = (await bench.call("nag")).run_id
    await bench.say(run_id, "Q1?")
    await bench.say(run_id, "Q2?")
    assert "2 questions in a row" in await bench.failure(run_id)


async def test_events_have_a_limit_too(bench: Workbench) -> None:
    @step
    async def one(n: int) -> int:
        return n

    @bench.tool
    async def chatter(talk: Talk) -> str:
        for n in range(50):
            await talk.log(str(n))
            await one(n)
        return ""

    await bench.start(max_events=10)
    assert "event limit" in await bench.failure((await bench.call("chatter")).run_id)
