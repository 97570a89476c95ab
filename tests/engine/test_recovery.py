"""What happens when a replica dies, pauses, is drained, or the code has changed."""

import asyncio
from dataclasses import replace

import pytest

from engine.bench import ALICE, BOB, Process, Talk, Workbench
from milepost import key, step
from milepost.core.errors import UnknownRun
from milepost.core.outside import Verdict
from milepost.core.records import Delivery, EntryKind, EventKind, Reply
from milepost.core.states import RunState


async def test_a_waiting_run_is_answered_on_another_replica_after_a_kill(bench: Workbench) -> None:
    ran: list[str] = []

    @step
    async def hold() -> str:
        ran.append("hold")
        return "held"

    @bench.tool
    async def book(talk: Talk) -> str:
        held = await hold()
        return held + (await talk.elicit("Sure?"))["v"]

    first = await bench.start()
    run_id = (await bench.call("book")).run_id
    await bench.state(run_id, RunState.WAITING)
    await first.kill()
    await bench.start()
    await bench.say(run_id, "Sure?", v="!")
    assert await bench.result(run_id) == "held!"
    assert ran == ["hold"]


async def test_a_killed_step_runs_again_under_the_same_key_and_recorded_ones_do_not(bench: Workbench) -> None:
    ran: list[str] = []
    stuck = asyncio.Event()

    @step
    async def hold() -> str:
        ran.append("hold")
        return "held"

    @step
    async def pay() -> str:
        ran.append("pay")
        if len(ran) == 2:
            await stuck.wait()
        return "paid"

    @bench.tool
    async def book(talk: Talk) -> list[str]:
        return [await hold(), await pay()]

    first = await bench.start()
    run_id = (await bench.call("book")).run_id
    await until(lambda: ran == ["hold", "pay"])
    await first.kill()
    await bench.start()
    assert await bench.result(run_id) == ["held", "paid"]
    assert ran == ["hold", "pay", "pay"]
    assert (await bench.journal(run_id)).run.epoch == 2


async def until(condition: object) -> None:
    async with asyncio.timeout(5):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


@pytest.mark.leases
async def test_hazard_b1_an_attempt_that_lost_its_lease_starts_no_step(bench: Workbench) -> None:
    ran: list[str] = []
    gate = asyncio.Event()

    @step
    async def email() -> str:
        ran.append("email")
        return "sent"

    @bench.tool
    async def tell(talk: Talk) -> str:
        await gate.wait()
        return str(await email())

    first = await bench.start()
    run_id = (await bench.call("tell")).run_id
    attempt = await running(first, run_id)
    first.runs.executor._pens.clear()  # the heart no longer beats for it
    attempt.pen.deadline = 0.0
    second = await bench.start()
    gate.set()
    first.alive = False
    assert await bench.result(run_id) == "sent"
    assert len(ran) <= 1 or attempt.pen.lost
    await first.runs.drain()
    await first.store.aclose()
    assert second.alive


async def running(process: Process, run_id: str):  # type: ignore[no-untyped-def]
    await until(lambda: process.runs.executor.attempt(run_id) is not None)
    return process.runs.executor.attempt(run_id)


async def test_a_drained_replica_finishes_its_step_and_gives_the_run_back(bench: Workbench) -> None:
    ran: list[str] = []
    release = asyncio.Event()

    @step
    async def one() -> str:
        ran.append("one")
        await release.wait()
        return "1"

    @step
    async def two() -> str:
        ran.append("two")
        return "2"

    @bench.tool
    async def work(talk: Talk) -> str:
        return await one() + await two()

    first = await bench.start()
    run_id = (await bench.call("work")).run_id
    await until(lambda: ran == ["one"])
    stopping = asyncio.create_task(first.stop())
    await asyncio.sleep(0.05)
    release.set()
    await stopping
    assert ran == ["one"], "no new step starts during a drain"
    await bench.start()
    assert await bench.result(run_id) == "12"
    assert ran == ["one", "two"]


async def test_a_step_over_the_drain_limit_is_torn_and_unrecorded(bench: Workbench) -> None:
    ran: list[int] = []

    @step
    async def slow() -> str:
        ran.append(1)
        if len(ran) == 1:
            await asyncio.sleep(60)
        return "ok"

    @bench.tool
    async def work(talk: Talk) -> str:
        return str(await slow())

    first = await bench.start(drain_limit=0.05)
    run_id = (await bench.call("work")).run_id
    await until(lambda: ran == [1])
    await first.stop()
    await bench.start()
    assert await bench.result(run_id) == "ok"


# --- drift --------------------------------------------------------------------------------------


