"""The servers of the drill, as real processes, and what can be done to one from outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import httpx2

from drills import ledger
from drills.servers import Place, Server, ServerFailed
from lab.ports import free_port
from lab.striker import Striker

_HERE = Path(__file__).parent
_START_LIMIT = 60.0
_SETTINGS = {"MILEPOST_LOG_LEVEL": "info"}


class Process(Protocol):
    """A server on one port; each `start` is a new process."""

    port: int

    @property
    def pid(self) -> int: ...

    async def start(self) -> None: ...

    def kill_nowait(self) -> None: ...

    async def buried(self) -> None: ...

    async def stop(self) -> None: ...


class StockServer:
    """A stock server: `sdk` or `fastmcp`."""

    def __init__(self, kind: str, folder: Path, ledger_path: Path) -> None:
        self.port = free_port()
        self._kind = kind
        self._folder = folder
        self._ledger = ledger_path
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start it and wait until it takes connections. Raises ServerFailed."""
        with (self._folder / f"{self._kind}-{self.port}.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(_HERE / "stock.py"),
                self._kind,
                str(self.port),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, ledger.PLACE: str(self._ledger)},
            )
        deadline = time.monotonic() + _START_LIMIT
        while self._process.returncode is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            await asyncio.sleep(0.02)
        raise ServerFailed(f"the {self._kind} server did not come up; see its log in {self._folder}")

    def kill_nowait(self) -> None:
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, signal.SIGKILL)

    async def buried(self) -> None:
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """At once: open streams would hold a stock server up. Idempotent."""
        self.kill_nowait()
        await self.buried()


class Lane:
    """One server and those who talk to it through their own proxies."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.restarts = 0
        self._strikers: set[Striker] = set()
        self._restarting: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def behind(self, striker: Striker) -> AsyncIterator[Striker]:
        """The proxy is open as long as the block, and closed while the server is down, as its port would be."""
        if self._restarting is not None:
            await asyncio.shield(self._restarting)
        self._strikers.add(striker)
        try:
            async with striker:
                yield striker
        finally:
            self._strikers.discard(striker)

    async def restart(self) -> None:
        """SIGKILL, and a new process on the same port. Those who want one at the same time share it."""
        if self._restarting is None:
            self.process.kill_nowait()
            for striker in self._strikers:
                striker.down_nowait()
            self.restarts += 1
            self._restarting = asyncio.ensure_future(self._come_back())
        await asyncio.sleep(0)

    async def _come_back(self) -> None:
        try:
            await self.process.buried()
            await self.process.start()
            for striker in list(self._strikers):
                await striker.up()
        finally:
            self._restarting = None

    async def delete(self, session: str, version: str = "2025-11-25") -> None:
        """End a session behind its client's back."""
        headers = {"mcp-session-id": session, "mcp-protocol-version": version}
        async with httpx2.AsyncClient() as http:
            with contextlib.suppress(httpx2.HTTPError):
                await http.delete(f"http://127.0.0.1:{self.process.port}/mcp", headers=headers, timeout=10)

    async def aclose(self) -> None:
        if self._restarting is not None:
            await self._restarting
        await self.process.stop()


def process_of(server: str, folder: Path) -> Process:
    """A server in a folder that is its own; all servers of a folder's parent share the ledger there."""
    folder.mkdir(parents=True, exist_ok=True)
    book = folder.parent / "ledger.jsonl"
    if server == "milepost":
        return Server(_Milepost(folder, _SETTINGS, target=f"{_HERE / 'target.py'}:mcp"), folder.name)
    return StockServer(server, folder, book)


class _Milepost(Place):
    """A place whose ledger is shared."""

    @property
    def ledger(self) -> Path:
        return self.folder.parent / "ledger.jsonl"
