"""`milepost` at a real pseudo-terminal: what it writes is read, what a person would type is typed, Ctrl-C is Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

LIMIT = 60.0
"""Seconds that anything may take."""

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")

_OWN_TERMINAL = (
    "import os, sys; fd = os.open(sys.argv[1], os.O_RDWR); [os.dup2(fd, n) for n in (0, 2)];"
    " os.execv(sys.argv[2], sys.argv[2:])"
)
"""Opening a terminal as the leader of a session makes it the session's own, so that Ctrl-C reaches it."""


@dataclass
class AtTerminal:
    """A process whose stdin and stderr are a terminal; its stdout is a file, as with `> result`."""

    process: asyncio.subprocess.Process
    master: int
    out: Path
    _new: str = ""
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    everything: str = ""

    def begin(self) -> None:
        os.set_blocking(self.master, False)
        asyncio.get_running_loop().add_reader(self.master, self._read)

    def _read(self) -> None:
        try:
            part = os.read(self.master, 65536).decode(errors="replace")
        except OSError:  # the other end is closed
            part = ""
        if not part:
            asyncio.get_running_loop().remove_reader(self.master)
        self.everything += part
        self._new += part
        self._news.set()

    async def sees(self, text: str) -> str:
        """Wait for this text in what was written since the last one; returns what stood before it."""
        async with asyncio.timeout(LIMIT):
            while (plain := _ESCAPES.sub("", self._new)).find(text) < 0:
                self._news.clear()
                try:
                    await self._news.wait()
                except asyncio.CancelledError:
                    raise AssertionError(f"{text!r} did not come; what came:\n{plain}") from None
        before, _, self._new = plain.partition(text)
        return before

    def types(self, line: str) -> None:
        os.write(self.master, f"{line}\n".encode())

    def interrupts(self) -> None:
        """Ctrl-C."""
        os.write(self.master, b"\x03")

    def hangs_up(self) -> None:
        """Ctrl-D on an empty line."""
        os.write(self.master, b"\x04")

    async def ends(self) -> int:
        """Its exit code."""
        try:
            return await asyncio.wait_for(self.process.wait(), LIMIT)
        except TimeoutError:
            raise AssertionError(f"it did not end; what came:\n{_ESCAPES.sub('', self.everything)}") from None

    @property
    def result(self) -> str:
        return self.out.read_text()


def environment(folder: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """With a state directory of its own, so that no test meets another's journal."""
    return {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "TERM": "xterm", "COLUMNS": "100", **(more or {})}


def program() -> str:
    return str(Path(sys.executable).with_name("milepost"))


@asynccontextmanager
async def at_terminal(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> AsyncIterator[AtTerminal]:
    """Start it, and end it by its own pid whatever happens."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (40, 100))
    out = folder / f"out-{os.urandom(4).hex()}"
    with out.open("wb") as stdout:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _OWN_TERMINAL, os.ttyname(slave), program(), *arguments,
            stdin=slave, stdout=stdout, stderr=slave, start_new_session=True, env=environment(folder, env), cwd=folder,
        )  # fmt: skip
    session = AtTerminal(process, master, out)
    session.begin()
    try:
        yield session
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(master)
        os.close(slave)
        os.close(master)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


async def script(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Ran:
    """Run it without a terminal, to its end."""
    process = await asyncio.create_subprocess_exec(
        program(), *arguments, cwd=folder, env=environment(folder, env),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), LIMIT)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


def closed(gate: Path) -> Path:
    """Close the gate of the counter's long step; returns what is there once the step has begun."""
    gate.unlink(missing_ok=True)
    begun = gate.with_suffix(".begun")
    begun.unlink(missing_ok=True)
    return begun


def opened(gate: Path) -> None:
    gate.touch()
