"""The heart: a thread that renews leases, so that a blocked event loop loses none (HAZARDS B1).

It also notices a loop that answers nothing for a second and names what was running, for a workflow that
blocks the loop starves everything else on its replica.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence

import structlog

from milepost.core.attempts import Fence
from milepost.core.errors import StoreError
from milepost.engine.pen import Pen
from milepost.seams import Clock, RunStore

log = structlog.get_logger("milepost.engine")


class Heart:
    """Beats for the attempts of one replica. `pens` is asked for afresh at each beat."""

    def __init__(
        self, store: RunStore, clock: Clock, replica: str, *, lease: float, pens: Callable[[], Mapping[str, Pen]]
    ) -> None:
        self._store = store
        self._clock = clock
        self._replica = replica
        self._lease = lease
        self._pens = pens
        self._stop = threading.Event()
        self._early = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._answered = True

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._beat_on, name="milepost-heart", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Beat no more; returns when the thread has ended. Idempotent."""
        self._stop.set()
        self._early.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def hurry(self) -> None:
        """Beat soon: somebody elsewhere may have asked for a cancel."""
        self._early.set()

    def _beat_on(self) -> None:
        while not self._stop.is_set():
            self._early.wait(self._lease / 3)
            self._early.clear()
            if not self._stop.is_set():
                self._beat()
                self._check_loop()

    def _beat(self) -> None:
        pens = dict(self._pens())
        fences: Sequence[Fence] = [pen.fence for pen in pens.values()]
        sent_at = self._clock.boot()
        try:
            held = self._store.extend(self._replica, fences, lease=self._lease)
        except StoreError as error:
            log.warning("leases could not be renewed", error=str(error), runs=len(fences))
            return
        except Exception:  # whatever it is: a heart that stopped would lose every lease, and look well
            log.exception("renewing leases failed", runs=len(fences))
            return
        for attempt_id, pen in pens.items():
            told = held.get(attempt_id)
            if told is not None:
                pen.renew(sent_at)
                pen.assure()
                self._on_loop(pen.told, told, sent_at)
            else:
                self._on_loop(pen.lose)

    def _on_loop(self, call: Callable[..., None], *args: object) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(call, *args)

    def _check_loop(self) -> None:
        if not self._answered:
            log.warning(
                "the event loop is blocked; a step that blocks must not be `async def`", runs=list(self._pens())
            )
        self._answered = False
        self._on_loop(self._pong)

    def _pong(self) -> None:
        self._answered = True
