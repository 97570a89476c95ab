"""What a call comes to: an exit code, a sentence on stderr, and the result on stdout, which carries nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from mcp import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    REQUEST_TIMEOUT,
    URL_ELICITATION_REQUIRED,
    CallToolResult,
    EmbeddedResource,
    ResourceLink,
    TextContent,
    TextResourceContents,
)
from pydantic import ValidationError
from rich.text import Text

from milepost.calling import printable
from milepost.calling.screen import Screen
from milepost.client import JournalInUse, NotSent, OutcomeUnknown, Refused, ServerUnavailable, TimedOut, Unauthorized
from milepost.client.retrying import Known
from milepost.core.errors import ConfigurationError, StoreError


class Code(IntEnum):
    """The exit codes, as docs/call.md gives them."""

    RESULT = 0
    TOOL_ERROR = 1
    REFUSED = 2
    WAITING = 3
    UNKNOWN = 4
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended, for now. `said`: a sentence for the person, which may quote the server."""

    code: Code
    result: CallToolResult | None = None
    said: str = ""


_UNSURE: Final = frozenset({REQUEST_TIMEOUT, CONNECTION_CLOSED})


def of_result(result: CallToolResult) -> Outcome:
    return Outcome(Code.TOOL_ERROR if result.is_error else Code.RESULT, result)


_MEANINGS: Final[tuple[tuple[type[Exception], Code, str], ...]] = (
    (OutcomeUnknown, Code.UNKNOWN, "what came of the call is not known: {}"),
    (NotSent, Code.REFUSED, "nothing was sent: {}"),
    (Unauthorized, Code.REFUSED, "the server refused: {}; give a token that opens it by --bearer-env, or --header"),
    (Refused, Code.REFUSED, "the server refused: {}"),
    (ServerUnavailable, Code.REFUSED, "{}"),
    (JournalInUse, Code.REFUSED, "{}"),
    (ConfigurationError, Code.REFUSED, "{}"),
    (StoreError, Code.UNKNOWN, "{}"),
    (TimeoutError, Code.UNKNOWN, "the server took longer than it may"),
    (OSError, Code.UNKNOWN, "{}"),
    (ValidationError, Code.UNKNOWN, "the server's answer is none that the protocol knows"),
)
"""The first that fits counts."""


def of_error(error: BaseException, *, called: bool) -> Outcome | None:
    """What an error of the client means; None: it is none that a call may end with, but a bug.

    `called`: the call has gone out; until then nothing is unknown.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    for kind, code, words in _MEANINGS:
        if isinstance(error, kind):
            found: Outcome | None = Outcome(code, said=words.format(str(error) or kind.__name__))
            break
    else:
        found = _of_servers(error) if isinstance(error, MCPError) else None
    if found is not None and found.code is not Code.REFUSED and not called:
        return replace(found, code=Code.REFUSED)
    return found


def _of_servers(error: MCPError) -> Outcome:
    """The server's own JSON-RPC error."""
    if error.code == URL_ELICITATION_REQUIRED:
        pages = ", ".join(_pages(error.data)) or "none that it names"
        return Outcome(Code.REFUSED, said=f"first open these pages, then call again ({error.message}): {pages}")
    if isinstance(error, TimedOut) and error.known != Known.UNKNOWN.value:
        return Outcome(Code.REFUSED, said=f"nothing was done: {error.message}")
    if error.code in _UNSURE:
        return Outcome(Code.UNKNOWN, said=f"no answer: {error.message}")
    return Outcome(Code.TOOL_ERROR, said=f"the server answered with an error: {error.message} ({error.code})")


def _pages(data: Any) -> Iterator[str]:
    listed = data.get("elicitations") if isinstance(data, dict) else None
    for each in listed[:20] if isinstance(listed, list) else ():
        if isinstance(each, dict) and isinstance(each.get("url"), str):
            yield each["url"]


def worst(outcomes: Sequence[Outcome]) -> Code:
    """The exit code of several calls: the one that most wants to be looked at."""
    return max((outcome.code for outcome in outcomes), default=Code.RESULT)


# --- stdout --------------------------------------------------------------------------------------


def show(outcome: Outcome, screen: Screen, *, as_json: bool) -> Outcome:
    """The result to stdout, the sentence to stderr. Returns the outcome as it counts: a result may find no room."""
    if outcome.said:
        screen.print(Text(f"milepost: {printable.block(outcome.said)}"))
    if outcome.result is None:
        return outcome
    try:
        if as_json:
            put(printable.as_json(jsonable(outcome.result)))
        else:
            _put_texts(outcome.result, screen)
    except BrokenPipeError:
        raise  # its reader has enough
    except OSError as exc:
        screen.print(Text(f"milepost: the call has ended, but its result can't be written: {exc.strerror}"))
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  else the interpreter tries once more, and fails too
        return replace(outcome, code=Code.UNKNOWN)
    return outcome


def jsonable(result: CallToolResult) -> Any:
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)


def _put_texts(result: CallToolResult, screen: Screen) -> None:
    shown = False
    for block in result.content:
        text = _text(block)
        if text is None:
            screen.say(f"(the result also holds something of type {block.type}: --json shows it)")
        else:
            put(text)
            shown = True
    if not shown and result.structured_content is not None:
        put(printable.as_json(result.structured_content))


def _text(block: Any) -> str | None:
    match block:
        case TextContent(text=text):
            return text
        case EmbeddedResource(resource=TextResourceContents(text=text)):
            return text
        case ResourceLink(uri=uri):
            return str(uri)
    return None


def put(text: str) -> None:
    """Text to stdout, to the letter; on a terminal, what the terminal might obey is shown instead."""
    out = sys.stdout
    shown = printable.whole(text) if out.isatty() else text
    encoding = out.encoding or "utf-8"
    out.write(shown.encode(encoding, "backslashreplace").decode(encoding) + ("" if shown.endswith("\n") else "\n"))
    out.flush()
