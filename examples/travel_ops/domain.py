"""What can be asked of the assistant's data, and what changes it.

Plain functions, without MCP and without Milepost. Whatever changes something takes an idempotency `key`: asked again
with the same key it changes nothing and returns what it returned the first time, as a good booking or payment API
does. The key is written to the `effects` ledger in the transaction that makes the change.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import date
from typing import Literal, TypeVar

from pydantic import BaseModel

from . import data

RefundReason = Literal["illness", "bereavement", "schedule change", "other"]
APPROVAL_ABOVE = 100
"""Refunds above this many euros need a supervisor."""


class NotPossible(Exception):
    """The wish can't be met; the text is for the user."""


class Leg(BaseModel):
    leg: int
    number: str
    day: date
    seat: str
    origin: str
    destination: str
    departs: str
    arrives: str


class Itinerary(BaseModel):
    pnr: str
    passenger: str
    email: str
    tier: str
    fare: str
    price: int
    status: str
    legs: list[Leg]


class Flight(BaseModel):
    number: str
    day: date
    origin: str
    destination: str
    departs: str
    arrives: str
    price: int
    """Euros, at the base fare."""
    free: int
    """Seats."""


class FlightStatus(BaseModel):
    number: str
    day: date
    status: str
    delay: int
    """Minutes."""
    gate: str


class Fare(BaseModel):
    code: str
    name: str
    change_fee: int
    refund_percent: int
    refund_fee: int
    factor: float
    """What the base price of a flight is multiplied by."""


class Hold(BaseModel):
    """A seat that nobody else can take while the traveller decides."""

    id: str
    number: str
    day: date
    seat: str


class Booking(BaseModel):
    pnr: str
    number: str
    day: date
    seat: str
    paid: int
    """Euros paid now: the change fee and what the new flight costs more."""


class Refund(BaseModel):
    id: str
    pnr: str
    amount: int
    approved_by: str | None


class Letter(BaseModel):
    id: str
    subject: str


class Plan(BaseModel):
    pnr: str
    price: int


# --- questions to the data ------------------------------------------------------------------------


def season() -> tuple[date, date]:
    """The first and last day on which anything flies."""
    return data.SEASON


def itinerary(pnr: str) -> Itinerary:
    """Raises NotPossible for an unknown record locator."""
    with data.reading() as db:
        row = db.execute(
            "SELECT i.*, p.name, p.email, p.tier FROM itineraries i JOIN passengers p ON p.id = i.passenger"
            " WHERE pnr = ?",
            (pnr.upper(),),
        ).fetchone()
        if row is None:
            raise NotPossible(f"There is no itinerary {pnr!r}. A record locator has six letters and digits.")
        legs = db.execute(
            "SELECT l.*, r.origin, r.destination, r.departs, r.arrives FROM legs l JOIN routes r USING (number)"
            " WHERE pnr = ? ORDER BY leg",
            (row["pnr"],),
        ).fetchall()
    return Itinerary(**(dict(row) | {"passenger": row["name"], "legs": [dict(leg) for leg in legs]}))


def itineraries_of(name: str) -> list[Itinerary]:
    """All itineraries of the travellers whose name contains `name`."""
    with data.reading() as db:
        rows = db.execute(
            "SELECT pnr FROM itineraries i JOIN passengers p ON p.id = i.passenger"
            " WHERE instr(lower(p.name), lower(?)) ORDER BY pnr",
            (name,),
        ).fetchall()
    return [itinerary(row["pnr"]) for row in rows]


def record_locators() -> list[str]:
    with data.reading() as db:
        return [row["pnr"] for row in db.execute("SELECT pnr FROM itineraries ORDER BY pnr")]


def fare(code: str) -> Fare:
    with data.reading() as db:
        row = db.execute("SELECT * FROM fares WHERE code = ?", (code.upper(),)).fetchone()
    if row is None:
        raise NotPossible(f"There is no fare {code!r}. The fares are {', '.join(fare_codes())}.")
    return Fare(**row)


def fare_codes() -> list[str]:
    with data.reading() as db:
        return [row["code"] for row in db.execute("SELECT code FROM fares ORDER BY factor")]