async def test_hazard_a1_an_argument_that_changes_per_attempt_is_a_replay_mismatch(bench: Workbench) -> None:
    ran: list[int] = []

    @step
    async def charge(nonce: int) -> int:
        ran.append(nonce)
        return nonce

    @bench.tool
    async def pay(talk: Talk) -> int:
        value = await charge(len(ran))
        await talk.elicit("Sure?")
        return int(value)

    await bench.start()
    run_id = (await bench.call("pay")).run_id
    await bench.say(run_id, "Sure?")
    stuck = await bench.state(run_id, RunState.STUCK)
    assert stuck.reason is not None
    assert "replay mismatch" in stuck.reason
    assert stuck.reason.count("charge") == 2
    assert "--accept-drift" in stuck.reason
    assert ran == [0], "nothing was run"


async def test_hazard_a1_a_question_that_changes_per_attempt_is_a_replay_mismatch(bench: Workbench) -> None:
    asked: list[int] = []

    @bench.tool
    async def pay(talk: Talk) -> str:
        asked.append(1)
        await talk.elicit(f"Pay bill {len(asked)}?")
        return "paid"

    await bench.start()
    run_id = (await bench.call("pay")).run_id
    await bench.say(run_id, "Pay bill 1?")
    await bench.state(run_id, RunState.STUCK)
    await bench.runs.retry(run_id, accept_drift=True)
    await bench.say(run_id, "Pay bill 3?")
    stuck_or_waiting = await bench.state(run_id, RunState.WAITING, RunState.READY, RunState.RUNNING)
    assert stuck_or_waiting.accept_drift


async def test_a_retry_without_accepting_the_drift_is_stuck_again_and_older_code_goes_on(bench: Workbench) -> None:
    wording = ["Old?"]

    @bench.tool
    async def ask(talk: Talk) -> str:
        await talk.elicit(wording[0])
        return "ok"

    await bench.start()
    run_id = (await bench.call("ask")).run_id
    await bench.state(run_id, RunState.WAITING)
    wording[0] = "New?"
    await bench.say(run_id, "Old?")
    await bench.state(run_id, RunState.STUCK)
    await bench.runs.retry(run_id)
    await bench.state(run_id, RunState.STUCK)
    wording[0] = "Old?"
    await bench.runs.retry(run_id)
    assert await bench.result(run_id) == "ok"


async def test_branches_that_come_in_another_order_are_no_mismatch(bench: Workbench) -> None:
    pauses = [0.0, 0.05]

    @step
    async def look(name: str) -> str:
        return name

    @bench.tool
    async def both(talk: Talk) -> list[str]:
        async def one(name: str, pause: float) -> str:
            await asyncio.sleep(pause)
            with key(name):
                return str(await look(name))

        found = await asyncio.gather(one("a", pauses[0]), one("b", pauses[1]))
        pauses.reverse()
        await talk.elicit("Go on?")
        return list(found)

    await bench.start()
    run_id = (await bench.call("both")).run_id
    await bench.say(run_id, "Go on?")
    assert await bench.result(run_id) == ["a", "b"]


# --- cancel -------------------------------------------------------------------------------------


async def test_hazard_c1_a_cancelled_run_gets_one_last_attempt_to_clean_up(bench: Workbench) -> None:
    done: list[str] = []

    @step
    async def hold() -> str:
        done.append("hold")
        return "12A"

    @step
    async def release(seat: str) -> None:
        done.append(f"release {seat}")

    @bench.tool
    async def book(talk: Talk) -> str:
        seat = await hold()
        try:
            await talk.elicit("Sure?")
        except BaseException as error:
            if type(error).__name__ == "RunCancelled":
                await release(seat)
            raise
        return "booked"

    await bench.start()
    run_id = (await bench.call("book")).run_id
    await bench.state(run_id, RunState.WAITING)
    await bench.runs.cancel(run_id, reason="client")
    run = await bench.state(run_id, RunState.CANCELLED)
    assert done == ["hold", "release 12A"]
    assert run.reason == "client"
    assert (await bench.events(run_id))[-1].kind is EventKind.RESULT


async def test_cancelling_a_running_run_finishes_its_step_and_starts_no_other(bench: Workbench) -> None:
    ran: list[str] = []
    gate = asyncio.Event()

    @step
    async def one() -> str:
        ran.append("one")
        await gate.wait()
        return "1"

    @step
    async def two() -> str:
        ran.append("two")
        return "2"

    @step
    async def undo() -> None:
        ran.append("undo")

    @bench.tool
    async def work(talk: Talk) -> str:
        first = await one()
        try:
            return first + await two()
        finally:
            await undo()

    await bench.start()
    run_id = (await bench.call("work")).run_id
    await until(lambda: ran == ["one"])
    await bench.runs.cancel(run_id, reason="operator")
    gate.set()
    await bench.state(run_id, RunState.CANCELLED)
    assert ran == ["one", "undo"]
    recorded = [e for e in (await bench.journal(run_id)).entries if e.kind is EntryKind.DONE]
    assert len(recorded) == 2


