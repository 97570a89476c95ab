"""Who is told that a run has changed, and the feeds that watch one.

Notices may be merged, doubled or lost, so a feed never trusts one: it reads the store from where it
was, and looks again every `recheck` seconds even if nobody said anything.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Self

from milepost.core.outside import Notice
from milepost.core.records import Event, EventKind
from milepost.seams import RunStore, Store

_RECHECK = 30.0
"""Seconds after which a feed reads without a notice: a lost one costs this much, never a message."""

_PAGE = 100
"""Events read at a time: what one stream holds in memory for a client that doesn't read."""

Listener = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Glimpse:
    """Ephemeral progress: latest wins, has no event id, and is stored only with the next commit."""

    progress: float
    total: float | None = None
    message: str | None = None


class Hub:
    """Passes on notices within this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listeners: dict[str, list[Listener]] = {}
        self._feeds: dict[str, list[Feed]] = {}
        self._silent: set[str] = set()
        """Runs that began here and of which no notice has come since: a feed need not read what they said."""
        self.elsewhere: Listener = lambda: None
        """Called when another process left something to do."""

    def watched(self) -> Collection[str]:
        """The runs that somebody follows from here."""
        return self._listeners.keys()

    def changed(self, notice: Notice) -> None:
        """The store's notice."""
        if notice.work:
            self.elsewhere()
        run_ids = notice.runs
        if run_ids is None:
            self._silent.clear()
            run_ids = tuple(self._listeners)
        self._silent.difference_update(run_ids)
        for run_id, text in notice.glimpses.items():
            for feed in self._feeds.get(run_id, ()):
                feed.show(Glimpse(*json.loads(text)))
        for run_id in run_ids:
            for listener in tuple(self._listeners.get(run_id, ())):
                listener()

    def made(self, run_id: str) -> None:
        """A run was made here and its attempt begins. Until its first notice it has said nothing."""
        self._silent.add(run_id)

    def is_silent(self, run_id: str) -> bool:
        """Whether the run surely has no event yet."""
        return run_id in self._silent

    def listen(self, run_id: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` whenever the run may have changed. Returns the function that ends it."""
        self._listeners.setdefault(run_id, []).append(listener)

        def end() -> None:
            remaining = self._listeners.get(run_id, [])
            if listener in remaining:
                remaining.remove(listener)
            if not remaining:
                self._listeners.pop(run_id, None)

        return end

    def feed(self, run_id: str, after: int) -> Feed:
        feed = Feed(self._store, self, run_id, after)
        self._feeds.setdefault(run_id, []).append(feed)
        return feed

    def forget(self, feed: Feed) -> None:
        remaining = self._feeds.get(feed.run_id, [])
        if feed in remaining:
            remaining.remove(feed)
        if not remaining:
            self._feeds.pop(feed.run_id, None)

    def show(self, run_id: str, glimpse: Glimpse) -> None:
        """Show ephemeral progress to those who watch the run: mostly from this process, else from another."""
        feeds = self._feeds.get(run_id, ())
        for feed in feeds:
            feed.show(glimpse)
        if not feeds:
            self._store.glimpse(run_id, json.dumps([glimpse.progress, glimpse.total, glimpse.message]))


class Feed:
    """One watcher's view of a run: its stored events after a point, in order, each once; then what comes."""

    def __init__(self, store: RunStore, hub: Hub, run_id: str, after: int) -> None:
        self.run_id = run_id
        self.over = False
        """The last event (RESULT or MERGED) has been handed out."""
        self._store = store
        self._hub = hub
        self._after = after
        self._ready: deque[Event] = deque()
        self._glimpse: Glimpse | None = None
        self._news = asyncio.Event()
        if not hub.is_silent(run_id):
            self._news.set()
        self._end = hub.listen(run_id, self._news.set)

    def show(self, glimpse: Glimpse) -> None:
        self._glimpse = glimpse
        self._news.set()

    async def next(self, timeout: float | None = None) -> Event | Glimpse | None:  # noqa: ASYNC109 - a quiet feed is no error
        """The next item; None when nothing came within `timeout` seconds, or the feed is over."""
        loop = asyncio.get_running_loop()
        ends = None if timeout is None else loop.time() + timeout
        while not self.over:
            if (item := self._take()) is not None:
                return item
            if not self._news.is_set():
                left = _RECHECK if ends is None else min(_RECHECK, ends - loop.time())
                if left <= 0:
                    return None
                await self._wait(left)
            await self._read()
        return None

    def _take(self) -> Event | Glimpse | None:
        if self._ready:
            event = self._ready.popleft()
            self.over = event.kind in (EventKind.RESULT, EventKind.MERGED)
            return event
        glimpse, self._glimpse = self._glimpse, None
        return glimpse

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    async def _read(self) -> None:
        self._news.clear()
        events = await self._store.events(self.run_id, after=self._after, limit=_PAGE)
        if events:
            self._after = events[-1].n
            self._ready.extend(events)
        if len(events) >= _PAGE:
            self._news.set()

    def close(self) -> None:
        """Stop watching. Idempotent."""
        self._end()
        self._hub.forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
