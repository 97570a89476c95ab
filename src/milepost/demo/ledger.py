"""What the booking system says was done to it: the outside witness, which knows nothing of runs."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

LOOK_EVERY = 0.02
"""Seconds between two looks, while waiting for an effect."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that was done, and how often it was asked for."""

    n: int
    kind: str
    calls: int


def effects(path: Path, pnr: str) -> list[Effect]:
    """All effects on one itinerary, in order. Empty while there is no data yet."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as db:
        query = "SELECT n, kind, calls FROM effects WHERE pnr = ? ORDER BY n"
        try:
            return [Effect(*row) for row in db.execute(query, (pnr,))]
        except sqlite3.OperationalError:
            return []  # the file is being made


async def happens(path: Path, pnr: str, kind: str, limit: float) -> None:
    """Wait until an effect is done. Raises TimeoutError after `limit` seconds."""
    async with asyncio.timeout(limit):
        while not any(effect.kind == kind for effect in effects(path, pnr)):  # noqa: ASYNC110  another process's file
            await asyncio.sleep(LOOK_EVERY)
