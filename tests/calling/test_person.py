"""One question at a real terminal (a pseudo-terminal in this process): what is shown, typed, and answered."""

from __future__ import annotations

import asyncio
import os
import re
import termios
import threading
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import pytest
from rich.console import Console
from rich.text import Text

from calling.counter import EVERYTHING, FORGED
from milepost.calling.forms import Choice, Field, Kind, fields_of
from milepost.calling.person import Leave, Person, Said
from milepost.calling.screen import Screen
from milepost.calling.terminal import Hangup, Keyboard, Terminal

T = TypeVar("T")
LIMIT = 20.0


@dataclass
class Desk:
    """Both ends of a terminal."""

    person: Person
    terminal: Terminal
    master: int
    shown: str = ""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def read(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read until the other end is closed; in a thread, for writing to a terminal waits until it is read."""
        while True:
            try:
                part = os.read(self.master, 65536).decode(errors="replace")
            except OSError:
                return
            self.shown += part
            loop.call_soon_threadsafe(self._news.set)

    async def sees(self, text: str, times: int = 1) -> None:
        async with asyncio.timeout(LIMIT):
            while plain(self.shown).count(text) < times:
                self._news.clear()
                await self._news.wait()

    async def answers(self, asked: Awaitable[T], *typed: str) -> T:
        """Type one line at each prompt; what the question comes to."""
        task = asyncio.ensure_future(asked)
        before = self.shown.count("›")
        for n, each in enumerate(typed, start=1):
            await self.sees("›", before + n)
            os.write(self.master, each.encode() if each == "\x04" else f"{each}\n".encode())
        return await asyncio.wait_for(task, LIMIT)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (40, 100))
    with os.fdopen(slave, "r+b", buffering=0) as own, os.fdopen(os.dup(slave), "w") as screen:
        console = Console(file=screen, force_terminal=True, width=100, highlight=False, color_system="standard")
        terminal = Terminal(Screen(console), Keyboard(own.fileno()))
        both = Desk(Person(terminal), terminal, master)
        reading = threading.Thread(target=both.read, args=[asyncio.get_running_loop()])
        reading.start()
        yield both
    await asyncio.to_thread(reading.join)
    os.close(master)


TEXT = Field("x", Kind.TEXT, required=True)


async def test_a_form_is_filled_in_field_by_field_and_reviewed(desk: Desk) -> None:
    form = desk.person.fill_in("All about your trip", fields_of(EVERYTHING))
    said = await desk.answers(form, "Amira", "", "", "y", "2", "1, 2", "")
    assert said == Said("accept", {"name": "Amira", "nights": 3, "window": True, "class": "b", "bags": ["s", "l"]})
    shown = plain(desk.shown)
    assert "? All about your trip" in shown
    assert "Your name (2 to 10 characters) ›" in shown
    assert "mail (an email address, such as name@example.org, may be empty) ›" in shown
    assert "nights (a whole number, 1 to 21) [3] ›" in shown
    assert "window (yes or no, may be empty) [no] ›" in shown
    assert "  2  Business" in shown
    assert "6  bags: Small, Large" in shown
    assert "2  mail: (empty)" in shown


async def test_what_breaks_a_limit_is_asked_again_with_the_reason(desk: Desk) -> None:
    nights = Field("nights", Kind.INTEGER, required=True, least=1, most=21)
    said = await desk.answers(desk.person.fill_in("How long?", [nights]), "30", "three", "", "3")
    assert said.content == {"nights": 3}
    for reason in ("It must be at most 21.", "It must be a whole number, such as 3.", "This one is needed."):
        assert reason in plain(desk.shown)


async def test_a_line_of_the_review_can_be_changed_before_it_is_sent(desk: Desk) -> None:
    fields = [Field("a", Kind.INTEGER, required=True), Field("b", Kind.INTEGER)]
    said = await desk.answers(desk.person.fill_in("Two", fields), "1", "2", "9", "2", "/skip", "")
    assert said.content == {"a": 1}


@pytest.mark.parametrize(
    ("typed", "action"),
    [("/decline", "decline"), ("/cancel", "cancel"), ("decline", "decline"), ("Cancel", "cancel")],
)
async def test_a_question_can_always_be_declined_or_closed(desk: Desk, typed: str, action: str) -> None:
    said = await desk.answers(desk.person.fill_in("How many?", [Field("x", Kind.INTEGER, required=True)]), typed)
    assert said == Said(action)  # type: ignore[arg-type]


async def test_in_a_text_the_bare_words_are_text_and_a_slash_is_written_twice(desk: Desk) -> None:
    assert (await desk.answers(desk.person.fill_in("Say", [TEXT]), "decline")).content == {"x": "decline"}
    assert (await desk.answers(desk.person.fill_in("Say", [TEXT]), "//decline")).content == {"x": "/decline"}
    assert (await desk.answers(desk.person.fill_in("Say", [TEXT]), "/decline")).action == "decline"


async def test_a_choice_named_cancel_can_be_chosen(desk: Desk) -> None:
    choice = Field("x", Kind.CHOICE, required=True, choices=(Choice("keep", "Keep"), Choice("cancel", "Cancel it")))
    assert (await desk.answers(desk.person.fill_in("Which?", [choice]), "cancel")).content == {"x": "cancel"}


async def test_an_empty_text_can_be_given_where_it_is_needed(desk: Desk) -> None:
    said = await desk.answers(desk.person.fill_in("Say", [TEXT]), "", '""')
    assert said.content == {"x": ""}
    assert 'write "" for an empty text' in plain(desk.shown)


async def test_a_default_that_breaks_its_own_limits_is_not_offered(desk: Desk) -> None:
    bad = Field("x", Kind.INTEGER, required=True, most=5, default=9)
    assert (await desk.answers(desk.person.fill_in("How many?", [bad]), "", "4")).content == {"x": 4}
    assert "[9]" not in plain(desk.shown)


async def test_a_default_is_left_out_by_skipping(desk: Desk) -> None:
    optional = Field("x", Kind.INTEGER, default=3)
    assert (await desk.answers(desk.person.fill_in("How many?", [optional]), "/skip")).content == {}
    assert (await desk.answers(desk.person.fill_in("How many?", [optional]), "")).content == {"x": 3}


async def test_a_form_without_fields_asks_for_consent_and_enter_alone_is_none(desk: Desk) -> None:
    assert await desk.answers(desk.person.fill_in("Go on?", []), "", "yes") == Said("accept", {})
    assert await desk.answers(desk.person.fill_in("Go on?", []), "no") == Said("decline")
    assert await desk.answers(desk.person.fill_in("Go on?", []), "/cancel") == Said("cancel")


async def test_a_page_is_shown_with_its_site_and_is_done_declined_or_cancelled(desk: Desk) -> None:
    url = "https://pay.example.org/t?id=5&x=" + "y" * 120
    assert await desk.answers(desk.person.visit("Pay for your trip.", url), "what?", "done") == Said("accept")
    assert url in plain(desk.shown).replace("\n", "")
    assert "Pay for your trip." in plain(desk.shown)
    assert "It is a page of pay.example.org." in plain(desk.shown)
    assert await desk.answers(desk.person.visit("Pay.", url), "decline") == Said("decline")
    assert await desk.answers(desk.person.visit("Pay.", url), "/cancel") == Said("cancel")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.org/", "It is a page of example.org. The connection to it is not encrypted."),
        ("https://b\u0430nk.example/", "It is a page of xn--bnk-6cd.example."),
        ("https://bank.example@evil.example/", "It is a page of evil.example."),
        ("javascript:alert(1)", "It is no web page (javascript): better decline."),
        ("https://", "It is no web page (https): better decline."),
        ("https://[", "It is no web address that can be read: better decline."),
        ("https://example.org/" + "x" * 3000, "too long to be shown: better decline."),
        ("https://e\u202egro.elpmaxe/", "better decline."),
    ],
)
async def test_a_link_says_whose_it_is_and_a_strange_one_is_warned_of(desk: Desk, url: str, words: str) -> None:
    await desk.answers(desk.person.visit("Look.", url), "decline")
    assert words in plain(desk.shown).replace("\n", "")


async def test_a_person_writes_what_a_model_would_until_an_empty_line(desk: Desk) -> None:
    asked = desk.person.write([("system", "Be short."), ("user", "Write a letter.")], most_tokens=50)
    said = await desk.answers(asked, "", "Dear you,", "//me", "")
    assert said == Said("accept", text="Dear you,\n/me")
    assert "user: Write a letter." in plain(desk.shown)
    assert "at most 50 tokens" in plain(desk.shown)
    assert (await desk.answers(desk.person.write([], most_tokens=1), "/decline")).action == "decline"


async def test_a_question_can_be_left_for_later_or_the_terminal_be_gone(desk: Desk) -> None:
    with pytest.raises(Leave):
        await desk.answers(desk.person.fill_in("Say", [TEXT]), "/leave")
    with pytest.raises(Hangup):
        await desk.answers(desk.person.fill_in("Say", [TEXT]), "\x04")


async def test_a_line_that_the_terminal_has_cut_is_no_answer(desk: Desk) -> None:
    said = await desk.answers(desk.person.fill_in("Say", [TEXT]), "x" * 5000, "short")
    assert said.content == {"x": "short"}
    assert "A terminal cuts a line this long" in plain(desk.shown)


async def test_what_was_typed_before_the_question_is_no_answer_to_it(desk: Desk) -> None:
    os.write(desk.master, b"too early\n")
    await desk.sees("too early")  # the terminal's own echo: the line is in its queue
    assert (await desk.answers(desk.person.fill_in("Say", [TEXT]), "in time")).content == {"x": "in time"}


async def test_questions_wait_for_their_turn(desk: Desk) -> None:
    both = asyncio.gather(desk.person.fill_in("First", [TEXT]), desk.person.fill_in("Second", [TEXT]))
    await desk.sees("›")
    assert "Second" not in plain(desk.shown)
    os.write(desk.master, b"one\n")
    await desk.sees("›", 2)
    os.write(desk.master, b"two\n")
    first, second = await asyncio.wait_for(both, LIMIT)
    assert (first.content, second.content) == ({"x": "one"}, {"x": "two"})


async def test_ctrl_c_takes_the_keyboard_and_the_question_is_asked_again_afterwards(desk: Desk) -> None:
    question = asyncio.ensure_future(desk.person.fill_in("Say", [TEXT]))
    await desk.sees("›")
    async with desk.terminal.taken():
        word = asyncio.ensure_future(desk.terminal.menu(Text("what now › ")))
        await desk.sees("what now ›")
        os.write(desk.master, b"g\n")
        assert await asyncio.wait_for(word, LIMIT) == "g"
        assert not question.done()
    await desk.sees("›", 3)
    os.write(desk.master, b"an answer\n")
    assert (await asyncio.wait_for(question, LIMIT)).content == {"x": "an answer"}


async def test_a_withdrawn_question_gives_the_keyboard_back(desk: Desk) -> None:
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(desk.person.fill_in, "Say", [TEXT])
            await desk.sees("›")
            scope.cancel()
    assert (await desk.answers(desk.person.fill_in("Next", [TEXT]), "here")).content == {"x": "here"}


async def test_lines_about_the_call_wait_while_a_person_types(desk: Desk) -> None:
    question = asyncio.ensure_future(desk.person.fill_in("Say", [TEXT]))
    await desk.sees("›")
    desk.terminal.screen.say("connection lost")
    assert "connection lost" not in desk.shown
    os.write(desk.master, b"x\n")
    await question
    await desk.sees("connection lost")


async def test_nothing_that_a_server_says_reaches_the_terminal_as_a_command(desk: Desk) -> None:
    schema = {
        "properties": {
            FORGED: {"type": "string", "title": FORGED, "description": FORGED, "enum": [FORGED, "b"], "default": FORGED}
        },
        "required": [FORGED, "\x1b[2J"],
    }
    await desk.answers(desk.person.fill_in(FORGED, fields_of(schema)), "x", "2", "\\", "")
    await desk.answers(desk.person.visit(FORGED, f"https://{FORGED}/"), "decline")
    await desk.answers(desk.person.write([(FORGED, FORGED)], most_tokens=5), "/decline")
    left = re.sub(r"\x1b\[[0-9;]*m", "", desk.shown)
    assert "\x1b" not in left
    assert "\x9b" not in left
    assert "\u202e" not in left
    assert "[bold red]Hello[/]" in left


async def test_a_flood_of_a_question_is_cut(desk: Desk) -> None:
    many = tuple(Choice(str(n), "x" * 1000) for n in range(500))
    await desk.answers(desk.person.fill_in("y" * 100_000, [Field("x", Kind.CHOICE, choices=many)]), "/cancel")
    assert len(desk.shown) < 40_000
    assert "and 440 more, to be given by name" in plain(desk.shown)
