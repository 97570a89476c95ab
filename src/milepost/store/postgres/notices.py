"""Notices between replicas, over LISTEN/NOTIFY: gathered for some milliseconds, then sent in one.

A NOTIFY inside the verbs' own transactions would make their commits wait for each other (it takes a lock of the whole
database at commit). Here they are sent after the commits, many runs in one, on the hold's connection. One that is lost
costs latency: watchers look by themselves.

The payload is run ids with commas between; one with `!` behind it left work to do; `*` alone: look yourself; a JSON
object holds glimpses, by run.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator

from milepost.core.outside import Notice
from milepost.store.settings import PostgresSettings

_LONGEST = 7900
"""Bytes of a payload; PostgreSQL takes less than 8000."""
_EVERYTHING = "*"
_GLIMPSES = "{"
_GLIMPSE_PAUSE = 0.25
"""Seconds over which glimpses are gathered: of a run at most four a second go out, the latest each time."""
_WORK = "!"


class Notices:
    """Both directions, on the hold's loop. `on_notice` is called on that loop too."""

    def __init__(self, settings: PostgresSettings, channel: str, send: Callable[[str], Awaitable[None]]) -> None:
        self._pause = settings.notice_pause
        self._channel = channel
        self._send = send
        self._gathered: dict[str, bool] = {}
        self._sending: asyncio.Task[None] | None = None
        self._glimpses: dict[str, str] = {}
        self._showing: asyncio.Task[None] | None = None
        self.own_sender = 0
        """The server process behind our own connection: what it sends we know already."""
        self.on_notice: Callable[[Notice], None] = lambda _notice: None

    def add(self, run: str, work: bool) -> None:
        """Tell of this run with the next notice."""
        self._gathered[run] = work or self._gathered.get(run, False)
        if self._sending is None and self._gathered:
            self._sending = asyncio.get_running_loop().create_task(self._send_on())

    def show(self, run: str, text: str) -> None:
        """Show this of a run, unless something newer comes before it goes out."""
        self._glimpses[run] = text
        if self._showing is None:
            self._showing = asyncio.get_running_loop().create_task(self._show_on())

    async def _show_on(self) -> None:
        try:
            while self._glimpses:
                await asyncio.sleep(_GLIMPSE_PAUSE)
                gathered, self._glimpses = self._glimpses, {}
                for payload in glimpse_payloads(gathered):
                    await self._send(payload)
        finally:
            self._showing = None

    async def _send_on(self) -> None:
        try:
            while self._gathered:
                await asyncio.sleep(self._pause)
                await self.flush()
        finally:
            self._sending = None

    async def aclose(self) -> None:
        """Send what is left of the changes; glimpses are let go."""
        await self.flush()
        tasks = [task for task in (self._sending, self._showing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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


def glimpse_payloads(gathered: dict[str, str]) -> Iterator[str]:
    """As few as hold them all; one that is too long for a payload is left out."""
    part: dict[str, str] = {}
    for run, text in gathered.items():
        if len(json.dumps(part | {run: text})) > _LONGEST:
            if part:
                yield json.dumps(part)
            part = {}
        if len(json.dumps({run: text})) <= _LONGEST:
            part[run] = text
    if part:
        yield json.dumps(part)


def notice_of(payload: str) -> Notice:
    if payload.startswith(_GLIMPSES):
        return Notice((), glimpses=json.loads(payload))
    if payload == _EVERYTHING:
        return Notice(None, work=True)
    names = payload.split(",")
    return Notice(frozenset(name.removesuffix(_WORK) for name in names), work=any(n.endswith(_WORK) for n in names))
