"""`milepost call`: drive a tool from the terminal, or from a script. docs/call.md is its manual."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import structlog
from cyclopts import Parameter
from mcp_types import Tool
from mcp_types.version import LATEST_MODERN_VERSION
from rich.console import Console

from milepost.calling import arguments, outcomes, printable
from milepost.calling.answers import Answers
from milepost.calling.driving import Driver, Place
from milepost.calling.forms import Kind
from milepost.calling.journals import default_journal
from milepost.calling.outcomes import Code, Outcome
from milepost.calling.screen import Screen
from milepost.calling.terminal import Keyboard, Terminal
from milepost.calling.values import wanted
from milepost.client import Client, Policy
from milepost.core.durations import seconds
from milepost.core.errors import ConfigurationError
from milepost.running import run

Era = Literal["auto", "modern", "handshake"]
_MODES: Final[Mapping[Era, str]] = {"auto": "auto", "modern": LATEST_MODERN_VERSION, "handshake": "legacy"}
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="The whole result as JSON.")]
AnswersFile = Annotated[Path | None, Parameter(name="--answers", help="A file with answers, for scripts.")]
Journal = Annotated[str | None, Parameter(help="Default: a file in the user's state directory.")]
Headers = Annotated[
    tuple[str, ...],
    Parameter(name="--header", negative=(), show_default=False, help="'Name: value', sent with each request."),
]
BearerEnv = Annotated[str | None, Parameter(help="The environment variable that holds the access token.")]
EraFlag = Annotated[Era, Parameter(name="--era", help="Which protocol to speak.")]
Timeout = Annotated[str | None, Parameter(help="Working time that a request may take, such as 5m.")]
NoInput = Annotated[bool, Parameter(negative=(), help="Ask nobody, even on a terminal.")]
AllowRoots = Annotated[bool, Parameter(negative=(), help="Tell the server the working directory when it asks.")]


def call(  # noqa: PLR0913  each parameter is a flag
    url: Annotated[str, Parameter(help="Where the server's endpoint is, such as http://127.0.0.1:8000/mcp")],
    tool: Annotated[str | None, Parameter(help="Without one: list the tools.")] = None,
    /,
    *,
    arg: Annotated[
        tuple[str, ...],
        Parameter(negative=(), show_default=False, help="name=value, read by the tool's input schema."),
    ] = (),
    args: Annotated[str | None, Parameter(help="All arguments as a JSON object, or @file.")] = None,
    as_json: AsJson = False,
    answers: AnswersFile = None,
    journal: Journal = None,
    header: Headers = (),
    bearer_env: BearerEnv = None,
    era: EraFlag = "auto",
    timeout: Timeout = None,
    reissue: Annotated[bool, Parameter(negative=(), help="The call may be made twice.")] = False,
    no_input: NoInput = False,
    allow_roots: AllowRoots = False,
) -> int:
    """Call a tool: its questions become forms, its stages are shown, and an interrupted call can be resumed."""
    texts, values = arguments.pairs(arg), arguments.whole(args)
    given = Answers.read(answers)
    screen, terminal = seats(no_input=no_input)
    place = Place(
        url=address(url),
        journal=journal or default_journal(),
        headers=headers(header, bearer_env),
        mode=mode(era),
        timeout=limit(timeout),
        roots=allow_roots,
        samples=terminal is not None or given.for_model,
        again=again(header, bearer_env, journal),
    )
    driver = Driver(place, given, screen, terminal)

    async def work(client: Client) -> Outcome:
        tools = await listed(client)
        if tool is None:
            _list(tools, as_json=as_json)
            return Outcome(Code.RESULT)
        chosen = arguments.named(tools, tool)
        filled = await _filled(driver, chosen, arguments.read(chosen, texts, values))
        if filled is None:
            return Outcome(Code.INTERRUPTED, said="nothing was called")
        result = await client.call_tool(tool, filled, reissue=reissue or None)
        return outcomes.of_result(result)

    outcome = outcomes.show(run(driver.run(work)), screen, as_json=as_json)
    return finish([outcome], given, screen)


async def _filled(driver: Driver, tool: Tool, given: dict[str, Any]) -> dict[str, Any] | None:
    """The arguments with what was missing; None: the person would rather not. Raises ConfigurationError."""
    lacking = arguments.missing(tool, given)
    if not lacking:
        return given
    if driver.person is None:
        names = ", ".join(f"--arg {field.name}={wanted(field) or 'text'!r}" for field in lacking)
        raise ConfigurationError(f"{tool.name!r} needs {names}")
    more = await driver.person.arguments(tool.name, lacking)
    return None if more is None else {**given, **more}


# --- what both commands do -----------------------------------------------------------------------


def seats(*, no_input: bool) -> tuple[Screen, Terminal | None]:
    """Where things are shown, and the terminal, if a person sits at it."""
    quiet()
    screen = Screen(Console(stderr=True, highlight=False))
    person = not no_input and sys.stdin.isatty() and sys.stderr.isatty()
    return screen, Terminal(screen, Keyboard(sys.stdin.fileno())) if person else None


def quiet() -> None:
    """Nothing of a server reaches the terminal through a log line of a library: events tell what matters."""
    logging.getLogger().addHandler(logging.NullHandler())
    logging.captureWarnings(capture=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def finish(ended: Sequence[Outcome], answers: Answers, screen: Screen) -> int:
    """Say what is left over, when how calls ended was shown; the exit code."""
    if unused := answers.unused:
        more = f" and {len(unused) - 10} more" if len(unused) > 10 else ""
        screen.warn(f"answers that no question asked for: {', '.join(map(repr, unused[:10]))}{more}")
    return outcomes.worst(ended)


def address(url: str) -> str:
    """The URL, if it is one of a server. Raises ConfigurationError."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = None
    if not good or not url.isprintable() or " " in url:
        raise ConfigurationError(
            f"{printable.line(url)!r} is no address of a server, such as http://127.0.0.1:8000/mcp"
        )
    return url


