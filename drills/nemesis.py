"""The nemesis: brings a planned kill about, and then looks at what it really hit.

A kill counts for a class only by what was observed: the ledger's begun and not ended effects of the dead process,
the clients' own state, and the store's rows, read after the process was gone and before anyone mended anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from drills.cast import Slot
from drills.history import Disruption
from drills.ledger import Effect, Ledger
from drills.over_http import Doors
from drills.plan import Planned
from drills.rows import Rows
from drills.servers import Child, Server
from drills.talk import Talk

Process: TypeAlias = Server | Child

PATIENCE = 12.0
"""Seconds to wait for the planned point to come; after that the kill falls wherever it falls."""
QUIET_PATIENCE = 90.0
"""The same for an idle server: all conversations on it have to end first."""
SPARE = 3
"""Crashes in a row from which a run is spared for a while: from five on it is stuck, as it should be."""
_LOOK = 0.004
_START = 1.2
"""Seconds that a start may take here: a kill falls somewhere within."""
_COMMIT = 0.025
"""Seconds that a commit surely does not exceed by much: an answer sent longer ago counts as in work, not in commit."""
_LONGEST_WAIT_US = 5000
_AROUND_END = (-0.001, 0.007)
"""Seconds around the end of an effect: its end, its record, and what follows."""


@dataclass(slots=True)
class Hit:
    """One kill and what it hit, by class: the eras of the conversations that it cut there."""

    planned: Planned
    disruptions: list[Disruption]
    """More than one where the server was killed again while it started."""
    classes: dict[str, set[str]] = field(default_factory=dict)
    recorded: int = 0
    """Of the commits in flight, how many had been made."""
    lost: int = 0
    """And how many had not."""


class Nemesis:
    """Kills by plan. It restarts HTTP servers; children are restarted by their clients, as hosts do."""

    def __init__(self, doors: Doors, slots: Sequence[Slot], ledger: Ledger, rows: Rows) -> None:
        self.doors = doors
        self.slots = slots
        self.ledger = ledger
        self.rows = rows
        self.hits: list[Hit] = []
        self._sent: dict[int, tuple[float, int, str]] = {}
        """The last answer of each talk: when it was sent (monotonic), to which process, and of which conversation."""

    # --- one kill ----------------------------------------------------------------------------------

    async def strike(self, planned: Planned) -> Hit:
        """Bring about one kill, look at it, and restart what was killed."""
        if planned.point == "birth":
            return await self._at_birth(planned, self.doors.servers[0])
        await asyncio.sleep(planned.pause)
        await self._spare_suspects()
        victim = await self._moment(planned)
        at = time.time()
        standing = self._standing(victim.pid)
        await victim.buried()
        hit = Hit(planned, [Disruption(victim.lives[-1].pid, victim.lives[-1].died or at)])
        self._look(hit, standing)
        self.hits.append(hit)
        for slot in self.slots:
            slot.gate.set()
        if isinstance(victim, Server):
            if planned.point == "start":
                await self._in_its_start(hit, victim)
            await victim.start()
        return hit

    async def _at_birth(self, planned: Planned, server: Server) -> Hit:
        """Kill the first server while it makes its store."""
        hit = Hit(planned, [])
        await self._in_its_start(hit, server)
        self.hits.append(hit)
        await server.start()
        return hit

    async def _in_its_start(self, hit: Hit, server: Server) -> None:
        """Kill a server again, before it is ready for anybody."""
        await server.launch()
        await asyncio.sleep(hit.planned.share * _START)
        server.kill_nowait()
        await server.buried()
        hit.disruptions.append(Disruption(server.lives[-1].pid, server.lives[-1].died or time.time()))
        hit.classes.setdefault("starting server", set()).add(hit.planned.era)

    async def _spare_suspects(self) -> None:
        deadline = time.monotonic() + 30
        while self.rows.crashes() >= SPARE and time.monotonic() < deadline:  # noqa: ASYNC110  another process's rows
            await asyncio.sleep(0.25)

    async def _moment(self, planned: Planned) -> Process:
        """Wait for the planned moment and kill. Returns the process that was killed."""
        reach = {
            "step": self._in_step,
            "boundary": self._at_the_end_of_a_step,
            "answer": self._in_a_commit,
            "question": self._at_a_question,
            "idle": self._when_idle,
        }.get(planned.point)
        victim = await reach(planned) if reach is not None else None
        if victim is None:
            await asyncio.sleep(planned.share)
            victim = self._somebody(planned)
            victim.kill_nowait()
        return victim

    def _processes(self) -> dict[int, Process]:
        children = [slot.child for slot in self.slots if slot.child is not None]
        everybody: list[Process] = [*self.doors.servers, *children]
        return {process.pid: process for process in everybody if process.running}

    def _somebody(self, planned: Planned) -> Process:
        own = [slot.child for slot in self.slots if slot.era == planned.era and slot.child and slot.child.running]
        servers = [server for server in self.doors.servers if server.running]
        choice: list[Process] = [*own] if own else [*servers]
        return choice[int(planned.share * len(choice))]

    # --- moments -----------------------------------------------------------------------------------

    async def _step(self, planned: Planned) -> tuple[Effect, Process] | None:
        """A step of this era that runs now, and the process that runs it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            alive = self._processes()
            for effect in self.ledger.in_flight(alive):
                if self._era(effect.conversation) == planned.era:
                    return effect, alive[effect.pid]
            await asyncio.sleep(_LOOK)
        return None

    async def _in_step(self, planned: Planned) -> Process | None:
        found = await self._step(planned)
        if found is None:
            return None
        effect, victim = found
        await asyncio.sleep(planned.share * self._pace(effect) * 0.8)
        victim.kill_nowait()
        return victim

    async def _at_the_end_of_a_step(self, planned: Planned) -> Process | None:
        """About when its effect ends: before, within or after the commit that records it."""
        found = await self._step(planned)
        if found is None:
            return None
        effect, victim = found
        early, late = _AROUND_END
        moment = effect.begin + self._pace(effect) + early + planned.share * (late - early)
        await asyncio.sleep(max(0.0, moment - time.time()))
        victim.kill_nowait()
        return victim

    async def _at_a_question(self, planned: Planned) -> Process | None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            alive = self._processes()
            for talk in self._talks():
                if talk.era == planned.era and talk.phase == "thinking" and talk.pid in alive:
                    await asyncio.sleep(planned.share * 0.1 * talk.script.thinks)
                    alive[talk.pid].kill_nowait()
                    return alive[talk.pid]
            await asyncio.sleep(_LOOK)
        return None

    async def _in_a_commit(self, planned: Planned) -> Process | None:
        """Some microseconds after an answer has been sent, to the process that it was sent to."""
        struck: asyncio.Future[Process] = asyncio.get_running_loop().create_future()

        def sent(talk: Talk, pid: int) -> None:
            victim = self._processes().get(pid)
            if talk.era == planned.era and victim is not None and not struck.done():
                _wait_us(planned.share * _LONGEST_WAIT_US)
                victim.kill_nowait()
                struck.set_result(victim)

        self._hook = sent
        try:
            async with asyncio.timeout(PATIENCE):
                return await struck
        except TimeoutError:
            return None
        finally:
            self._hook = None

    async def _when_idle(self, planned: Planned) -> Process | None:
        """When nobody talks to the process: its conversations end, and no new ones begin, until it is dead."""
        own = [slot for slot in self.slots if slot.era == planned.era and slot.child is not None]
        waited = own or list(self.slots)
        for slot in waited:
            slot.gate.clear()
        deadline = time.monotonic() + QUIET_PATIENCE
        while time.monotonic() < deadline:
            if all(slot.quiet for slot in waited):
                victim = self._somebody(planned)
                if victim.running:
                    await asyncio.sleep(planned.share * 0.5)
                    victim.kill_nowait()
                    return victim
                return None
            await asyncio.sleep(0.05)
        return None

    # --- what it hit ---------------------------------------------------------------------------------

    _hook: Callable[[Talk, int], None] | None = None

    def listen(self, talk: Talk, pid: int) -> None:
        """Every client tells here that it has sent an answer."""
        self._sent[id(talk)] = (time.monotonic(), pid, talk.script.name)
        if self._hook is not None:
            self._hook(talk, pid)

    def _talks(self) -> list[Talk]:
        return [slot.talk for slot in self.slots if slot.talk is not None]

    def _era(self, conversation: str) -> str:
        name = conversation.rpartition("-")[0]
        return next((slot.era for slot in self.slots if slot.name == name), "")

    def _pace(self, effect: Effect) -> float:
        talks = [talk for talk in self._talks() if talk.script.name == effect.conversation]
        return talks[0].script.pace if talks else 0.1

    def _standing(self, pid: int) -> list[tuple[Talk, str, bool]]:
        """The clients of a process as they stood when it was killed: phase, and whether an answer was on its way."""
        now = time.monotonic()
        found = []
        for talk in self._talks():
            at, to, _ = self._sent.get(id(talk), (0.0, 0, ""))
            sending = to == pid and now - at < _COMMIT and talk.phase in ("answering", "listening")
            if talk.pid == pid or sending:
                found.append((talk, talk.phase, sending))
        return found

    def _look(self, hit: Hit, standing: Sequence[tuple[Talk, str, bool]]) -> None:
        pid, classes = hit.disruptions[0].pid, hit.classes
        for effect in self.ledger.effects():
            if effect.pid != pid:
                continue
            if effect.end is None:
                classes.setdefault("running step", set()).add(self._era(effect.conversation))
            elif hit.disruptions[0].at - effect.end < _COMMIT:
                self._look_at_record(hit, effect)
        for talk, phase, sending in standing:
            if sending:
                classes.setdefault("commit in flight", set()).add(talk.era)
                self._count(hit, bool(self.rows.answered(talk.script.name) - talk.taken))
            elif phase == "thinking":
                classes.setdefault("open question", set()).add(talk.era)
        if not classes:
            busy = [talk.era for talk, phase, _ in standing if phase != "over"]
            classes["other work" if busy else "idle server"] = set(busy) or {hit.planned.era}

    def _look_at_record(self, hit: Hit, effect: Effect) -> None:
        """An effect had just ended: had the commit that records it been made?"""
        if not self.rows.has_recorded(effect.token):
            hit.classes.setdefault("commit in flight", set()).add(self._era(effect.conversation))
            self._count(hit, False)

    def _count(self, hit: Hit, recorded: bool) -> None:
        if recorded:
            hit.recorded += 1
        else:
            hit.lost += 1


def _wait_us(microseconds: float) -> None:
    """Wait exactly: a timer of the event loop is too coarse for a commit."""
    until = time.perf_counter() + microseconds / 1e6
    while time.perf_counter() < until:
        pass
