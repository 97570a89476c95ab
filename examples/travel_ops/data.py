"""The assistant's SQLite file: its tables, and the season that is made up for it.

The season is the same on every machine and in every run (seeded, no clock), so that a test, a demo and a reader
talk about the same flights. The file is made on first use; several processes may do that at once.

`effects` is the ledger of everything done to the outside world: one row per idempotency key, with a count of how
often it was asked for. `calls` above 1 means that somebody asked again and got the first result back.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date, timedelta
from pathlib import Path

SEASON = (date(2027, 3, 1), date(2027, 4, 30))
"""First and last day with flights."""

SCHEMA = """
CREATE TABLE passengers (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, tier TEXT NOT NULL);
CREATE TABLE fares (
    code TEXT PRIMARY KEY, name TEXT NOT NULL, change_fee INTEGER NOT NULL, refund_percent INTEGER NOT NULL,
    refund_fee INTEGER NOT NULL, factor REAL NOT NULL);
CREATE TABLE routes (
    number TEXT PRIMARY KEY, origin TEXT NOT NULL, destination TEXT NOT NULL, departs TEXT NOT NULL,
    arrives TEXT NOT NULL, base_price INTEGER NOT NULL);
CREATE TABLE flights (
    number TEXT NOT NULL REFERENCES routes, day TEXT NOT NULL, price INTEGER NOT NULL, status TEXT NOT NULL,
    delay INTEGER NOT NULL, gate TEXT NOT NULL, PRIMARY KEY (number, day));
CREATE TABLE seats (
    number TEXT NOT NULL, day TEXT NOT NULL, seat TEXT NOT NULL, state TEXT NOT NULL, pnr TEXT, hold TEXT,
    PRIMARY KEY (number, day, seat), FOREIGN KEY (number, day) REFERENCES flights);
CREATE TABLE itineraries (
    pnr TEXT PRIMARY KEY, passenger INTEGER NOT NULL REFERENCES passengers, fare TEXT NOT NULL REFERENCES fares,
    price INTEGER NOT NULL, status TEXT NOT NULL);
CREATE TABLE legs (
    pnr TEXT NOT NULL REFERENCES itineraries, leg INTEGER NOT NULL, number TEXT NOT NULL, day TEXT NOT NULL,
    seat TEXT NOT NULL, PRIMARY KEY (pnr, leg));
