"""The keyboard, and whose turn it is.

The terminal stays in its usual mode, in which it edits lines itself: nothing has to be put back if this process is
killed. Lines are read without a thread, so that a question that is withdrawn, or Ctrl-C, ends the waiting at once.
"""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
from rich.text import Text

from milepost.calling.screen import Screen

_CHUNK: Final = 65536
_LONGEST: Final = 4095 if sys.platform == "linux" else 1023
"""Bytes of one line that a terminal in its usual mode keeps; what is typed or pasted beyond them is lost."""


class Hangup(Exception):
    """The keyboard is gone: end of input, or a terminal that was closed."""


class LineCut(Exception):
    """The line is as long as a terminal keeps one: its end may be lost."""


class Keyboard:
    """Lines from a terminal. `fd`: its file descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._reader = anyio.Lock()

    async def line(self) -> str:
        """The next line, without its end. Raises Hangup, LineCut."""
        async with self._reader:  # one who was told to stop may not have stopped yet
            return await self._line()

    async def _line(self) -> str:
        parts: list[bytes] = []
        while not parts or not parts[-1].endswith(b"\n"):
            await anyio.wait_readable(self._fd)
            try:
                part = os.read(self._fd, _CHUNK)
            except OSError:
                raise Hangup from None
            if not part:
                raise Hangup
            parts.append(part)
        line = b"".join(parts).removesuffix(b"\n")
        if len(line) >= _LONGEST:
            raise LineCut
        return line.decode(errors="replace").removesuffix("\r")

    def forget(self) -> None:
        """Drop what was typed so far: it was typed before the question was there, so it is no answer to it."""
        with suppress(termios.error):
            termios.tcflush(self._fd, termios.TCIFLUSH)


class Terminal:
    """Asks for lines, one asker at a time; Ctrl-C may take the keyboard from whoever is asking, who then asks again."""

    def __init__(self, screen: Screen, keyboard: Keyboard) -> None:
        self.screen = screen
        self._keyboard = keyboard
        self._question = anyio.Lock()
        self._reading: anyio.CancelScope | None = None
        self._free = anyio.Event()
        self._free.set()

    @asynccontextmanager
    async def question(self) -> AsyncIterator[None]:
        """Hold the person's attention for one question; others wait for their turn."""
        async with self._question:
            with self.screen.asking():
                self._keyboard.forget()
                yield

    async def ask(self, prompt: Text) -> str:
        """A line from the person, inside `question()`. Raises Hangup."""
        while True:
            while not self._free.is_set():
                await self._free.wait()
            self.screen.write(prompt, end="")
            scope = self._reading = anyio.CancelScope()
            try:
                with scope:
                    return await self._keyboard.line()
            except LineCut:
                self.screen.write(Text("  A terminal cuts a line this long: give it by a file (--args, --answers)"))
            finally:
                self._reading = None

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Take the keyboard from whoever asks, until the end of this."""
        self._free = anyio.Event()
        if self._reading is not None:
            self._reading.cancel()
        try:
            with self.screen.asking(counts=False):
                yield
        finally:
            self._free.set()

    async def menu(self, prompt: Text) -> str:
        """A line from the person, inside `taken()`. Raises Hangup."""
        self._keyboard.forget()
        self.screen.write(prompt, end="")
        with suppress(LineCut):
            return await self._keyboard.line()
        return ""
