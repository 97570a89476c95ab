"""`milepost resume`: go on with calls that an earlier `milepost call` left, from what the journal holds."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from milepost.calling import outcomes, printable
from milepost.calling.answers import Answers
from milepost.calling.commands import (
    AllowRoots,
    AnswersFile,
    AsJson,
    BearerEnv,
    EraFlag,
    Headers,
    Journal,
    NoInput,
    Timeout,
    again,
    finish,
    headers,
    limit,
    mode,
    seats,
)
from milepost.calling.driving import SHORT, Driver, Place
from milepost.calling.forms import Choice, Field, Kind
from milepost.calling.journals import default_journal
from milepost.calling.outcomes import Code, Outcome, of_result
from milepost.calling.person import Leave, Person
from milepost.calling.screen import Screen
from milepost.calling.stages import took
from milepost.calling.terminal import Hangup, Terminal
from milepost.client import Client
from milepost.client.interaction import Ending
from milepost.client.journal import Journal as Books
from milepost.client.journal import Pending, unfinished
from milepost.core.errors import ConfigurationError
from milepost.running import run


@dataclass(frozen=True, slots=True)
class _Way:
    """How to go on, the same for all calls. Each server's place is made of it."""

    journal: str
    headers: dict[str, str]
    mode: str
    timeout: float | None
    roots: bool
    again: str

    def to(self, server: str) -> Place:
        return Place(
            server, self.journal, self.headers, self.mode, self.timeout, self.roots, samples=True, again=self.again
        )


def resume(  # noqa: PLR0913  each parameter is a flag
    call: Annotated[str | None, Parameter(help="The call's id, or enough of its beginning.")] = None,
    /,
    *,
    only_list: Annotated[bool, Parameter(name="--list", negative=(), help="Show what there is.")] = False,
    everything: Annotated[bool, Parameter(name="--all", negative=(), help="Go on with each, one by one.")] = False,
    forget: Annotated[bool, Parameter(negative=(), help="Go on with it never more; its server isn't told.")] = False,
    as_json: AsJson = False,
    answers: AnswersFile = None,
    journal: Journal = None,
    header: Headers = (),
    bearer_env: BearerEnv = None,
    era: EraFlag = "auto",
    timeout: Timeout = None,
    no_input: NoInput = False,
    allow_roots: AllowRoots = False,
) -> int:
    """Go on with a call that was left waiting, or whose client was killed."""
    url = journal or default_journal()
    given = Answers.read(answers)
    found = unfinished(url)
    if only_list:
        _show(found, as_json=as_json)
        return Code.RESULT
    screen, terminal = seats(no_input=no_input)
    way = _Way(
        url, headers(header, bearer_env), mode(era), limit(timeout), allow_roots, again(header, bearer_env, journal)
    )

    report = _Report(screen, as_json=as_json, everything=everything)

    async def work() -> list[Outcome]:
        chosen = await _chosen(found, call, everything=everything, terminal=terminal)
        if forget:
            await _forget(url, chosen, screen)
            return []
        if way.headers and len({each.server for each in chosen}) > 1:
            raise ConfigurationError("these calls are at several servers, and a token is for one: name one call")
        return await _each(chosen, way, given, terminal, report)

    ended = run(work())
    report.end()
    return finish(ended, given, screen)


# --- which ---------------------------------------------------------------------------------------


async def _chosen(
    found: Sequence[Pending], wanted: str | None, *, everything: bool, terminal: Terminal | None
) -> list[Pending]:
    """The calls to go on with. Raises ConfigurationError where it isn't clear which."""
    if wanted is not None:
        return [_named(found, wanted)]
    free = [each for each in found if not each.alive]
    if everything or len(free) <= 1:
        return free
    if terminal is None:
        ids = ", ".join(each.call_id[:SHORT] for each in free[:10])
        raise ConfigurationError(f"{len(free)} calls are waiting: name one, or say --all ({ids})")
    return await _picked(free, terminal)


def _named(found: Sequence[Pending], wanted: str) -> Pending:
    near = [each for each in found if each.call_id.startswith((wanted, f"call-{wanted}"))]
    if not near:
        raise ConfigurationError(f"no call {printable.line(wanted)!r} is waiting (`milepost resume --list` shows them)")
    if len(near) > 1:
        raise ConfigurationError(f"{len(near)} calls begin with {wanted!r}: give more of the id")
    if near[0].alive:
        raise ConfigurationError(f"{near[0].call_id} is being gone on with by another process")
    return near[0]


