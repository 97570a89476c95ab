"""The least HTTP and stdio that a client needs, so that nothing hides a break or mends it: no pool, no retries.

A connection that ends before its message did raises `Broken`. One request is one connection.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]

LONGEST_LINE = 1 << 24


class Broken(Exception):
    """The connection was refused, or ended in the middle."""


class Unreached(Broken):
    """Nobody took the connection: what was to be sent has surely not arrived."""


class Dropped(Broken):
    """The client itself closed it."""


class Silent(Broken):
    """Nothing came for longer than the client puts up with."""


@dataclass(frozen=True, slots=True)
class Sse:
    """One event of an event stream."""

    id: str | None
    data: str
    retry: float | None
    """Seconds."""


@dataclass
class Response:
    """An answer whose head has been read; the body is read as it comes."""

    status: int
    headers: Mapping[str, str]
    _reader: asyncio.StreamReader
    _patience: float
    _rest: bytes = b""
    _ended: bool = False
    _lines: list[str] = field(default_factory=list)

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    async def body(self) -> bytes:
        parts = [self._rest]
        while part := await self._part():
            parts.append(part)
        return b"".join(parts)

    async def json(self) -> Message:
        decoded: Message = json.loads(await self.body())
        return decoded

    async def events(self) -> AsyncIterator[Sse]:
        """The events until the server ends the stream."""
        while (line := await self._line()) is not None:
            if line:
                self._lines.append(line)
                continue
            if event := _event(self._lines):
                yield event
            self._lines = []

    async def _line(self) -> str | None:
        while b"\n" not in self._rest:
            part = await self._part()
            if not part:
                return None
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line.rstrip(b"\r").decode()

    async def _part(self) -> bytes:
        """The next piece of the body; empty at its end. Raises Broken if the connection ends before that."""
        if self._ended:
            return b""
        try:
            async with asyncio.timeout(self._patience):
                return await self._next()
        except TimeoutError:
            raise Silent(f"silent for {self._patience:g} s") from None
        except (OSError, asyncio.IncompleteReadError, ValueError) as exc:
            raise Broken(f"cut off: {exc!r}") from exc

    async def _next(self) -> bytes:
        length = self.headers.get("content-length")
        if length is not None:
            self._ended = True
            return await self._reader.readexactly(int(length))
        if self.headers.get("transfer-encoding") != "chunked":
            part = await self._reader.read(65536)
            self._ended = not part
            return part
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        part = (await self._reader.readexactly(size + 2))[:-2]
        self._ended = size == 0
        return part


def _event(lines: list[str]) -> Sse | None:
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name:
            fields[name] = value.removeprefix(" ")
    if not fields:
        return None
    retry = fields.get("retry")
    return Sse(fields.get("id"), fields.get("data", ""), int(retry) / 1000 if retry else None)


@asynccontextmanager
async def request(
    port: int,
    method: str,
    headers: Mapping[str, str],
    body: Message | None = None,
    *,
    path: str = "/mcp",
    patience: float = 60.0,
    sent: Callable[[], None] = lambda: None,
) -> AsyncIterator[Response]:
    """Send one request; `sent` is called when its last byte has gone to the kernel. Raises Broken."""
    content = b"" if body is None else json.dumps(body).encode()
    head = {"host": f"127.0.0.1:{port}", "connection": "close", "content-length": str(len(content)), **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LONGEST_LINE)
    except OSError as exc:
        raise Unreached(f"not reached: {exc}") from exc
    try:
        try:
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
            sent()
            async with asyncio.timeout(patience):
                await writer.drain()
                status, answered = _head(await reader.readuntil(b"\r\n\r\n"))
        except TimeoutError:
            raise Silent(f"no answer for {patience:g} s") from None
        except (OSError, asyncio.IncompleteReadError) as exc:
            raise Broken(f"no answer: {exc!r}") from exc
        yield Response(status, answered, reader, patience)
    finally:
        writer.close()


def _head(raw: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.split(":", 1) for line in lines)
    return int(first.split()[1]), {name.strip().lower(): value.strip() for name, value in pairs}


class Lines:
    """JSON lines to and from a child process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def write(self, message: Message) -> None:
        """Raises Broken."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            await self.process.stdin.drain()
        except OSError as exc:
            raise Broken(f"the child is gone: {exc!r}") from exc

    async def read(self, patience: float = 60.0) -> Message:
        """The next message. Raises Broken when the child has gone."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(patience):
                line = await self.process.stdout.readline()
        except TimeoutError:
            raise Silent(f"silent for {patience:g} s") from None
        if not line.endswith(b"\n"):
            raise Broken("the child is gone")
        decoded: Message = json.loads(line)
        return decoded
