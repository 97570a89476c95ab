"""Small real servers for the lab's tests, each of which does what one test needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from lab.http1 import Request, read_request

BOUND = 20.0
"""Seconds that anything here may take."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    """A server on a free port, with one handler for each connection, all of which end with the block."""
    tasks: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(one(reader, writer))
        task.add_done_callback(lambda _: writer.close())  # also of one that was cancelled before it began
        tasks.add(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Gives back what it gets, as long as it gets something."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def connected(port: int) -> Streams:
    return await asyncio.open_connection("127.0.0.1", port)


async def exchanged(streams: Streams, data: bytes) -> bytes:
    """What comes back for it."""
    streams[1].write(data)
    async with asyncio.timeout(BOUND):
        return await streams[0].readexactly(len(data))


def post(body: bytes, path: str = "/mcp") -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: here\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@dataclass
class Replica:
    """An HTTP server that says who it is, can be unready, and streams when asked for `/stream`."""

    name: str
    ready: bool = True
    got: list[Request] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """A stream's client went away."""
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse new connections and end those that are."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        task.add_done_callback(lambda _: writer.close())
        self._tasks.add(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_request(reader)) is not None:
                if b" /readyz " in request.head:
                    writer.write(_answer(b"200 OK" if self.ready else b"503 Busy", b""))
                elif b" /stream " in request.head:
                    await self._stream(reader, writer)
                    return
                else:
                    self.got.append(request)
                    self.news.set()
                    writer.write(_answer(b"200 OK", self.name.encode()))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: first\n\n")
        leaving = asyncio.ensure_future(reader.read(1))
        going_on = asyncio.ensure_future(self.go_on.wait())
        await asyncio.wait((leaving, going_on), return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            self.left.set()
        else:
            writer.write(b"data: second\n\n")
        leaving.cancel()
        going_on.cancel()


def _answer(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 " + status + f"\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
