"""What a client says of itself while it works: typed events, for logs and user interfaces.

    async for event in client.events:
        match event:
            case Question(message=text): ...

Every event names its interaction (`call_id`), which is also what the server's logs and the journal know it by.
A reader that falls behind loses the oldest events, never the client's memory; `events.missed` counts them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from weakref import WeakSet

import anyio


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. `call_id` is empty where it belongs to the connection, not to one call."""

    call_id: str = ""
    trace_id: str = ""
    at: datetime = field(default_factory=_now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent(Event):
    """A request went out. `attempt` counts from 1; more than 1 is a re-issue under a new request id."""

    method: str
    name: str = ""
    """The tool, prompt or resource."""
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying(Event):
    """A try failed and another will be made in `delay` seconds."""

    reason: str
    delay: float
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnected(Event):
    """A stream that had broken is read again, from where it stood."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reinitialized(Event):
    """The server had forgotten the session; a new one was opened, once for all callers."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Event):
    """The server asks. `key` names the question within its call."""

    key: str
    method: str
    message: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Event):
    """An answer was given. `acknowledged`: the server has it for good; until then it is kept here."""

    key: str
    acknowledged: bool
    again: bool = False
    """It was sent again without asking anyone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Event):
    """Progress. `name` and `mark` ("begin", "end") where the server is Milepost and a stage began or ended."""

    progress: float
    total: float | None = None
    message: str | None = None
    name: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Event):
    """A call that an earlier process left unfinished goes on. `how`: "stream", "state" or "re-issued"."""

    method: str
    name: str = ""
    how: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Event):
    """The call has its result. `run_id`: its run, where the server is Milepost."""

    method: str
    name: str = ""
    is_error: bool = False
    run_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GaveUp(Event):
    """The call ended without a result. `known`: "not sent", "refused", "unknown", "cancelled", or "error": the
    server's own word."""

    reason: str
    known: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitChanged(Event):
    """The server is given a rest ("open"), tried again ("half-open"), or trusted again ("closed")."""

    state: str


class Reader:
    """One reader's events, from when it was made."""

    def __init__(self, bulletin: Bulletin, limit: int) -> None:
        self._bulletin = bulletin
        self._queue: deque[Event] = deque(maxlen=limit)
        self._news = anyio.Event()
        self.missed = 0

    def put(self, event: Event) -> None:
        if len(self._queue) == self._queue.maxlen:
            self.missed += 1
        self._queue.append(event)
        self._wake()

    def _wake(self) -> None:
        self._news.set()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events()

    async def _events(self) -> AsyncIterator[Event]:
        """Ends when the client is closed and all was read."""
        try:
            while True:
                while self._queue:
                    yield self._queue.popleft()
                if self._bulletin.closed:
                    return
                self._news = anyio.Event()
                await self._news.wait()
        finally:
            self.close()

    def close(self) -> None:
        """Read no more. Idempotent."""
        self._bulletin.forget(self)


class Bulletin:
    """Where a client posts its events, for any number of readers."""

    def __init__(self, limit: int) -> None:
        """`limit`: events that one slow reader may have unread."""
        self._limit = limit
        self._readers: WeakSet[Reader] = WeakSet()
        """Weakly: one that nobody holds can't be read any more."""
        self.closed = False

    @property
    def is_read(self) -> bool:
        """Whether anybody listens: events for nobody need not be made."""
        return len(self._readers) > 0

    def reader(self) -> Reader:
        reader = Reader(self, self._limit)
        self._readers.add(reader)
        return reader

    def post(self, event: Event) -> None:
        for reader in list(self._readers):
            reader.put(event)

    def forget(self, reader: Reader) -> None:
        self._readers.discard(reader)

    def close(self) -> None:
        """No more events: readers end once they have read what is there."""
        self.closed = True
        for reader in list(self._readers):
            reader._wake()
