"""Reading server-sent events out of chunks of bytes. Pure, and bounded: no server can make it hold more than its limit.

Source: WHATWG HTML, section 9.2.6 (event stream interpretation).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BREAK = re.compile(rb"\r\n|\n|\r")


class TooLarge(Exception):
    """An event, or a line of one, is longer than the limit (bytes)."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"a message is longer than {limit} bytes, the limit of this client (Policy.max_message)")


@dataclass(slots=True)
class ServerSent:
    """One event as dispatched. `data` is empty for one that only gives an id or a time to come back."""

    data: bytes = b""
    kind: str = "message"
    id: str | None = None
    retry: int | None = None
    """Milliseconds."""


class SseParser:
    """Feed it chunks, cut anywhere; it gives the events that they complete."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: list[bytes] = []
        """The pieces of a line that has no end yet."""
        self._held_size = 0
        self._data: list[bytes] = []
        self._data_size = 0
        self._event = ServerSent()
        self._after_cr = False
        self._begun = False

    def feed(self, chunk: bytes) -> list[ServerSent]:
        """Events completed by `chunk`. Raises TooLarge."""
        if self._after_cr and chunk[:1] == b"\n":
            chunk = chunk[1:]  # the rest of a CRLF that was cut in two
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        self._held.append(chunk)
        self._held_size += len(chunk)
        if b"\n" not in chunk and b"\r" not in chunk:
            self._check()
            return []
        *lines, rest = _BREAK.split(b"".join(self._held))
        self._held, self._held_size = [rest], len(rest)
        events = [event for line in lines if (event := self._line(line)) is not None]
        self._check()
        return events

    def _check(self) -> None:
        if self._held_size + self._data_size > self._limit:
            raise TooLarge(self._limit)

    def _line(self, line: bytes) -> ServerSent | None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        self._field(name, value[1:] if value[:1] == b" " else value)
        return None

    def _field(self, name: bytes, value: bytes) -> None:
        event = self._event
        if name == b"data":
            self._data.append(value)
            self._data_size += len(value) + 1
        elif name == b"event":
            event.kind = value.decode("utf-8", "replace") or "message"
        elif name == b"id" and b"\0" not in value:
            event.id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            event.retry = int(value[:9])

    def _dispatch(self) -> ServerSent | None:
        event, data, size = self._event, self._data, self._data_size
        self._event, self._data, self._data_size = ServerSent(), [], 0
        if size > self._limit:
            raise TooLarge(self._limit)
        if not data and event.id is None and event.retry is None:
            return None
        event.data = b"\n".join(data)
        return event
