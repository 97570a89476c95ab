"""HTTP/1.1 as far as someone in the middle needs it: whole requests read as bytes, heads taken apart."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

LONGEST_HEAD = 1 << 16
END_OF_HEAD = b"\r\n\r\n"


class NotHttp(Exception):
    """What came is no HTTP/1.1 request with a length: it can only be passed on as bytes."""


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request, as it came."""

    head: bytes
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in small letters."""

    @property
    def raw(self) -> bytes:
        return self.head + self.body

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode("latin-1")


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next whole request; None at the connection's end. Raises NotHttp, whose `args` are the bytes read so far."""
    try:
        head = await reader.readuntil(END_OF_HEAD)
    except asyncio.IncompleteReadError as cut:
        if cut.partial:
            raise NotHttp(cut.partial) from cut
        return None
    headers = headers_of(head)
    if "transfer-encoding" in headers:
        raise NotHttp(head)
    try:
        length = int(headers.get("content-length", "0"))
        return Request(head, await reader.readexactly(length), headers)
    except (ValueError, asyncio.IncompleteReadError) as broken:
        raise NotHttp(head + getattr(broken, "partial", b"")) from broken


def headers_of(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def with_header(head: bytes, name: str, value: str) -> bytes:
    """The head with this header set, instead of any that was there."""
    first, *lines = head.removesuffix(END_OF_HEAD).split(b"\r\n")
    kept = [line for line in lines if line.partition(b":")[0].strip().lower() != name.lower().encode()]
    return b"\r\n".join([first, *kept, f"{name}: {value}".encode("latin-1")]) + END_OF_HEAD
