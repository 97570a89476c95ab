"""Reading server-sent events out of chunks of bytes. Pure, and bounded: no server can make it hold more than its limit.

Source: WHATWG HTML, section 9.2.6 (event stream interpretation).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BREAK = re.compile(rb"\r\n|\n|\r")
_ID = re.compile(rb"(?:[!-~](?:[ -~]{0,1022}[!-~])?)?\Z")
"""Ids that can go back in a header as they came. Any other counts as none: its stream can't be read on."""


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
        self.comments = 0
        """Lines that are no event's, and say only that somebody is there."""
        self._limit = limit
        self._held = bytearray()
        """A line that has no end yet."""
        self._data = bytearray()
        """The data of an event that has no end yet, each line with its break."""
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
        self._held += chunk
        if b"\n" not in chunk and b"\r" not in chunk:
            self._check()
            return []
        *lines, rest = _BREAK.split(bytes(self._held))
        self._held = bytearray(rest)
        events = [event for line in lines if (event := self._line(line)) is not None]
        self._check()
        return events

    def _check(self) -> None:
        if len(self._held) + len(self._data) > self._limit:
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
        if not name:
            self.comments += 1
        elif name == b"data":
            self._data += value + b"\n"
        elif name == b"event":
            event.kind = value.decode("utf-8", "replace") or "message"
        elif name == b"id" and _ID.match(value) is not None:
            event.id = value.decode("ascii")
        elif name == b"retry" and value.isdigit():
            event.retry = int(value[:9])

    def _dispatch(self) -> ServerSent | None:
        event, data = self._event, self._data
        self._event, self._data = ServerSent(), bytearray()
        if len(data) > self._limit:
            raise TooLarge(self._limit)
        if not data and event.id is None and event.retry is None:
            return None
        event.data = bytes(data[:-1])
        return event
