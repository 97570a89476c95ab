"""Round-robin without affinity in front of replicas: HAProxy where there is one, else one of our own.

Both give each request to the next replica, a connection that is refused to the one after it, ask `/readyz` of each
replica all the time, pass streams on byte by byte, and let replicas be added and removed while they run. A request that
reached a replica is never sent again: only its client may know whether that is right. `x-replica` in an answer says
which one gave it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from lab import warden
from lab.http1 import END_OF_HEAD, LONGEST_HEAD, NotHttp, Request, read_request, with_header
from lab.ports import free_port

CHECK_EVERY = 0.25
CHECK_LIMIT = 1.0
"""Seconds. A replica that is stopped takes connections and never answers."""
CONNECT_LIMIT = 2.0
CHUNK = 65536
START_LIMIT = 20.0
STAMP = "x-replica"


class BalancerFailed(Exception):
    """The balancer did not start. The text holds what it said last."""


class Balancer(Protocol):
    """What tests, drills and the demo need of one."""

    port: int
    name: str

    async def start(self) -> None: ...

    async def set_replicas(self, ports: Iterable[int]) -> None:
        """These and no others get new requests; what runs on others goes on."""
        ...

    async def aclose(self) -> None: ...


def haproxy() -> str | None:
    """The machine's HAProxy; Debian keeps it off the path of those who aren't root."""
    return shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def best() -> Balancer:
    return Haproxy() if haproxy() else RoundRobin()


class RoundRobin:
    """Our own: a task of this process."""

    name = "round-robin of our own (lab/balancer.py)"

    def __init__(self) -> None:
        self.port = 0
        self.served: dict[int, int] = {}
        """Requests by replica."""
        self._ports: list[int] = []
        self._ready: set[int] = set()
        self._next = 0
        self._server: asyncio.Server | None = None
        self._checking: dict[int, asyncio.Task[None]] = {}
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Idempotent."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=LONGEST_HEAD)
            self.port = self._server.sockets[0].getsockname()[1]

    async def set_replicas(self, ports: Iterable[int]) -> None:
        self._ports = list(ports)
        for port in set(self._checking) - set(self._ports):
            self._checking.pop(port).cancel()
            self._ready.discard(port)
        for port in set(self._ports) - set(self._checking):
            if await _is_ready(port):
                self._ready.add(port)
            self._checking[port] = asyncio.create_task(self._check(port))

    async def aclose(self) -> None:
        """Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = [*self._checking.values(), *self._serving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # for the transports to close
        self._checking.clear()

    async def _check(self, port: int) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY)
            if await _is_ready(port):
                self._ready.add(port)
            else:
                self._ready.discard(port)

    # --- one request ---------------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        task.add_done_callback(lambda _: writer.close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection: so each request of a client goes to the next replica."""
        try:
            request = await read_request(reader)
            if request is not None:
                await self._forward(request, reader, writer)
        except NotHttp:
            writer.write(_short(b"400 Bad Request"))
        except OSError:
            writer.transport.abort()
        finally:
            writer.close()

    async def _forward(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in self._turn():
            try:
                async with asyncio.timeout(CONNECT_LIMIT):
                    back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port, limit=LONGEST_HEAD)
            except (OSError, TimeoutError):
                self._ready.discard(port)
                continue
            self.served[port] = self.served.get(port, 0) + 1
            await self._pass(request, (reader, writer), (back_reader, back_writer), port)
            return
        writer.write(_short(b"503 Service Unavailable"))

    def _turn(self) -> Sequence[int]:
        """The replicas in the order in which this request tries them: those that are ready first."""
        if not self._ports:
            return ()
        self._next += 1
        turn = [self._ports[(self._next + n) % len(self._ports)] for n in range(len(self._ports))]
        return sorted(turn, key=lambda port: port not in self._ready)

    async def _pass(
        self,
        request: Request,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        replica: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        port: int,
    ) -> None:
        replica[1].write(with_header(request.head, "connection", "close") + request.body)
        answering = asyncio.ensure_future(self._answer(replica[0], client[1], port))
        leaving = asyncio.ensure_future(client[0].read(1))  # a client that goes away in the middle takes it along
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            for task in (answering, leaving):
                task.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)
            replica[1].close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        try:
            head = await reader.readuntil(END_OF_HEAD)
        except (asyncio.IncompleteReadError, OSError):
            writer.write(_short(b"502 Bad Gateway"))
            return
        writer.write(with_header(head, STAMP, str(port)))
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()


