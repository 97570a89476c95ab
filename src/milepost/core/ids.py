"""How things are named. Randomness and time are handed in; nothing is drawn here."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode

RUN_ID = re.compile(r"run-[0-9a-f]{32}\Z")
CALL_ID = re.compile(r"[A-Za-z0-9._-]{16,128}\Z")
"""What a client names one call by, however often it makes it: at least 128 random bits of its own."""
STREAM_ID = re.compile(r"[A-Za-z0-9_-]{16}\Z")


def run_id(wall: float, noise: bytes) -> str:
    """`run-` + 48 bits of milliseconds + 80 random bits, in hex: sorts by age, can't be guessed.

    `wall`: UTC seconds; `noise`: at least 10 random bytes.
    """
    return f"run-{int(wall * 1000) & 0xFFFFFFFFFFFF:012x}{noise[:10].hex()}"


def stream_id(noise: bytes) -> str:
    """96 random bits as 16 URL-safe characters without a dot: event ids are `<stream>.<n>`."""
    return urlsafe_b64encode(noise[:12]).decode("ascii")


def event_id(stream: str, n: int) -> str:
    """The SSE id of event `n` as shown on `stream`; `n` 0 is the point before the first event."""
    return f"{stream}.{n}"


def parse_event_id(text: str) -> tuple[str, int] | None:
    """(stream, n) of an event id, or None where it isn't one."""
    stream, dot, number = text.rpartition(".")
    if not dot or not STREAM_ID.match(stream) or not number.isascii() or not number.isdigit() or len(number) > 9:
        return None
    return stream, int(number)


def trace_id(noise: bytes) -> str:
    """A W3C trace id: 32 hex digits, not all zero."""
    return noise[:16].hex()
