"""The stages of a call, and how long each took. Pure: it is told of progress, and says what is new.

The time of a stage is that of its work: while a person is asked, its clock stands still. A stream that is read again
may tell a stage again; what was told before says nothing new.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from milepost.client.events import Stage

_SELDOM: Final = 5.0
"""Seconds between two lines about the same work: a log is no place for every step of a counter."""


@dataclass(frozen=True, slots=True)
class Begun:
    name: str


@dataclass(frozen=True, slots=True)
class Ended:
    name: str
    seconds: float | None
    """Of work; None: it began before this process was there."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Progress that neither begins nor ends a stage."""

    text: str


News = Begun | Ended | Moved


class Stages:
    """`clock`: seconds, never backwards."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waited = 0.0
        self._paused_at: float | None = None
        self._pauses = 0
        self._open: dict[str, float] = {}
        self._reached = 0.0
        self._note = ""
        self._noted_at = float("-inf")
        self._begun = self._working()

    def _working(self) -> float:
        now = self._clock() if self._paused_at is None else self._paused_at
        return now - self._waited

    def pause(self) -> None:
        """A person is asked: the clock stands still. Several may be asked at a time."""
        self._pauses += 1
        if self._pauses == 1:
            self._paused_at = self._clock()

    def go_on(self) -> None:
        self._pauses -= 1
        if not self._pauses and self._paused_at is not None:
            self._waited += self._clock() - self._paused_at
            self._paused_at = None

    def heard(self, event: Stage) -> News | None:
        """What is new in it; None: nothing."""
        if event.mark == "begin":
            return self._begin(event)
        if event.mark == "end":
            return self._end(event)
        return self._move(event)

    def _begin(self, event: Stage) -> News | None:
        if event.name in self._open or event.progress < self._reached:
            return None
        self._reached = event.progress
        self._open[event.name] = self._working()
        self._note = ""
        return Begun(event.name)

    def _end(self, event: Stage) -> News | None:
        begun = self._open.pop(event.name, None)
        if begun is None and event.progress <= self._reached:
            return None
        self._reached = max(self._reached, event.progress)
        self._note = ""
        return Ended(event.name, None if begun is None else self._working() - begun)

    def _move(self, event: Stage) -> News | None:
        text = event.message or ""
        if event.total:
            share = f"{event.progress:g} of {event.total:g}"
            text = f"{text} ({share})" if text and not self._open else text or share
        elif not text:
            text = f"{event.progress:g}"
        if text == self._note or text in self._open:
            return None
        self._note = text
        now = self._clock()
        if now - self._noted_at < _SELDOM:
            return None
        self._noted_at = now
        return Moved(text)

    def now(self) -> tuple[str, float]:
        """What goes on, in words, and the seconds of work on it so far."""
        names = ", ".join(self._open)
        begun = min(self._open.values(), default=self._begun)
        note = f"{names}: {self._note}" if names and self._note else names or self._note
        return note, self._working() - begun


def took(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 5 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"
