"""An HTTP/1.1 response in the units that someone in the middle can strike between: its head, then whole events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.http1 import END_OF_HEAD, headers_of

_ENDS = (b"\r\n\r\n", b"\n\n")
"""Of events: servers write either."""
_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a response, as it came."""

    raw: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in small letters."""

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "")

    @property
    def length(self) -> int | None:
        text = self.headers.get("content-length")
        return None if text is None else int(text)

    @property
    def is_events(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    def without(self, name: str) -> bytes:
        """The bytes without this header."""
        first, *lines = self.raw.removesuffix(END_OF_HEAD).split(b"\r\n")
        kept = [line for line in lines if line.partition(b":")[0].strip().lower() != name.lower().encode()]
        return b"\r\n".join([first, *kept]) + END_OF_HEAD


async def read_head(reader: asyncio.StreamReader) -> Head:
    """Raises IncompleteReadError at the connection's end."""
    raw = await reader.readuntil(END_OF_HEAD)
    return Head(raw, headers_of(raw))


async def units(head: Head, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The body: event by event if it is a stream of them, else whole. Raises IncompleteReadError where it is cut."""
    if not head.is_events:
        body = b"".join([piece async for piece in _pieces(head, reader)])
        if body:
            yield body
        return
    held = b""
    async for piece in _pieces(head, reader):
        held += piece
        while (cut := _end_of_event(held)) is not None:
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held


async def _pieces(head: Head, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    if head.status in (204, 304) or head.length == 0:
        return
    if head.chunked:
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    elif head.length is not None:
        yield await reader.readexactly(head.length)
    else:
        while piece := await reader.read(_CHUNK):
            yield piece


def _end_of_event(held: bytes) -> int | None:
    found = [at + len(end) for end in _ENDS if (at := held.find(end)) >= 0]
    return min(found, default=None)


def message_in(unit: bytes, *, is_event: bool) -> dict[str, Any] | None:
    """The JSON-RPC message of an event, or of a whole body; None where it has none."""
    data = unit
    if is_event:
        lines = [line[5:].strip() for line in unit.splitlines() if line.startswith(b"data:")]
        data = b"\n".join(lines)
    try:
        message = json.loads(data)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