def headers(lines: Sequence[str], bearer_env: str | None) -> dict[str, str]:
    """The headers to send. Raises ConfigurationError."""
    found: dict[str, str] = {}
    for text in lines:
        name, colon, value = text.partition(":")
        if not colon or not _HEADER.fullmatch(name) or not value.strip().isprintable():
            raise ConfigurationError("--header wants 'Name: value', in one line")
        found[name] = value.strip()
    if bearer_env is not None:
        token = os.environ.get(bearer_env, "").strip()
        if not token or not token.isprintable():
            raise ConfigurationError(f"the environment variable {bearer_env} holds no token")
        found["Authorization"] = f"Bearer {token}"
    return found


def again(lines: Sequence[str], bearer_env: str | None, journal: str | None) -> str:
    """The flags to give again when the call is resumed: no secret is kept, so none is shown."""
    flags = [part for text in lines for part in ("--header", f"{text.partition(':')[0]}: ...")]
    flags += ["--bearer-env", bearer_env] if bearer_env else []
    flags += ["--journal", journal] if journal else []
    return shlex.join(flags)


def mode(era: Era) -> str:
    """What the SDK calls it."""
    return _MODES[era]


def limit(timeout: str | None) -> float | None:
    """`--timeout` in seconds. Raises ConfigurationError."""
    try:
        found = None if timeout is None else seconds(timeout)
    except ValueError as exc:
        raise ConfigurationError(f"--timeout: {exc}") from None
    if found is not None and not found > 0:
        raise ConfigurationError("--timeout must be more than nothing")
    return found


async def listed(client: Client) -> list[Tool]:
    """All tools of the server. A list that never ends is cut."""
    tools: list[Tool] = []
    cursor: str | None = None
    for _ in range(Policy().max_tool_pages):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None:
            break
    return tools


def _list(tools: Sequence[Tool], *, as_json: bool) -> None:
    if as_json:
        dumped = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools]
        outcomes.put(printable.as_json(dumped))
        return
    for tool in tools:
        outcomes.put("\n".join(_lines(tool)))


def _lines(tool: Tool) -> list[str]:
    """A tool in a list: its name, what it is for, and a line for each argument."""
    head = f"{printable.line(tool.name)}  {printable.line((tool.description or '').strip().split(chr(10))[0])}".rstrip()
    try:
        found = arguments.fields(tool)
    except ConfigurationError:
        return [head]
    lines = [head]
    for field in found:
        kinds = wanted(field) if field.kind is not Kind.CHOICE else " | ".join(str(c.value) for c in field.choices[:20])
        facts = ", ".join(filter(None, [kinds or "a text", "" if field.required else "may be left out"]))
        about = f"  {printable.line(field.description)}" if field.description else ""
        lines.append(f"    {printable.line(field.name)}: {printable.line(facts)}{about}")
    return lines
