"""Clients that leave a run and come back: parked, taken up again, and by nobody else."""

from dataclasses import replace

import pytest

from engine.bench import ALICE, BOB, Workbench, until
from engine.booking import declare_book, declare_two_steps
from milepost.core.errors import UnknownRun
from milepost.core.states import RunState


async def test_a_parked_run_waits_for_its_client(bench: Workbench) -> None:
    declare_book(bench)
    await bench.start()
    first = await bench.call("book")
    await bench.state(first.run_id, RunState.WAITING)
    await bench.runs.detach(first, park=True)
    await bench.state(first.run_id, RunState.PARKED)
    again = await bench.runs.attach(first.run_id, replace(first, id="A" * 16, request_id=99))
    assert again.run_id == first.run_id
    await bench.say(first.run_id, "When?", day="sun")
    assert await bench.result(first.run_id) == "sun"


async def test_hazard_b8_closing_a_modern_request_finishes_the_step_and_parks(bench: Workbench) -> None:
    ran, gate = declare_two_steps(bench)
    await bench.start()
    stream = await bench.call("work")
    await until(lambda: ran == ["one"])
    await bench.runs.detach(stream, park=True)
    gate.set()
    await bench.state(stream.run_id, RunState.PARKED)
    assert ran == ["one"]
    await bench.runs.retry(stream.run_id)
    assert await bench.result(stream.run_id) == "12"


async def test_hazard_b8_a_client_that_comes_back_while_the_step_ends_is_not_left_waiting(bench: Workbench) -> None:
    ran, gate = declare_two_steps(bench)
    await bench.start()
    stream = await bench.call("work")
    await until(lambda: ran == ["one"])
    await bench.runs.detach(stream, park=True)
    await bench.runs.attach(stream.run_id, replace(stream, id="A" * 16, request_id=99))
    gate.set()
    assert await bench.result(stream.run_id) == "12"
    assert ran == ["one", "two"]


async def test_handles_lead_only_their_owner_to_a_run(bench: Workbench) -> None:
    declare_book(bench)
    await bench.start()
    first = await bench.call("book")
    for run_id, owner in ((first.run_id, BOB), ("run-" + "0" * 32, ALICE), ("nonsense", ALICE)):
        with pytest.raises(UnknownRun):
            await bench.runs.attach(run_id, replace(first, id="B" * 16, owner=owner))
