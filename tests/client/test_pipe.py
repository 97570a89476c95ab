"""Servers that are child processes: killed at any moment, started again, with nothing asked or done twice."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import StdioServerParameters
from mcp.client import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult

from client.talking import LEGACY, MODERN, Person, events_of, text_of
from milepost.client import Client, NotSent, OutcomeUnknown, Policy, ServerUnavailable, TimedOut
from milepost.client.events import Reinitialized, Retrying
from milepost.client.origins import Origins
from milepost.client.process import running

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
ERAS = pytest.mark.parametrize("mode", [MODERN, LEGACY])
QUICK = Policy(first_delay=0.01, max_delay=0.05, breaker_rest=0.01)


class Folder:
    """Where a child leaves what it did."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = f"sqlite:///{path / 'client.db'}"

    @property
    def environment(self) -> dict[str, str]:
        at = {"LEDGER": str(self.path / "ledger"), "PIDS": str(self.path / "pids")}
        return {**at, "PYTHONPATH": str(HERE.parent)}

    def milepost(self) -> StdioServerParameters:
        target, store = f"{HERE / 'piped.py'}:mcp", f"sqlite:///{self.path / 'milepost.db'}"
        command = str(Path(sys.executable).with_name("milepost"))
        return StdioServerParameters(
            command=command, args=["serve", target, "--stdio", "--store", store], env=self.environment
        )

    def python(self, script: str, *args: str) -> StdioServerParameters:
        return StdioServerParameters(command=sys.executable, args=[str(HERE / script), *args], env=self.environment)

    def raw(self, kind: str) -> StdioServerParameters:
        return self.python("piped_raw.py", kind, str(self.path / "log"))

    def lines(self, name: str) -> list[str]:
        file = self.path / name
        return file.read_text().splitlines() if file.exists() else []

    def heard(self) -> list[str]:
        """The methods of what a raw child got."""
        return [str(json.loads(line).get("method")) for line in self.lines("log")]

    def kill(self) -> None:
        """The child that was started last."""
        os.kill(int(self.lines("pids")[-1]), signal.SIGKILL)

    async def until(self, name: str, count: int) -> None:
        with anyio.fail_after(30):
            while len(self.lines(name)) < count:
                await anyio.sleep(0.01)


