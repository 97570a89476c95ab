"""The second drill: servers are stopped for longer than a lease and go on, and event loops are blocked for as long.

A stopped process does not know that its runs were taken over by another. When it goes on, the one step that was in
flight may be there twice, under one idempotency key; nothing after it (HAZARDS B1). A blocked event loop loses nothing
at all, for the heart beats in a thread of its own.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from drills.cast import Slot
from drills.checks import History
from drills.history import Disruption, Told
from drills.kills import Fought
from drills.ledger import Effect, Ledger
from drills.over_http import Doors, HandshakeTalk, ModernTalk
from drills.rows import SqliteRows
from drills.servers import Place, Server
from drills.talk import LIMIT, Script, Talk
from drills.target import STEPS

LEASE = 2.0
SETTINGS = {
    "MILEPOST_ENGINE_LEASE": f"{LEASE:g}s",
    "MILEPOST_ENGINE_LEASE_MARGIN": "0.5s",
    "MILEPOST_HTTP_RETRY": "0.1",
    "MILEPOST_HTTP_HEARTBEAT": "1",
}
CLIENT_PATIENCE = 4.0
"""Seconds of silence (heartbeats come every second) after which a client tries another server."""
BLOCKED = 2 * LEASE + 1.0
"""Seconds for which a workflow blocks its event loop."""
POINTS = ("step", "step", "boundary", "question", "any")
MIX = ("handshake", "modern", "handshake", "modern")
_PATIENCE = 15.0
_LOOK = 0.004


@dataclass(frozen=True, slots=True)
class Pause:
    """One stop, and what was in flight in the stopped process."""

    n: int
    point: str
    disruption: Disruption
    in_flight: Sequence[Effect]


@dataclass
class Paused(Fought):
    """What the second drill leaves behind."""

    pauses: Sequence[Pause] = ()
    blocked: Sequence[str] = field(default_factory=list)
    """The conversations that blocked their event loop."""


class PauseDrill:
    """Two servers on one store; one after the other is stopped, while conversations go on over both."""

    def __init__(self, place: Place, seed: int, pauses: int, tell: Callable[[Pause], None]) -> None:
        self.place = place
        self.pauses = pauses
        self.servers = [Server(place, "a"), Server(place, "b")]
        self.doors = Doors(self.servers)
        self.ledger, self.rows = Ledger(place.ledger), SqliteRows(place.store)
        self.rng = random.Random(f"pauses {seed}")
        self.slots = [self._slot(era, n, seed) for n, era in enumerate(MIX)]
        self.made: list[Pause] = []
        self.failures: list[str] = []
        self._tell = tell

    def _slot(self, era: str, n: int, seed: int) -> Slot:
        kind = HandshakeTalk if era == "handshake" else ModernTalk
        return Slot(era, f"p{era[0]}{n}", seed, lambda script: kind(script, self.doors, patience=CLIENT_PATIENCE))

    async def run(self) -> Paused:
        """Stop and continue by plan, block event loops, let all end, read everything back."""
        for server in self.servers:
            await server.start()
        holding = [asyncio.create_task(slot.hold()) for slot in self.slots]
        blocked: list[Told] = []
        try:
            for n in range(self.pauses):
                self.made.append(await self._pause(n))
                self._tell(self.made[-1])
            blocked = await self._block()
            for slot in self.slots:
                slot.finish()
            await asyncio.wait_for(asyncio.gather(*holding), LIMIT + 60)
        finally:
            for task in holding:
                task.cancel()
            await self._stop()
        return self._left(blocked)

    async def _stop(self) -> None:
        for server in self.servers:
            if server.lives and not server.running:
                self.failures.append(f"server {server.name} died by itself:\n{server.last_words()}")
        for ended in await asyncio.gather(*(server.stop() for server in self.servers), return_exceptions=True):
            if isinstance(ended, BaseException):
                self.failures.append(str(ended))

    def _left(self, blocked: Sequence[Told]) -> Paused:
        history = History(
            runs=self.rows.runs(),
            effects=self.ledger.effects(),
            told=[*(told for slot in self.slots for told in slot.done), *blocked],
            disruptions=[pause.disruption for pause in self.made],
            steps=STEPS,
        )
        return Paused(history, failures=self.failures, pauses=self.made, blocked=[told.name for told in blocked])

    # --- stop and continue ---------------------------------------------------------------------------

    async def _pause(self, n: int) -> Pause:
        await asyncio.sleep(self.rng.uniform(0.3, 1.5))
        point, share = self.rng.choice(POINTS), self.rng.random()
        over = self.rng.uniform(0.5, 2.0)
        victim = await self._moment(point, share) or self.rng.choice(self.servers)
        victim.pause()
        at = time.time()
        in_flight = self.ledger.in_flight([victim.pid])
        try:
            await asyncio.sleep(LEASE + over)
        finally:
            victim.go_on()
        return Pause(n, point, Disruption(victim.pid, at, time.time()), in_flight)

    async def _moment(self, point: str, share: float) -> Server | None:
        if point in ("step", "boundary"):
            return await self._in_step(point, share)
        await asyncio.sleep(share)
        if point == "question":
            return await self._at_a_question()
        return None

    async def _in_step(self, point: str, share: float) -> Server | None:
        pids = {server.pid: server for server in self.servers}
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if in_flight := self.ledger.in_flight(pids):
                effect = in_flight[0]
                paces = [slot.talk.script.pace for slot in self.slots if _holds(slot, effect)]
                pace = paces[0] if paces else 0.1
                span = share * pace * 0.8 if point == "step" else pace - 0.002 + share * 0.01
                await asyncio.sleep(max(0.0, effect.begin + span - time.time()))
                return pids[effect.pid]
            await asyncio.sleep(_LOOK)
        return None

    async def _at_a_question(self) -> Server | None:
        pids = {server.pid: server for server in self.servers}
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            for slot in self.slots:
                if slot.talk is not None and slot.talk.phase == "thinking" and slot.talk.pid in pids:
                    return pids[slot.talk.pid]
            await asyncio.sleep(_LOOK)
        return None

    # --- blocked event loops ---------------------------------------------------------------------------

    async def _block(self) -> list[Told]:
        """Two workflows that block the event loop for longer than a lease, on servers with other work."""
        talks: list[Talk] = []
        for tool in ("block_in_step", "block_between_steps"):
            script = Script(f"{tool}-1", 0.0, 0.0, random.Random(self.rng.random()))
            talk = HandshakeTalk(script, self.doors, patience=CLIENT_PATIENCE)
            talk.tool, talk.arguments = tool, {"conversation": script.name, "seconds": BLOCKED}
            talks.append(talk)
        return [await talk.run() for talk in talks]


def _holds(slot: Slot, effect: Effect) -> bool:
    return slot.talk is not None and slot.talk.script.name == effect.conversation
