"""The log lines of a run's life, and what every line inside a run carries."""

import asyncio
from typing import Any

import pytest
import structlog
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from engine.bench import Talk, Workbench, running, until
from engine.booking import declare_book
from milepost import stage, step
from milepost.core.records import CallContext, Outcome, Stream
from milepost.core.states import RunState

FIELDS = {"run_id", "trace_id", "tool", "epoch", "attempt", "session"}


def named(lines: list[Any], *events: str) -> list[Any]:
    return [line for line in lines if line["event"] in events]


async def test_that_a_run_began_and_ended_is_a_line_with_all_that_is_known_of_it(bench: Workbench) -> None:
    declare_book(bench)
    await bench.start()
    with capture_logs() as lines:
        run_id = (await bench.call("book", session="s-hash")).run_id
        await bench.state(run_id, RunState.WAITING)
        await bench.say(run_id, "When?", day="private")
        await bench.result(run_id)
        await until(lambda: bool(named(lines, "run ended")))
    began, rests, goes_on, ended = named(lines, "run began", "run rests", "run goes on", "run ended")
    for line in (began, rests, goes_on, ended):
        assert line.keys() >= FIELDS
        assert (line["run_id"], line["tool"], line["session"]) == (run_id, "book", "s-hash")
    assert (began["epoch"], ended["epoch"]) == (1, 2)
    assert (began["log_level"], goes_on["log_level"], ended["log_level"]) == ("info", "debug", "info")
    assert (rests["state"], ended["state"]) == ("waiting", "completed")
    assert "private" not in repr(lines)


async def test_of_a_failure_only_its_kind_is_logged(bench: Workbench) -> None:
    @bench.tool
    async def fails(talk: Talk) -> str:
        async with stage("calling_tools"):
            raise ValueError("no such seat: " + (await talk.elicit("Which seat?"))["seat"])

    await bench.start()
    with capture_logs() as lines:
        run_id = (await bench.call("fails")).run_id
        await bench.say(run_id, "Which seat?", seat="private")
        await bench.failure(run_id)
        await until(lambda: bool(named(lines, "run ended")))
    (ended,) = named(lines, "run ended")
    assert (ended["state"], ended["reason"]) == ("failed", "ValueError")
    assert (named(lines, "run rests")[0]["stage"], "session" in ended) == ("calling_tools", False)
    assert "private" not in repr(lines)


@pytest.mark.leases
async def test_that_a_run_was_taken_over_and_is_stuck_are_lines(bench: Workbench) -> None:
    gate = asyncio.Event()

    @bench.tool
    async def deadly(talk: Talk) -> str:
        await gate.wait()
        return "survived"

    process = await bench.start()
    with capture_logs() as lines:
        run_id = (await bench.call("deadly", session="s-hash")).run_id
        for _ in range(2):
            await running(process, run_id)
            await process.kill()
            process = await bench.start(crashes_alone=1, crashes_stuck=2)
        await bench.state(run_id, RunState.STUCK)
        await until(lambda: bool(named(lines, "run is stuck")))
    first, second = named(lines, "run taken over")
    assert (first["crashes"], second["crashes"], first["log_level"]) == (1, 2, "warning")
    (stuck,) = named(lines, "run is stuck")
    assert "died 2 times" in stuck["reason"]
    assert stuck.keys() >= FIELDS


async def test_every_line_that_is_said_inside_a_run_carries_what_is_known_of_it(bench: Workbench) -> None:
    log = structlog.get_logger("author")

    @step
    async def price() -> int:
        log.info("in a step")
        return 1

    @bench.tool
    async def work(talk: Talk) -> int:
        log.info("in the workflow")
        async with stage("outer"):
            async with stage("inner"):
                await asyncio.gather(price())
            log.info("back in the outer stage")
        log.info("after the stages")
        return 1

    await bench.start()
    with capture_logs([merge_contextvars]) as lines:
        await bench.result((await bench.call("work", session="s-hash")).run_id)
    said = named(lines, "in the workflow", "in a step", "back in the outer stage", "after the stages")
    assert [line.get("stage") for line in said] == [None, "inner", "outer", None]
    for line in said:
        assert line.keys() >= FIELDS
        assert (line["tool"], line["session"], line["epoch"]) == ("work", "s-hash", 1)


async def test_a_call_that_waits_in_memory_is_told_of_too(bench: Workbench) -> None:
    await bench.start()
    call = CallContext("hot", {}, 1, "2025-11-25", {}, {"elicitation": {}}, session="s-hash", trace_id="t" * 32)
    with capture_logs() as lines:
        hot = await bench.runs.open_hot(call, Stream("stream", "", 1))
        await hot.finish(Outcome(result={"content": []}))
    began, ended = named(lines, "run began", "run ended")
    assert (began["lane"], ended["state"]) == ("hot", "completed")
    assert began.items() >= hot.known.items()
    assert hot.known.keys() == FIELDS
