"""The stage: PostgreSQL, some replicas of the travel assistant, and a balancer before them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

from drills.rows import PostgresRows
from drills.servers import Place, Server
from lab.balancer import Balancer
from lab.postgres import PostgresServer
from milepost.demo.assistant import target

DATABASE = "travel"
LATENCY = "0.5"
"""Seconds that the booking system takes to answer: long enough to be killed in the middle."""
_LOOK = 0.02


class Stage:
    """Replicas come and go; each has a name, which is its release too, so that the rows tell whose run is whose."""

    def __init__(self, folder: Path, balancer: Balancer) -> None:
        self.folder = folder
        self.balancer = balancer
        self.postgres = PostgresServer()
        self.rows = PostgresRows(lambda: self.postgres, DATABASE)
        self.rows.argument = "pnr"
        self.data = folder / "travel_ops.db"
        self.replicas: list[Server] = []
        self._names = (f"replica-{n}" for n in count(1))
        self._asking = asyncio.Lock()

    async def start(self, replicas: int) -> None:
        """Raises PostgresFailed, BalancerFailed, ServerFailed."""
        await asyncio.to_thread(self.postgres.start)
        await asyncio.to_thread(self.postgres.create_database, DATABASE)
        await self.balancer.start()
        await self.add()  # alone: it makes the tables
        await asyncio.gather(*(self.add() for _ in range(replicas - 1)))

    async def add(self) -> Server:
        name = next(self._names)
        settings = {
            "TRAVEL_OPS_DB": str(self.data),
            "TRAVEL_OPS_LATENCY": LATENCY,
            "MILEPOST_HTTP_RETRY": "0.1",
            "MILEPOST_HTTP_HEARTBEAT": "1",
            "MILEPOST_ENGINE_LEASE": "5s",
            "MILEPOST_RELEASE": name,
        }
        place = Place(self.folder, settings, self.postgres.url(DATABASE), f"{target()}:mcp")
        server = Server(place, name)
        await server.start()
        self.replicas.append(server)
        await self._tell_balancer()
        return server

    async def kill(self, server: Server) -> None:
        """SIGKILL; the balancer finds out by itself."""
        server.kill_nowait()
        await server.buried()

    async def forget(self, server: Server) -> None:
        self.replicas.remove(server)
        await self._tell_balancer()

    async def _tell_balancer(self) -> None:
        await self.balancer.set_replicas([one.port for one in self.replicas])

    # --- what the rows say -----------------------------------------------------------------------------

    async def at_work(self, server: Server) -> dict[str, int]:
        """The runs that this replica works on right now, each with its attempt's number."""
        sql = (
            "SELECT run.id, run.epoch FROM run JOIN replica ON replica.id = run.owner "
            "WHERE run.state = 'running' AND replica.release = ?"
        )
        return {str(run): int(epoch) for run, epoch in await self._ask(sql, server.name)}

    async def taken_up(self, runs: dict[str, int], limit: float) -> list[float]:
        """Wait until others have taken up these runs (a later attempt began, or they ended); seconds, for each."""
        begun, left, waits = time.monotonic(), dict(runs), []
        while left and time.monotonic() - begun < limit:
            names = ", ".join(f"'{run}'" for run in left)
            sql = f"SELECT id, epoch, state FROM run WHERE id IN ({names})"  # noqa: S608  ids of the store's own
            for run, epoch, state in await self._ask(sql):
                if epoch > left[run] or state in ("completed", "failed"):
                    waits.append(time.monotonic() - begun)
                    del left[run]
            await asyncio.sleep(_LOOK)
        return waits + [limit] * len(left)

    async def _ask(self, sql: str, *bindings: str) -> list[tuple[Any, ...]]:
        async with self._asking:
            return await asyncio.to_thread(self.rows.ask, sql, bindings)

    def effects(self) -> list[tuple[str, str, int]]:
        """What the booking system says was done: for whom, what, and how often it was asked for under that key."""
        with closing(sqlite3.connect(self.data)) as db:
            return db.execute("SELECT pnr, kind, calls FROM effects ORDER BY n").fetchall()

    # --- the end ---------------------------------------------------------------------------------------

    async def stop_replicas(self) -> None:
        await asyncio.gather(*(one.stop() for one in self.replicas))

    async def aclose(self) -> None:
        """Idempotent."""
        await asyncio.gather(*(one.stop() for one in self.replicas), return_exceptions=True)
        await self.balancer.aclose()
        await asyncio.to_thread(self.postgres.close)
