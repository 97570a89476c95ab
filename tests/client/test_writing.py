"""The journal's writer: in order, together, and told of what went wrong."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from milepost.client.writing import Writer

pytestmark = pytest.mark.anyio

PUT = "INSERT INTO kept (n) VALUES (:n)"


class Held(sqlite3.Connection):
    """Lets nobody write until it is released, so that what comes meanwhile waits together."""

    gate = threading.Event()
    entered = threading.Event()

    def execute(self, *args: object) -> sqlite3.Cursor:
        self.entered.set()
        self.gate.wait(30)
        return super().execute(*args)  # type: ignore[arg-type]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    Held.gate.set()
    db = sqlite3.connect(tmp_path / "db", isolation_level=None, check_same_thread=False, factory=Held)
    db.execute("CREATE TABLE kept (n INTEGER NOT NULL CHECK (n < 1000))")
    yield db
    db.close()


def kept(db: sqlite3.Connection) -> list[int]:
    return [n for (n,) in db.execute("SELECT n FROM kept ORDER BY rowid")]


async def test_what_is_handed_over_at_once_is_written_in_order(db: sqlite3.Connection) -> None:
    writer = Writer(db)
    Held.gate.clear()
    tasks = [asyncio.create_task(writer.do(PUT, {"n": n})) for n in range(250)]
    await asyncio.sleep(0)
    Held.gate.set()
    assert await asyncio.gather(*tasks) == [1] * 250
    assert kept(db) == list(range(250))
    writer.close()


async def test_what_could_not_be_committed_is_said_to_all_that_it_was_to_be_committed_with(
    db: sqlite3.Connection,
) -> None:
    writer = Writer(db)
    Held.gate.clear()
    Held.entered.clear()
    first = asyncio.create_task(writer.do(PUT, {"n": 0}))  # keeps the thread, so that the others wait together
    await asyncio.to_thread(Held.entered.wait, 30)
    others = [asyncio.create_task(writer.do(PUT, {"n": n})) for n in (1, 1000, 2)]
    await asyncio.sleep(0)
    Held.gate.set()
    assert await first == 1
    told = await asyncio.gather(*others, return_exceptions=True)
    assert all(isinstance(error, sqlite3.IntegrityError) for error in told)
    assert kept(db) == [0]
    assert await writer.do(PUT, {"n": 3}) == 1, "and it goes on"
    writer.close()


async def test_a_value_that_is_no_text_stops_nobody_else(db: sqlite3.Connection) -> None:
    writer = Writer(db)
    with pytest.raises(UnicodeEncodeError):
        await asyncio.wait_for(writer.do(PUT, {"n": "\udcff"}), 30)
    assert await asyncio.wait_for(writer.do(PUT, {"n": 1}), 30) == 1
    writer.close()


async def test_closing_waits_for_what_was_handed_over_whoever_still_waits(db: sqlite3.Connection) -> None:
    writer = Writer(db)
    task = asyncio.create_task(writer.do(PUT, {"n": 1}))
    await asyncio.sleep(0)
    task.cancel()
    writer.close()
    assert kept(db) == [1]


def test_a_loop_that_is_closed_is_no_trouble(db: sqlite3.Connection) -> None:
    writer = Writer(db)
    Held.gate.clear()

    async def leave() -> None:
        task = asyncio.create_task(writer.do(PUT, {"n": 1}))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())
    Held.gate.set()
    writer.close()
    assert kept(db) == [1]
