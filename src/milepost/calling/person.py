"""One question to the person at the terminal, from its words to an answer that the server will take.

    a form      field by field; what breaks a limit is asked again, with the reason
    a link      is shown with its site, never opened; "done" when the page has what it wanted
    sampling    the person writes what a model would

Every question can be declined, closed ("cancel": no choice was made) or left for later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from rich.text import Text

from milepost.calling import printable
from milepost.calling.forms import Field, Kind, spelled
from milepost.calling.terminal import Terminal
from milepost.calling.values import Wrong, check, pick, wanted

Action = Literal["accept", "decline", "cancel"]

HELP: Final = "/decline refuses, /cancel closes the question, /leave leaves it for later, /skip leaves a field empty"
_SHOWN: Final = 60
"""Choices that are listed: more would push the question off the screen. The others can be given by their value."""
_LINK: Final = 2000
"""Characters of a link that are shown; a longer one can't be judged by a person."""
_WORDS: Final = frozenset({"decline", "cancel"})


@dataclass(frozen=True, slots=True)
class Said:
    """What a person made of a question. `content`: an accepted form's."""

    action: Action
    content: Mapping[str, Any] | None = None
    text: str = ""
    """What was written in a model's place."""


class Leave(Exception):
    """The question is left for later: the call waits on the server."""


class _Closed(Exception):
    """Declined or cancelled."""

    def __init__(self, action: Action) -> None:
        super().__init__(action)
        self.action = action


