"""The steps: each call of the outside world that a workflow makes, once.

What changes something passes `current_step().idempotency_key` on: it is the same for every try of that step, also
after the server was killed, so the booking system can tell a repeated request from a new one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from typing import ParamSpec, TypeVar

from milepost import current_step, step

from . import domain
from .domain import Booking, Flight, Hold, Itinerary, Leg, Letter, NotPossible, Plan, Refund, RefundReason

P = ParamSpec("P")
T = TypeVar("T")


async def system(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Ask the booking system. It takes `TRAVEL_OPS_LATENCY` seconds to answer, when the work is already done."""
    result = await asyncio.to_thread(call, *args, **kwargs)
    await asyncio.sleep(float(os.environ.get("TRAVEL_OPS_LATENCY", "0")))
    return result


@step(timeout=10, retries=3)
def look_up(pnr: str) -> Itinerary | None:
    """None where there is none: asking again would not help, so that is an answer and not a failure to retry."""
    try:
        return domain.itinerary(pnr)
    except NotPossible:
        return None


@step(timeout=10, retries=3)
def search_flights(origin: str, destination: str, day: date) -> list[Flight]:
    return domain.flights(origin, destination, day)


@step(timeout=10, retries=3)
def price_change(trip: Itinerary, leg: Leg, flights: list[Flight]) -> dict[str, int]:
    """Euros that each flight would cost, by its number."""
    return {flight.number: domain.cost_of_change(trip, leg, flight) for flight in flights}


@step(timeout=30)
async def hold_seat(pnr: str, number: str, day: date) -> Hold:
    return await system(domain.hold_seat, current_step().idempotency_key, pnr, number, day)


@step(timeout=30, retries=3, idempotent=True)
async def release_seat(pnr: str, hold: Hold) -> Hold:
    return await system(domain.release_seat, current_step().idempotency_key, pnr, hold)


@step(timeout=30)
async def rebook(pnr: str, leg: int, hold: Hold, price: int) -> Booking:
    return await system(domain.rebook, current_step().idempotency_key, pnr, leg, hold, price)


@step(timeout=30)
async def pay_refund(pnr: str, amount: int, reason: RefundReason, approved_by: str | None) -> Refund:
    return await system(domain.pay_refund, current_step().idempotency_key, pnr, amount, reason, approved_by)


@step(timeout=30)
async def save_plan(passenger: str, fare: str, chosen: list[Flight]) -> Plan:
    return await system(domain.save_plan, current_step().idempotency_key, passenger, fare, chosen)


@step(timeout=30)
async def send_letter(pnr: str, subject: str, body: str) -> Letter:
    return await system(domain.send_letter, current_step().idempotency_key, pnr, subject, body)


@asynccontextmanager
async def seat_held(pnr: str, flight: Flight) -> AsyncIterator[Hold]:
    """A seat that is given back when what is done with it fails, is declined, or is cancelled.

    The clean-up also runs at each suspension, where it does nothing: a step that is called then does not start.
    """
    hold = await hold_seat(pnr, flight.number, flight.day)
    try:
        yield hold
    except BaseException:
        await release_seat(pnr, hold)
        raise
