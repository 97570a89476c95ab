"""Real processes for tests of the proxy: stock remotes that can be killed, and the proxy over a pipe and over HTTP."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from mcp import Client, StdioServerParameters

from milepost.connect.command import MODES, Proxy, settings_of
from milepost.connect.mirror import Mirror
from milepost.connect.places import Places
from milepost.connect.remote import Door
from processes import ROOT, free_port

HERE = Path(__file__).parent
MILEPOST = str(Path(sys.executable).with_name("milepost"))
LIMIT = 60.0
"""Seconds that any wait of these tests may take."""

HOSTS = ["legacy", "2026-07-28"]
REMOTES = ["handshake", "modern"]
WIRES = ["stdio", "http"]


@dataclass
class Stock:
    """A server that is not Milepost: a script of this folder, that loses all it knows when it is killed."""

    script: str
    ledger: Path
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def wrote(self) -> list[str]:
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, str(HERE / self.script), str(self.port), str(self.ledger),
            cwd=ROOT, stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(LIMIT):
            while not _answers(self.port):
                assert self.process.returncode is None, "the remote ended"
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            os.kill(self.process.pid, signal.SIGKILL)
        await self.process.wait()

    async def restart(self) -> None:
        await self.kill()
        await self.start()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@asynccontextmanager
async def stock(script: str, folder: Path) -> AsyncIterator[Stock]:
    server = Stock(script, folder / "ledger")
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


def environment(folder: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """A proxy's environment: its state is the test's own."""
    return {**os.environ, "XDG_STATE_HOME": str(folder / "state"), **(more or {})}


def piped(folder: Path, url: str, *flags: str, env: Mapping[str, str] | None = None) -> StdioServerParameters:
    """How a host starts the proxy."""
    return StdioServerParameters(
        command=MILEPOST, args=["connect", url, *flags], env=environment(folder, env), cwd=str(folder)
    )


_logs = itertools.count(1)


@asynccontextmanager
async def hosting(folder: Path, url: str, era: str) -> AsyncIterator[str]:
    """The proxy over HTTP in this very process, so that it can be measured. Gives its URL."""
    door = Door(url, MODES[era], {}, f"sqlite:///{folder / 'client.db'}")
    where = Places(f"sqlite:///{folder / 'milepost.db'}", door.journal, folder / "seen.json")
    app = Proxy(Mirror(door, where.seen), settings_of(where, 0, None))
    async with app.running(), web(app) as at:
        try:
            yield at
        finally:
            await app.drain()


@asynccontextmanager
async def web(app: Any) -> AsyncIterator[str]:
    """An ASGI app on a free port of this process. Gives the URL of its endpoint."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=2))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        finally:
            server.should_exit = True
            await serving


@dataclass
class HttpProxy:
    """`milepost connect URL --listen PORT`."""

    url: str
    process: asyncio.subprocess.Process
    log: Path

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)


@asynccontextmanager
async def listening(
    folder: Path, url: str, *flags: str, port: int = 0, env: Mapping[str, str] | None = None
) -> AsyncIterator[HttpProxy]:
    log = folder / f"proxy-{next(_logs)}.log"
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            MILEPOST, "connect", url, "--listen", str(port), *flags, cwd=folder, env=environment(folder, env),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=file,
        )  # fmt: skip
    try:
        yield HttpProxy(await _announced(process, log), process, log)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()


def said(log: Path) -> str:
    return log.read_text(errors="replace")


async def _announced(process: asyncio.subprocess.Process, log: Path) -> str:
    async with asyncio.timeout(LIMIT):
        while True:
            found = re.findall(r"milepost: serving (\S+)\n", said(log))
            if found:
                return str(found[-1])
            assert process.returncode is None, said(log)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def through(
    wire: str, folder: Path, url: str, *flags: str, env: Mapping[str, str] | None = None, **more: Any
) -> AsyncIterator[Client]:
    """The official client, connected to `url` through the proxy. `more`: what the client takes (`mode`, callbacks)."""
    if wire == "stdio":
        async with Client(piped(folder, url, *flags, env=env), cache=None, **more) as client:
            yield client
        return
    async with listening(folder, url, *flags, env=env) as proxy, Client(proxy.url, cache=None, **more) as client:
        yield client


# --- a host that says exactly what the test says -----------------------------------------------------


class RawHost:
    """The proxy's standard streams, message by message."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.last: dict[str, Any] = {}

    async def say(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        await self.process.stdin.drain()

    async def hear(self) -> dict[str, Any]:
        """The next message. Whatever stands on stdout must be one."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), LIMIT)
        assert line, "the proxy has ended"
        self.last = json.loads(line)
        assert self.last["jsonrpc"] == "2.0"
        return self.last

    async def asked(self) -> dict[str, Any]:
        """The next question."""
        while not ("method" in (message := await self.hear()) and "id" in message):
            assert "error" not in message, message
        return message

    async def response(self) -> dict[str, Any]:
        """The next response."""
        while "method" in (message := await self.hear()):
            pass
        return message

    async def answer(self, result: Mapping[str, Any]) -> None:
        await self.say({"id": self.last["id"], "result": result})

    async def handshake(self, capabilities: Mapping[str, Any]) -> dict[str, Any]:
        """The result of `initialize`."""
        params = {
            "protocolVersion": "2025-11-25",
            "capabilities": capabilities,
            "clientInfo": {"name": "raw", "version": "1"},
        }
        await self.say({"id": 1, "method": "initialize", "params": params})
        result: dict[str, Any] = (await self.response())["result"]
        await self.say({"method": "notifications/initialized"})
        return result

    async def rest(self) -> bytes:
        """What is left on stdout, of a proxy that has ended."""
        assert self.process.stdout is not None
        return await self.process.stdout.read()

    async def leave(self) -> None:
        """Close the pipe, as hosts do, and wait for the process to end by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        await asyncio.wait_for(self.process.wait(), LIMIT)


@asynccontextmanager
async def raw(proxy: StdioServerParameters) -> AsyncIterator[RawHost]:
    process = await asyncio.create_subprocess_exec(
        proxy.command, *proxy.args, cwd=proxy.cwd, env=proxy.env,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24,
    )  # fmt: skip
    try:
        yield RawHost(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
