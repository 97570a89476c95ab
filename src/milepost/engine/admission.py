"""Letting new work in: so much at a time, shared fairly among callers; the rest waits, for so long, and then no.

Only what is new comes this way. Answers, calls that find their run, and takeovers never wait here, so a flood of new
calls costs what goes on nothing. A caller who has little inside goes before one who has much, and where the queue
is full the caller with the longest part of it gives way: one who floods keeps nobody else's first call waiting.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from milepost.core.errors import Overloaded


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is let in. Times in seconds."""

    inside: int
    """At the same time."""
    each: int
    """Of these, for one caller."""
    waiting: int
    """How many may wait for a place."""
    wait: float
    """How long one may wait."""


class Place:
    """The right to be inside, until `leave`."""

    def __init__(self, admission: Admission, who: str) -> None:
        self._admission: Admission | None = admission
        self._who = who

    def leave(self) -> None:
        """Make room for the next. Idempotent."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.left(self._who)


Waiter = asyncio.Future[Place]


class Admission:
    """A door with a fair queue."""

    def __init__(self, bounds: Bounds, *, has_room: Callable[[], bool] = lambda: True) -> None:
        """`has_room`: whether there is room beyond what was let in here; who changes that calls `admit`."""
        self._bounds = bounds
        self._has_room = has_room
        self.inside = 0
        """How many are inside."""
        self._inside: Counter[str] = Counter()
        """The same, by caller."""
        self._queues: dict[str, deque[Waiter]] = {}

    @property
    def waiting(self) -> int:
        return sum(map(len, self._queues.values()))

    def enter_nowait(self, who: str) -> Place | None:
        """A place, if there is one right now. Nobody is overtaken: who waits then waits for its own share."""
        if self._is_full() or self._inside[who] >= self._bounds.each:
            return None
        return self._let_in(who)

    async def enter(self, who: str) -> Place:
        """A place, once there is one. Raises Overloaded: too many wait already, or it took too long."""
        place = self.enter_nowait(who)
        if place is not None:
            return place
        self._make_way(who)
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._queues.setdefault(who, deque()).append(waiter)
        try:
            async with asyncio.timeout(self._bounds.wait):
                return await waiter
        except BaseException as error:
            self._forget(who, waiter)
            if not isinstance(error, TimeoutError):
                raise
            raise Overloaded(
                f"This server has as much to do as it takes on, and no place came free in {self._bounds.wait:g} s. "
                "Nothing was begun: try again in a few seconds."
            ) from None

    def admit(self) -> None:
        """Let in whoever is next, as long as there is room."""
        while self._queues and not self._is_full() and (who := self._next()) is not None:
            queue = self._queues[who]
            waiter = queue.popleft()
            if not queue:
                del self._queues[who]
            if not waiter.done():  # else it gave up in this very moment
                waiter.set_result(self._let_in(who))

    def left(self, who: str) -> None:
        """One of that caller's is out."""
        self.inside -= 1
        self._inside[who] -= 1
        if not self._inside[who]:
            del self._inside[who]
        self.admit()

    def _let_in(self, who: str) -> Place:
        self.inside += 1
        self._inside[who] += 1
        return Place(self, who)

    def _is_full(self) -> bool:
        return self.inside >= self._bounds.inside or not self._has_room()

    def _next(self) -> str | None:
        """Of the callers who wait and may have more, the one with the least inside; the first of equals."""
        waiting = (who for who in self._queues if self._inside[who] < self._bounds.each)
        return min(waiting, key=self._inside.__getitem__, default=None)

    def _make_way(self, who: str) -> None:
        """See that one more of that caller may wait: the longest part of a full queue loses its last."""
        if self.waiting < self._bounds.waiting:
            return
        longest = max(self._queues.values(), key=len, default=deque())
        if len(longest) <= len(self._queues.get(who, ())) + 1:
            raise _crowded(self.waiting)
        last = longest.pop()
        if not last.done():  # else it gave up in this very moment
            last.set_exception(_crowded(self.waiting + 1))

    def _forget(self, who: str, waiter: Waiter) -> None:
        """A waiter gave up: it waits no more, and a place that it was given in the same moment is free again."""
        queue = self._queues.get(who)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._queues[who]
        elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            waiter.result().leave()


def _crowded(waiting: int) -> Overloaded:
    return Overloaded(
        f"This server has as much to do as it takes on, and {waiting} calls wait already. "
        "Nothing was begun: try again in a few seconds."
    )
