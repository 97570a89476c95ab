"""The connections that verbs go through: a bounded pool, and trying again while the database is away.

A restart or a failover of the database is seen as a stall: verbs are made again on new connections until one gets
through or `patience` is over (see `faults`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import asyncpg

from milepost.core.errors import StoreUnavailable
from milepost.store.postgres.faults import BROKEN, in_our_words, is_meeting, may_be_tried_again
from milepost.store.settings import PostgresSettings

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two tries: the first is soon, for most breaks are short; later ones leave the database in peace."""

_SLACK = 1.0
"""Seconds that an answer may take to come, beyond what the database allows the verb itself."""

Rows = Sequence[Sequence[Any]]


class PlainConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection that is not reset when it is given back: every verb leaves it as it was."""

    def get_reset_query(self) -> str:
        return ""


def connect_options(settings: PostgresSettings, *, pooled: bool = False) -> dict[str, Any]:
    """What every connection is made with.

    `pooled`: through a pooler in transaction mode, where each statement may meet another server process: nothing is
    prepared, and the limits on statements are the role's (`ALTER ROLE ... SET statement_timeout`).
    """
    bounds = {"timeout": settings.connect_timeout, "command_timeout": settings.statement_timeout + _SLACK}
    if pooled:
        return {**bounds, "statement_cache_size": 0, "server_settings": {"application_name": "milepost"}}
    return {
        **bounds,
        "server_settings": {
            "application_name": "milepost",
            "statement_timeout": str(int(settings.statement_timeout * 1000)),
            "lock_timeout": str(int(settings.lock_timeout * 1000)),
            # So that a server process whose client has vanished from the network ends, and lets go of its locks.
            "tcp_keepalives_idle": "10",
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "3",
        },
    }


class Pool:
    """Runs verbs. `trouble` is None, or why the database can't be reached right now."""

    def __init__(self, url: str, where: str, settings: PostgresSettings) -> None:
        self._url = url
        self._where = where
        self._settings = settings
        self._pool: asyncpg.Pool | None = None
        self._closing = False
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.trouble: str | None = None

    async def open(self) -> None:
        """Get ready. Connections are made when they are needed, and kept."""
        try:
            self._pool = await asyncpg.create_pool(
                self._url, min_size=0, max_size=self._settings.pool, connection_class=PlainConnection,
                **connect_options(self._settings, pooled=bool(self._settings.direct)),
            )  # fmt: skip
        except (*BROKEN, asyncpg.PostgresError, ValueError) as error:
            raise StoreUnavailable(
                f"the store {self._where} can't be opened: {error or type(error).__name__}. Is PostgreSQL running "
                "there, and may this user connect?"
            ) from error

    async def aclose(self) -> None:
        """Finish what was accepted, then let go. Idempotent."""
        self._closing = True
        await self._idle.wait()
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                async with asyncio.timeout(self._settings.connect_timeout):
                    await pool.close()
            except (*BROKEN, asyncpg.PostgresError):
                pool.terminate()

    async def call(self, sql: str, *values: Any) -> Rows:
        """Run one statement; all its rows. Raises what `in_our_words` makes of a failure."""
        if self._closing:
            raise StoreUnavailable("the store is closed")
        self._busy += 1
        self._idle.clear()
        try:
            return await self._persist(sql, values)
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    async def row(self, sql: str, *values: Any) -> Sequence[Any] | None:
        """The first row, or None."""
        rows = await self.call(sql, *values)
        return rows[0] if rows else None

    async def _persist(self, sql: str, values: Sequence[Any]) -> Rows:
        ends = time.monotonic() + self._settings.patience
        pause, met = _FIRST_PAUSE, False
        while True:
            try:
                rows = await self._once(sql, values)
            except Exception as error:
                told = in_our_words(error, self._where)
                if told is error:
                    raise
                self.trouble = str(told) if isinstance(told, StoreUnavailable) else self.trouble
                first_meeting, met = not met and is_meeting(error), True
                if not (first_meeting or may_be_tried_again(error)) or time.monotonic() > ends:
                    raise told from error
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - to drift apart
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                self.trouble = None
                return rows

    async def _once(self, sql: str, values: Sequence[Any]) -> Rows:
        assert self._pool is not None  # noqa: S101 - `open` was called
        async with self._pool.acquire(timeout=self._settings.connect_timeout) as connection:
            try:
                rows: Rows = await connection.fetch(sql, *values)
            except (*BROKEN, asyncio.CancelledError):
                connection.terminate()  # it may be half open: nothing that it says later is waited for
                raise
            return rows
