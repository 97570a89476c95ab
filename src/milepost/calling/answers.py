"""Answers from a file, for scripts: a list, given in order, or an object, looked up by the question.

    [{"leg": "1"}, {"day": "2027-03-23"}, "decline"]

    {"q3": {"leg": "1"}, "When do you want to fly": {"day": "2027-03-23"}, "your model": {"text": "Dear ..."}}

An answer is the form's content, `"accept"`, `"decline"` or `"cancel"`, `{"action": ..., "content": {...}}`, or, for
a model, `{"text": "..."}`. In an object, a name is a question's key, its whole text, or a part of it; a list of answers
under one name is for questions that come again. Each answer is given once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from milepost.calling.forms import Field
from milepost.calling.person import Action, Said
from milepost.calling.values import faults, strict_json
from milepost.core.errors import ConfigurationError

_ACTIONS: Final[Mapping[str, Action]] = {"accept": "accept", "decline": "decline", "cancel": "cancel"}
_LARGEST: Final = 16 * 2**20
"""Bytes of an answers file: as much as one message may have."""


class Unfitting(ValueError):
    """An answer of the file is none to the question that it is for; the text names it and says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, as far as a file can know it."""

    keys: Sequence[str]
    """What it may be called by: its key in the run, its id on the wire."""
    text: str
    fields: Sequence[Field] | None = None
    """Of a form; None: a link, or a model's answer."""
    of_model: bool = False


@dataclass(slots=True)
class _Entry:
    name: str
    """How messages call it."""
    value: Any
    used: bool = False


class Answers:
    """What a file has to say. Without a file: nothing."""

    def __init__(self, given: Any = ()) -> None:
        """`given`: the file's JSON. Raises ConfigurationError."""
        if not isinstance(given, list | tuple | dict):
            raise ConfigurationError("--answers wants a list of answers, or an object with one for each question")
        self._by_name: dict[str, list[_Entry]] | None = None
        if isinstance(given, dict):
            self._by_name = {name: _entries(name, value) for name, value in given.items()}
            self._all = [entry for entries in self._by_name.values() for entry in entries]
        else:
            self._all = [_Entry(f"answer {n}", value) for n, value in enumerate(given, start=1)]

    @classmethod
    def read(cls, path: Path | None) -> Answers:
        """The answers of a file. Raises ConfigurationError."""
        if path is None:
            return cls()
        try:
            if path.stat().st_size > _LARGEST:
                raise ConfigurationError(f"{path} is larger than {_LARGEST} bytes: these can't all be answers")
            return cls(strict_json(path.read_text()))
        except OSError as exc:
            raise ConfigurationError(f"{path} can't be read: {exc.strerror}") from None
        except ValueError as exc:
            raise ConfigurationError(f"{path} is not valid JSON: {exc}") from None

    @property
    def for_model(self) -> bool:
        """Whether any of them is what a model would say."""
        return any(isinstance(entry.value, dict) and set(entry.value) == {"text"} for entry in self._all)

    @property
    def unused(self) -> list[str]:
        """The names of those that no question has asked for."""
        return [entry.name for entry in self._all if not entry.used]

    def for_question(self, asked: Asked) -> Said | None:
        """The answer to this question; None: there is none. Raises Unfitting."""
        entry = self._find(asked)
        if entry is None:
            return None
        entry.used = True
        try:
            return _said(entry.value, asked)
        except Unfitting as reason:
            raise Unfitting(f"{entry.name!r} of the answers file does not fit {asked.text!r}: {reason}") from None

    def _find(self, asked: Asked) -> _Entry | None:
        if self._by_name is None:
            return _next(self._all)
        exact = [self._by_name[name] for name in (*asked.keys, asked.text) if name in self._by_name]
        part = [entries for name, entries in self._by_name.items() if name and name.casefold() in asked.text.casefold()]
        return next((entry for entries in (*exact, *part) if (entry := _next(entries)) is not None), None)


def _entries(name: str, value: Any) -> list[_Entry]:
    return [_Entry(name, each) for each in (value if isinstance(value, list) else [value])]


def _next(entries: Sequence[_Entry]) -> _Entry | None:
    return next((entry for entry in entries if not entry.used), None)


def _said(value: Any, asked: Asked) -> Said:
    """What the file says, if it is an answer to that. Raises Unfitting."""
    action, content = _taken_apart(value)
    if action != "accept":
        return Said(action)
    if asked.of_model:
        return Said("accept", text=_model_text(content))
    if asked.fields is None:
        if content:
            raise Unfitting('a link is answered with "accept", "decline" or "cancel"')
        return Said("accept")
    if not isinstance(content, dict | None):
        raise Unfitting("a form is answered with an object, or with a word: accept, decline, cancel")
    if found := faults(asked.fields, content or {}):
        raise Unfitting("; ".join(found[:5]))
    return Said("accept", content or {})


def _taken_apart(value: Any) -> tuple[Action, Any]:
    """(action, content), of the short forms and the long one."""
    if isinstance(value, str) and value in _ACTIONS:
        return _ACTIONS[value], None
    if isinstance(value, dict) and value.get("action") in _ACTIONS and set(value) <= {"action", "content"}:
        return _ACTIONS[value["action"]], value.get("content")
    return "accept", value


def _model_text(content: Any) -> str:
    text = content.get("text") if isinstance(content, dict) else content
    if not isinstance(text, str) or not text.strip():
        raise Unfitting('a model\'s answer is {"text": "..."}')
    return text
