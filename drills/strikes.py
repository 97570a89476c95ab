"""What the second nemesis does to a fleet: each fault with what it hit, by what was observed.

A strike counts only if it hit work in flight: a step that ran in that process (by the ledger), a client's request that
was open on that replica, or a statement that waited for PostgreSQL (both by the proxies). Every strike is over when it
returns: killed replicas are up again, networks whole, and PostgreSQL has a standby.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from drills.fleet import Fleet, Replica
from drills.history import Disruption
from drills.ledger import Effect, Ledger
from lab.faults import Proxy
from lab.toxics import Bandwidth, Duplicate, Latency, Reorder, Slicer, Timeout, Toxic

LEASE = 5.0
CLIENT_PATIENCE = 4.0
"""Seconds of silence (heartbeats come every second) after which a client comes back on another connection."""
SHIFT = 300.0
SPARE = 3
"""Crashes in a row from which a run is spared for a while: from five on it is stuck, as it should be."""
_MOMENT = 8.0
"""Seconds to wait for work that can be hit; after that the fault falls wherever it falls, and may not count."""
_LOOK = 0.004
_WHILE = (2.0, 4.0)
"""Seconds that a bad network lasts where nothing else says how long."""
_TOLD = 1.0
"""Seconds in which a replica surely knows that its connections to PostgreSQL were ended."""

PROCESS = ("kill", "kill two", "kill all", "pause", "drain", "add and remove", "shift the clock")
DATABASE = ("restart PostgreSQL", "crash PostgreSQL", "fail over", "stall PostgreSQL")
BACK = ("cut PostgreSQL", "reset PostgreSQL", "half-open PostgreSQL", "delay PostgreSQL")
FRONT = ("cut clients", "reset clients", "half-open clients", "delay clients", "duplicate requests", "reorder requests")
FAULTS = (*PROCESS, *DATABASE, *BACK, *FRONT)
_WEIGHTS = {"kill": 6, "kill two": 3, "drain": 2, "pause": 2, "fail over": 2}
LEASED = ("pause", "half-open PostgreSQL", *DATABASE)
"""Faults after which nobody knows that the owner is gone: its runs go on when its lease has ended."""


@dataclass(slots=True)
class Strike:
    """One fault and what it hit. UTC seconds."""

    fault: str
    at: float
    steps: list[Effect] = field(default_factory=list)
    """Running in the processes that it befell."""
    requests: int = 0
    statements: int = 0
    messages: int = 0
    """Duplicated or overtaken."""
    until: float = 0.0
    disruptions: list[Disruption] = field(default_factory=list)
    missing: str = ""
    """Why it could not be done on this machine: then nothing is shown about it, neither good nor bad."""

    @property
    def hit(self) -> bool:
        return bool(self.steps or self.requests or self.statements or self.messages) and not self.missing


def plan(seed: int, strikes: int, faults: Sequence[str] = FAULTS) -> list[str]:
    """The faults, in order: each at least once as far as `strikes` allows, the rest by weight."""
    rng = random.Random(f"strikes {seed}")
    first = list(faults)
    rng.shuffle(first)
    drawn = first[:strikes]
    drawn += rng.choices(faults, weights=[_WEIGHTS.get(name, 1) for name in faults], k=strikes - len(drawn))
    rng.shuffle(drawn)
    return drawn


class Strikes:
    """Does one fault after the other."""

    def __init__(self, fleet: Fleet, ledger: Ledger, rng: random.Random) -> None:
        self.fleet = fleet
        self.ledger = ledger
        self.rng = rng
        self.answers = 0
        self._ways: dict[str, Callable[[Strike], Awaitable[None]]] = {
            "kill": lambda strike: self._kill(strike, 1),
            "kill two": lambda strike: self._kill(strike, 2),
            "kill all": lambda strike: self._kill(strike, len(self.fleet.up)),
            "pause": self._pause,
            "drain": self._drain,
            "add and remove": self._add_and_remove,
            "shift the clock": self._shift,
            "restart PostgreSQL": lambda strike: self._restart(strike, self._orderly),
            "crash PostgreSQL": lambda strike: self._restart(strike, self._crash),
            "fail over": lambda strike: self._restart(strike, self.fleet.fail_over),
            "stall PostgreSQL": lambda strike: self._restart(strike, self._stall),
            "cut PostgreSQL": lambda strike: self._end_back(strike, "cut"),
            "reset PostgreSQL": lambda strike: self._end_back(strike, "reset"),
            "half-open PostgreSQL": self._half_open_back,
            "delay PostgreSQL": self._delay_back,
            "cut clients": lambda strike: self._end_front(strike, "cut"),
            "reset clients": lambda strike: self._end_front(strike, "reset"),
            "half-open clients": self._half_open_front,
            "delay clients": self._delay_front,
            "duplicate requests": lambda strike: self._messages(strike, lambda: Duplicate(toxicity=0.5)),
            "reorder requests": lambda strike: self._messages(strike, lambda: Reorder(0.3, toxicity=0.5)),
        }

    async def strike(self, fault: str) -> Strike:
        """Bring one about, and heal it."""
        await self._spare_suspects()
        strike = Strike(fault, time.time())
        await self._ways[fault](strike)
        strike.until = time.time()
        return strike

    async def _spare_suspects(self) -> None:
        deadline = time.monotonic() + 30
        while (  # noqa: ASYNC110  another process's rows
            await asyncio.to_thread(self.fleet.rows.crashes) >= SPARE and time.monotonic() < deadline
        ):
            await asyncio.sleep(0.25)

    # --- who, and when -------------------------------------------------------------------------------

    async def _victims(self, number: int = 1) -> list[Replica]:
        """Replicas of which the first has a step in flight right now, if that comes about in time."""
        deadline = time.monotonic() + _MOMENT
        up = list(self.fleet.up)
        self.rng.shuffle(up)
        while time.monotonic() < deadline:
            pids = {one.server.pid: one for one in up}
            if in_flight := self.ledger.in_flight(pids):
                first = pids[self.rng.choice(in_flight).pid]
                await asyncio.sleep(self.rng.uniform(0.0, 0.15))
                return [first, *(one for one in up if one is not first)][:number]
            await asyncio.sleep(_LOOK)
        return up[:number]

    async def _asked(self) -> list[Replica]:
        """The replica on which most requests are open, if that comes about in time."""
        deadline = time.monotonic() + _MOMENT
        while (  # noqa: ASYNC110  the proxies tell nobody
            not any(one.front.links for one in self.fleet.up) and time.monotonic() < deadline
        ):
            await asyncio.sleep(_LOOK)
        return sorted(self.fleet.up, key=lambda one: -len(one.front.links))[:1]

    def _look(self, strike: Strike, victims: Iterable[Replica]) -> None:
        """Now: what is in flight there."""
        strike.at = time.time()
        them = list(victims)
        strike.steps = self.ledger.in_flight([one.server.pid for one in them])
        strike.requests = sum(len(one.front.links) for one in them)
        strike.statements = sum(one.back.waiting for one in them)

    def _disrupted(self, strike: Strike, victims: Iterable[Replica], until: float) -> None:
        strike.disruptions += [Disruption(one.server.pid, strike.at, until) for one in victims]

    # --- processes -----------------------------------------------------------------------------------

    async def _kill(self, strike: Strike, number: int) -> None:
        victims = await self._victims(number)
        self._look(strike, victims)
        for one in victims:
            one.server.kill_nowait()
        # From when each had been killed, not from the look: a step may have begun in the milliseconds between.
        strike.disruptions += [Disruption(one.server.pid, one.server.lives[-1].died or time.time()) for one in victims]
        await asyncio.gather(*(one.die() for one in victims))
        # Begun and never ended, by processes that are dead by now.
        strike.steps = self.ledger.in_flight([one.server.lives[-1].pid for one in victims])
        await asyncio.gather(*(one.start() for one in victims))

    async def _pause(self, strike: Strike) -> None:
        victims = await self._victims()
        for one in victims:
            one.server.pause()
        self._look(strike, victims)
        try:
            await asyncio.sleep(LEASE + self.rng.uniform(0.5, 2.0))
        finally:
            for one in victims:
                one.server.go_on()
        self._disrupted(strike, victims, time.time())

    async def _drain(self, strike: Strike) -> None:
        victims = await self._victims()
        self._look(strike, victims)
        for one in victims:
            await one.drain()
            await one.start()

    async def _add_and_remove(self, strike: Strike) -> None:
        await self.fleet.add()
        victims = await self._victims()
        self._look(strike, victims)
        for one in victims:
            await self.fleet.remove(one)

    async def _shift(self, strike: Strike) -> None:
        """A replica whose clock is wrong by minutes works with the others for a while."""
        one = await self.fleet.add(shift=self.rng.choice((SHIFT, -SHIFT)))
        await asyncio.sleep(2 * self.rng.uniform(*_WHILE))
        strike.steps = [effect for effect in self.ledger.effects() if effect.pid == one.server.pid]
        strike.requests = len(one.front.links)
        await self.fleet.remove(one)

    # --- PostgreSQL ----------------------------------------------------------------------------------

    async def _restart(self, strike: Strike, way: Callable[[], Awaitable[None]]) -> None:
        await self._victims()
        everybody = list(self.fleet.up)
        self._look(strike, everybody)
        await way()
        self._disrupted(strike, everybody, time.time() + _TOLD)
        if not self.fleet.primary.standbys:
            await self.fleet.add_standby()
        await asyncio.sleep(_TOLD)

    async def _orderly(self) -> None:
        await asyncio.to_thread(self.fleet.primary.restart, "fast")

    async def _crash(self) -> None:
        await asyncio.to_thread(self.fleet.primary.kill)
        await asyncio.sleep(self.rng.uniform(0.0, 1.0))
        await asyncio.to_thread(self.fleet.primary.start)

    async def _stall(self) -> None:
        """It answers nothing, and all connections stay: as on a disk that hangs. Sometimes past the lease."""
        await asyncio.to_thread(self.fleet.primary.pause)
        try:
            await asyncio.sleep(self.rng.uniform(2.0, LEASE + 2.0))
        finally:
            await asyncio.to_thread(self.fleet.primary.go_on)

    # --- between a replica and PostgreSQL --------------------------------------------------------------

    async def _end_back(self, strike: Strike, way: str) -> None:
        victims = await self._victims()
        self._look(strike, victims)
        for one in victims:
            getattr(one.back, way)()
        self._disrupted(strike, victims, time.time() + _TOLD)
        await asyncio.sleep(_TOLD)

    async def _half_open_back(self, strike: Strike) -> None:
        victims = await self._victims()
        self._look(strike, victims)
        await self._with(Timeout(0), [one.back for one in victims], LEASE + self.rng.uniform(0.5, 2.0))
        self._disrupted(strike, victims, time.time() + _TOLD)
        await asyncio.sleep(_TOLD)

    async def _delay_back(self, strike: Strike) -> None:
        victims = await self._victims()
        self._look(strike, victims)
        await self._with(Latency(0.05, jitter=0.05), [one.back for one in victims], self.rng.uniform(*_WHILE))

    # --- between clients and a replica -----------------------------------------------------------------

    async def _end_front(self, strike: Strike, way: str) -> None:
        victims = await self._asked()
        self._look(strike, victims)
        for one in victims:
            getattr(one.front, way)()
        _only_requests(strike)

    async def _half_open_front(self, strike: Strike) -> None:
        victims = await self._asked()
        self._look(strike, victims)
        await self._with(Timeout(0), [one.front for one in victims], CLIENT_PATIENCE + self.rng.uniform(0.5, 2.0))
        _only_requests(strike)

    async def _delay_front(self, strike: Strike) -> None:
        victims = await self._asked()
        self._look(strike, victims)
        toxic = self.rng.choice(
            (
                Latency(0.2, jitter=0.15),
                Bandwidth(20_000, stream="downstream"),
                Slicer(40, size_variation=30, delay=0.002, stream="downstream"),
            )
        )
        await self._with(toxic, [one.front for one in victims], self.rng.uniform(*_WHILE))
        _only_requests(strike)

    async def _messages(self, strike: Strike, make: Callable[[], Toxic]) -> None:
        """On the way to all replicas."""
        strike.at = time.time()
        toxics = [(one.front, make()) for one in self.fleet.up]
        for proxy, toxic in toxics:
            proxy.add(toxic)
        await asyncio.sleep(self.rng.uniform(*_WHILE))
        for proxy, toxic in toxics:
            proxy.remove(toxic)
        strike.messages = sum(toxic.hits for _, toxic in toxics)

    async def _with(self, toxic: Toxic, proxies: Sequence[Proxy], seconds: float) -> None:
        for proxy in proxies:
            proxy.add(toxic)
        try:
            await asyncio.sleep(seconds)
        finally:
            for proxy in proxies:
                proxy.remove(toxic)


def _only_requests(strike: Strike) -> None:
    """What happens to a client's connection is nothing to the steps and statements behind it."""
    strike.steps, strike.statements = [], 0
