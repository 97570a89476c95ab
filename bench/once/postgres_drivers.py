"""Which PostgreSQL driver: `PYTHONPATH=bench:. uv run --with 'psycopg[binary]' python bench/once/postgres_drivers.py`.

Both call the same function of the store (an append of one entry and one event) on the same server, the sides taking
turns: one connection, one call at a time; then ten connections, a hundred callers. CPU is this process's. The answer
stands in docs/decisions/0006; `make bench` leaves this script out, for psycopg is no dependency.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import psycopg
from parts.figures import Table, ratio, spread

from lab.postgres import PostgresServer
from milepost.running import run
from milepost.store.postgres import PostgresStore, making
from milepost.store.postgres.sqltext import SqlText
from store import LEASE, create, step

CONNECTIONS, CALLERS, ROUNDS, CALLS = 10, 100, 5, 2000
Call = Callable[[Sequence[Any]], Awaitable[object]]


class Asyncpg:
    def __init__(self, url: str, sql: str) -> None:
        self.url, self.sql = url, sql

    async def open(self) -> None:
        self.free = [await asyncpg.connect(self.url) for _ in range(CONNECTIONS)]

    async def call(self, connection: Any, values: Sequence[Any]) -> object:
        return (await connection.fetch(self.sql, *values))[0]


class Psycopg:
    def __init__(self, url: str, sql: str) -> None:
        self.url = url
        self.sql = sql
        for n in range(13, 0, -1):
            self.sql = self.sql.replace(f"${n}", "%s")

    async def open(self) -> None:
        self.free = [await psycopg.AsyncConnection.connect(self.url, autocommit=True) for _ in range(CONNECTIONS)]

    async def call(self, connection: Any, values: Sequence[Any]) -> object:
        cursor = await connection.execute(self.sql, values, prepare=True)
        return await cursor.fetchone()


async def timed(side: Any, store: PostgresStore, callers: int) -> tuple[float, float]:
    """(calls per second, CPU microseconds per call)."""
    claims = [await create(store) for _ in range(callers)]
    each = CALLS // callers
    gate = asyncio.Semaphore(CONNECTIONS)

    async def one(claim: Any) -> None:
        for n in range(1, each + 1):
            values = (
                None,
                1,
                claim.fence.run_id,
                claim.fence.attempt_id,
                os.urandom(9).hex(),
                LEASE,
                *making.of_batch(step(n)),
            )
            async with gate:
                connection = side.free.pop()
                try:
                    await side.call(connection, values)
                finally:
                    side.free.append(connection)

    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one(claim) for claim in claims))
    return each * callers / (time.perf_counter() - begun), (time.process_time() - cpu) / (each * callers) * 1e6


async def main() -> None:
    with PostgresServer() as server:
        store = PostgresStore(server.url())
        await store.open()
        await store.join("r1")
        sql = SqlText("milepost")["append"]
        sides = {"asyncpg": Asyncpg(server.url(), sql), "psycopg": Psycopg(server.url(), sql)}
        found: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for side in sides.values():
            await side.open()
        for _ in range(ROUNDS):
            for name, side in sides.items():
                for callers in (1, CALLERS):
                    found.setdefault((name, callers), []).append(await timed(side, store, callers))
        await store.aclose()
    print(f"asyncpg {asyncpg.__version__}, psycopg {psycopg.__version__}, PostgreSQL over loopback, {ROUNDS} rounds")
    table = Table(["", "appends/s", "CPU us each", "x asyncpg"])
    for (name, callers), pairs in sorted(found.items(), key=lambda item: item[0][1]):
        rates = [rate for rate, _ in pairs]
        peers = [rate for rate, _ in found["asyncpg", callers]]
        cpu = statistics.median(cpu for _, cpu in pairs)
        table.add(f"{name}, {callers} at once", spread(rates), f"{cpu:.0f}", ratio(rates, peers))
    table.show()


if __name__ == "__main__":
    run(main())
