"""`milepost` on the command line: what it prints, and the one sentence and exit code 2 for what a user can mend."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp_types import ElicitResult

from host.travel_src import FAST, FAST_TOML, TRAVEL
from host.writing import SERVER, write
from milepost import cli, operate
from milepost.app import Milepost
from milepost.core.errors import ConfigurationError
from milepost.core.outside import Action, ActionKind
from milepost.core.records import CallContext, Event, Stream
from milepost.core.states import UNFINISHED, RunState
from milepost.store.url import open_store
from processes import free_port

STORE = "sqlite:///runs.db"

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")


@pytest.fixture
def travel(folder: Path) -> Path:
    (folder / "travel_cli.py").write_text(TRAVEL)
    return folder


def say(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process: (exit code, stdout, stderr)."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    out = capsys.readouterr()
    return int(caught.value.code or 0), out.out, out.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a refused command says: one line, exit code 2."""
    code, out, err = say(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("milepost: ")
    assert err.count("\n") == 1
    return err


def a_waiting_run(tool: str = "plan", arguments: dict[str, Any] | None = None) -> str:
    """Call a workflow of the travel server until it asks, then stop the server; its run's id."""

    async def work() -> str:
        app = Milepost("travel_cli:mcp", store=STORE)
        async with asyncio.timeout(20), app.running() as parts:
            call = CallContext(tool, arguments or {"pnr": "X1"}, 1, "2025-11-25", capabilities={"sampling": {}})
            stream = await parts.runs.call(call, Stream(secrets.token_urlsafe(12), "", 1))
            with parts.runs.feed(stream.run_id) as feed:
                while (event := await feed.next(5)) is not None:
                    if isinstance(event, Event) and event.body.get("state") == "waiting":
                        return stream.run_id
            raise AssertionError("it never asked")

    return asyncio.run(work())


def finish(run_id: str) -> dict[str, Any]:
    """Start the server again until the run is final; its outcome."""

    async def work() -> dict[str, Any]:
        app = Milepost("travel_cli:mcp", store=STORE)
        async with asyncio.timeout(20), app.running() as parts:
            with parts.runs.feed(run_id) as feed:
                while not feed.over:
                    await feed.next(5)
            run = await parts.runs.run(run_id)
            assert run is not None
            assert run.outcome is not None
            outcome: dict[str, Any] = json.loads(run.outcome)
            return outcome

    return asyncio.run(work())


# --- runs ----------------------------------------------------------------------------------------


def test_runs_are_listed_shown_and_answered_while_no_server_runs(
    travel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = a_waiting_run()
    code, out, _ = say(capsys, "runs", "list", "--store", STORE)
    assert code == 0
    assert run_id in out
    assert "waiting" in out
    code, out, _ = say(capsys, "runs", "list", "waiting", "--json", "--store", STORE)
    assert [line["run_id"] for line in json.loads(out)] == [run_id]
    _, out, _ = say(capsys, "runs", "show", run_id, "--store", STORE)
    for part in (run_id, "When do you want to fly?", "day: string", "seats: integer", "stage_begin", '"pnr": "X1"'):
        assert part in out
    code, out, _ = say(capsys, "runs", "answer", run_id[-8:], "day=Friday", "seats=3", "window=true", "--store", STORE)
    assert (code, out) == (0, f"question 1 of {run_id}: accepted\n")
    assert finish(run_id)["result"]["content"][0]["text"] == "booked 3 on Friday"
    _, out, _ = say(capsys, "runs", "show", run_id, "--json", "--store", STORE)
    whole = json.loads(out)
    assert whole["state"] == "completed"
    assert whole["questions"][0]["via"] == "operator"
    assert whole["outcome"]["result"]["content"][0]["text"] == "booked 3 on Friday"
    _, out, _ = say(capsys, "runs", "show", run_id, "--store", STORE)
    assert "Outcome" in out


def test_declining_is_an_answer_and_a_second_one_is_told_that_it_is_closed(
    travel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = a_waiting_run()
    assert say(capsys, "runs", "answer", run_id, "--decline", "--store", STORE)[0] == 0
    assert "has no open question" in refused(capsys, "runs", "answer", run_id, "--cancel", "--store", STORE)
    said = refused(capsys, "runs", "answer", run_id, "--cancel", "--question", "1", "--store", STORE)
    assert "question 1 is closed" in said
    assert "has no question 9" in refused(capsys, "runs", "answer", run_id, "--question", "9", "--store", STORE)
    assert finish(run_id)["result"]["content"][0]["text"] == "decline"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["seats=3"], "day"),
        (["day=x", "seats=many"], "seats"),
        (["day"], "'day' is not of the form name=value"),
        (["--json", "{"], "--json is not valid JSON"),
        (["--json", "[]"], "--json must be an object"),
        (["--json", "{}"], "'action' must be one of"),
    ],
)
def test_a_wrong_answer_is_not_recorded_and_says_why(
    travel: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    run_id = a_waiting_run()
    assert says in refused(capsys, "runs", "answer", run_id, *arguments, "--store", STORE)
    assert say(capsys, "runs", "answer", run_id, "day=Monday", "--store", STORE)[0] == 0


def test_sampling_is_answered_with_its_whole_result(travel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = a_waiting_run("letter", {})
    assert "give its result as --json" in refused(capsys, "runs", "answer", run_id, "--store", STORE)
    result = json.dumps({"role": "assistant", "model": "me", "content": {"type": "text", "text": "Dear"}})
    assert say(capsys, "runs", "answer", run_id, "--json", result, "--store", STORE)[0] == 0
    assert finish(run_id)["result"]["content"][0]["text"] == "Dear"


def test_a_run_is_cancelled_and_can_not_be_retried(travel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = a_waiting_run()
    assert "only a run that is stuck or parked" in refused(capsys, "runs", "retry", run_id, "--store", STORE)
    code, out, _ = say(capsys, "runs", "cancel", run_id, "--store", STORE)
    assert (code, out) == (0, f"{run_id} is cancelling\n")
    finish(run_id)
    _, out, _ = say(capsys, "runs", "list", "final", "--store", STORE)
    assert "cancelled" in out
    _, out, _ = say(capsys, "runs", "list", "open", "--store", STORE)
    assert "No runs." in out


def test_a_parked_run_is_retried(travel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = a_waiting_run()

    async def park() -> None:
        store = open_store(STORE)
        await store.open()
        await store.steer(run_id, Action(ActionKind.PARK))
        await store.aclose()

    asyncio.run(park())
    code, out, _ = say(capsys, "runs", "retry", run_id, "--store", STORE)
    assert (code, out) == (0, f"{run_id} is ready\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list", "sleeping"], "there is no state 'sleeping': use one of open, final, ready"),
        (["show", "run-unknown"], "there is no run 'run-unknown'"),
        (["show"], "requires an argument"),
        (["cancel", "run-"], "2 runs are named like 'run-'"),
    ],
)
def test_what_does_not_exist_is_named(
    travel: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    a_waiting_run()
    a_waiting_run(arguments={"pnr": "X2"})
    assert says in refused(capsys, "runs", *arguments, "--store", STORE)


def test_reading_makes_no_store(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no store at" in refused(capsys, "runs", "list", "--store", STORE)
    assert list(folder.iterdir()) == []


def test_states_are_named_alone_or_in_groups() -> None:
    assert operate.states_named([]) is None
    assert operate.states_named(["open"]) == UNFINISHED
    assert operate.states_named(["stuck", "failed"]) == {RunState.STUCK, RunState.FAILED}
    with pytest.raises(ConfigurationError):
        operate.states_named(["x"])


# --- lanes, and errors ---------------------------------------------------------------------------


def test_lanes_are_listed_in_three_forms(travel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "asking > booking" in say(capsys, "lanes", "travel_cli:mcp")[1]
    assert json.loads(say(capsys, "lanes", "travel_cli.py", "--format", "json")[1])["server"] == "travel"
    assert "| plan | stateful |" in say(capsys, "lanes", "travel_cli:mcp", "--format", "markdown")[1]


def test_lanes_know_what_milepost_toml_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "fast_srv.py").write_text(FAST)
    (folder / "milepost.toml").write_text(FAST_TOML)
    body = json.loads(say(capsys, "lanes", "fast_srv:mcp", "--format", "json")[1])
    assert [(t["tool"], t["lane"], t["why"]) for t in body["tools"]] == [("trip", "stateful", "milepost.toml")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve", "nowhere_y:mcp"], "does not import: there is no module 'nowhere_y'"),
        (["serve"], "--target requires an argument"),
        (["serve", "travel_cli:mcp", "--port", "x"], "Invalid value"),
        (["serve", "travel_cli:mcp", "--port", "0", "--store", "mysql://x"], "has no scheme that is known"),
        (["serve", "travel_cli:mcp", "--config", "gone.toml"], "there is no file gone.toml"),
        (["serve", "travel_cli:mcp", "--stor", "x"], "Unknown option"),
        (["lanes", "travel_cli:nope"], "has no 'nope'. Servers in it: mcp"),
        (["lanes", "travel_cli:mcp", "--format", "xml"], "Invalid value"),
        (["bogus"], "Unknown command"),
    ],
)
def test_a_wrong_command_is_one_sentence_and_exit_code_2(
    travel: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert says in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("shop_that_is_not.py:mcp", "there is no file"),
        ("nowhere_at_all:mcp", "there is no module 'nowhere_at_all'"),
        ("broken.py:mcp", "not_installed_anywhere"),
        ("half.py:mcp", "line 1"),
        ("shop.py:server", "Servers in it: mcp"),
        ("shop.py:LEDGER", "not an MCPServer"),
    ],
)
def test_a_target_that_does_not_import_says_why(
    folder: Path, capsys: pytest.CaptureFixture[str], target: str, says: str
) -> None:
    write(folder, "shop.py", SERVER + "LEDGER = 'ledger'\n")
    write(folder, "broken.py", "import milepost\nimport not_installed_anywhere\n")
    write(folder, "half.py", "mcp = (\n")
    assert says in refused(capsys, "serve", target, "--port", "0")
    assert not (folder / "milepost.db").exists()


def test_a_port_in_use_is_one_sentence(travel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert "is in use" in refused(capsys, "serve", "travel_cli:mcp", "--port", port)


def test_a_store_that_can_not_be_written_is_one_sentence(travel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (travel / "locked.db").write_text("this is no database, and far too short to be one")
    said = refused(capsys, "serve", "travel_cli:mcp", "--port", "0", "--store", "sqlite:///locked.db")
    assert "locked.db" in said


def test_a_store_of_a_newer_release_is_one_sentence(travel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_waiting_run()
    with contextlib.closing(sqlite3.connect("runs.db")) as database, database:
        database.execute("UPDATE store SET schema = 999, min_reader = 999")
    for arguments in (["serve", "travel_cli:mcp", "--port", "0"], ["runs", "list"]):
        assert "Upgrade Milepost" in refused(capsys, *arguments, "--store", STORE)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert say(capsys, "--version")[1].strip()


# --- real processes ------------------------------------------------------------------------------


@contextmanager
def server(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`milepost serve` as a process of its own; (process, URL). Killed at the end if it still runs."""
    command = [sys.executable, "-m", "milepost", "serve", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("milepost: serving "):
                break
        else:
            raise AssertionError(f"it did not start: {''.join(said)}")
        yield process, line.removeprefix("milepost: serving ").strip()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        process.stderr.close()


def test_an_unchanged_fastmcp_tool_survives_sigkill_between_its_questions(folder: Path) -> None:
    (folder / "fast_srv.py").write_text(FAST)
    (folder / "milepost.toml").write_text(FAST_TOML)
    port = str(free_port())
    asked: list[str] = []
    later: list[Any] = []

    async def work(process: subprocess.Popen[str], url: str) -> str:
        async def on(_context: Any, params: Any) -> ElicitResult:
            asked.append(params.message)
            if params.message == "When?":
                return ElicitResult(action="accept", content={"value": "Monday"})
            process.kill()
            process.wait(10)
            again = server("fast_srv:mcp", "--port", port)
            later.append((again, again.__enter__()))
            return ElicitResult(action="accept", content={"value": True})

        async with Client(url, mode="2026-07-28", elicitation_callback=on) as client:
            return str((await client.call_tool("trip", {})).content[0].text)

    try:
        with server("fast_srv:mcp", "--port", port) as (process, url):
            assert asyncio.run(asyncio.wait_for(work(process, url), 40)) == "held Monday True"
        assert asked == ["When?", "Sure?"]
        ((_, (second, _)),) = later
        second.send_signal(signal.SIGTERM)
        assert second.wait(20) == 0
    finally:
        for manager, _ in later:
            manager.__exit__(None, None, None)


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_workflow_is_served_over_stdin_and_stdout(travel: Path, mode: str) -> None:
    async def on(_context: Any, _params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"day": "Monday"})

    arguments = ["-m", "milepost", "serve", "travel_cli:mcp", "--stdio"]
    child = StdioServerParameters(command=sys.executable, args=arguments, cwd=travel)
    with (travel / "errors").open("w") as errors:
        async with (
            asyncio.timeout(40),
            Client(stdio_client(child, errors), mode=mode, elicitation_callback=on) as client,
        ):
            result = await client.call_tool("plan", {"pnr": "X1"})
    assert result.content[0].text == "booked 1 on Monday"


def test_sigterm_ends_stdio_too(travel: Path) -> None:
    command = [sys.executable, "-m", "milepost", "serve", "travel_cli:mcp", "--stdio", "--log", "json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        initialize = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        process.stdin.write(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": initialize}) + "\n"
        )
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_the_demo_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "demo" in say(capsys, "--help")[1]


@pytest.mark.parametrize("command", ["call", "resume"])
def test_the_exit_codes_of_a_call_stand_in_its_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    told = " ".join(say(capsys, command, "--help")[1].split())
    assert "Exit code: 0 the result is on stdout; 1 the tool or its server said no; 2 nothing was done" in told


HANGING = """
import asyncio
from milepost import step, workflow
from mcp.server import MCPServer

mcp = MCPServer("hanging")


@step
async def never() -> None:
    print("begun", flush=True)
    await asyncio.Event().wait()


@mcp.tool()
@workflow
async def hang() -> str:
    await never()
    return "done"
"""


def test_a_second_sigterm_does_not_wait_for_steps_in_flight(folder: Path) -> None:
    (folder / "hanging.py").write_text(HANGING)
    command = [sys.executable, "-m", "milepost", "serve", "hanging:mcp", "--port", "0", "--log", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            url = next(line for line in process.stderr if "serving" in line).removeprefix("milepost: serving ").strip()
            calling = asyncio.Runner()
            calling.get_loop().create_task(_call_and_forget(url))
            calling.run(asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 20))
            process.send_signal(signal.SIGTERM)
            assert any('"draining"' in line for line in process.stderr)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 128 + signal.SIGTERM
            calling.close()
        finally:
            process.kill()


async def _call_and_forget(url: str) -> None:
    async with Client(url, mode="legacy") as client:
        await client.call_tool("hang", {})


def test_sigterm_ends_the_process_with_0_and_ctrl_c_too(travel: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with server("travel_cli:mcp", "--port", "0") as (process, _):
            process.send_signal(number)
            assert process.wait(20) == 0
