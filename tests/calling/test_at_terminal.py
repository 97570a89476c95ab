"""`milepost call` and `milepost resume` as real processes at a pseudo-terminal, against real servers, on both eras."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from calling.ptys import LIMIT, AtTerminal, at_terminal, closed, opened, script
from processes import ServerProcess, served

pytestmark = pytest.mark.timeout(300)

ERAS = ["modern", "handshake"]
LEAVE = "  c, l or g ›"


async def answers(person: AtTerminal, *pairs: tuple[str, str]) -> None:
    """At each of these prompts, type the line."""
    for prompt, line in pairs:
        await person.sees(prompt)
        await person.sees("›")
        person.types(line)


TO_CONSENT = (("Which flight?", "1"), ("Day of travel", "2027-03-23"), ("Flight (a number)", "1"))
FROM_CONSENT = (("Go ahead?", "yes"), ("your model", "Dear you"), ("  ", ""))


@pytest.mark.parametrize("era", ERAS)
async def test_a_person_changes_a_trip(tmp_path: Path, travel: str, era: str) -> None:
    async with at_terminal(tmp_path, "call", travel, "change_itinerary", "--era", era) as person:
        await answers(person, ("Pnr", "QK7P2M"), ("Which flight?", "1"), ("Day of travel", "next week"))
        await person.sees("It must be a date as year-month-day, such as 2027-03-20.")
        await answers(person, ("Day of travel", "2028-01-01"))
        await person.sees("2028-01-01 is not between 2027-03-01 and 2027-04-30")
        await answers(person, ("Day of travel", "2027-03-23"), ("Flight (a number)", "1"), *FROM_CONSENT)
        assert await person.ends() == 0
        receipt = json.loads(person.result)
        assert (receipt["status"], receipt["letter"]) == ("changed", "Dear you")
        await person.sees("✓ drafting_output")


async def test_a_declined_question_is_the_tools_to_deal_with(tmp_path: Path, travel: str) -> None:
    async with at_terminal(tmp_path, "call", travel, "change_itinerary", "--arg", "pnr=QK7P2M") as person:
        await answers(person, *TO_CONSENT, ("Go ahead?", "/decline"))
        assert await person.ends() == 0
        assert json.loads(person.result)["status"] == "unchanged"


@pytest.mark.parametrize("era", ERAS)
async def test_a_person_who_declines_to_write_for_a_model_gets_the_tool_on(
    tmp_path: Path, travel: str, era: str
) -> None:
    async with at_terminal(tmp_path, "call", travel, "change_itinerary", "--arg", "pnr=QK7P2M", "--era", era) as person:
        await answers(person, *TO_CONSENT, ("Go ahead?", "yes"), ("your model", "/decline"))
        assert await person.ends() == 0
        assert json.loads(person.result)["letter"].startswith("Dear Amira Haddad")


# --- Ctrl-C --------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
async def test_ctrl_c_and_going_on_asks_the_question_again(tmp_path: Path, counter: str, era: str) -> None:
    async with at_terminal(tmp_path, "call", counter, "visit", "--arg", f"label=1 {era}", "--era", era) as person:
        await person.sees("done, decline or cancel? ›")
        person.interrupts()
        await person.sees("Interrupted: cancel it, leave it waiting, or go on?")
        await answers(person, ("c, l or g", "g"), ("done, decline or cancel?", "done"))
        assert (await person.ends(), person.result) == (0, "accept\n")


@pytest.mark.parametrize("era", ERAS)
async def test_ctrl_c_and_leaving_it_can_be_resumed(tmp_path: Path, travel: str, era: str) -> None:
    async with at_terminal(tmp_path, "call", travel, "change_itinerary", "--arg", "pnr=QK7P2M", "--era", era) as person:
        await answers(person, *TO_CONSENT)
        await person.sees("Go ahead? (yes or no) ›")
        person.interrupts()
        await answers(person, ("c, l or g", "l"))
        await person.sees("the call is left waiting: go on with `milepost resume call-")
        assert (await person.ends(), person.result) == (130, "")
    async with at_terminal(tmp_path, "resume") as person:
        await person.sees("change_itinerary")
        await answers(person, *FROM_CONSENT)
        assert await person.ends() == 0
        assert json.loads(person.result)["status"] == "changed"


@pytest.mark.parametrize("era", ERAS)
async def test_a_second_ctrl_c_leaves_it_at_once(tmp_path: Path, counter: str, era: str) -> None:
    async with at_terminal(tmp_path, "call", counter, "visit", "--arg", f"label=2 {era}", "--era", era) as person:
        await person.sees("done, decline or cancel? ›")
        person.interrupts()
        await person.sees(LEAVE)
        person.interrupts()
        await person.sees("the call is left waiting: go on with `milepost resume call-")
        assert await person.ends() == 130
    ran = await script(tmp_path, "resume", "--answers", answers_file(tmp_path, '["decline"]'))
    assert (ran.code, ran.out) == (0, "decline\n")


def answers_file(folder: Path, content: str) -> str:
    (folder / "answers.json").write_text(content)
    return "answers.json"


@pytest.mark.parametrize("flags", [[], ["--json"]])
async def test_of_several_calls_each_result_is_there_though_the_next_is_killed(
    tmp_path: Path, counter: str, flags: list[str]
) -> None:
    for label in ("first", "second"):
        assert (await script(tmp_path, "call", counter, "visit", "--arg", f"label={label}{flags}")).code == 3
    given = ["--answers", answers_file(tmp_path, '["accept"]')]
    async with at_terminal(tmp_path, "resume", "--all", *given, *flags) as person:
        await person.sees("done, decline or cancel? ›")
        person.process.kill()
        await person.process.wait()
        assert '"text": "accept"' in person.result if flags else person.result == "accept\n"


@pytest.mark.parametrize(("era", "state"), [("modern", "completed"), ("handshake", "cancelled")])
async def test_ctrl_c_and_cancelling_ends_the_run_and_frees_the_held_seat(tmp_path: Path, era: str, state: str) -> None:
    """In the modern era the open question is closed, and the tool says what that comes to; both give the seat back."""
    async with a_server(tmp_path) as server:
        async with at_terminal(
            tmp_path, "call", server.url, "change_itinerary", "--arg", "pnr=QK7P2M", "--era", era
        ) as person:
            await answers(person, *TO_CONSENT)
            await person.sees("Go ahead? (yes or no) ›")
            person.interrupts()
            await answers(person, ("c, l or g", "c"))
            code = await person.ends()
        if era == "modern":
            assert (code, json.loads(person.result)["status"]) == (0, "unchanged")
        else:
            assert (code, person.result) == (130, "")
        async with asyncio.timeout(LIMIT):
            while held_seats(tmp_path):
                await asyncio.sleep(0.1)
            while (found := await states(tmp_path, server)) != [state]:
                assert found != ["completed"] or state == "completed"
                await asyncio.sleep(0.1)
    assert (await script(tmp_path, "resume", "--list")).out == ""


def held_seats(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "travel.db")) as db:
        return int(db.execute("SELECT count(*) FROM seats WHERE state = 'held'").fetchone()[0])


async def states(folder: Path, server: ServerProcess) -> list[str]:
    ran = await script(folder, "runs", "list", "--json", "--store", server.store)
    return [run["state"] for run in json.loads(ran.out)]


@pytest.mark.parametrize("choice", ["c", "l", "g"])
async def test_ctrl_c_while_the_tool_works_asks_too(tmp_path: Path, counter: str, gate: Path, choice: str) -> None:
    begun = closed(gate)
    async with at_terminal(
        tmp_path, "call", counter, "work", "--arg", f"label={choice}", "--era", "handshake"
    ) as person:
        await person.sees("calling_tools")
        async with asyncio.timeout(LIMIT):
            while not begun.exists():
                await asyncio.sleep(0.05)
        person.interrupts()
        await answers(person, ("c, l or g", choice))
        if choice == "g":
            opened(gate)
        assert await person.ends() == (0 if choice == "g" else 130)
        assert person.result == ("done\n" if choice == "g" else "")
    opened(gate)
    ran = await script(tmp_path, "resume")
    assert (ran.code, ran.out) == (0, "done\n" if choice == "l" else "")


async def test_ctrl_c_before_anything_was_called_just_ends(tmp_path: Path, counter: str) -> None:
    async with at_terminal(tmp_path, "call", counter, "typed") as person:
        await person.sees("(a whole number) ›")
        person.interrupts()
        await person.sees("nothing was called")
        assert (await person.ends(), person.result) == (130, "")
    assert (await script(tmp_path, "resume", "--list")).out == ""


async def test_the_end_of_input_and_a_command_leave_it_waiting(tmp_path: Path, counter: str) -> None:
    async with at_terminal(tmp_path, "call", counter, "visit", "--arg", "label=3") as person:
        await person.sees("done, decline or cancel? ›")
        person.hangs_up()
        await person.sees("milepost resume call-")
        assert await person.ends() == 3
    async with at_terminal(tmp_path, "resume") as person:
        await answers(person, ("done, decline or cancel?", "/leave"))
        assert await person.ends() == 3
    async with at_terminal(tmp_path, "resume") as person:
        await answers(person, ("done, decline or cancel?", "done"))
        assert (await person.ends(), person.result) == (0, "accept\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_from_outside_leaves_it_waiting(tmp_path: Path, counter: str, number: int) -> None:
    async with at_terminal(tmp_path, "call", counter, "visit", "--arg", f"label=4 {number}") as person:
        await person.sees("done, decline or cancel? ›")
        os.kill(person.process.pid, number)
        assert await person.ends() == 130
    assert "visit" in (await script(tmp_path, "resume", "--list")).out


# --- what breaks ---------------------------------------------------------------------------------


@asynccontextmanager
async def a_server(folder: Path) -> AsyncIterator[ServerProcess]:
    """A travel assistant of its own, to be killed."""
    env = {"TRAVEL_OPS_DB": str(folder / "travel.db")}
    async with served("examples/travel_ops/server.py:mcp", folder, env=env) as server:
        yield server


@pytest.mark.parametrize("era", ERAS)
async def test_a_server_that_is_killed_while_a_person_thinks_is_not_noticed(tmp_path: Path, era: str) -> None:
    async with (
        a_server(tmp_path) as server,
        at_terminal(tmp_path, "call", server.url, "change_itinerary", "--arg", "pnr=QK7P2M", "--era", era) as person,
    ):
        await answers(person, *TO_CONSENT)
        await person.sees("Go ahead? (yes or no) ›")
        await server.restart()
        person.types("yes")
        await answers(person, *FROM_CONSENT[1:])
        assert await person.ends() == 0
        assert json.loads(person.result)["status"] == "changed"
        assert person.everything.count("Go ahead?") == 1
    assert effects(tmp_path) == ["hold_seat", "rebook", "send_letter"]


def effects(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "travel.db")) as db:
        return [kind for (kind,) in db.execute("SELECT kind FROM effects ORDER BY n")]


@pytest.mark.parametrize("era", ERAS)
async def test_an_answer_that_meets_no_server_is_told_of_and_sent_when_there_is_one(tmp_path: Path, era: str) -> None:
    async with (
        a_server(tmp_path) as server,
        at_terminal(tmp_path, "call", server.url, "change_itinerary", "--arg", "pnr=QK7P2M", "--era", era) as person,
    ):
        await answers(person, *TO_CONSENT)
        await person.sees("Go ahead? (yes or no) ›")
        await server.kill()
        person.types("yes")
        await person.sees("trying again")
        await server.start()
        await answers(person, *FROM_CONSENT[1:])
        assert await person.ends() == 0
        assert json.loads(person.result)["status"] == "changed"
    assert effects(tmp_path) == ["hold_seat", "rebook", "send_letter"]


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_that_is_killed_is_gone_on_with_and_asks_nothing_twice(
    tmp_path: Path, travel: str, era: str
) -> None:
    async with at_terminal(tmp_path, "call", travel, "change_itinerary", "--arg", "pnr=QK7P2M", "--era", era) as person:
        await answers(person, *TO_CONSENT)
        await person.sees("Go ahead? (yes or no) ›")
        os.kill(person.process.pid, signal.SIGKILL)
        assert await person.ends() == -signal.SIGKILL
    async with at_terminal(tmp_path, "resume") as person:
        await answers(person, *FROM_CONSENT)
        assert await person.ends() == 0
        assert "Day of travel" not in person.everything
        assert json.loads(person.result)["status"] == "changed"


async def test_a_call_that_another_process_drives_is_not_taken_from_it(tmp_path: Path, counter: str) -> None:
    async with at_terminal(tmp_path, "call", counter, "visit", "--arg", "label=5") as person:
        await person.sees("done, decline or cancel? ›")
        ran = await script(tmp_path, "resume", "--list")
        assert "visit" in ran.out
        assert "being gone on with" in ran.out
        ran = await script(tmp_path, "resume", ran.out.split()[0])
        assert ran.code == 2
        assert "is being gone on with by another process" in ran.err
        person.types("done")
        assert (await person.ends(), person.result) == (0, "accept\n")


async def test_of_several_calls_the_person_picks_one(tmp_path: Path, counter: str) -> None:
    for tool in ("visit", "letter"):
        await script(
            tmp_path, "call", counter, tool, "--answers", answers_file(tmp_path, '{"never asked": {"text": "x"}}')
        )
    async with at_terminal(tmp_path, "resume") as person:
        await person.sees("2 calls are waiting.")
        await answers(person, ("Which one", "2"), ("your model", "Dear you"), ("  ", ""))
        assert (await person.ends(), person.result) == (0, "a person: 'Dear you'\n")


# --- what a server may not do --------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
async def test_no_server_moves_the_cursor_or_forges_a_line(tmp_path: Path, counter: str, era: str) -> None:
    async with at_terminal(tmp_path, "call", counter, "rude", "--era", era) as person:
        await answers(person, ("[bold red]Hello[/]", "/skip"))
        assert await person.ends() == 0
        await person.sees("stage")
        for bad in ("\x1b[2Js", "\x1b]0;owned", "\x9b", "\u202e"):
            assert bad not in person.everything
        assert "\\x1b[2J\\x1b]0;owned\\x07[bold red]Hello[/] \\u202egnp.exe\\x9b31m" in person.everything


async def test_two_questions_at_a_time_are_asked_one_after_the_other(tmp_path: Path, counter: str) -> None:
    async with at_terminal(tmp_path, "call", counter, "pair") as person:
        await answers(person, ("The first number", "1"), ("The second number", "2"))
        assert (await person.ends(), person.result) == (0, "{'x': 1} {'x': 2}\n")
