"""Steps: at least once until recorded, never again after."""

import asyncio
import threading

import pytest

from engine.bench import Talk, Workbench
from milepost import current_run, current_step, key, stage, step
from milepost.core.errors import ConfigurationError, MisplacedCall, StepError, Unstorable
from milepost.core.records import EntryKind
from milepost.core.states import RunState


async def kinds(bench: Workbench, run_id: str) -> list[EntryKind]:
    return [entry.kind for entry in (await bench.journal(run_id)).entries]


async def test_outside_a_run_a_step_is_a_plain_call() -> None:
    @step
    async def add(a: int, b: int = 1) -> int:
        return a + b

    @step(name="blocking")
    def in_thread() -> str:
        return threading.current_thread().name

    assert await add(1) == 2
    assert await in_thread() != threading.current_thread().name
    async with stage("nothing"):
        pass
    for verb in (current_run, current_step):
        with pytest.raises(MisplacedCall):
            verb()


@pytest.mark.parametrize("options", [{"timeout": 0}, {"retries": -1}, {"retries": 1.5}, {"timeout": None}])
def test_options_without_meaning_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        step(**options)(lambda: 1)  # type: ignore[call-overload]


async def test_a_step_returns_what_it_will_return_on_replay(bench: Workbench) -> None:
    @step
    async def pair() -> list[int]:
        return (1, 2)  # type: ignore[return-value]

    @bench.tool
    async def tool(talk: Talk) -> str:
        value = await pair()
        return type(value).__name__

    await bench.start()
    assert await bench.result((await bench.call("tool")).run_id) == "list"


async def test_a_failed_step_fails_the_same_way_on_replay_and_can_be_caught(bench: Workbench) -> None:
    tries: list[int] = []

    class SeatTaken(Exception):
        pass

    @step
    async def hold() -> None:
        tries.append(1)
        raise SeatTaken("12A")

    @bench.tool
    async def tool(talk: Talk) -> list[str]:
        try:
            await hold()
        except StepError as error:
            await talk.elicit("Other seat?")
            return [error.step.split(".")[-1], error.kind, error.message]
        return []

    await bench.start()
    run_id = (await bench.call("tool")).run_id
    await bench.say(run_id, "Other seat?")
    assert await bench.result(run_id) == ["hold", "SeatTaken", "12A"]
    assert len(tries) == 1


async def test_retries_are_journaled_and_counted_across_attempts(bench: Workbench) -> None:
    tries: list[int] = []

    @step(retries=3, backoff=0.01)
    async def flaky() -> int:
        tries.append(current_step().tries)
        if len(tries) < 3:
            raise ConnectionError("down")
        return len(tries)

    @bench.tool
    async def tool(talk: Talk) -> int:
        return int(await flaky())

    await bench.start()
    run_id = (await bench.call("tool")).run_id
    assert await bench.result(run_id) == 3
    assert tries == [1, 2, 3]
    assert await kinds(bench, run_id) == [EntryKind.BEGUN, EntryKind.RETRY, EntryKind.RETRY, EntryKind.DONE]


async def test_a_long_backoff_costs_rows_only(bench: Workbench) -> None:
    tries: list[int] = []

    @step(retries=1, backoff=0.6)
    async def flaky() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("down")
        return 7

    @bench.tool
    async def tool(talk: Talk) -> int:
        return int(await flaky())

    await bench.start()
    run_id = (await bench.call("tool")).run_id
    waiting = await bench.state(run_id, RunState.WAITING)
    assert waiting.next_at is not None
    assert await bench.result(run_id) == 7


async def test_hazard_c3_the_idempotency_key_is_stable_across_tries_and_differs_between_steps(bench: Workbench) -> None:
    keys: list[str] = []

    @step(retries=2, backoff=0.01)
    async def pay(amount: int) -> int:
        keys.append(current_step().idempotency_key)
        if len(keys) == 1:
            raise ConnectionError
        return amount

    @bench.tool
    async def tool(talk: Talk) -> int:
        return int(await pay(1)) + int(await pay(2))

    await bench.start()
    assert await bench.result((await bench.call("tool")).run_id) == 3
    assert keys[0] == keys[1] != keys[2]


async def test_a_step_over_its_limit_is_cut_and_not_tried_again_unless_idempotent(bench: Workbench) -> None:
    tries: list[str] = []

    @step(timeout=0.02, retries=3, backoff=0.01)
    async def once() -> None:
        tries.append("once")
        await asyncio.sleep(5)

    @step(timeout=0.02, retries=1, backoff=0.01, idempotent=True)
    async def again() -> None:
        tries.append("again")
        await asyncio.sleep(5)

    @bench.tool
    async def tool(talk: Talk) -> list[str]:
        caught = []
        for function in (once, again):
            try:
                await function()
            except StepError as error:
                caught.append(type(error).__name__)
        return caught

    await bench.start()
    assert await bench.result((await bench.call("tool")).run_id) == ["StepTimeout", "StepTimeout"]
    assert tries == ["once", "again", "again"]


async def test_hazard_c2_a_thread_over_its_limit_is_waited_for_and_never_overlaps(bench: Workbench) -> None:
    running: list[int] = []
    most: list[int] = []

    @step(timeout=0.02, retries=3, backoff=0.01, idempotent=True)
    def pay() -> None:
        running.append(1)
        most.append(len(running))
        threading.Event().wait(0.1)
        running.pop()

    @bench.tool
    async def tool(talk: Talk) -> str:
        try:
            await pay()
        except StepError as error:
            return type(error).__name__
        return "paid"

    await bench.start()
    assert await bench.result((await bench.call("tool")).run_id) == "StepUnknown"
    assert max(most) == 1