async def test_clean_up_that_takes_too_long_is_cut(bench: Workbench) -> None:
    @step
    async def forever() -> None:
        await asyncio.sleep(60)

    @bench.tool
    async def work(talk: Talk) -> str:
        try:
            await talk.elicit("Sure?")
        finally:
            await forever()
        return ""

    await bench.start(cleanup_limit=0.1)
    run_id = (await bench.call("work")).run_id
    await bench.state(run_id, RunState.WAITING)
    await bench.runs.cancel(run_id, reason="client")
    await bench.state(run_id, RunState.CANCELLED)


async def test_a_run_over_its_working_time_is_cancelled_and_fails(bench: Workbench) -> None:
    @bench.tool(timeout=0.1)
    async def work(talk: Talk) -> str:
        await asyncio.sleep(60)
        return ""

    await bench.start()
    run_id = (await bench.call("work")).run_id
    assert "limit: 0.1 s of work" in await bench.failure(run_id)
    assert (await bench.state(run_id, RunState.FAILED)).state is RunState.FAILED


async def test_a_late_answer_to_a_cancelled_run_is_told_so(bench: Workbench) -> None:
    @bench.tool
    async def ask(talk: Talk) -> str:
        await talk.elicit("Sure?")
        return ""

    await bench.start()
    run_id = (await bench.call("ask")).run_id
    question = await bench.question(run_id, "Sure?")
    await bench.state(run_id, RunState.WAITING)
    await bench.runs.cancel(run_id, reason="client")
    await bench.state(run_id, RunState.CANCELLED)
    rulings = await bench.runs.answer(
        run_id, {question.id: Reply({"action": "accept", "content": {}})}, by=ALICE, via="t"
    )
    assert rulings[question.id].verdict is Verdict.CLOSED
    assert "closed" in rulings[question.id].reason


# --- answers ------------------------------------------------------------------------------------


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


# --- limits and poison ---------------------------------------------------------------------------


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


@pytest.mark.leases
async def test_hazard_c5_a_run_that_kills_its_process_again_and_again_is_stuck(bench: Workbench) -> None:
    gate = asyncio.Event()

    @bench.tool
    async def deadly(talk: Talk) -> str:
        await gate.wait()
        return "survived"

    process = await bench.start()
    run_id = (await bench.call("deadly")).run_id
    for _ in range(2):
        await running(process, run_id)
        await process.kill()
        process = await bench.start(crashes_alone=1, crashes_stuck=2)
    stuck = await bench.state(run_id, RunState.STUCK)
    assert stuck.reason is not None
    assert "died 2 times" in stuck.reason
    gate.set()
    await bench.runs.retry(run_id)
    assert await bench.result(run_id) == "survived"


# --- same call ----------------------------------------------------------------------------------


def declare_book(bench: Workbench, **options: object) -> list[str]:
    booked: list[str] = []

    @step
    async def book_it(day: str) -> str:
        booked.append(day)
        return day

    @bench.tool(**options)
    async def book(talk: Talk) -> str:
        return str(await book_it((await talk.elicit("When?"))["day"]))

    return booked


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
    ran: list[str] = []
    gate = asyncio.Event()

    @step
    async def one() -> None:
        ran.append("one")
        await gate.wait()

    @step
    async def two() -> None:
        ran.append("two")

    @bench.tool
    async def work(talk: Talk) -> str:
        await one()
        await two()
        return "ok"

    await bench.start()
    stream = await bench.call("work")
    await until(lambda: ran == ["one"])
    await bench.runs.detach(stream, park=True)
    gate.set()
    await bench.state(stream.run_id, RunState.PARKED)
    assert ran == ["one"]
    await bench.runs.retry(stream.run_id)
    assert await bench.result(stream.run_id) == "ok"


async def test_hazard_b8_a_client_that_comes_back_while_the_step_ends_is_not_left_waiting(bench: Workbench) -> None:
    gate, ran = asyncio.Event(), list[str]()

    @step
    async def one() -> None:
        ran.append("one")
        await gate.wait()

    @step
    async def two() -> None:
        ran.append("two")

    @bench.tool
    async def work(talk: Talk) -> str:
        await one()
        await two()
        return "ok"

    await bench.start()
    stream = await bench.call("work")
    await until(lambda: ran == ["one"])
    await bench.runs.detach(stream, park=True)
    await bench.runs.attach(stream.run_id, replace(stream, id="A" * 16, request_id=99))
    gate.set()
    assert await bench.result(stream.run_id) == "ok"
    assert ran == ["one", "two"]


async def test_handles_lead_only_their_owner_to_a_run(bench: Workbench) -> None:
    declare_book(bench)
    await bench.start()
    first = await bench.call("book")
    for run_id, owner in ((first.run_id, BOB), ("run-" + "0" * 32, ALICE), ("nonsense", ALICE)):
        with pytest.raises(UnknownRun):
            await bench.runs.attach(run_id, replace(first, id="B" * 16, owner=owner))


# --- hot ----------------------------------------------------------------------------------------


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
