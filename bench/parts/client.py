"""A client that costs little: one kept connection, and responses that are read and hardly looked at."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

_PREFIX = "io.modelcontextprotocol/"
ENVELOPE = {
    _PREFIX + "protocolVersion": "2026-07-28",
    _PREFIX + "clientCapabilities": {"elicitation": {}},
    _PREFIX + "clientInfo": {"name": "bench", "version": "1"},
}
numbers = itertools.count(1)


class Connection:
    """One HTTP/1.1 connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._host = "{}:{}".format(*writer.get_extra_info("peername"))

    async def post(self, headers: Mapping[str, str], message: Mapping[str, Any]) -> tuple[dict[str, str], bytes]:
        """The response's headers and body. Fails on any status that is no success."""
        body = json.dumps(message).encode()
        fields = {"host": self._host, "content-length": str(len(body)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._writer.write(b"POST /mcp HTTP/1.1\r\n" + head.encode() + b"\r\n" + body)
        return await self._response()

    async def _response(self) -> tuple[dict[str, str], bytes]:
        status, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join([chunk async for chunk in self._chunks()])
        else:
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        assert status.split()[1].startswith("2"), (status, body)
        return headers, body

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readline(), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


def call(tool: str, arguments: Mapping[str, Any], *, meta: Mapping[str, Any] | None = None) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments} | ({} if meta is None else {"_meta": meta})
    return {"jsonrpc": "2.0", "id": next(numbers), "method": "tools/call", "params": params}


class Modern:
    """Calls of 2026-07-28: each stands for itself."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def open(self) -> None:
        return None

    async def call(self, tool: str, **arguments: Any) -> bytes:
        headers = {**_HEADERS, "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": tool}
        return (await self._connection.post(headers, call(tool, arguments, meta=ENVELOPE)))[1]


class Handshake:
    """Calls of 2025-11-25, in a session."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._session: dict[str, str] = {}

    async def open(self) -> None:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        initialize = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        headers, _ = await self._connection.post(_HEADERS, initialize)
        self._session = {"mcp-session-id": headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
        told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        await self._connection.post({**_HEADERS, **self._session}, told)

    async def call(self, tool: str, **arguments: Any) -> bytes:
        return (await self._connection.post({**_HEADERS, **self._session}, call(tool, arguments)))[1]


Era = Callable[[Connection], Modern | Handshake]
_HEADERS = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
