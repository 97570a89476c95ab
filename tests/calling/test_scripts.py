"""`milepost call` and `milepost resume` without a terminal, as scripts and CI use them, against real servers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calling.ptys import LIMIT, Ran, closed, environment, opened, program, script

pytestmark = pytest.mark.timeout(300)

ERAS = ["modern", "handshake"]
CHANGE = [{"leg": "1"}, {"day": "2027-03-23"}, {"flight": "MP103"}, {"go_ahead": True}]


def answers(folder: Path, given: Any) -> str:
    path = folder / f"answers-{os.urandom(3).hex()}.json"
    path.write_text(json.dumps(given))
    return str(path)


def test_without_a_tool_the_tools_are_listed_with_their_arguments(
    tmp_path: Path, here: Callable[..., Ran], counter: str
) -> None:
    ran = here("call", counter)
    assert (ran.code, ran.err) == (0, "")
    assert "fill  Asks a form of every kind of field.\n" in ran.out
    assert "    n: a whole number\n" in ran.out
    assert "    size: small | large, may be left out\n" in ran.out
    listed = json.loads((here("call", counter, "--json")).out)
    assert {"fill", "typed"} < {tool["name"] for tool in listed}


def test_arguments_are_read_by_the_tools_schema(tmp_path: Path, here: Callable[..., Ran], counter: str) -> None:
    flags = ["n=5", "ratio=2", "on=yes", 'tags=["a", "1"]', "size=large", "text=5", 'more={"x": 1}']
    ran = here("call", counter, "typed", *[part for flag in flags for part in ("--arg", flag)])
    assert (ran.code, ran.out) == (0, "(5, 2.0, True, ['a', '1'], 'large', '5', {'x': 1})\n")
    (tmp_path / "args.json").write_text('{"n": 7, "text": "from a file"}')
    ran = here("call", counter, "typed", "--args", "@args.json", "--arg", "n=8")
    assert (ran.code, ran.out) == (0, "(8, 0.5, False, None, 'small', 'from a file', None)\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["typd", "--arg", "n=1"], "the server has no tool 'typd': did you mean 'typed'?"),
        (["typed", "--arg", "txt=1", "--arg", "n=1"], "'typed' has no argument 'txt': did you mean 'text'?"),
        (["typed", "--arg", "n=one"], "the argument 'n' must be a whole number, such as 3"),
        (
            ["typed", "--arg", "n=1", "--arg", "size=big"],
            "the argument 'size' must be one of small or large, not 'big'",
        ),
        (["typed"], "'typed' needs --arg n='a whole number'"),
        (["typed", "--args", '{"n": "1"}'], "'typed' can't be called so: 'n' must be a whole number"),
        (["typed", "--args", '{"k": 1}'], "'typed' has no argument 'k'"),
        (["typed", "--args", "[1]"], "--args must be an object"),
        (["typed", "--args", "{"], "--args is not valid JSON"),
        (["typed", "--args", '{"text": "\\ud83d"}'], "--args is not valid JSON: it holds half a character"),
        (["typed", "--arg", "n=1", "--arg", "text=\udcff"], "the argument 'text' is no text in UTF-8"),
        (["typed", "--args", "@nowhere.json"], "nowhere.json can't be read: No such file or directory"),
        (["typed", "--arg", "n"], "'n' is not of the form name=value"),
        (["typed", "--arg", "n=1", "--arg", "n=2"], "the argument 'n' is given twice"),
        (["typed", "--arg", "n=1", "--timeout", "soon"], "--timeout: 'soon' is not a duration"),
        (["typed", "--arg", "n=1", "--timeout", "0"], "--timeout must be more than nothing"),
        (["typed", "--arg", "n=1", "--header", "nonsense"], "--header wants 'Name: value'"),
        (["typed", "--arg", "n=1", "--bearer-env", "NO_SUCH"], "the environment variable NO_SUCH holds no token"),
        (["typed", "--arg", "n=1", "--answers", "nowhere.json"], "nowhere.json can't be read"),
        (["typed", "--arg", "n=1", "--era", "stone"], "era"),
    ],
)
def test_what_can_be_mended_is_one_sentence_and_exit_code_2(
    counter: str, here: Callable[..., Ran], arguments: list[str], reason: str
) -> None:
    ran = here("call", counter, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert reason in ran.err
    assert ran.err.startswith("milepost: ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    "url", ["travel", "ftp://x/y", "http://", "http://a b/", "http://[", "http://x:99999/", "stdio"]
)
def test_what_is_no_address_is_refused_before_anything_is_tried(here: Callable[..., Ran], url: str) -> None:
    ran = here("call", url, "typed")
    assert (ran.code, ran.out) == (2, "")
    assert "is no address of a server" in ran.err


def test_a_tools_error_is_exit_code_1_and_its_words_are_the_result(
    tmp_path: Path, here: Callable[..., Ran], counter: str
) -> None:
    ran = here("call", counter, "fails")
    assert ran.code == 1
    assert "no seat is free" in ran.out
    ran = here("call", counter, "fails", "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["isError"] is True


def test_what_is_no_text_is_told_of_and_shown_as_json(tmp_path: Path, here: Callable[..., Ran], counter: str) -> None:
    ran = here("call", counter, "picture")
    assert (ran.code, ran.out) == (0, "")
    assert "something of type image: --json shows it" in ran.err
    ran = here("call", counter, "picture", "--json")
    assert json.loads(ran.out)["content"][0]["mimeType"] == "image/png"
    ran = here("call", counter, "structured")
    assert json.loads(ran.out) == {"a": 1}


@pytest.mark.parametrize("era", ERAS)
async def test_a_list_of_answers_drives_a_workflow_and_one_too_many_is_told(
    tmp_path: Path, travel: str, era: str
) -> None:
    given = answers(tmp_path, [*CHANGE, {"text": "Dear all"}, "decline"])
    ran = await script(
        tmp_path, "call", travel, "change_itinerary", "--arg", "pnr=QK7P2M", "--answers", given, "--era", era
    )
    assert ran.code == 0, ran.err
    receipt = json.loads(ran.out)
    assert (receipt["status"], receipt["booking"]["number"], receipt["letter"]) == ("changed", "MP103", "Dear all")
    assert "▸ awaiting_confirmation\n" in ran.err
    assert "✓ drafting_output  0." in ran.err
    assert "answers that no question asked for: 'answer 6'" in ran.err


def test_answers_by_question_need_no_order_and_without_a_model_none_is_asked(
    tmp_path: Path, here: Callable[..., Ran], travel: str
) -> None:
    given = {
        "held for you": {"action": "accept", "content": {"go_ahead": True}},
        "when do you want": {"day": "2027-03-23"},
        "q1": {"leg": "1"},
        "which one": {"flight": "MP103"},
        "never asked": "cancel",
    }
    ran = here("call", travel, "change_itinerary", "--arg", "pnr=QK7P2M", "--answers", answers(tmp_path, given))
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["letter"].startswith("Dear Amira Haddad")
    assert "answers that no question asked for: 'never asked'" in ran.err


@pytest.mark.parametrize("era", ERAS)
def test_a_question_that_nobody_answers_leaves_the_call_waiting_and_resume_goes_on(
    tmp_path: Path, here: Callable[..., Ran], travel: str, era: str
) -> None:
    given = answers(tmp_path, CHANGE[:2])
    ran = here("call", travel, "change_itinerary", "--arg", "pnr=QK7P2M", "--answers", given, "--era", era)
    assert (ran.code, ran.out) == (3, "")
    assert "nobody here can answer '3 flights on 2027-03-23: which one?'" in ran.err
    call_id = ran.err.partition("milepost resume ")[2].partition("`")[0]

    listed = json.loads((here("resume", "--list", "--json")).out)
    assert [(each["tool"], each["arguments"], each["server"], each["alive"]) for each in listed] == [
        ("change_itinerary", {"pnr": "QK7P2M"}, travel, False)
    ]
    assert [each["params"]["message"] for each in listed[0]["questions"]] == ["3 flights on 2027-03-23: which one?"]

    ran = here("resume", call_id, "--answers", answers(tmp_path, CHANGE[2:3]))
    assert (ran.code, ran.out) == (3, "")
    ran = here("resume", "--answers", answers(tmp_path, CHANGE[3:]))
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["booking"]["number"] == "MP103"
    ran = here("resume", "--list")
    assert (ran.code, ran.out) == (0, "")


def test_an_answer_that_breaks_the_form_is_never_sent(tmp_path: Path, here: Callable[..., Ran], travel: str) -> None:
    given = answers(tmp_path, [{"leg": "1"}, {"day": "tomorrow"}])
    ran = here("call", travel, "change_itinerary", "--arg", "pnr=QK7P2M", "--answers", given)
    assert (ran.code, ran.out) == (2, "")
    assert "'answer 2' of the answers file does not fit" in ran.err
    assert "'day' must be a date as year-month-day" in ran.err
    assert "the call is left waiting" in ran.err
    ran = here("resume", "--answers", answers(tmp_path, [{"day": "2027-03-23"}, "decline"]))
    assert (ran.code, json.loads(ran.out)["status"]) == (0, "unchanged")


@pytest.mark.parametrize("era", ERAS)
async def test_sigint_in_a_script_leaves_the_call_waiting(tmp_path: Path, counter: str, gate: Path, era: str) -> None:
    begun = closed(gate)
    process = await asyncio.create_subprocess_exec(
        program(), "call", counter, "work", "--arg", f"label=script {era}", "--era", era,
        env=environment(tmp_path), cwd=tmp_path,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(LIMIT):
        while not begun.exists():
            await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), LIMIT)
    assert (process.returncode, out) == (130, b"")
    assert b"the call is left waiting: go on with `milepost resume call-" in err
    opened(gate)
    ran = await script(tmp_path, "resume")
    assert (ran.code, ran.out) == (0, "done\n"), ran.err


def test_a_page_and_a_model_are_answered_from_the_file_too(
    tmp_path: Path, here: Callable[..., Ran], counter: str
) -> None:
    ran = here("call", counter, "visit", "--answers", answers(tmp_path, {"Pay": "accept"}))
    assert (ran.code, ran.out) == (0, "accept\n")
    given = answers(tmp_path, {"Write a letter": {"text": "Dear you"}})
    ran = here("call", counter, "letter", "--answers", given)
    assert (ran.code, ran.out) == (0, "a person: 'Dear you'\n")


def test_two_questions_at_a_time_each_get_their_own_answer(
    tmp_path: Path, here: Callable[..., Ran], counter: str
) -> None:
    given = answers(tmp_path, {"second": {"x": 2}, "first": {"x": 1}})
    ran = here("call", counter, "pair", "--answers", given)
    assert (ran.code, ran.out) == (0, "{'x': 1} {'x': 2}\n")


def test_the_working_directory_is_told_only_where_it_is_allowed(
    tmp_path: Path, here: Callable[..., Ran], counter: str
) -> None:
    ran = here("call", counter, "where")
    assert ran.code == 1
    assert str(tmp_path) not in ran.out
    ran = here("call", counter, "where", "--allow-roots")
    assert (ran.code, ran.out) == (0, f"{tmp_path.as_uri()}\n")
    assert f"told the server the working directory, {tmp_path}" in ran.err


def test_a_result_goes_into_a_file_to_the_letter_and_nothing_else_of_it_breaks_a_log(
    tmp_path: Path, here: Callable[..., Ran], counter: str
) -> None:
    ran = here("call", counter, "rude", "--answers", answers(tmp_path, ["decline"]))
    assert ran.code == 0
    assert "\x1b[2J\x1b]0;owned\x07[bold red]Hello[/]" in ran.out
    assert "\x1b" not in ran.err
    assert "\\x1b[2J\\x1b]0;owned\\x07[bold red]Hello[/]" in ran.err


def test_several_calls_are_gone_on_with_by_name_or_all_together_and_forgotten_on_request(
    tmp_path: Path, here: Callable[..., Ran], counter: str
) -> None:
    for n in range(3):
        assert (here("call", counter, "visit", "--arg", f"label={n}")).code == 3
    ran = here("resume")
    assert ran.code == 2
    assert "3 calls are waiting: name one, or say --all" in ran.err
    ids = [each["call_id"] for each in json.loads((here("resume", "--list", "--json")).out)]
    assert (here("resume", ids[0], "--forget")).code == 0
    ran = here("resume", "--all", "--json", "--answers", answers(tmp_path, ["accept", "decline"]))
    assert ran.code == 0, ran.err
    assert [(each["call_id"], each["result"]["content"][0]["text"]) for each in json.loads(ran.out)] == [
        (ids[1], "accept"),
        (ids[2], "decline"),
    ]
    ran = here("resume", "--all")
    assert (ran.code, ran.out) == (0, "")
    assert "nothing is waiting" in ran.err
    ran = here("resume", "call-nowhere")
    assert ran.code == 2
    assert "no call 'call-nowhere' is waiting" in ran.err


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_result_that_can_not_be_written_is_told_and_is_exit_code_4(
    tmp_path: Path, counter: str, flags: list[str]
) -> None:
    with Path(os.devnull).open("rb") as unwritable:  # as a full disk is, at the first byte
        done = subprocess.run(
            [program(), "call", counter, "typed", "--arg", "n=1", *flags], cwd=tmp_path, env=environment(tmp_path),
            stdin=subprocess.DEVNULL, stdout=unwritable, stderr=subprocess.PIPE, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
    told = "milepost: the call has ended, but its result can't be written: Bad file descriptor\n"
    assert (done.returncode, done.stderr) == (4, told)


def test_a_key_in_a_servers_url_is_not_shown(tmp_path: Path, here: Callable[..., Ran], counter: str) -> None:
    assert (here("call", f"{counter}?key=s3cret", "visit", "--arg", "label=key")).code == 3
    listed = here("resume", "--list").out
    assert f" at {counter}?…, begun" in listed
    ran = here("resume", "--answers", answers(tmp_path, ["accept"]))
    assert (ran.code, ran.out) == (0, "accept\n")
    assert "s3cret" not in listed + ran.err


def test_the_journal_is_the_users_alone(tmp_path: Path, here: Callable[..., Ran], counter: str) -> None:
    here("call", counter, "visit", "--arg", "label=journal")
    journal = tmp_path / "state" / "milepost" / "client.db"
    assert journal.stat().st_mode & 0o777 == 0o600
    assert journal.parent.stat().st_mode & 0o777 == 0o700
    ran = here("call", counter, "visit", "--arg", "label=own", "--journal", "sqlite:///own.db")
    assert "--journal sqlite:///own.db`" in ran.err
    assert len(json.loads((here("resume", "--list", "--json", "--journal", "sqlite:///own.db")).out)) == 1


def test_a_token_is_never_shown_and_asked_for_again_by_its_variable(
    tmp_path: Path, here: Callable[..., Ran], counter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "secret-token")
    ran = here("call", counter, "visit", "--arg", "label=token",
        "--bearer-env", "TOKEN", "--header", "X-Team: secret-team",
    )  # fmt: skip
    assert ran.code == 3
    assert "--header 'X-Team: ...' --bearer-env TOKEN`" in ran.err
    assert "secret" not in ran.err
    journal = tmp_path / "state" / "milepost" / "client.db"
    assert b"secret-t" not in b"".join(
        path.read_bytes() for path in journal.parent.glob("client.db*") if path.is_file()
    )
