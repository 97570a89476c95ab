"""What is called, and by which id of a session."""

from dataclasses import replace

import pytest

from engine.bench import ALICE, Talk, Workbench
from engine.booking import declare_book
from milepost.core.errors import CallerError, RequestIdUsed
from milepost.core.records import CallContext


async def test_only_workflows_are_called_so(bench: Workbench) -> None:
    await bench.start()
    with pytest.raises(CallerError, match="no workflow"):
        await bench.call("nothing")


async def test_an_id_that_names_another_call_of_the_session_is_refused(bench: Workbench) -> None:
    declare_book(bench)

    @bench.tool
    async def double(talk: Talk, n: int) -> int:
        return 2 * n

    await bench.start()
    first = await bench.call("book", session="s1")
    for tool, arguments in (("double", {"n": 1}), ("book", {"when": "tue"})):
        with pytest.raises(RequestIdUsed, match="id 1 was used already"):
            await bench.call(tool, session="s1", request_id=1, **arguments)
    assert await bench.call("book", session="s1", request_id=1) == first, "the same call, sent twice"
    elsewhere = await bench.call("double", session="s2", request_id=1, n=4)
    assert await bench.result(elsewhere.run_id) == 8


async def test_an_id_is_used_once_by_streams_on_other_runs_and_hot_calls_too(bench: Workbench) -> None:
    declare_book(bench)
    await bench.start()
    first, second = await bench.call("book", session="s1"), await bench.call("book", session="s1", by=ALICE)
    again = replace(second, id="another-stream")
    assert (await bench.runs.attach(second.run_id, again)).id == second.id
    with pytest.raises(RequestIdUsed):
        await bench.runs.attach(first.run_id, again)
    with pytest.raises(RequestIdUsed):
        await bench.runs.open_hot(CallContext("hot", {}, 2, "2025-11-25", {}, {}, ALICE, "s1"), again)
