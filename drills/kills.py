"""The first drill: servers are killed at random points while people talk to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from drills.cast import Slot, cast
from drills.checks import History
from drills.ledger import Ledger
from drills.nemesis import Hit, Nemesis
from drills.over_http import Doors
from drills.plan import Planned
from drills.rows import SqliteRows
from drills.servers import Life, Place, Server
from drills.talk import LIMIT, Resumption
from drills.target import STEPS

SETTINGS = {"MILEPOST_HTTP_RETRY": "0.1", "MILEPOST_HTTP_HEARTBEAT": "2"}
"""Clients are told to come back at once, so that the time to resume is the server's own."""


@dataclass
class Fought:
    """What a drill leaves behind."""

    history: History
    hits: Sequence[Hit] = ()
    resumptions: Sequence[Resumption] = ()
    failures: list[str] = field(default_factory=list)
    """What went wrong with the processes themselves."""
    starts: Sequence[float] = ()
    """Seconds from the start of each server process to its being ready."""


class KillDrill:
    """All of one drill: servers, conversations, nemesis."""

    def __init__(self, place: Place, seed: int, plan: Sequence[Planned], tell: Callable[[Hit], None]) -> None:
        self.place = place
        self.plan = plan
        self.first, self.second = Server(place, "a"), Server(place, "b")
        self.doors = Doors([self.first, self.second])
        self.slots: list[Slot] = cast(place, self.doors, seed)
        self.ledger, self.rows = Ledger(place.ledger), SqliteRows(place.store)
        self.nemesis = Nemesis(self.doors, self.slots, self.ledger, self.rows)
        self.failures: list[str] = []
        self._tell = tell
        for slot in self.slots:
            slot.on_answer_sent = self.nemesis.listen

    async def run(self) -> Fought:
        """Hold conversations, kill by plan, let all conversations end, stop, read everything back."""
        plan = list(self.plan)
        if plan and plan[0].point == "birth":
            self._tell(await self.nemesis.strike(plan.pop(0)))
        else:
            await self.first.start()
        holding = [asyncio.create_task(slot.hold()) for slot in self.slots]
        try:
            for planned in plan:
                await self._at_work(planned.servers)
                self._tell(await self.nemesis.strike(planned))
            for slot in self.slots:
                slot.finish()
            await asyncio.wait_for(asyncio.gather(*holding), LIMIT + 60)
        finally:
            for task in holding:
                task.cancel()
            await self._stop()
        return Fought(self._history(), self.nemesis.hits, self._resumptions(), self.failures, self._starts())

    async def _at_work(self, servers: int) -> None:
        """See that so many servers work on the store; one too many is asked to end, with conversations on it."""
        self._notice_deaths()
        if not self.first.running:
            await self.first.start()
        if servers == 2 and not self.second.running:
            await self.second.start()
        elif servers == 1 and self.second.running:
            await self.second.stop()

    def _notice_deaths(self) -> None:
        for server in self.doors.servers:
            if server.lives and server.lives[-1].died is None and not server.running:
                self.failures.append(f"server {server.name} died by itself:\n{server.last_words()}")

    async def _stop(self) -> None:
        self._notice_deaths()
        processes = [*self.doors.servers, *(slot.child for slot in self.slots if slot.child is not None)]
        for ended in await asyncio.gather(*(one.stop() for one in processes), return_exceptions=True):
            if isinstance(ended, BaseException):
                self.failures.append(str(ended))

    def _history(self) -> History:
        return History(
            runs=self.rows.runs(),
            effects=self.ledger.effects(),
            told=[told for slot in self.slots for told in slot.done],
            disruptions=[one for hit in self.nemesis.hits for one in hit.disruptions],
            steps=STEPS,
        )

    def _resumptions(self) -> list[Resumption]:
        return [resumption for slot in self.slots for resumption in slot.resumptions]

    def _starts(self) -> list[float]:
        children = [slot.child for slot in self.slots if slot.child is not None]
        lives: list[Life] = [life for one in (*self.doors.servers, *children) for life in one.lives]
        return [life.up - life.began for life in lives if life.up is not None]
