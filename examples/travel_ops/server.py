"""The travel operations assistant.

    milepost serve examples/travel_ops/server.py:mcp

Its three workflows ask the user several things, hold seats, move money and write letters. They are plain functions,
read from the top; killed anywhere, they go on where they were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel

from milepost import stage, workflow
from milepost.core.errors import StepError

from . import domain, forms, letters, steps
from .domain import Booking, Flight, Itinerary, Leg, NotPossible, Plan, Refund
from .forms import NoThanks, ask, ask_day
from .reference import add_reference

mcp = MCPServer(
    "travel-ops",
    title="Travel operations",
    instructions="Changes, refunds and plans trips. Look an itinerary up before you change it.",
    version="2.0",
)
add_reference(mcp)

STAGES = ["searching_data", "awaiting_confirmation", "calling_tools", "drafting_output"]


class Receipt(BaseModel):
    """What came of a wish to change a trip."""

    pnr: str
    status: Literal["changed", "unchanged"]
    booking: Booking | None = None
    letter: str | None = None


class RefundReceipt(BaseModel):
    pnr: str
    status: Literal["refunded", "declined"]
    reason: str
    refund: Refund | None = None


class TripPlan(BaseModel):
    status: Literal["planned", "declined"]
    plan: Plan | None = None
    flights: list[Flight] = []
    sketch: str = ""


@contextmanager
def plain_words() -> Iterator[None]:
    """Let the user read why something is not possible, also where a step found it out."""
    try:
        yield
    except NotPossible as reason:
        raise ToolError(str(reason)) from reason
    except StepError as failure:
        raise ToolError(failure.message) from failure


@mcp.tool()
@workflow(stages=STAGES)
async def change_itinerary(pnr: str, ctx: Context) -> Receipt:
    """Move one flight of an itinerary to another day. Asks for the day, the flight, and the consent to its price."""
    try:
        with plain_words():
            return await _change(pnr, ctx)
    except NoThanks:
        return Receipt(pnr=pnr, status="unchanged")


async def _change(pnr: str, ctx: Context) -> Receipt:
    async with stage("searching_data", timeout=20):
        trip = await _trip(pnr)
        leg = await _which_leg(trip, ctx)
        day = await ask_day(ctx, f"When do you want to fly from {leg.origin} to {leg.destination}?", *domain.season())
        flights = await steps.search_flights(leg.origin, leg.destination, day)
        if not flights:
            raise NotPossible(f"No seat is free from {leg.origin} to {leg.destination} on {day}.")
        prices = await steps.price_change(trip, leg, flights)
        choice = await ask(ctx, f"{len(flights)} flights on {day}: which one?", forms.choose_flight(flights, prices))
        flight = next(one for one in flights if one.number == choice.flight)

    async with steps.seat_held(trip.pnr, flight) as hold:
        price = prices[flight.number]
        async with stage("awaiting_confirmation", answer_within="24h"):
            question = f"Seat {hold.seat} on {flight.number} is held for you. Change for {price} euros?"
            if not (await ask(ctx, question, forms.Consent)).go_ahead:
                raise NoThanks
        async with stage("calling_tools", timeout=60):
            booking = await steps.rebook(trip.pnr, leg.leg, hold, price)

    async with stage("drafting_output"):
        body = await letters.draft(ctx, *letters.change_letter(trip, booking))
        await steps.send_letter(trip.pnr, f"Your trip {trip.pnr} has changed", body)
    return Receipt(pnr=trip.pnr, status="changed", booking=booking, letter=body)


async def _trip(pnr: str) -> Itinerary:
    trip = await steps.look_up(pnr)
    if trip is None:
        raise NotPossible(f"There is no itinerary {pnr!r}. A record locator has six letters and digits.")
    return trip


async def _which_leg(trip: Itinerary, ctx: Context) -> Leg:
    """The leg to change: the only one, or the one that the user picks."""
    if trip.status != "ticketed":
        raise NotPossible(f"{trip.pnr} can't be changed: it is {trip.status}.")
    if len(trip.legs) == 1:
        return trip.legs[0]
    choice = await ask(ctx, f"{trip.pnr} has {len(trip.legs)} flights.", forms.choose_leg(trip.legs))
    return next(leg for leg in trip.legs if str(leg.leg) == choice.leg)


@mcp.tool()
@workflow(stages=STAGES)
async def request_refund(pnr: str, ctx: Context) -> RefundReceipt:
    """Refund an itinerary by its fare's rules. Asks for the reason; larger sums need a supervisor's approval."""
    try:
        with plain_words():
            return await _refund(pnr, ctx)
    except NoThanks:
        return RefundReceipt(pnr=pnr, status="declined", reason="The request was withdrawn.")


async def _refund(pnr: str, ctx: Context) -> RefundReceipt:
    async with stage("searching_data", timeout=20):
        trip = await _trip(pnr)
        wish = await ask(ctx, f"Refund of trip {trip.pnr} of {trip.passenger}.", forms.RefundWish)
        amount = domain.refundable(trip, wish.reason)
        if not amount:
            return RefundReceipt(pnr=pnr, status="declined", reason=f"{trip.fare} fares are not refunded.")

    async with stage("awaiting_confirmation", answer_within="48h"):
        approved_by = None
        if amount > domain.APPROVAL_ABOVE:
            question = f"For a supervisor: refund {trip.pnr} ({wish.reason})? Up to {amount} euros."
            approval = await ask(ctx, question, forms.approval_of(amount))
            if approval.decision == "reject":
                return RefundReceipt(pnr=pnr, status="declined", reason=f"Rejected by {approval.approved_by}.")
            amount, approved_by = approval.amount, approval.approved_by

    async with stage("calling_tools", timeout=60):
        refund = await steps.pay_refund(trip.pnr, amount, wish.reason, approved_by)

    async with stage("drafting_output"):
        body = await letters.draft(ctx, *letters.refund_letter(trip, refund))
        await steps.send_letter(trip.pnr, f"Your refund for {trip.pnr}", body)
    return RefundReceipt(pnr=trip.pnr, status="refunded", reason=wish.reason, refund=refund)


@mcp.tool()
@workflow(stages=STAGES)
async def plan_trip(traveller: str, origin: str, ctx: Context) -> TripPlan:
    """Plan a return trip for a traveller. Asks where to, when, for how long, and for how much."""
    try:
        with plain_words():
            return await _plan(traveller, origin, ctx)
    except NoThanks:
        return TripPlan(status="declined")


async def _plan(traveller: str, origin: str, ctx: Context) -> TripPlan:
    async with stage("searching_data", timeout=30):
        choices = forms.choose_destination(domain.destinations(origin))
        destination = (await ask(ctx, f"A trip from {origin} for {traveller}.", choices)).destination
        first, last = domain.season()
        out = await ask_day(ctx, "When do you leave?", first, last - timedelta(days=1))
        party = await ask(ctx, f"{destination} from {out} on.", forms.Party)
        back = min(out + timedelta(days=party.nights), last)
        there, home = await asyncio.gather(
            steps.search_flights(origin, destination, out), steps.search_flights(destination, origin, back)
        )
        chosen = _within(party.budget, there, home)

    async with stage("awaiting_confirmation", answer_within="24h"):
        total = sum(flight.price for flight in chosen)
        names = " and ".join(f"{flight.number} on {flight.day}" for flight in chosen)
        if not (await ask(ctx, f"{names} for {total} euros: shall I save this plan?", forms.Consent)).go_ahead:
            raise NoThanks

    async with stage("calling_tools", timeout=60):
        plan = await steps.save_plan(traveller, "LITE", chosen)

    async with stage("drafting_output"):
        task = f"Sketch {party.nights} days in {destination} for {traveller}, in five lines."
        sketch = await letters.draft(ctx, task, f"{party.nights} days in {destination}, as you like them.")
    return TripPlan(status="planned", plan=plan, flights=chosen, sketch=sketch)


def _within(budget: int, there: list[Flight], home: list[Flight]) -> list[Flight]:
    """The cheapest flight each way. Raises NotPossible where there is none, or both cost more than the budget."""
    if not there or not home:
        raise NotPossible("There is no free seat on one of the two days.")
    chosen = [there[0], home[0]]
    total = sum(flight.price for flight in chosen)
    if total > budget:
        raise NotPossible(f"The cheapest flights cost {total} euros, which is more than {budget}.")
    return chosen
