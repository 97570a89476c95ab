"""Where the assistant came from: the same data, stateless, and it asks for nothing.

    milepost serve examples/travel_ops/stateless_server.py:mcp

The host's model has to bring every argument, nobody confirms anything, and a call that is sent twice (because the
connection broke before its answer came) is done twice: each call draws new keys. `server.py` is what became of it.
"""

from __future__ import annotations

from datetime import date
from uuid import uuid4

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from . import domain
from .domain import Booking, Flight, NotPossible
from .reference import add_reference

mcp = MCPServer("travel-ops", title="Travel operations", version="1.0")
add_reference(mcp)


@mcp.tool()
def search_flights(origin: str, destination: str, day: date) -> list[Flight]:
    """Flights with free seats on a day, cheapest first. Airports: LIS, CPH, VIE."""
    return domain.flights(origin, destination, day)


@mcp.tool()
def change_itinerary(pnr: str, leg: int, number: str, day: date) -> Booking:
    """Move a leg of an itinerary to another flight, at once and for whatever it costs."""
    try:
        return _change(domain.itinerary(pnr), leg, number, day)
    except NotPossible as reason:
        raise ToolError(str(reason)) from reason


def _change(trip: domain.Itinerary, number_of_leg: int, number: str, day: date) -> Booking:
    leg = next((one for one in trip.legs if one.leg == number_of_leg), None)
    if leg is None:
        raise NotPossible(f"{trip.pnr} has no leg {number_of_leg}.")
    flights = domain.flights(leg.origin, leg.destination, day)
    flight = next((one for one in flights if one.number == number), None)
    if flight is None:
        raise NotPossible(f"{number} has no free seat from {leg.origin} to {leg.destination} on {day}.")
    hold = domain.hold_seat(uuid4().hex, trip.pnr, number, day)
    return domain.rebook(uuid4().hex, trip.pnr, leg.leg, hold, domain.cost_of_change(trip, leg, flight))