class Thinking(Person):
    """Takes a moment for each answer."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        answer = await super().__call__(context, params)
        await anyio.sleep(self._chance.random())
        return answer


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def client(server: StdioServerParameters, **more: Any) -> Client:
    return Client(server, **{"policy": QUICK, "origins": Origins(), **more})


@pytest.mark.long
@ERAS
async def test_a_workflow_goes_on_in_the_next_process_and_asks_nobody_twice(folder: Folder, mode: str) -> None:
    person = Person(ready=anyio.Event())
    async with (
        client(folder.milepost(), mode=mode, elicitation_callback=person) as one,
        events_of(one) as told,
        anyio.create_task_group() as group,
    ):

        async def strike() -> None:
            await person.being_asked.wait()
            folder.kill()
            if mode == LEGACY:  # the next process has asked again, and nobody was shown it
                await folder.until("pids", 2)
            assert person.ready is not None
            person.ready.set()

        group.start_soon(strike)
        with anyio.fail_after(60):
            result = await one.call_tool("arrange", {"case": "trip", "questions": 2})
    assert text_of(result).count("booked trip") == 2
    assert person.asked == ["trip: question 0?", "trip: question 1?"]
    assert len(folder.lines("ledger")) == 2
    assert len(folder.lines("pids")) == 2
    assert any(isinstance(event, Retrying) for event in told)
    assert any(isinstance(event, Reinitialized) for event in told) is (mode == LEGACY)


@pytest.mark.long
@ERAS
async def test_a_process_that_died_between_calls_is_started_again(folder: Folder, mode: str) -> None:
    async with client(folder.milepost(), mode=mode) as one:
        await one.call_tool("look", {"case": "first"})
        folder.kill()
        with anyio.fail_after(60):
            assert text_of(await one.call_tool("look", {"case": "second"})) == "seen second"
    assert len(folder.lines("pids")) == 2


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
async def test_a_workflow_survives_kills_at_any_moments(folder: Folder, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  a plan of kills
    person, questions = Thinking(chance), chance.randint(1, 3)
    mode = (MODERN, LEGACY, "auto")[seed % 3]
    async with (
        client(folder.milepost(), mode=mode, elicitation_callback=person) as one,
        anyio.create_task_group() as group,
    ):

        async def strike() -> None:
            for _ in range(chance.randint(1, 4)):
                await anyio.sleep(chance.random() * 2.5)
                with suppress(ProcessLookupError, IndexError):  # it is just being started
                    folder.kill()

        group.start_soon(strike)
        with anyio.fail_after(50):
            result = await one.call_tool("arrange", {"case": "trip", "questions": questions})
        group.cancel_scope.cancel()
    assert text_of(result).count("booked trip") == questions
    assert person.asked == [f"trip: question {n}?" for n in range(questions)]
    assert len(set(folder.lines("ledger"))) == questions


@ERAS
async def test_a_call_that_may_have_been_done_is_not_made_again(folder: Folder, mode: str) -> None:
    async with client(folder.python("piped_stock.py"), mode=mode) as one, anyio.create_task_group() as group:

        async def strike() -> None:
            await folder.until("ledger", 1)
            folder.kill()

        group.start_soon(strike)
        with anyio.fail_after(60), pytest.raises(OutcomeUnknown, match="the server's process has ended"):
            await one.call_tool("charge", {"case": "card"})
    assert folder.lines("ledger") == ["charged card"]


@ERAS
async def test_a_call_that_only_reads_is_made_again(folder: Folder, mode: str) -> None:
    async with client(folder.python("piped_stock.py"), mode=mode) as one, anyio.create_task_group() as group:

        async def strike() -> None:
            await folder.until("ledger", 1)
            folder.kill()

        group.start_soon(strike)
        with anyio.fail_after(60):
            assert text_of(await one.call_tool("look", {"case": "card"})) == "seen card"


@pytest.mark.long
@ERAS
async def test_a_call_is_resumed_by_another_client(folder: Folder, mode: str) -> None:
    person = Person(ready=anyio.Event())
    async with (
        client(folder.milepost(), mode=mode, journal=folder.journal, elicitation_callback=person) as first,
        anyio.create_task_group() as group,
    ):
        group.start_soon(first.call_tool, "arrange", {"case": "trip", "questions": 1})
        await person.being_asked.wait()
        first.leave()
        group.cancel_scope.cancel()
    later = Person()
    async with client(folder.milepost(), mode=mode, journal=folder.journal, elicitation_callback=later) as second:
        with anyio.fail_after(60):
            (ended,) = await second.resume()
    assert text_of(ended.result).startswith("booked trip")
    assert (person.asked, later.asked) == (["trip: question 0?"], ["trip: question 0?"])
    assert len(folder.lines("ledger")) == 1


async def test_calls_at_the_same_time_each_hear_their_own(folder: Folder) -> None:
    person = Person()
    answers: dict[str, str] = {}
    async with client(folder.milepost(), mode=LEGACY, elicitation_callback=person) as one:

        async def ask(case: str) -> None:
            answers[case] = text_of(await one.call_tool("arrange", {"case": case, "questions": 1}))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for case in ("a", "b", "c"):
                    group.start_soon(ask, case)
    assert answers == {case: f"booked {case} answer to {case}: question 0?" for case in ("a", "b", "c")}
    assert len(person.asked) == 3


# --- what a child may do wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", LEGACY])
async def test_a_command_that_is_not_there_is_named(mode: str) -> None:
    with pytest.raises(ServerUnavailable, match="can't start 'no-such-command-here'"):
        async with client(StdioServerParameters(command="no-such-command-here"), mode=mode):
            pass


@pytest.mark.parametrize("mode", ["auto", LEGACY])
async def test_a_process_that_ends_before_it_says_anything_is_not_started_for_ever(folder: Folder, mode: str) -> None:
    with pytest.raises(ServerUnavailable, match="before it said anything: its stderr may say why"):
        async with client(folder.raw("stillborn"), mode=mode):
            pass


@pytest.mark.parametrize("kind", ["mute", "touchy"])
async def test_a_server_that_can_not_bear_the_version_probe_is_spoken_to_in_the_older_way(
    folder: Folder, kind: str
) -> None:
    hasty = Policy(first_delay=0.01, reach_within=2.0)
    async with client(folder.raw(kind), policy=hasty) as one:
        assert text_of(await one.call_tool("act")) == "done"
        assert one.protocol_version == "2025-11-25"


async def test_what_is_no_message_and_what_is_for_nobody_is_passed_over(folder: Folder) -> None:
    async with client(folder.raw("chatty")) as one:
        assert text_of(await one.call_tool("act", progress_callback=_ignore)) == "done"


@ERAS
async def test_a_server_hears_that_nobody_waits_any_more(folder: Folder, mode: str) -> None:
    async with client(folder.raw("slow"), mode=mode) as one:
        with pytest.raises(TimedOut):
            await one.call_tool("act", read_timeout_seconds=0.2)
    assert folder.heard()[-1] == "notifications/cancelled"


async def test_a_flood_is_cut_off(folder: Folder) -> None:
    heard = 0

    async def slow(_: Any) -> None:
        nonlocal heard
        while "flooded" not in folder.heard():
            await anyio.sleep(0.01)
        heard += 1

    async with client(folder.raw("flood"), mode=MODERN, logging_callback=slow) as one:
        with anyio.fail_after(30), pytest.raises(OutcomeUnknown, match="messages of more than 16 MiB wait to be read"):
            await one.call_tool("act")
    assert heard < 3_000, "the rest was let go"


async def test_a_burst_of_progress_is_heard(folder: Folder) -> None:
    heard = 0

    async def progressed(*_: Any) -> None:
        nonlocal heard
        heard += 1

    async with client(folder.raw("burst"), mode=MODERN) as one:
        with anyio.fail_after(30):
            assert text_of(await one.call_tool("act", progress_callback=progressed)) == "done"
    assert heard == 5_000


async def test_a_line_without_end_is_not_held(folder: Folder) -> None:
    small = Policy(max_message=64 * 1024, first_delay=0.01)
    async with client(folder.raw("endless"), mode=MODERN, policy=small) as one:
        before = os.listdir("/dev/fd")
        for _ in range(3):
            with anyio.fail_after(30), pytest.raises(OutcomeUnknown, match="a message is longer than 65536 bytes"):
                await one.call_tool("act")
        with anyio.fail_after(30):  # nothing of a process that was ended stays open
            while len(os.listdir("/dev/fd")) > len(before):
                await anyio.sleep(0.01)


async def test_what_is_too_long_is_not_asked_for_again(folder: Folder) -> None:
    small = Policy(max_message=64 * 1024, first_delay=0.01)
    async with client(folder.raw("vast"), mode=MODERN, policy=small) as one:
        with anyio.fail_after(30), pytest.raises(OutcomeUnknown, match="a message is longer than 65536 bytes"):
            await one.list_tools()
    assert folder.heard().count("tools/list") == 1


async def test_a_command_that_never_says_anything_is_not_started_for_ever(folder: Folder) -> None:
    async with client(folder.raw("stillborn"), mode=MODERN) as one:
        with anyio.fail_after(30), pytest.raises(OutcomeUnknown, match="before it said anything"):
            await one.call_tool("act")


@pytest.mark.parametrize("kind", ["survived", "haunted"])
async def test_a_process_is_dead_also_where_another_one_holds_its_pipes(folder: Folder, kind: str) -> None:
    async with client(folder.raw(kind), mode=MODERN) as one:
        with anyio.fail_after(30), pytest.raises(OutcomeUnknown, match="the server's process has ended"):
            await one.call_tool("act", reissue=False)
    with suppress(ProcessLookupError):  # the one that talks has heard that nobody listens
        os.kill(int(folder.heard()[-1]), signal.SIGKILL)


async def test_who_goes_on_talking_in_its_pipe_holds_nobody_up(folder: Folder) -> None:
    heard = 0
    async with running(StdioServerParameters(command="yes", args=["x" * 20_000]), Policy()) as process:
        async for line in process.lines():
            process.hang_up()
            time.sleep(0.001)  # noqa: ASYNC251  slower than the one that talks, so that there is always more
            heard += len(line)
            assert heard <= 2**20 + 2**16


async def test_a_process_that_reads_no_more_is_let_go(folder: Folder) -> None:
    async with client(folder.raw("deaf"), mode=MODERN, policy=Policy(first_delay=0.01, farewell=0.1)) as one:
        with anyio.fail_after(30):
            for _ in range(2):
                assert text_of(await one.call_tool("act")) == "done"
        first, _ = (int(pid) for pid in folder.heard() if pid.isdigit())
        await ended(first)


async def test_a_line_is_whole_although_its_sender_has_gone(folder: Folder) -> None:
    async with running(folder.python("piped_raw.py", "plain", str(folder.path / "log")), Policy()) as process:
        os.kill(process.pid, signal.SIGSTOP)
        long = json.dumps({"method": "x" * 300_000}).encode()
        with anyio.move_on_after(0.2) as waited:
            await process.write(long)
        assert waited.cancelled_caught
        with anyio.move_on_after(0.2):
            await process.write(json.dumps({"method": "never"}).encode())
        os.kill(process.pid, signal.SIGCONT)
        assert await process.write(json.dumps({"method": "next"}).encode())
        await folder.until("log", 3)
    assert folder.heard()[1:] == ["x" * 300_000, "next"]


async def test_a_process_that_will_not_end_is_ended(folder: Folder) -> None:
    async with client(folder.raw("stubborn"), mode=MODERN, policy=Policy(farewell=0.1)) as one:
        assert text_of(await one.call_tool("act")) == "done"
        (pid, *_) = folder.heard()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


async def test_a_pipe_may_have_another_encoding(folder: Folder) -> None:
    server = folder.raw("plain")
    server.encoding, server.env = "latin-1", {**folder.environment, "PYTHONIOENCODING": "latin-1"}
    async with client(server, mode=MODERN) as one:
        with anyio.fail_after(30):
            await one.call_tool("act", {"said": "h\u00e9"})
    assert any("h\u00e9" in line for line in folder.lines("log"))
    server.encoding = "utf-16"
    with pytest.raises(ServerUnavailable, match="the encoding 'utf-16' has no lines of bytes: MCP says UTF-8"):
        async with client(server):
            pass


async def test_what_is_not_of_its_encoding_harms_nothing_else(folder: Folder) -> None:
    server = folder.raw("foreign")
    server.encoding = "ascii"
    async with client(server, mode=MODERN) as one:
        with anyio.fail_after(30):
            assert text_of(await one.call_tool("act")) == "done"
            with pytest.raises(NotSent, match="this can't be said to the server: 'ascii' codec"):
                await one.call_tool("act", {"said": "h\u00e9"})
    server.encoding = "klingon"
    with pytest.raises(ServerUnavailable, match="there is no encoding 'klingon'"):
        async with client(server):
            pass


async def test_a_journal_takes_an_argument_that_is_no_text(folder: Folder) -> None:
    server = folder.raw("plain")
    server.args.append("\udcff")
    async with client(server, mode=MODERN, journal=folder.journal) as one:
        with anyio.fail_after(30):
            assert text_of(await one.call_tool("act")) == "done"


async def ended(pid: int) -> None:
    """Until there is no such process."""
    with anyio.fail_after(30), suppress(ProcessLookupError):
        while True:
            os.kill(pid, 0)
            await anyio.sleep(0.01)


async def _ignore(progress: float, total: float | None, message: str | None) -> None:
    """Nobody looks."""
