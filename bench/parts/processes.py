"""Servers as processes of their own, so that what is measured of them is theirs alone."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

HERE = Path(__file__).parent
START_LIMIT = 60.0
STOP_LIMIT = 45.0
"""Seconds."""


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    port: int
    process: psutil.Process

    @property
    def cpu(self) -> float:
        """Seconds of CPU since its start, all threads, user and system."""
        spent = self.process.cpu_times()
        return float(spent.user + spent.system)

    @property
    def rss(self) -> int:
        """Bytes of memory that are resident."""
        return int(self.process.memory_info().rss)


@asynccontextmanager
async def milepost(folder: Path) -> AsyncIterator[Served]:
    """`milepost serve parts/tools.py:mcp` on a SQLite file in `folder`."""
    serve = ["-c", "from milepost.cli import main; main()", "serve", f"{HERE / 'tools.py'}:mcp"]
    async with _running([*serve, "--store", f"sqlite:///{folder / 'bench.db'}", "--port"]) as served:
        yield served


@asynccontextmanager
async def sdk() -> AsyncIterator[Served]:
    """The same server on the SDK's own transport."""
    async with _running([str(HERE / "peer.py")]) as served:
        yield served


@asynccontextmanager
async def _running(arguments: Sequence[str]) -> AsyncIterator[Served]:
    """Start with the port as last argument, wait until it listens, and stop at the end."""
    port = _free_port()
    quiet = {**os.environ, "MILEPOST_LOG_LEVEL": "warning"}
    with tempfile.TemporaryFile() as said:
        command = [sys.executable, *arguments, str(port)]
        process = subprocess.Popen(command, env=quiet, stdin=subprocess.DEVNULL, stderr=said)  # noqa: ASYNC220
        try:
            await _listens(port, process, said)
            yield Served(port, psutil.Process(process.pid))
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, STOP_LIMIT)


async def _listens(port: int, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
    async with asyncio.timeout(START_LIMIT):
        while True:
            assert process.poll() is None, said.seek(0) or said.read().decode()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
