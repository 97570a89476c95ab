"""`milepost serve` as a real process, which tests may kill and start anew on the same port and the same rows."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

START_LIMIT = 40.0
STOP_LIMIT = 20.0
"""Seconds."""

ROOT = Path(__file__).parents[1]


_FIRST, _LAST = 20_000, 32_000
_ports = itertools.count(os.getpid() * 101)


def free_port() -> int:
    """A port that stays free while its server is killed and started anew.

    It is below those that the system hands out by itself, and each process that runs tests begins elsewhere.
    """
    for number in itertools.islice(_ports, 500):
        port = _FIRST + number % (_LAST - _FIRST)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


@dataclass
class ServerProcess:
    """One server. `folder` holds its store and its log, and is not the project's."""

    target: str
    folder: Path
    cwd: Path = ROOT
    env: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder / 'milepost.db'}"

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    async def start(self) -> None:
        milepost = Path(sys.executable).with_name("milepost")
        arguments = ["serve", self.target, "--port", str(self.port), "--store", self.store, "--single-user"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                milepost, *arguments, cwd=self.cwd, env={**os.environ, **self.env},
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        await self._ready(self.process)

    async def _ready(self, process: asyncio.subprocess.Process) -> None:
        async with httpx2.AsyncClient() as http, asyncio.timeout(START_LIMIT):
            while True:
                assert process.returncode is None, self.log
                try:
                    answer = await http.get(f"http://127.0.0.1:{self.port}/readyz")
                    if answer.status_code == 200:
                        return
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """SIGKILL, by its own pid."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        await self.process.wait()

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    async def stop(self) -> None:
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), STOP_LIMIT)
        except TimeoutError:
            await self.kill()


@asynccontextmanager
async def served(
    target: str, folder: Path, *, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> AsyncIterator[ServerProcess]:
    """A running server, stopped at the end whatever happened to it."""
    server = ServerProcess(target, folder, cwd, env or {})
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