async def _picked(free: Sequence[Pending], terminal: Terminal) -> list[Pending]:
    choices = tuple(Choice(each.call_id, _line(each)) for each in free)
    try:
        said = await Person(terminal).fill_in(
            f"{len(free)} calls are waiting.", [Field("call", Kind.CHOICE, "Which one", required=True, choices=choices)]
        )
    except (Leave, Hangup):
        return []
    return [each for each in free if said.content and each.call_id == said.content["call"]]


def _show(found: Sequence[Pending], *, as_json: bool) -> None:
    """The list, on stdout."""
    if as_json:
        outcomes.put(printable.as_json([_facts(each) for each in found]))
        return
    for each in found:
        outcomes.put(f"{each.call_id[:SHORT]}  {_line(each)}")


def _line(pending: Pending) -> str:
    given = printable.line(json.dumps(dict(pending.arguments), ensure_ascii=False), 120)
    state = ", being gone on with" if pending.alive else f", {len(pending.questions)} open" if pending.questions else ""
    ago = took(max(0.0, time.time() - pending.begun))
    return (
        f"{printable.line(pending.name)} {given}  at {printable.line(_place(pending.server))}, begun {ago} ago{state}"
    )


def _place(server: str) -> str:
    """A server's URL to be read, maybe in the log of a build: many keep a key in the query."""
    before, mark, _ = server.partition("?")
    return f"{before}{mark and '?…'}"


def _facts(pending: Pending) -> dict[str, Any]:
    return {
        "call_id": pending.call_id,
        "server": pending.server,
        "tool": pending.name,
        "arguments": dict(pending.arguments),
        "begun": pending.begun,
        "questions": [dict(each) for each in pending.questions],
        "alive": pending.alive,
    }


# --- going on ------------------------------------------------------------------------------------


async def _each(
    chosen: Sequence[Pending], way: _Way, answers: Answers, terminal: Terminal | None, report: _Report
) -> list[Outcome]:
    """One after the other, for a person can attend to one; until one is interrupted."""
    ended: list[Outcome] = []
    screen = report.screen
    if not chosen:
        screen.say("nothing is waiting")
    for pending in chosen:
        screen.print(Text(f"{pending.call_id[:SHORT]}  {_line(pending)}", "bold"))
        driver = Driver(way.to(pending.server), answers, screen, terminal, call_id=pending.call_id)
        ended.append(report.add(pending, await driver.run(_going_on(pending))))
        if ended[-1].code is Code.INTERRUPTED:
            break
    return ended


def _going_on(pending: Pending) -> Any:
    async def work(client: Client) -> Outcome:
        try:
            ended = await client.resume(pending.call_id)
        except LookupError:
            ended = []
        if not ended:
            return Outcome(Code.REFUSED, said=f"{pending.call_id} was gone on with by another process")
        if ended[0].error is not None:
            raise ended[0].error
        return of_result(ended[0].result) if ended[0].result is not None else Outcome(Code.UNKNOWN)

    return work


async def _forget(url: str, chosen: Sequence[Pending], screen: Screen) -> None:
    """Write each down as cancelled. For calls whose server is gone, or that nobody wants any more."""
    books = Books(url)
    books.open()
    try:
        for pending in chosen:
            call = await books.take(pending.server, pending.call_id)
            if call is not None:
                call.ending = Ending.CANCELLED
                await books.save(pending.server, call)
                screen.say(f"{pending.call_id[:SHORT]} is forgotten")
    finally:
        books.close()


# --- what came of them ---------------------------------------------------------------------------


class _Report:
    """Shows how each call ended as soon as it has: the journal keeps no result, and the next call may be killed."""

    def __init__(self, screen: Screen, *, as_json: bool, everything: bool) -> None:
        self.screen = screen
        self._as_json = as_json
        self._is_array = as_json and everything
        self._many = 0

    def add(self, pending: Pending, outcome: Outcome) -> Outcome:
        if self._is_array:
            element = textwrap.indent(printable.as_json(_element(pending, outcome)), "  ")
            outcomes.put(f"{',' if self._many else '['}\n{element}")
            outcome = replace(outcome, result=None)
        self._many += 1
        return outcomes.show(outcome, self.screen, as_json=self._as_json)

    def end(self) -> None:
        if self._is_array:
            outcomes.put("]" if self._many else "[]")


def _element(pending: Pending, outcome: Outcome) -> dict[str, Any]:
    result = None if outcome.result is None else outcomes.jsonable(outcome.result)
    return {"call_id": pending.call_id, "tool": pending.name, "result": result, "error": outcome.said or None}