def flight_status(number: str, day: date) -> FlightStatus:
    with data.reading() as db:
        row = db.execute(
            "SELECT * FROM flights WHERE number = ? AND day = ?", (number.upper(), day.isoformat())
        ).fetchone()
    if row is None:
        first, last = season()
        raise NotPossible(f"{number} does not fly on {day}. The season is {first} to {last}.")
    return FlightStatus(**row)


def flights(origin: str, destination: str, day: date) -> list[Flight]:
    """Flights with free seats, cheapest first."""
    with data.reading() as db:
        rows = db.execute(
            "SELECT f.number, f.day, r.origin, r.destination, r.departs, r.arrives, f.price, count(*) AS free"
            " FROM flights f JOIN routes r USING (number)"
            " JOIN seats s ON s.number = f.number AND s.day = f.day AND s.state = 'free'"
            " WHERE r.origin = ? AND r.destination = ? AND f.day = ? GROUP BY f.number ORDER BY f.price, f.number",
            (origin, destination, day.isoformat()),
        ).fetchall()
    return [Flight(**row) for row in rows]


def destinations(origin: str) -> list[str]:
    with data.reading() as db:
        rows = db.execute("SELECT DISTINCT destination FROM routes WHERE origin = ? ORDER BY 1", (origin,)).fetchall()
    if not rows:
        raise NotPossible(f"Nothing departs from {origin!r}. We fly from LIS, CPH and VIE.")
    return [row["destination"] for row in rows]


def price_of(flight_price: int, fare_code: str) -> int:
    return round(flight_price * fare(fare_code).factor)


def cost_of_change(trip: Itinerary, leg: Leg, flight: Flight) -> int:
    """Euros to pay for flying `flight` in place of `leg`: the fee, and the difference where the new one is dearer."""
    with data.reading() as db:
        row = db.execute(
            "SELECT price FROM flights WHERE number = ? AND day = ?", (leg.number, leg.day.isoformat())
        ).fetchone()
    dearer = price_of(flight.price, trip.fare) - price_of(row["price"], trip.fare)
    return fare(trip.fare).change_fee + max(0, dearer)


