"""Telling watchers that runs changed: at once for commits of this process, by a cheap poll for other processes'.

The poll is seldom until another process does something, and then frequent for as long as it goes on.
A notice is only ever a hint: it may be merged with others, doubled, or lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from milepost.core.errors import StoreError
from milepost.core.outside import Notice
from milepost.store.settings import SqliteSettings
from milepost.store.sqlite.reading import Reader

Listener = Callable[[Notice], None]


class Watch:
    """The listeners of one store, and the poll that runs while there are any."""

    def __init__(self, reader: Reader, writer: str, settings: SqliteSettings) -> None:
        self._reader = reader
        self._writer = writer
        self._settings = settings
        self._listeners: dict[object, Listener] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._version = -1
        self._others = 0.0
        self._changed_at = 0.0
        """When another process last changed a run, by the loop's clock."""

    def add(self, listener: Listener) -> Callable[[], None]:
        """Begin to tell `listener`; returns what ends it. Both idempotent. Call on the event loop."""
        token = object()
        self._listeners[token] = listener
        if self._timer is None:
            self._look()
            self._schedule()
        return lambda: self._remove(token)

    def tell(self, changed: Iterable[str] | None) -> None:
        """Tell all listeners of commits of this process, or (None) of another."""
        told = Notice(None, work=True) if changed is None else Notice(frozenset(changed))
        for listener in list(self._listeners.values()):
            listener(told)

    def close(self) -> None:
        self._listeners.clear()
        self._stop()

    def _remove(self, token: object) -> None:
        self._listeners.pop(token, None)
        if not self._listeners:
            self._stop()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        loop, settings = asyncio.get_running_loop(), self._settings
        calm = loop.time() - self._changed_at > settings.calm_after
        self._timer = loop.call_later(settings.calm_poll if calm else settings.poll, self._poll)

    def _poll(self) -> None:
        self._schedule()
        if self._look():
            self._changed_at = asyncio.get_running_loop().time()
            self._stop()
            self._schedule()  # sooner than it was
            self.tell(None)

    def _look(self) -> bool:
        """Whether another process has changed runs since the last look. A store that can't be read shows elsewhere."""
        try:
            version = self._reader.data_version()
            if version == self._version:
                return False
            others = self._reader.changes_by_others(self._writer)
        except StoreError:
            return False
        changed = others != self._others
        self._version, self._others = version, others
        return changed
