"""What a person sees while a call goes on: all of it on stderr, for stdout is the result's.

On a terminal the stage that goes on is a live line, with its time; whatever is over is a line that stays. Without a
terminal everything is a line. While a person types, nothing is written between: it comes afterwards.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Final

import anyio
from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from milepost.calling import printable
from milepost.calling.news import told
from milepost.calling.stages import Begun, Ended, Moved, News, Stages, took
from milepost.client.events import Event, Stage

_BEAT: Final = 0.1
"""Seconds between two pictures of the live line."""
_HELD: Final = 100
"""Lines that are kept while a person types."""


class Screen:
    """`console` writes to stderr."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.stages = Stages()
        self.is_live = console.file.isatty() and not console.is_dumb_terminal
        self._live = Live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._asked = 0
        self._held: deque[RenderableType] = deque(maxlen=_HELD)

    def begin(self) -> None:
        """Another call begins, with stages of its own."""
        self.stages = Stages()

    # --- lines ---

    def say(self, text: str, style: str = "dim") -> None:
        """One line about what happens. `text` may be a server's: it is cleaned here."""
        self.print(Text(f"  {printable.line(text)}", style=style))

    def warn(self, text: str) -> None:
        self.say(text, "yellow")

    def print(self, thing: RenderableType, *, soft_wrap: bool = True) -> None:
        """Write it, or hold it back until the person who types has done so."""
        if self._asked:
            self._held.append(thing)
        else:
            self.write(thing, soft_wrap=soft_wrap)

    def write(self, thing: RenderableType, *, end: str = "\n", soft_wrap: bool = True) -> None:
        """Write it now. A terminal that is gone is no reason to fail: the call is worth more than its picture."""
        with contextlib.suppress(OSError):
            self.console.print(thing, end=end, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False)

    # --- what happens ---

    def show(self, event: Event) -> None:
        """An event of the client."""
        if isinstance(event, Stage):
            self._stage(self.stages.heard(event))
        elif (text := told(event)) is not None:
            self.say(text, "yellow")

    def _stage(self, news: News | None) -> None:
        match news:
            case Ended(name, seconds):
                time = "" if seconds is None else f"  {took(seconds)}"
                self.print(Text.assemble(("  ✓ ", "green"), printable.line(name, 100), (time, "dim")))
            case Begun(name) if not self.is_live:
                self.say(f"▸ {name}", "")
            case Moved(text) if not self.is_live:
                self.say(f"▸ {text}", "")

    async def keep_time(self) -> None:
        """Draw the live line until cancelled."""
        if not self.is_live:
            return
        spinner = Spinner("dots", style="cyan")
        try:
            while True:
                self._draw(spinner)
                await anyio.sleep(_BEAT)
        finally:
            self._hide()

    def _draw(self, spinner: Spinner) -> None:
        if self._asked:
            return
        name, seconds = self.stages.now()
        text = Text.assemble(printable.line(name or "working", 100), (f"  {took(seconds)}", "dim"))
        text.no_wrap, text.overflow = True, "ellipsis"
        spinner.update(text=text)
        with contextlib.suppress(OSError):
            self._live.start()
            self._live.update(spinner, refresh=True)

    def _hide(self) -> None:
        with contextlib.suppress(OSError):
            self._live.stop()

    # --- a person is asked ---

    @contextlib.contextmanager
    def asking(self, *, counts: bool = True) -> Iterator[None]:
        """While a person is asked: no live line, no other lines. `counts`: it is the call that waits for the person."""
        self._hide()
        self._asked += 1
        if counts:
            self.stages.pause()
        try:
            yield
        finally:
            self._asked -= 1
            if counts:
                self.stages.go_on()
            self._release()

    def _release(self) -> None:
        while self._held and not self._asked:
            self.write(self._held.popleft())
