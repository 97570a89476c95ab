"""What an attempt waits for, and how it knows that it has come to rest.

Three kinds of waiting: open questions, retry timers, and calls held back because the journal holds
recorded calls that weren't reached yet. While a step works or a write is under way something goes on;
else, once no journal call has been made for a moment, the attempt is at rest and `on_rest` is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from milepost.core.errors import Suspended
from milepost.core.replay import Address
from milepost.engine.tuning import Tuning

_TICK = 0.001
"""Slack of the loop's timers, in seconds."""

Wait = asyncio.Future[None]


class Waits:
    """`on_rest(held)`: nothing goes on any more. `held`: the call held back, if that is all there is."""

    def __init__(self, tuning: Tuning, on_rest: Callable[[Address | None], None]) -> None:
        self.questions: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self.closed = False
        self._tuning = tuning
        self._on_rest = on_rest
        self._held: dict[Wait, Address | None] = {}
        self._timers: dict[Wait, float] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._writing = 0
        self._last_call = 0.0
        self._quiet: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    # --- what goes on ---------------------------------------------------------------------------

    @property
    def steps(self) -> frozenset[asyncio.Task[Any]]:
        """The step tasks that have not ended."""
        return frozenset(self._running)

    @property
    def idle(self) -> bool:
        """No step works (one that waits for its next try doesn't) and no write is under way."""
        return len(self._running) <= len(self._timers) and not self._writing

    def run(self, task: asyncio.Task[Any], ended: Callable[[], None]) -> None:
        """A step works in `task`; `ended` is called after it has."""
        self._running.add(task)

        def done(_: object) -> None:
            self._running.discard(task)
            if not task.cancelled():
                task.exception()  # its author's task may be gone; that is no fault
            self.touch()
            ended()

        task.add_done_callback(done)

    def write_begins(self) -> None:
        """A write is under way, until `write_ends`."""
        self._writing += 1

    def write_ends(self) -> None:
        self._writing -= 1
        self.touch()

    def touch(self) -> None:
        """A journal call was made: the quiet clock starts anew, if anything is waited for."""
        self._last_call = self._loop.time()
        if self._quiet is None and (self.questions or self._held or self._timers) and not self.closed:
            self._quiet = self._loop.call_later(self._tuning.quiet, self._look)

    # --- what is waited for ---------------------------------------------------------------------

    async def answer(self, question_id: int) -> Mapping[str, Any]:
        """Wait for an answer; ends by `close`, for an answer always comes to a later attempt."""
        future: asyncio.Future[Mapping[str, Any]] = self._loop.create_future()
        self.questions[question_id] = future
        self.touch()
        return await future

    async def hold(self, address: Address | None) -> None:
        """Hold a call back, until a recorded one of its name is reached (None: until the attempt ends)."""
        future: Wait = self._loop.create_future()
        self._held[future] = address
        self.touch()
        try:
            await future
        finally:
            self._held.pop(future, None)

    async def pause(self, seconds: float) -> None:
        """Wait for a step's next try."""
        future: Wait = self._loop.create_future()
        handle = self._loop.call_later(seconds, _wake, future)
        self._timers[future] = self._loop.time() + seconds
        self.touch()
        try:
            await future
        finally:
            handle.cancel()
            self._over(future)

    def _over(self, timer: Wait) -> None:
        """A pause has ended; those that `close` has cut are still due (`timer_in`)."""
        if not self.closed:
            del self._timers[timer]

    def reached(self, address: Address) -> None:
        """A recorded call was reached: calls of that name that were held back may look again."""
        self.touch()
        for future, held in self._held.items():
            if held is not None and held.name == address.name:
                _wake(future)

    def timer_in(self) -> float | None:
        """Seconds until the first retry is due."""
        soonest = min(self._timers.values(), default=None)
        return None if soonest is None else max(0.0, soonest - self._loop.time())

    # --- rest -----------------------------------------------------------------------------------

    def _look(self) -> None:
        self._quiet = None
        need = self._patience()
        if need is None or self.closed:
            return
        idle_for = self._loop.time() - self._last_call
        if idle_for + _TICK < need:
            self._quiet = self._loop.call_later(need - idle_for, self._look)
        else:
            self._on_rest(None if self._suspendable() else self._first_held())

    def _patience(self) -> float | None:
        """How long the attempt must have been quiet; None: something goes on that will look again."""
        if not self.idle:
            return None
        if self._suspendable():
            return self._tuning.quiet
        return self._tuning.rest if self._first_held() is not None else None

    def _suspendable(self) -> bool:
        timer = self.timer_in()
        return bool(self.questions) or (timer is not None and timer > self._tuning.hold_retry)

    def _first_held(self) -> Address | None:
        return next((address for address in self._held.values() if address is not None), None)

    def close(self) -> None:
        """Raise Suspended in every wait, in this tick. Idempotent."""
        self.closed = True
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None
        waiting: list[asyncio.Future[Any]] = [*self.questions.values(), *self._held, *self._timers]
        for future in waiting:
            if not future.done():
                future.set_exception(Suspended())
                future.exception()  # a detached task may never look; that is no fault

    def let_go(self) -> None:
        """Tell the attempt nothing any more. After `close`."""
        self._on_rest = lambda _held: None


def _wake(future: Wait) -> None:
    if not future.done():
        future.set_result(None)
