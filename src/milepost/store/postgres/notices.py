"""Notices between replicas, over LISTEN/NOTIFY: gathered for some milliseconds, then sent in one.

A NOTIFY inside the verbs' own transactions would make their commits wait for each other (it takes a lock of the whole
database at commit). Here they are sent after the commits, many runs in one, on the hold's connection. One that is lost
costs latency: watchers look by themselves.

The payload is run ids with commas between; one with `!` behind it left work to do; `*` alone: look yourself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from milepost.seams import Notice
from milepost.store.settings import PostgresSettings

_LONGEST = 7900
"""Bytes of a payload; PostgreSQL takes less than 8000."""
_EVERYTHING = "*"
_WORK = "!"


class Notices:
    """Both directions, on the hold's loop. `on_notice` is called on that loop too."""

    def __init__(self, settings: PostgresSettings, channel: str, send: Callable[[str], Awaitable[None]]) -> None:
        self._pause = settings.notice_pause
        self._channel = channel
        self._send = send
        self._gathered: dict[str, bool] = {}
        self._sending: asyncio.Task[None] | None = None
        self.own_sender = 0
        """The server process behind our own connection: what it sends we know already."""
        self.on_notice: Callable[[Notice], None] = lambda _notice: None

    def add(self, run: str, work: bool) -> None:
        """Tell of this run with the next notice."""
        self._gathered[run] = work or self._gathered.get(run, False)
        if self._sending is None and self._gathered:
            self._sending = asyncio.get_running_loop().create_task(self._send_on())

    async def _send_on(self) -> None:
        try:
            while self._gathered:
                await asyncio.sleep(self._pause)
                await self.flush()
        finally:
            self._sending = None

    async def flush(self) -> None:
        """Send what is gathered."""
        gathered, self._gathered = self._gathered, {}
        if gathered:
            await self._send(payload_of(gathered))

    def heard(self, sender: int, payload: str) -> None:
        """A notice came in."""
        if sender != self.own_sender:
            self.on_notice(notice_of(payload))

    def missed(self) -> None:
        """The ears were gone for a while: anything may have happened."""
        self.on_notice(Notice(None, work=True))


def payload_of(gathered: dict[str, bool]) -> str:
    payload = ",".join(run + _WORK if work else run for run, work in gathered.items())
    return payload if len(payload.encode()) <= _LONGEST else _EVERYTHING


def notice_of(payload: str) -> Notice:
    if payload == _EVERYTHING:
        return Notice(None, work=True)
    names = payload.split(",")
    return Notice(frozenset(name.removesuffix(_WORK) for name in names), work=any(n.endswith(_WORK) for n in names))
