"""A server that says exactly what a test tells it to, over bare TCP; it also serves the page and the module."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from milepost.browser.files import FOLDER

JS = files("milepost.browser") / "js"


@dataclass
class Asked:
    """One request to the endpoint, as it came."""

    method: str
    headers: Mapping[str, str]
    body: Any

    @property
    def rpc(self) -> str:
        return str(self.body.get("method", "")) if isinstance(self.body, dict) else ""

    @property
    def id(self) -> Any:
        return self.body.get("id")


class Out:
    """The way back of one request. A connection carries one exchange."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.cut = asyncio.Event()
        """The other side closed the connection while there was more to say."""

    async def put(self, data: bytes) -> None:
        self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError:
            self.cut.set()
            raise

    async def head(self, status: int, kind: str | None, headers: Mapping[str, str] | None = None) -> None:
        lines = [f"HTTP/1.1 {status} X", "connection: close", *(f"{k}: {v}" for k, v in (headers or {}).items())]
        if kind:
            lines.append(f"content-type: {kind}")
        await self.put(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    async def json(self, message: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(message).encode()
        await self.head(status, "application/json", {"content-length": str(len(data)), **(headers or {})})
        await self.put(data)

    async def result(self, asked: Asked, result: Any, headers: Mapping[str, str] | None = None) -> None:
        await self.json({"jsonrpc": "2.0", "id": asked.id, "result": result}, headers=headers)

    async def text(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        await self.head(status, "text/plain", {"content-length": "0", **(headers or {})})

    async def stream(self, headers: Mapping[str, str] | None = None) -> None:
        await self.head(200, "text/event-stream", headers)

    async def event(self, message: Any = None, id: str | None = None, retry: int | None = None) -> None:  # noqa: A002
        said = "" if id is None else f"id: {id}\n"
        said += "" if retry is None else f"retry: {retry}\n"
        said += f"data: {'' if message is None else json.dumps(message)}\n\n"
        await self.put(said.encode())

    def reset(self) -> None:
        """As if the network had broken: no orderly end."""
        self._writer.transport.abort()


Script = Callable[[Asked, Out], Awaitable[None]]


@dataclass
class Peer:
    script: Script | None = None
    asked: list[Asked] = field(default_factory=list)
    """What came to the endpoint, in order."""
    port: int = 0
    outs: list[Out] = field(default_factory=list)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    """Connections that are open: a browser also opens some ahead, and says nothing on them."""

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def rpcs(self) -> list[str]:
        return [one.rpc for one in self.asked]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._one(reader, Out(writer))
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self.tasks.discard(task)

    async def aclose(self) -> None:
        """Break off what is open."""
        open_now = tuple(self.tasks)
        for task in open_now:
            task.cancel()
        await asyncio.gather(*open_now)

    async def _one(self, reader: asyncio.StreamReader, out: Out) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if path == "/mcp" and self.script is not None:
            asked = Asked(method, headers, json.loads(body) if body else {})
            self.asked.append(asked)
            self.outs.append(out)
            await self.script(asked, out)
        else:
            await _page(path, out)


async def _page(path: str, out: Out) -> None:
    if path == "/page":
        body, kind = b"<!doctype html><title>peer</title>", "text/html"
    elif path.startswith(FOLDER) and (found := JS / path.removeprefix(FOLDER)).is_file():
        body, kind = found.read_bytes(), "text/javascript"
    else:
        await out.text(404)
        return
    await out.head(200, kind, {"content-length": str(len(body))})
    await out.put(body)


@asynccontextmanager
async def peering() -> AsyncIterator[Peer]:
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    async with server:
        try:
            yield peer
        finally:
            server.close()
            await peer.aclose()


def discovered() -> dict[str, Any]:
    """What a modern server says of itself."""
    return {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0}


def tools(*names: str, **more: Any) -> dict[str, Any]:
    listed = [{"name": name, "inputSchema": {"type": "object"}, **more} for name in names]
    return {"resultType": "complete", "tools": listed, "ttlMs": 0}


def said(text: str) -> dict[str, Any]:
    return {"resultType": "complete", "content": [{"type": "text", "text": text}], "isError": False}
