"""A call that is made again: the same run, another, or a question."""

from dataclasses import replace
from typing import Any

import pytest

from engine.bench import ALICE, BOB, Talk, Workbench
from engine.booking import declare_book
from milepost.core.records import Delivery, EventKind, Rival
from milepost.core.same_call import SameCallRules
from milepost.core.states import RunState


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


async def test_never_means_a_new_run_each_time(bench: Workbench) -> None:
    declare_book(bench, same_run="never")
    await bench.start()
    assert (await bench.call("book")).run_id != (await bench.call("book")).run_id


async def test_a_repeated_call_attaches_to_the_orphaned_run(bench: Workbench) -> None:
    booked = declare_book(bench)
    await bench.start()
    first = await bench.call("book")
    await bench.state(first.run_id, RunState.WAITING)
    await bench.runs.detach(first)
    second = await bench.call("book")
    assert second.run_id == first.run_id
    assert second.attached
    await bench.say(first.run_id, "When?", day="mon")
    assert await bench.result(first.run_id) == "mon"
    assert booked == ["mon"]


async def test_a_live_run_is_asked_about_and_may_be_joined(bench: Workbench) -> None:
    booked = declare_book(bench)
    await bench.start()
    first = await bench.call("book")
    await bench.state(first.run_id, RunState.WAITING)
    second = await bench.call("book")
    assert second.run_id != first.run_id
    await bench.say(second.run_id, "An earlier 'book'", choice="join it")
    merged = await bench.state(second.run_id, RunState.CANCELLED)
    assert merged.merged_into == first.run_id
    assert (await bench.events(second.run_id))[-1].kind is EventKind.MERGED
    await bench.say(first.run_id, "When?", day="tue")
    assert await bench.result(first.run_id) == "tue"
    assert booked == ["tue"]


async def test_a_person_may_start_another(bench: Workbench) -> None:
    declare_book(bench)
    await bench.start()
    first = await bench.call("book")
    await bench.state(first.run_id, RunState.WAITING)
    second = await bench.call("book")
    await bench.say(second.run_id, "An earlier 'book'", choice="start another")
    await bench.say(second.run_id, "When?", day="wed")
    assert await bench.result(second.run_id) == "wed"
    assert (await bench.state(first.run_id, RunState.WAITING)).state is RunState.WAITING


async def test_starting_over_cancels_the_earlier_run(bench: Workbench) -> None:
    declare_book(bench)
    rules = replace(bench.tuning.same_call, reattach_window=-1.0)
    await bench.start(same_call=rules)
    first = await bench.call("book")
    await bench.state(first.run_id, RunState.WAITING)
    await bench.runs.detach(first)
    second = await bench.call("book")
    question = await bench.question(second.run_id, "An earlier 'book'")
    assert "was left unfinished" in question.params["message"]
    await bench.say(second.run_id, "An earlier 'book'", choice="start over")
    await bench.say(second.run_id, "When?", day="thu")
    assert await bench.result(second.run_id) == "thu"
    await bench.state(first.run_id, RunState.CANCELLED)


async def test_the_choice_survives_a_kill(bench: Workbench) -> None:
    declare_book(bench)
    first_process = await bench.start()
    first = await bench.call("book")
    await bench.state(first.run_id, RunState.WAITING)
    second = await bench.call("book")
    await bench.question(second.run_id, "An earlier 'book'")
    await bench.state(second.run_id, RunState.WAITING)
    await first_process.kill()
    await bench.start()
    await bench.say(second.run_id, "An earlier 'book'", choice="start another")
    await bench.say(second.run_id, "When?", day="fri")
    assert await bench.result(second.run_id) == "fri"


async def test_same_run_by_names_the_arguments_that_count(bench: Workbench) -> None:
    @bench.tool(same_run="always", same_run_by=["pnr"])
    async def change(talk: Talk, pnr: str, note: str) -> str:
        await talk.elicit("Sure?")
        return note

    await bench.start()
    first = await bench.call("change", pnr="X", note="a")
    assert (await bench.call("change", pnr="X", note="b")).run_id == first.run_id
    assert (await bench.call("change", pnr="Y", note="a")).run_id != first.run_id


async def test_hazard_d4_people_never_share_a_run_and_machines_only_within_a_session(bench: Workbench) -> None:
    declare_book(bench, same_run="always")
    machine = replace(ALICE, subject="svc", client="svc", person=False)
    await bench.start()
    first = await bench.call("book")
    assert (await bench.call("book", by=BOB)).run_id != first.run_id
    m1 = await bench.call("book", by=machine, session="s1")
    assert (await bench.call("book", by=machine, session="s1")).run_id == m1.run_id
    assert (await bench.call("book", by=machine, session="s2")).run_id != m1.run_id
    bare = await bench.call("book", by=machine)
    assert (await bench.call("book", by=machine)).run_id != bare.run_id


async def test_hazard_d3_a_result_that_may_not_have_arrived_is_given_again(bench: Workbench) -> None:
    booked = declare_book(bench)
    await bench.start()
    first = await bench.call("book", session="s1")
    await bench.say(first.run_id, "When?", day="sat")
    await bench.result(first.run_id)
    assert (await bench.call("book", session="s2")).run_id == first.run_id
    await bench.runs.detach(first, delivery=Delivery.CONFIRMED)
    assert (await bench.call("book", session="s2")).run_id != first.run_id
    assert booked == ["sat"]


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


class Forgetful(dict[str, Any]):
    """What another replica knows of a rival: nothing."""

    def __setitem__(self, key: str, value: Any) -> None:
        return


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


async def test_another_replica_asks_about_a_rival_from_what_is_stored(bench: Workbench) -> None:
    declare_book(bench)
    process = await bench.start()
    first = await bench.call("book")
    await bench.state(first.run_id, RunState.WAITING)
    process.runs._rivals = Forgetful()
    second = await bench.call("book")
    await bench.say(second.run_id, "An earlier 'book'", choice="go on")
    assert (await bench.state(second.run_id, RunState.CANCELLED)).merged_into == first.run_id