def refundable(trip: Itinerary, reason: RefundReason) -> int:
    """Euros that may be paid back: by the fare's rules, or all of it where the reason is beyond the traveller."""
    if reason in ("bereavement", "schedule change"):
        return trip.price
    rules = fare(trip.fare)
    return max(0, trip.price * rules.refund_percent // 100 - rules.refund_fee)


# --- changes --------------------------------------------------------------------------------------

Result = TypeVar("Result", bound=BaseModel)
Change = Callable[[sqlite3.Connection], Result]


def once(key: str, kind: str, pnr: str, result: type[Result], change: Change[Result]) -> Result:
    """Make a change and write it to the ledger, or return what it was when `key` was first used."""
    with data.transaction() as db:
        known = db.execute("UPDATE effects SET calls = calls + 1 WHERE key = ? RETURNING result", (key,)).fetchall()
        if known:
            return result.model_validate_json(known[0]["result"])
        made = change(db)
        db.execute(
            "INSERT INTO effects (key, kind, pnr, result) VALUES (?, ?, ?, ?)",
            (key, kind, pnr, made.model_dump_json()),
        )
    return made


def hold_seat(key: str, pnr: str, number: str, day: date) -> Hold:
    """Hold the first free seat of a flight. Raises NotPossible when it is full."""

    def change(db: sqlite3.Connection) -> Hold:
        free = db.execute(
            "SELECT seat FROM seats WHERE number = ? AND day = ? AND state = 'free' ORDER BY seat LIMIT 1",
            (number, day.isoformat()),
        ).fetchone()
        if free is None:
            raise NotPossible(f"The last seat of {number} on {day} has just been taken.")
        hold = Hold(id=key, number=number, day=day, seat=free["seat"])
        db.execute(
            "UPDATE seats SET state = 'held', pnr = ?, hold = ? WHERE number = ? AND day = ? AND seat = ?",
            (pnr, hold.id, number, day.isoformat(), hold.seat),
        )
        return hold

    return once(key, "hold_seat", pnr, Hold, change)


def release_seat(key: str, pnr: str, hold: Hold) -> Hold:
    """Give a held seat back. A seat that was booked meanwhile stays booked."""

    def change(db: sqlite3.Connection) -> Hold:
        db.execute(
            "UPDATE seats SET state = 'free', pnr = NULL, hold = NULL WHERE hold = ? AND state = 'held'", (hold.id,)
        )
        return hold

    return once(key, "release_seat", pnr, Hold, change)


def rebook(key: str, pnr: str, leg: int, hold: Hold, price: int) -> Booking:
    """Move a leg to the held seat, free the old seat, and take the money. Raises NotPossible when the hold is gone."""

    def change(db: sqlite3.Connection) -> Booking:
        taken = db.execute("UPDATE seats SET state = 'booked' WHERE hold = ? AND state = 'held'", (hold.id,))
        if not taken.rowcount:
            raise NotPossible(f"Seat {hold.seat} of {hold.number} on {hold.day} is no longer held.")
        old = db.execute("SELECT number, day, seat FROM legs WHERE pnr = ? AND leg = ?", (pnr, leg)).fetchone()
        db.execute(
            "UPDATE seats SET state = 'free', pnr = NULL, hold = NULL WHERE number = ? AND day = ? AND seat = ?",
            tuple(old),
        )
        db.execute(
            "UPDATE legs SET number = ?, day = ?, seat = ? WHERE pnr = ? AND leg = ?",
            (hold.number, hold.day.isoformat(), hold.seat, pnr, leg),
        )
        db.execute("UPDATE itineraries SET price = price + ? WHERE pnr = ?", (price, pnr))
        return Booking(pnr=pnr, number=hold.number, day=hold.day, seat=hold.seat, paid=price)

    return once(key, "rebook", pnr, Booking, change)


def pay_refund(key: str, pnr: str, amount: int, reason: RefundReason, approved_by: str | None) -> Refund:
    """Pay money back and cancel the itinerary. Raises NotPossible when it was cancelled before."""

    def change(db: sqlite3.Connection) -> Refund:
        done = db.execute("UPDATE itineraries SET status = 'refunded' WHERE pnr = ? AND status = 'ticketed'", (pnr,))
        if not done.rowcount:
            raise NotPossible(f"{pnr} is not a valid ticket any more.")
        db.execute("UPDATE seats SET state = 'free', pnr = NULL, hold = NULL WHERE pnr = ?", (pnr,))
        refund = Refund(id=key[:12], pnr=pnr, amount=amount, approved_by=approved_by)
        db.execute("INSERT INTO refunds VALUES (?, ?, ?, ?, ?)", (refund.id, pnr, amount, reason, approved_by))
        return refund

    return once(key, "pay_refund", pnr, Refund, change)


def send_letter(key: str, pnr: str, subject: str, body: str) -> Letter:
    def change(db: sqlite3.Connection) -> Letter:
        letter = Letter(id=key[:12], subject=subject)
        db.execute("INSERT INTO letters VALUES (?, ?, ?, ?)", (letter.id, pnr, subject, body))
        return letter

    return once(key, "send_letter", pnr, Letter, change)


def save_plan(key: str, passenger: str, fare_code: str, chosen: list[Flight]) -> Plan:
    """Write a planned trip as an itinerary that waits for payment; its record locator comes from the key."""
    pnr = f"P{key[:5].upper()}"

    def change(db: sqlite3.Connection) -> Plan:
        who = db.execute("SELECT id FROM passengers WHERE instr(lower(name), lower(?))", (passenger,)).fetchone()
        if who is None:
            raise NotPossible(f"There is no traveller named {passenger!r}.")
        plan = Plan(pnr=pnr, price=sum(price_of(flight.price, fare_code) for flight in chosen))
        db.execute("INSERT INTO itineraries VALUES (?, ?, ?, ?, 'planned')", (pnr, who["id"], fare_code, plan.price))
        rows = [(pnr, leg, f.number, f.day.isoformat(), "-") for leg, f in enumerate(chosen, start=1)]
        db.executemany("INSERT INTO legs VALUES (?, ?, ?, ?, ?)", rows)
        return plan

    return once(key, "save_plan", pnr, Plan, change)
