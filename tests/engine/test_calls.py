"""Which run a call gets: by the setting where its workflow doesn't say, and by its id within a session."""

from dataclasses import replace
from typing import Any

import pytest

from engine.bench import ALICE, Talk, Workbench
from engine.test_recovery import declare_book
from milepost.core.errors import RequestIdUsed
from milepost.core.records import CallContext
from milepost.core.same_call import SameCallRules


@pytest.mark.parametrize(
    ("setting", "says", "second"),
    [
        ("ask", None, "asks"),
        ("always", None, "joins"),
        ("never", None, "starts"),
        ("never", "always", "joins"),
        ("always", "never", "starts"),
    ],
)
async def test_the_setting_decides_where_a_workflow_does_not_say(
    bench: Workbench, setting: Any, says: Any, second: str
) -> None:
    declare_book(bench, same_run=says)
    await bench.start(same_call=SameCallRules(policy=setting))
    one, other = await bench.call("book"), await bench.call("book")
    assert (one.run_id == other.run_id) is (second == "joins")
    if second != "joins":
        await bench.question(other.run_id, "An earlier 'book'" if second == "asks" else "When?")


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