async def _is_ready(port: int) -> bool:
    try:
        async with asyncio.timeout(CHECK_LIMIT):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n".encode())
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _short(status: bytes) -> bytes:
    return b"HTTP/1.1 " + status + b"\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


_SLOTS = 32
"""Replicas that HAProxy has room for. A slot that is not in use is in maintenance."""
_HAPROXY = f"""
global
    stats socket {{folder}}/control.sock mode 600 level admin

defaults
    mode http
    option redispatch 1
    retries 3
    retry-on conn-failure
    option http-server-close
    option http-no-delay
    option abortonclose
    timeout connect {{connect}}ms
    timeout client 1h
    timeout server 1h
    timeout check {{limit}}ms

frontend clients
    bind 127.0.0.1:{{port}}
    default_backend replicas

backend replicas
    balance roundrobin
    option httpchk GET /readyz
    http-check send hdr host localhost
    http-response set-header {STAMP} %sp
    default-server check inter {{every}}ms fall 1 rise 1 on-error mark-down observe layer4 error-limit 1
    server-template slot 1-{_SLOTS} 127.0.0.1:1 disabled
"""


class Haproxy:
    """The machine's HAProxy: a process of its own, told over its control socket which replicas there are."""

    name = "HAProxy"

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="milepost-haproxy-"))
        self._warden = warden.guard(self.folder)
        self._slots: dict[int, str] = {}
        """By the replica's port."""
        self._free = [f"slot{n}" for n in range(1, _SLOTS + 1)]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Idempotent. Raises BalancerFailed."""
        if self._process is not None:
            return
        program = haproxy()
        if program is None:
            raise BalancerFailed("there is no haproxy on this machine: `apt-get install haproxy`")
        configuration = self.folder / "haproxy.cfg"
        configuration.write_text(self._configuration())
        with (self.folder / "haproxy.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                program,
                "-db",
                "-f",
                str(configuration),
                cwd=self.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self.folder / "haproxy.pid").write_text(f"{self._process.pid}\n")
        await self._until_takes_connections()

    def _configuration(self) -> str:
        times = {"every": CHECK_EVERY, "limit": CHECK_LIMIT, "connect": CONNECT_LIMIT}
        milliseconds = {name: int(1000 * seconds) for name, seconds in times.items()}
        return _HAPROXY.format(folder=self.folder, port=self.port, **milliseconds)

    async def _until_takes_connections(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline and self._process is not None and self._process.returncode is None:
            with contextlib.suppress(OSError):
                await self._ask("show version")
                return
            await asyncio.sleep(0.02)
        raise BalancerFailed(f"HAProxy did not start:\n{(self.folder / 'haproxy.log').read_text()[-3000:]}")

    async def set_replicas(self, ports: Iterable[int]) -> None:
        wanted = list(ports)
        await self.start()
        for port in [port for port in self._slots if port not in wanted]:
            slot = self._slots.pop(port)
            await self._ask(f"set server replicas/{slot} state maint")
            self._free.append(slot)  # last: streams may still run on it
        for port in [port for port in wanted if port not in self._slots]:
            self._slots[port] = slot = self._free.pop(0)
            await self._ask(f"set server replicas/{slot} addr 127.0.0.1 port {port}")
            await self._ask(f"set server replicas/{slot} state ready")

    async def _ask(self, command: str) -> str:
        reader, writer = await asyncio.open_unix_connection(str(self.folder / "control.sock"))
        try:
            writer.write(f"{command}\n".encode())
            return (await reader.read()).decode()
        finally:
            writer.close()

    async def aclose(self) -> None:
        """Idempotent."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), START_LIMIT)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        warden.let_go(self._warden)