class Person:
    """Asks at a terminal. Every method may raise Leave, and Hangup where the terminal is gone."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._told = False

    # --- forms ---

    async def fill_in(self, message: str, fields: Sequence[Field]) -> Said:
        """The person's answer to a form."""
        async with self._terminal.question():
            self._open(message)
            try:
                content = await self._fields(fields) if fields else await self._consent()
            except _Closed as closed:
                return Said(closed.action)
        return Said("accept", content)

    async def arguments(self, tool: str, fields: Sequence[Field]) -> dict[str, Any] | None:
        """What a tool still needs; None: the person would rather not call it."""
        said = await self.fill_in(f"{tool} needs {'an argument' if len(fields) == 1 else 'some arguments'}.", fields)
        return None if said.content is None else dict(said.content)

    async def _fields(self, fields: Sequence[Field]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for field in fields:
            await self._put(content, field)
        while len(fields) > 1 and (again := await self._review(fields, content)) is not None:
            await self._put(content, again)
        return content

    async def _put(self, content: dict[str, Any], field: Field) -> None:
        content.pop(field.name, None)
        content.update(await self._field(field))

    async def _field(self, field: Field) -> dict[str, Any]:
        """The field's value under its name; nothing where it is left empty."""
        self._describe(field)
        while True:
            text = await self._terminal.ask(_prompt(field))
            if text.strip() == "/skip" or not text.strip():
                if (empty := self._empty(field, skip=bool(text.strip()))) is not None:
                    return empty
                continue
            try:
                return {field.name: pick(field, _typed(field, text))}
            except Wrong as reason:
                self._word(text)
                self._reason(f"It {reason}.")

    def _empty(self, field: Field, *, skip: bool) -> dict[str, Any] | None:
        """What an empty line stands for; None: it stands for nothing, and the field is asked for again."""
        if not skip and _default(field) is not None:
            return {field.name: field.default}
        if not field.required:
            return {}
        how = (
            ' (write "" for an empty text)' if field.kind is Kind.TEXT and not field.least and not field.format else ""
        )
        self._reason(f"This one is needed{how}.")
        return None

    def _word(self, text: str) -> None:
        """Where it can't be a value, the bare word will do."""
        if (word := text.strip().lower()) in _WORDS:
            raise _Closed("decline" if word == "decline" else "cancel")

    async def _consent(self) -> dict[str, Any]:
        while True:
            text = await self._terminal.ask(Text("  accept? (yes, /decline, /cancel) › ", style="cyan"))
            _command(text)
            self._word(text)
            if text.strip().lower() in ("y", "yes", "accept"):
                return {}
            if text.strip().lower() in ("n", "no"):
                raise _Closed("decline")

    async def _review(self, fields: Sequence[Field], content: Mapping[str, Any]) -> Field | None:
        """The field to fill in again; None: all is as it should be."""
        for n, field in enumerate(fields, start=1):
            value = _titled(field, content[field.name]) if field.name in content else "(empty)"
            self._write(Text.assemble(f"  {n:>3}  {_name(field)}: ", (printable.line(value), "green")))
        while True:
            text = await self._terminal.ask(Text("  Enter sends this; a number changes that line › ", style="cyan"))
            _command(text)
            self._word(text)
            if not text.strip():
                return None
            if text.strip().isdecimal() and 1 <= int(text) <= len(fields):
                return fields[int(text) - 1]

    # --- links ---

    async def visit(self, message: str, url: str) -> Said:
        """The person's answer to a page that the server wants opened. Accepting says: opened, by one's own will."""
        async with self._terminal.question():
            self._open(message)
            self._write(Text("  The server asks you to open this page yourself:", style="dim"))
            self._write(Text(f"    {printable.line(url, _LINK)}", style="bold"))
            self._write(Text(f"  {_site(url)}", style="dim"))
            while True:
                text = await self._terminal.ask(Text("  done, decline or cancel? › ", style="cyan"))
                try:
                    _command(text)
                    self._word(text)
                except _Closed as closed:
                    return Said(closed.action)
                if text.strip().lower() in ("done", "d"):
                    return Said("accept")

    # --- sampling ---

    async def write(self, messages: Sequence[tuple[str, str]], *, most_tokens: int) -> Said:
        """What the person writes in a model's place. `messages`: (who says it, what)."""
        async with self._terminal.question():
            self._open("The server asks your model. There is none here: write the answer yourself, or decline.")
            for role, text in messages:
                self._write(Text.assemble(f"  {printable.line(role, 40)}: ", (printable.block(text), "italic")))
            self._write(Text(f"  (at most {most_tokens} tokens; an empty line ends it)", style="dim"))
            lines: list[str] = []
            try:
                while (line := await self._terminal.ask(Text("  › ", style="cyan"))) or not lines:
                    _command(line)
                    lines += [line] if line.strip() else []
            except _Closed as closed:
                return Said(closed.action)
        return Said("accept", text="\n".join(_unslashed(each) for each in lines))

    # --- how it looks ---

    def _open(self, message: str) -> None:
        self._write(Text.assemble(("\n? ", "bold cyan"), (printable.block(message), "bold")))
        if not self._told:
            self._told = True
            self._write(Text(f"  ({HELP})", style="dim"))

    def _describe(self, field: Field) -> None:
        if field.description:
            self._write(Text(f"  {printable.block(field.description, 1000)}", style="dim"))
        for n, choice in enumerate(field.choices[:_SHOWN], start=1):
            self._write(Text.assemble((f"  {n:>3}  ", "cyan"), printable.line(choice.title)))
        if len(field.choices) > _SHOWN:
            self._write(Text(f"       and {len(field.choices) - _SHOWN} more, to be given by name", style="dim"))

    def _reason(self, text: str) -> None:
        self._write(Text(f"  {printable.line(text, 600)}", style="yellow"))

    def _write(self, text: Text) -> None:
        self._terminal.screen.write(text)


def _prompt(field: Field) -> Text:
    wants = ", ".join(filter(None, [wanted(field), "" if field.required else "may be empty"]))
    default = _default(field)
    return Text.assemble(
        (f"  {_name(field)}", "cyan"),
        (f" ({wants})" if wants else "", "dim"),
        (f" [{printable.line(default, 100)}]" if default is not None else "", "green"),
        (" › ", "cyan"),
    )


def _name(field: Field) -> str:
    return printable.line(field.title or field.name, 100)


def _default(field: Field) -> str | None:
    """How the default is shown; None: there is none that the field itself takes."""
    if not field.has_default:
        return None
    try:
        return _titled(field, check(field, field.default))
    except Wrong:
        return None


def _titled(field: Field, value: Any) -> str:
    """A value as people know it: a choice by its title."""
    if field.kind is Kind.FLAG:
        return "yes" if value else "no"
    if isinstance(value, list) and field.kind is Kind.CHOICES:
        return ", ".join(_titled_choice(field, each) for each in value) or "none"
    return _titled_choice(field, value)


def _titled_choice(field: Field, value: Any) -> str:
    return next((c.title for c in field.choices if c.value == value), spelled(value))


def _typed(field: Field, text: str) -> str:
    """What was typed as the field's text. Raises what a command stands for."""
    _command(text)
    if field.kind is Kind.TEXT and text.strip() == '""':
        return ""
    return _unslashed(text if field.kind is Kind.TEXT and not field.format else text.strip())


def _unslashed(text: str) -> str:
    """`//decline` is the text `/decline`."""
    return text[1:] if text.startswith("//") else text


def _command(text: str) -> None:
    match text.strip():
        case "/decline":
            raise _Closed("decline")
        case "/cancel":
            raise _Closed("cancel")
        case "/leave":
            raise Leave


def _site(url: str) -> str:
    """Whose page it is, in letters that can't look like others."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
    except (ValueError, UnicodeError):
        return "It is no web address that can be read: better decline."
    if parts.scheme not in ("http", "https") or not host:
        return f"It is no web page ({printable.line(parts.scheme or 'no scheme', 40)}): better decline."
    if len(url) > _LINK:
        return f"It is a page of {host}, and its address is too long to be shown: better decline."
    return f"It is a page of {host}." + ("" if parts.scheme == "https" else " The connection to it is not encrypted.")