async def test_a_step_in_a_thread_returns_its_value(bench: Workbench) -> None:
    @step
    def read() -> dict[str, int]:
        return {"a": 1}

    @bench.tool
    async def tool(talk: Talk) -> dict[str, int]:
        return dict(await read())

    await bench.start()
    assert await bench.result((await bench.call("tool")).run_id) == {"a": 1}


async def test_a_timeout_error_of_the_authors_own_is_not_the_steps_limit(bench: Workbench) -> None:
    @step
    async def own() -> None:
        raise TimeoutError("theirs")

    @bench.tool
    async def tool(talk: Talk) -> str:
        try:
            await own()
        except StepError as error:
            return error.kind
        return ""

    await bench.start()
    assert await bench.result((await bench.call("tool")).run_id) == "TimeoutError"


async def test_a_value_that_can_not_be_stored_is_recorded_as_such_and_never_run_again(bench: Workbench) -> None:
    ran: list[int] = []

    @step
    async def wrong():  # type: ignore[no-untyped-def]
        ran.append(1)
        return object()

    @bench.tool
    async def tool(talk: Talk) -> str:
        try:
            await wrong()
        except Unstorable as error:
            await talk.elicit("Then?")
            return str(error)
        return ""

    await bench.start()
    run_id = (await bench.call("tool")).run_id
    await bench.say(run_id, "Then?")
    assert "can't be stored" in await bench.result(run_id)
    assert len(ran) == 1


async def test_a_value_over_the_limit_says_what_to_do(bench: Workbench) -> None:
    @step
    async def big() -> str:
        return "x" * 2000

    @bench.tool
    async def tool(talk: Talk) -> str:
        return str(await big())

    await bench.start(max_value=1000)
    assert "return a reference" in await bench.failure((await bench.call("tool")).run_id)


async def test_large_values_are_read_when_they_are_used(bench: Workbench) -> None:
    @step
    async def big() -> str:
        return "x" * 20_000

    @bench.tool
    async def tool(talk: Talk) -> int:
        text = await big()
        await talk.elicit("Enough?")
        return len(text)

    await bench.start()
    run_id = (await bench.call("tool")).run_id
    await bench.say(run_id, "Enough?")
    assert await bench.result(run_id) == 20_000


async def test_hazard_a3_a_step_inside_a_step_is_a_plain_call(bench: Workbench) -> None:
    ran: list[str] = []

    @step
    async def token() -> str:
        ran.append("token")
        return f"t{len(ran)}"

    @step
    async def outer() -> str:
        return "outer:" + str(await token())

    @bench.tool
    async def tool(talk: Talk) -> list[str]:
        first = await outer()
        await talk.elicit("Go on?")
        return [first, await token()]

    await bench.start()
    run_id = (await bench.call("tool")).run_id
    await bench.say(run_id, "Go on?")
    assert await bench.result(run_id) == ["outer:t1", "t2"]
    names = [e.name.split(".")[-1] for e in (await bench.journal(run_id)).entries if e.kind is EntryKind.DONE]
    assert names == ["outer", "token"]


@pytest.mark.parametrize("verb", ["question", "stage"])
async def test_a_question_or_stage_inside_a_step_is_an_error(bench: Workbench, verb: str) -> None:
    talks: list[Talk] = []

    @step
    async def wrong() -> None:
        if verb == "question":
            await talks[0].elicit("Q?")
        async with stage("s"):
            pass

    @bench.tool
    async def tool(talk: Talk) -> str:
        talks.append(talk)
        try:
            await wrong()
        except StepError as error:
            return error.kind
        return ""

    await bench.start()
    assert await bench.result((await bench.call("tool")).run_id) == "MisplacedCall"


async def test_two_steps_of_one_name_are_refused(bench: Workbench) -> None:
    @step(name="same")
    async def one() -> int:
        return 1

    @step(name="same")
    async def two() -> int:
        return 2

    @bench.tool
    async def tool(talk: Talk) -> int:
        return int(await one()) + int(await two())

    await bench.start()
    assert "give one of them `@step(name=...)`" in await bench.failure((await bench.call("tool")).run_id)


async def test_a_step_in_flight_is_finished_and_recorded_before_the_run_is_suspended(bench: Workbench) -> None:
    release = asyncio.Event()
    ran: list[int] = []

    @step
    async def slow() -> int:
        ran.append(1)
        await release.wait()
        return 5

    @bench.tool
    async def tool(talk: Talk) -> int:
        value, _ = await asyncio.gather(slow(), talk.elicit("Sure?"))
        return int(value)

    await bench.start()
    run_id = (await bench.call("tool")).run_id
    await bench.say(run_id, "Sure?")
    assert (await bench.state(run_id, RunState.RUNNING)).state is RunState.RUNNING
    release.set()
    assert await bench.result(run_id) == 5
    assert len(ran) == 1


async def test_ten_steps_at_once_are_all_recorded(bench: Workbench) -> None:
    @step
    async def square(n: int) -> int:
        return n * n

    @bench.tool
    async def tool(talk: Talk) -> list[int]:
        return list(await asyncio.gather(*(square(n) for n in range(10))))

    await bench.start()
    run_id = (await bench.call("tool")).run_id
    assert await bench.result(run_id) == [n * n for n in range(10)]
    numbers = [entry.n for entry in (await bench.journal(run_id)).entries]
    assert numbers == list(range(1, 21))


@pytest.mark.parametrize("name", ["ann\0", "ann \ud83d"])
async def test_a_key_that_no_store_can_keep_is_an_error_at_once_and_no_wait_for_ever(
    bench: Workbench, name: str
) -> None:
    @step
    async def look() -> int:
        return 1

    @bench.tool
    async def work(talk: Talk) -> int:
        with key(name):
            return await look()

    await bench.start()
    assert "can't be stored" in await bench.failure((await bench.call("work")).run_id)
