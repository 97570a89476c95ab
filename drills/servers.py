"""Real `milepost serve` processes: started, killed, stopped, continued, always by their own process id."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from drills import ledger
from drills.pipes import LONGEST_LINE, Broken, Lines, request
from lab.ports import free_port

START_LIMIT = 60.0
STOP_LIMIT = 45.0
"""Seconds. A drain may take its 25 s."""

_STARTS = 3
_STORE_AWAY = 2
"""The exit code of a server that can't be started as things are."""

TARGET = Path(__file__).with_name("target.py")
_COMMAND = "from milepost.cli import main; main()"


class ServerFailed(Exception):
    """A server did not come up or ended by itself. The text holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a drill works: one folder with the store, the ledger and the logs."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    """`MILEPOST_*` settings of its servers, and whatever else is in their environment."""
    url: str = ""
    """The store's; empty: a SQLite file in the folder."""
    target: str = f"{TARGET}:mcp"

    @property
    def store(self) -> Path:
        return self.folder / "drill.db"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.jsonl"

    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MILEPOST_")}
        return {**inherited, ledger.PLACE: str(self.ledger), **self.settings}

    def command(self, *more: str) -> list[str]:
        store = self.url or f"sqlite:///{self.store}"
        return [sys.executable, "-c", _COMMAND, "serve", self.target, "--store", store, *more]


@dataclass
class Life:
    """One process from its start to its death. Times are UTC seconds."""

    pid: int
    began: float
    up: float | None = None
    """When it was ready for clients."""
    died: float | None = None


class Server:
    """A server on one port; each `start` is a new process on the same rows."""

    def __init__(self, place: Place, name: str) -> None:
        self.place = place
        self.name = name
        self.port = free_port()
        self.lives: list[Life] = []
        self.stopping = False
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it and wait until it is ready. Raises ServerFailed.

        Where it ends because its store is away (a strike on the database) it is started again, as orchestrators do.
        """
        for left in reversed(range(_STARTS)):
            await self.launch()
            try:
                await self._ready()
            except ServerFailed:
                if not left or self._process is None or self._process.returncode != _STORE_AWAY:
                    raise
                self.lives[-1].died = time.time()
            else:
                self.lives[-1].up = time.time()
                return

    async def launch(self) -> None:
        """Start it, and wait for nothing."""
        self.stopping = False
        command = self.place.command("--port", str(self.port), "--single-user", "--log", "json")
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.place.folder,
                env=self.place.environment(),
            )
        self.lives.append(Life(self.pid, time.time()))

    async def _ready(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while self.running and time.monotonic() < deadline:
            try:
                async with request(self.port, "GET", {}, path="/readyz", patience=5) as answer:
                    if answer.status == 200:
                        return
            except Broken:
                pass
            await asyncio.sleep(0.02)
        raise ServerFailed(f"server {self.name} did not come up. Its log ends with:\n{self.last_words()}")

    def kill_nowait(self) -> None:
        """SIGKILL at this very moment. Idempotent: a second one could meet a process id that is another's by now."""
        assert self._process is not None
        if self.running and self.lives[-1].died is None:
            os.kill(self._process.pid, signal.SIGKILL)
            self.lives[-1].died = time.time()

    async def buried(self) -> None:
        """Wait until the killed process is gone."""
        assert self._process is not None
        await self._process.wait()

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def stop(self) -> None:
        """SIGTERM and its drain; insist after a while. Idempotent."""
        if self._process is None or not self.running:
            return
        self.stopping = True
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_LIMIT)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise ServerFailed(f"server {self.name} did not end within {STOP_LIMIT:g} s of SIGTERM") from None
        finally:
            self.lives[-1].died = time.time()

    @property
    def _log(self) -> Path:
        return self.place.folder / f"server-{self.name}.log"

    def last_words(self) -> str:
        return self._log.read_text(errors="replace")[-3000:] if self._log.exists() else "(no log)"


class Child:
    """A server at the other end of a pipe, as a host starts one."""

    def __init__(self, place: Place, name: str) -> None:
        self.place = place
        self.name = name
        self.lives: list[Life] = []
        self.lines: Lines | None = None
        self.numbers = count(1)
        """JSON-RPC ids: never used twice on one pipe, whoever talks over it."""

    @property
    def pid(self) -> int:
        return self.lines.process.pid if self.lines is not None else 0

    @property
    def running(self) -> bool:
        return self.lines is not None and self.lines.process.returncode is None

    async def start(self) -> Lines:
        with (self.place.folder / f"child-{self.name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self.place.command("--stdio", "--log", "json"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LONGEST_LINE,
                cwd=self.place.folder,
                env=self.place.environment(),
            )
        self.lines = Lines(process)
        self.lives.append(Life(process.pid, time.time()))
        return self.lines

    def kill_nowait(self) -> None:
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
            self.lives[-1].died = time.time()

    async def buried(self) -> None:
        if self.lines is not None:
            await self.lines.process.wait()

    async def stop(self) -> None:
        """Close its stdin, as a host does; insist after a while. Idempotent."""
        if self.lines is None or not self.running:
            return
        process = self.lines.process
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_LIMIT)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise ServerFailed(f"child {self.name} did not end within {STOP_LIMIT:g} s of its stdin's end") from None
        finally:
            self.lives[-1].died = time.time()
