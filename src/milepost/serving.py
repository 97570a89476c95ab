"""Serving over HTTP: our socket, uvicorn with httptools, and a stop that drains first."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Final

import structlog
import uvicorn

from milepost.app import Milepost
from milepost.core.errors import ConfigurationError
from milepost.running import settle
from milepost.settings import HttpSettings
from milepost.wire.sdk import trusting_local
from milepost.wire.stdio import serve_pipe

log = structlog.get_logger("milepost")

_LAST_WORDS: Final = 5
"""Seconds that connections may stay open after the drain has ended their streams."""


def listen(settings: HttpSettings) -> socket.socket:
    """The bound socket. Raises ConfigurationError: in use, not ours, no such address."""
    where = f"{settings.host} port {settings.port}"
    if settings.port > 65535:  # the system would quietly take it modulo 65536
        raise ConfigurationError(f"there is no port {settings.port}: it must be 0 to 65535")
    try:
        info = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(info[0], info[1])
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(info[4])
            sock.listen(settings.backlog)
        except BaseException:
            sock.close()
            raise
    except socket.gaierror:
        raise ConfigurationError(f"{settings.host!r} is no address of this machine: check --host") from None
    except OSError as exc:
        raise ConfigurationError(_why(exc, where)) from None
    sock.setblocking(False)
    return sock


def _why(exc: OSError, where: str) -> str:
    if exc.errno == errno.EADDRINUSE:
        return f"{where} is in use: stop what listens there, or choose another with --port (0 takes a free one)"
    if exc.errno == errno.EACCES:
        return f"{where} may not be used by this user: choose a port above 1023 with --port"
    return f"can't listen on {where}: {exc.strerror}"


class _Server(uvicorn.Server):
    """uvicorn, but we handle the signals: first the drain, then its own stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_http(app: Milepost, on_ready: Callable[[str], None] = lambda _url: None) -> None:
    """Serve until SIGTERM or SIGINT; a second signal doesn't wait. Raises ConfigurationError, StoreError."""
    settings = app.settings.http
    sock = listen(settings)
    try:
        async with app.running():
            server = _Server(_config(app))
            settle()
            with _stopping(app, server):
                on_ready(url_of(sock, settings.path))
                await server.serve(sockets=[sock])
    finally:
        sock.close()


def _config(app: Milepost) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        http="httptools",
        ws="none",
        timeout_graceful_shutdown=_LAST_WORDS,
    )


@contextlib.contextmanager
def _stopping(app: Milepost, server: uvicorn.Server) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def stop() -> None:
        try:
            await app.drain()
        finally:
            server.should_exit = True

    def told(number: int) -> None:
        if tasks:
            os._exit(128 + number)  # whoever asks twice means it; nothing is lost by it, as by kill -9
        tasks.add(loop.create_task(stop()))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def url_of(sock: socket.socket, path: str) -> str:
    """Where a client finds the endpoint."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104  shown
    return f"http://{host}:{port}{path}"


async def serve_stdio(app: Milepost, at_end: Callable[[], None] = lambda: None) -> None:
    """Serve stdin and stdout until stdin ends, or SIGTERM. Raises ConfigurationError, StoreError.

    `at_end` is called when stdin has ended, before calls that only run in memory are cancelled.

    The caller is the one local user, so FastMCP's per-tool `auth` checks don't apply, as on its own stdio.
    """
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    with trusting_local():
        async with app.running() as parts:
            settle()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, told.set)
            pipe, stop = asyncio.create_task(serve_pipe(parts.endpoint, at_end)), asyncio.create_task(told.wait())
            try:
                await asyncio.wait({pipe, stop}, return_when=asyncio.FIRST_COMPLETED)
                await app.drain()
            finally:
                pipe.cancel()
                stop.cancel()
                await asyncio.wait({pipe, stop})
    if not pipe.cancelled() and (error := pipe.exception()) is not None:
        raise error
