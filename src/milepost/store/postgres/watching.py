"""Telling watchers in this process that runs changed: at once for its own commits, by notices for those of others,
and by a look at what is watched, for notices may be lost or be switched off.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

from milepost.core.errors import StoreError
from milepost.core.outside import Notice

Listener = Callable[[Notice], None]
Watched = Callable[[], Collection[str]]
Look = Callable[[list[str]], Awaitable[Sequence[Sequence[Any]]]]

_WORK_SPREAD = 0.05
"""Seconds over which replicas spread their looks for work that one of them has left: it mostly does it itself."""


class Watch:
    """The listeners of one store. Belongs to the event loop on which the store was opened."""

    def __init__(self, look: Look, period: float) -> None:
        self._look = look
        self._period = period
        self._listeners: dict[object, tuple[Listener, Watched]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._seen: dict[str, int] = {}
        self._work_told = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()

    def add(self, listener: Listener, watched: Watched) -> Callable[[], None]:
        """Begin to tell `listener`; returns what ends it. Idempotent."""
        token = object()
        self._listeners[token] = (listener, watched)
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look_on())
        return lambda: self._remove(token)

    def _remove(self, token: object) -> None:
        self._listeners.pop(token, None)
        if not self._listeners:
            self.close()

    def close(self) -> None:
        self._listeners.clear()
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    def tell(self, notice: Notice) -> None:
        """Tell all listeners, now."""
        for listener, _ in list(self._listeners.values()):
            listener(notice)

    def tell_from_elsewhere(self, notice: Notice) -> None:
        """Another process's notice. Any thread. What it left to do is looked for a little later (`_WORK_SPREAD`)."""
        if self._loop is not None and not self._loop.is_closed():
            with suppress(RuntimeError):  # closed between the two
                self._loop.call_soon_threadsafe(self._elsewhere, notice)

    def _elsewhere(self, notice: Notice) -> None:
        self.tell(Notice(notice.runs, glimpses=notice.glimpses))
        if notice.work and not self._work_told:
            self._work_told = True
            asyncio.get_running_loop().call_later(random.uniform(0, _WORK_SPREAD), self._tell_of_work)  # noqa: S311

    def _tell_of_work(self) -> None:
        self._work_told = False
        self.tell(Notice((), work=True))

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(self._period * random.uniform(0.8, 1.2))  # noqa: S311 - to drift apart
            watched = {run for _, watched in self._listeners.values() for run in watched()}
            self._seen = {run: seq for run, seq in self._seen.items() if run in watched}
            if watched:
                with suppress(StoreError):  # a store that can't be read shows elsewhere
                    await self._compare(sorted(watched))

    async def _compare(self, watched: list[str]) -> None:
        found = {row[0]: row[1] for row in await self._look(watched)}
        changed = {run for run, seq in found.items() if self._seen.get(run) != seq}
        self._seen.update(found)
        if changed:
            self.tell(Notice(changed))
