"""The assistant's server: a real `milepost serve` process that can be killed and started anew on the same port."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import sys
import time
from pathlib import Path

import httpx2

START_LIMIT = 30.0
STOP_LIMIT = 15.0
"""Seconds."""

AIRLINE_LATENCY = "1.2"
"""Seconds that the booking system takes to answer: long enough for a server to be killed in the middle of a step."""

CLIENT_RETRY = "3s"
"""How long the server asks clients to wait before they come back: the SDK's client tries only twice."""

_COMMAND = "from milepost.cli import main; main()"


class DemoFailed(Exception):
    """The demo can't go on. The text says why, for the person at the terminal."""


def target() -> Path:
    """The assistant's `server.py`: packed into the wheel beside this module, or the checkout's `examples/`."""
    spec = importlib.util.find_spec("milepost.demo")
    here = Path(__file__).parent if spec is None or not spec.origin else Path(spec.origin).parent
    places = (here / "travel_ops" / "server.py", here.parents[2] / "examples" / "travel_ops" / "server.py")
    for place in places:
        if place.is_file():
            return place
    raise DemoFailed(f"the travel assistant is neither at {places[0]} nor at {places[1]}: reinstall milepost")


class Assistant:
    """One server, in one folder, on one port; `start` after `kill` is a new process on the same rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "travel_ops.db"
        self.store = f"sqlite:///{folder / 'milepost.db'}"
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.log = folder / "server.log"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def start(self) -> float:
        """Start it and wait until it says that it is ready. Returns the seconds that took."""
        begun = time.monotonic()
        arguments = ["serve", str(target()), "--port", str(self.port), "--store", self.store, "--single-user"]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MILEPOST_")},
            "TRAVEL_OPS_DB": str(self.data),
            "TRAVEL_OPS_LATENCY": AIRLINE_LATENCY,
            "MILEPOST_HTTP_RETRY": CLIENT_RETRY,
        }
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _COMMAND, *arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, env=environment,
            )  # fmt: skip
        await self._ready()
        return time.monotonic() - begun

    async def _ready(self) -> None:
        assert self._process is not None  # noqa: S101  start() has just made it
        async with httpx2.AsyncClient() as http:
            deadline = time.monotonic() + START_LIMIT
            while time.monotonic() < deadline and self._process.returncode is None:
                try:
                    answer = await http.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5)
                    if answer.status_code == 200:
                        return
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.05)
        raise DemoFailed(f"the server did not become ready. Its log ends with:\n{self.last_words()}")

    async def kill(self) -> None:
        """SIGKILL: no clean-up, no goodbye."""
        assert self._process is not None  # noqa: S101  only a started server is killed
        os.kill(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def stop(self) -> None:
        """Ask it to end; insist if it doesn't. Idempotent."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_LIMIT)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else "(no log)"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
