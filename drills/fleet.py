"""Many replicas on one PostgreSQL, with a proxy of faults before and behind each, and a balancer in front of all.

    clients -> balancer -> faults -> replica -> faults -> PostgreSQL -> its synchronous standby

What the replicas know of PostgreSQL is an address that stays: after a failover the proxies lead to the standby, as a
floating address or a pooler would.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

from drills.ledger import SHIFT
from drills.over_http import Front
from drills.rows import PostgresRows
from drills.servers import Place, Server
from lab.balancer import Balancer
from lab.faketime import shifted
from lab.faults import Proxy
from lab.postgres import PostgresServer

DATABASE = "drill"
MAX_CONNECTIONS = "200"


@dataclass(eq=False)
class Replica:
    """One server process with its two proxies. It keeps its ports from life to life."""

    server: Server
    front: Proxy
    back: Proxy
    shift: float = 0.0
    """Seconds by which its clock is wrong."""

    @property
    def name(self) -> str:
        return self.server.name

    async def start(self) -> None:
        await self.server.start()
        await self.front.up()

    async def die(self) -> None:
        """SIGKILL; whoever comes from now on is refused, as by a machine without that process."""
        self.server.kill_nowait()
        await self.front.down()
        await self.server.buried()

    async def drain(self) -> None:
        """SIGTERM: it ends when its work has, and refuses what is new."""
        await self.server.stop()
        await self.front.down()

    async def aclose(self) -> None:
        try:
            await self.server.stop()
        finally:
            await self.front.aclose()
            await self.back.aclose()


class Fleet:
    """PostgreSQL, its standby, the replicas and the balancer."""

    def __init__(self, place: Place, balancer: Balancer, rng: random.Random) -> None:
        self.place = place
        self.balancer = balancer
        self.replicas: list[Replica] = []
        self.gone: list[Replica] = []
        self.primary = PostgresServer(settings={"max_connections": MAX_CONNECTIONS})
        self._first = self.primary
        self.rows = PostgresRows(lambda: self.primary, DATABASE)
        self._names = (f"r{n}" for n in count(1))
        self._standbys = count(1)
        self._rng = rng

    async def start(self, replicas: int) -> None:
        """Raises PostgresFailed, ServerFailed."""
        await asyncio.to_thread(self._start_postgres)
        await self.balancer.start()
        await self.add()  # alone: it makes the tables
        await asyncio.gather(*(self.add() for _ in range(replicas - 1)))

    def _start_postgres(self) -> None:
        self.primary.start()
        self.primary.create_database(DATABASE)
        self._add_standby()

    def _add_standby(self) -> None:
        self.primary.add_standby(f"standby{next(self._standbys)}")

    @property
    def front(self) -> Front:
        return Front(self.balancer.port)

    @property
    def up(self) -> Sequence[Replica]:
        return [one for one in self.replicas if one.server.running and one.server.lives[-1].up]

    def of(self, pid: int) -> Replica | None:
        return next((one for one in self.replicas if one.server.pid == pid), None)

    # --- replicas ------------------------------------------------------------------------------------

    async def add(self, *, shift: float = 0.0) -> Replica:
        """One more, behind the balancer."""
        back = Proxy(self.primary.port, rng=self._rng)
        await back.start()
        settings = {**self.place.settings, **(shifted(shift) | {SHIFT: f"{shift:g}"} if shift else {})}
        place = replace(self.place, settings=settings, url=self.primary.url(DATABASE, port=back.port))
        server = Server(place, next(self._names))
        front = Proxy(server.port, messages=True, rng=self._rng)
        await front.start()
        one = Replica(server, front, back, shift)
        self.replicas.append(one)
        await one.start()
        await self._tell_balancer()
        return one

    async def remove(self, one: Replica) -> None:
        """The balancer first, then a drain: as an orderly deployment does it."""
        self.replicas.remove(one)
        self.gone.append(one)
        await self._tell_balancer()
        await one.drain()
        await one.aclose()

    async def _tell_balancer(self) -> None:
        await self.balancer.set_replicas([one.front.port for one in self.replicas])

    # --- PostgreSQL ----------------------------------------------------------------------------------

    async def fail_over(self) -> None:
        """The primary's machine loses its power; the standby takes over, and gets a standby of its own."""
        old, new = self.primary, self.primary.standbys[-1]
        await asyncio.to_thread(old.kill)
        for one in self.replicas:
            one.back.cut()
        await asyncio.to_thread(new.promote)
        self.primary = new
        for one in self.replicas:
            one.back.upstream = new.port
            one.back.cut()

    async def add_standby(self) -> None:
        await asyncio.to_thread(self._add_standby)

    # --- the end -------------------------------------------------------------------------------------

    async def stop_replicas(self) -> list[str]:
        """What went wrong with processes."""
        failures = [
            f"replica {one.name} died by itself:\n{one.server.last_words()}"
            for one in self.replicas
            if one.server.lives and one.server.lives[-1].died is None and not one.server.running
        ]
        ended = await asyncio.gather(*(one.aclose() for one in self.replicas), return_exceptions=True)
        await self.balancer.aclose()
        return failures + [str(one) for one in ended if isinstance(one, BaseException)]

    async def aclose(self) -> None:
        """PostgreSQL too. Idempotent."""
        await asyncio.to_thread(self._first.close)
