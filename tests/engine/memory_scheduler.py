"""A scheduler in thirty lines: no leases, no heartbeats, no polling; only `wake`, `wake_at` and the claim.

It keeps the door open for schedulers that are somebody else's (Temporal): the whole engine suite runs
under it too. A run is claimed when it is woken, and after a start whatever a dead replica left behind.
"""

from __future__ import annotations

import asyncio
from typing import Any

from milepost.core.attempts import Claim, Claimant, Loaded
from milepost.core.errors import Fenced
from milepost.core.states import CLAIMABLE
from milepost.engine.executor import Executor
from milepost.seams import RunStore


class MemoryScheduler:
    def __init__(self, store: RunStore, executor: Executor, claimant: Claimant) -> None:
        self._store, self._executor = store, executor
        self._who = Claimant(claimant.owner, 1e6, claimant.accepts)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._draining = False

    def start(self) -> None:
        self.wake("")

    async def drain(self) -> None:
        self._draining = True
        self._executor.release_all()
        await self._ended(self._executor.tuning.drain_limit)
        self._executor.tear_all()
        await self._ended(1.0)

    async def _ended(self, within: float) -> None:
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=within)

    def has_room(self) -> bool:
        return True

    def claimant(self) -> Claimant | None:
        return None

    def begin(self, claim: Claim, loaded: Loaded | None = None) -> None:
        self._do(self._attempt(claim))

    def wake(self, run_id: str) -> None:
        self._do(self._claim())

    def wake_at(self, run_id: str, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds + 0.01, self._do, None)

    def elsewhere(self) -> None:
        self.wake("")

    def _do(self, work: Any) -> None:
        if not self._draining:
            task = asyncio.get_running_loop().create_task(work or self._sweep())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif work is not None:
            work.close()

    async def _sweep(self) -> None:
        await self._store.sweep(limit=100)
        await self._claim()

    async def _claim(self) -> None:
        for claim in await self._store.claim(self._who, limit=100, takeovers=100):
            self.begin(claim)

    async def _attempt(self, claim: Claim) -> None:
        try:
            run = await self._executor.execute(claim)
        except Fenced:
            return
        if run.state in CLAIMABLE:
            self.wake(run.id)
        elif run.next_at is not None:
            self.wake_at(run.id, max(0.0, run.next_at - run.updated_at))
