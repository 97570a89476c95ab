"""An HTTP server whose every answer the test writes: the fake peer, down to the bytes and the way it hangs up."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

JSON = dict[str, Any]


@dataclass
class Seen:
    """A request as it came."""

    verb: str
    headers: dict[str, str]
    body: JSON

    @property
    def method(self) -> str:
        return str(self.body.get("method", self.verb))

    @property
    def id(self) -> Any:
        return self.body.get("id")

    @property
    def params(self) -> JSON:
        return self.body.get("params") or {}

    @property
    def meta(self) -> JSON:
        return self.params.get("_meta") or {}


@dataclass
class Connection:
    """One request's way back."""

    seen: Seen
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int, *headers: str, length: int | None = None) -> None:
        lines = [f"HTTP/1.1 {status} X", *headers]
        lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def chunk(self, data: bytes) -> None:
        if data:  # an empty one would end the body
            await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.send(b"0\r\n\r\n")

    def reset(self) -> None:
        """Hang up with an RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Answer = Callable[[Connection], Awaitable[None]]


def status(code: int, *headers: str, body: bytes = b"", kind: str = "text/plain") -> Answer:
    async def answer(wire: Connection) -> None:
        await wire.head(code, f"content-type: {kind}", *headers, length=len(body))
        await wire.send(body)

    return answer


def result(value: JSON, *headers: str) -> Answer:
    async def answer(wire: Connection) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": wire.seen.id, "result": value}).encode()
        await status(200, *headers, body=body, kind="application/json")(wire)

    return answer


def error(code: int, message: str, http: int = 200, data: Any = None) -> Answer:
    async def answer(wire: Connection) -> None:
        fault = {"code": code, "message": message} | ({} if data is None else {"data": data})
        body = json.dumps({"jsonrpc": "2.0", "id": wire.seen.id, "error": fault}).encode()
        await status(http, body=body, kind="application/json")(wire)

    return answer


def frame(message: JSON | str, event_id: str | None = None, retry: int | None = None) -> bytes:
    lines = [] if event_id is None else [f"id: {event_id}"]
    lines += [] if retry is None else [f"retry: {retry}"]
    lines.append(f"data: {message if isinstance(message, str) else json.dumps(message)}")
    return ("\n".join(lines) + "\n\n").encode()


Frame = bytes | Callable[[Seen], bytes]


def stream(*frames: Frame, end: bool = True, reset: bool = False) -> Answer:
    """Events, then the end of the stream, or a reset, or silence."""

    async def answer(wire: Connection) -> None:
        await wire.head(200, "content-type: text/event-stream")
        for one in frames:
            await wire.chunk(one if isinstance(one, bytes) else one(wire.seen))
        if reset:
            wire.reset()
        elif end:
            await wire.end()
        else:
            await asyncio.Event().wait()

    return answer


def response(value: JSON) -> Frame:
    return lambda seen: frame({"jsonrpc": "2.0", "id": seen.id, "result": value})


def drop(wire: Connection) -> Awaitable[None]:
    """Read the request, then hang up without a word."""

    async def gone() -> None:
        wire.reset()

    return gone()


async def hang(wire: Connection) -> None:
    await asyncio.Event().wait()


TEXT = {"content": [{"type": "text", "text": "done"}], "resultType": "complete"}
DISCOVER: JSON = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {"listChanged": True}},
    "resultType": "complete",
    "ttlMs": 0,
    "cacheScope": "private",
}
INITIALIZE: JSON = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}, "logging": {}, "resources": {"subscribe": True}},
    "serverInfo": {"name": "peer", "version": "1"},
}


def tools(*declared: JSON) -> JSON:
    listed = [{"inputSchema": {"type": "object"}, **one} for one in declared]
    return {"tools": listed, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}


@dataclass
class Peer:
    """Answers by JSON-RPC method ("GET", "DELETE", "answer" are methods here): one after another, the last for ever."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    answers: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    connections: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def on(self, method: str, *answers: Answer) -> None:
        self.answers[method] = list(answers)

    def of(self, method: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == method or (method == "answer" and is_answer(seen))]

    async def until(self, method: str, count: int = 1) -> list[Seen]:
        """Wait for so many requests of that kind."""
        async with asyncio.timeout(20), self.news:
            await self.news.wait_for(lambda: len(self.of(method)) >= count)
        return self.of(method)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while not writer.is_closing():
                    await self._one(reader, writer)
        finally:
            self.tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:]) if name}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        seen = Seen(head[0].split(" ")[0], headers, json.loads(body) if body else {})
        async with self.news:
            self.seen.append(seen)
            self.news.notify_all()
        await self._answer(seen)(Connection(seen, writer))

    def _answer(self, seen: Seen) -> Answer:
        queue = self.answers.get("answer" if is_answer(seen) else seen.method, [])
        if queue:
            return queue.pop(0) if len(queue) > 1 else queue[0]
        return _usual(seen)


def is_answer(seen: Seen) -> bool:
    return seen.verb == "POST" and "method" not in seen.body


def _usual(seen: Seen) -> Answer:
    if seen.method == "server/discover":
        return result(DISCOVER)
    if seen.method == "initialize":
        return result(INITIALIZE, "mcp-session-id: session-1")
    if seen.method == "tools/call":
        return result(TEXT)
    if seen.method == "tools/list":
        return result(tools())
    if seen.verb == "GET":
        return status(405)
    if "id" not in seen.body or is_answer(seen):
        return status(202)
    return result({})


@asynccontextmanager
async def listening() -> AsyncIterator[Peer]:
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0, limit=2**24)
    peer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    try:
        yield peer
    finally:
        server.close()
        for task in list(peer.tasks):
            task.cancel()
        await asyncio.gather(*peer.tasks, return_exceptions=True)