CREATE TABLE letters (
    id TEXT PRIMARY KEY, pnr TEXT NOT NULL REFERENCES itineraries, subject TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE refunds (
    id TEXT PRIMARY KEY, pnr TEXT NOT NULL REFERENCES itineraries, amount INTEGER NOT NULL, reason TEXT NOT NULL,
    approved_by TEXT);
CREATE TABLE effects (
    n INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, pnr TEXT NOT NULL,
    result TEXT NOT NULL, calls INTEGER NOT NULL DEFAULT 1);
"""

PASSENGERS = [
    (1, "Amira Haddad", "amira.haddad@example.com", "gold"),
    (2, "Jonas Lindqvist", "jonas.lindqvist@example.com", "basic"),
    (3, "Mei Tanaka", "mei.tanaka@example.com", "silver"),
    (4, "Tomás Ferreira", "tomas.ferreira@example.com", "basic"),
]
FARES = [  # code, name, change fee, percent refunded, refund fee, price factor
    ("LITE", "Lite", 90, 0, 0, 1.0),
    ("FLEX", "Flex", 25, 80, 40, 1.35),
    ("FULL", "Full", 0, 100, 0, 1.9),
]
ROUTES = [  # number, from, to, departs, arrives, base price in euros
    ("MP101", "LIS", "CPH", "07:10", "11:45", 140),
    ("MP103", "LIS", "CPH", "13:30", "18:05", 120),
    ("MP105", "LIS", "CPH", "18:55", "23:30", 95),
    ("MP102", "CPH", "LIS", "08:20", "11:10", 135),
    ("MP104", "CPH", "LIS", "16:40", "19:30", 115),
    ("MP201", "LIS", "VIE", "09:05", "13:40", 130),
    ("MP202", "VIE", "LIS", "14:50", "17:35", 130),
    ("MP301", "CPH", "VIE", "10:15", "12:05", 110),
    ("MP302", "VIE", "CPH", "17:20", "19:10", 105),
]
ITINERARIES = [  # pnr, passenger, fare, status, legs as (number, days into the season, seat)
    ("QK7P2M", 1, "FLEX", "ticketed", [("MP101", 16, "3A"), ("MP104", 23, "4C")]),
    ("R4T9WX", 2, "LITE", "ticketed", [("MP301", 9, "5B")]),
    ("ZB3N6D", 3, "FULL", "ticketed", [("MP202", 30, "2A"), ("MP201", 37, "2B")]),
    ("H8V5LC", 4, "FLEX", "ticketed", [("MP105", 44, "6D")]),
]
SEATS = [f"{row}{letter}" for row in range(2, 7) for letter in "ABCD"]


def path() -> Path:
    """The file: `TRAVEL_OPS_DB`, else `travel_ops.db` beside this module."""
    return Path(os.environ.get("TRAVEL_OPS_DB") or Path(__file__).with_name("travel_ops.db"))


@contextmanager
def transaction() -> Iterator[sqlite3.Connection]:
    """One write transaction: committed at the end, undone by an exception."""
    with closing(_connect()) as db:
        db.execute("BEGIN IMMEDIATE")
        with db:
            yield db


@contextmanager
def reading() -> Iterator[sqlite3.Connection]:
    with closing(_connect()) as db:
        yield db


def _connect() -> sqlite3.Connection:
    db = sqlite3.connect(path(), timeout=10, isolation_level=None)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA foreign_keys = ON")
    if not db.execute("PRAGMA user_version").fetchone()[0]:
        _make(db)
    return db


def _make(db: sqlite3.Connection) -> None:
    """Tables and season, in one transaction; the second of two processes finds them there."""
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("BEGIN IMMEDIATE")
    with db:
        if db.execute("PRAGMA user_version").fetchone()[0]:
            return
        for statement in SCHEMA.split(";"):
            db.execute(statement)
        _fill(db)
        db.execute("PRAGMA user_version = 1")


def _fill(db: sqlite3.Connection) -> None:
    db.executemany("INSERT INTO passengers VALUES (?, ?, ?, ?)", PASSENGERS)
    db.executemany("INSERT INTO fares VALUES (?, ?, ?, ?, ?, ?)", FARES)
    db.executemany("INSERT INTO routes VALUES (?, ?, ?, ?, ?, ?)", ROUTES)
    chance = random.Random("the spring season of 2027")  # noqa: S311  # made-up data, not a secret
    for day in days():
        for number, *_, base_price in ROUTES:
            _add_flight(db, chance, number, day, base_price)
    for pnr, passenger, fare, status, legs in ITINERARIES:
        _add_itinerary(db, pnr, passenger, fare, status, legs)


def days() -> Iterator[date]:
    first, last = SEASON
    return (first + timedelta(days=n) for n in range((last - first).days + 1))


def _add_flight(db: sqlite3.Connection, chance: random.Random, number: str, day: date, base_price: int) -> None:
    price = base_price + 5 * chance.randrange(-4, 13) + (20 if day.weekday() in (4, 6) else 0)
    status, delay = chance.choices([("on time", 0), ("delayed", 5 * chance.randrange(3, 25))], weights=[9, 1])[0]
    gate = f"{chance.choice('ABC')}{chance.randrange(1, 30)}"
    db.execute("INSERT INTO flights VALUES (?, ?, ?, ?, ?, ?)", (number, day.isoformat(), price, status, delay, gate))
    taken = set(chance.sample(SEATS, chance.randrange(8, len(SEATS) - 2)))
    rows = [(number, day.isoformat(), seat, "booked" if seat in taken else "free") for seat in SEATS]
    db.executemany("INSERT INTO seats VALUES (?, ?, ?, ?, NULL, NULL)", rows)


def _add_itinerary(
    db: sqlite3.Connection, pnr: str, passenger: int, fare: str, status: str, legs: list[tuple[str, int, str]]
) -> None:
    factor = db.execute("SELECT factor FROM fares WHERE code = ?", (fare,)).fetchone()[0]
    flown = [(number, (SEASON[0] + timedelta(days=offset)).isoformat(), seat) for number, offset, seat in legs]
    query = "SELECT price FROM flights WHERE number = ? AND day = ?"
    price = sum(round(db.execute(query, (number, day)).fetchone()[0] * factor) for number, day, _ in flown)
    db.execute("INSERT INTO itineraries VALUES (?, ?, ?, ?, ?)", (pnr, passenger, fare, price, status))
    for leg, (number, day, seat) in enumerate(flown, start=1):
        db.execute("INSERT INTO legs VALUES (?, ?, ?, ?, ?)", (pnr, leg, number, day, seat))
        db.execute(
            "UPDATE seats SET state = 'booked', pnr = ? WHERE number = ? AND day = ? AND seat = ?",
            (pnr, number, day, seat),
        )
