"""An agency's FastMCP server, as it was written before anybody thought of restarts. Milepost is not mentioned.

`plan_trip` asks its user three things and holds places in between. On FastMCP's own transport it works only for clients
that keep a session and a connection, and a restart loses the conversation; README.md says what `milepost.toml` changes.
"""

from __future__ import annotations

from agency import api
from fastmcp import Context, FastMCP

mcp = FastMCP("agency")


@mcp.tool
def cities() -> list[str]:
    """The cities that we have tours in."""
    return sorted(api.TOURS)


@mcp.tool
async def plan_trip(people: int, ctx: Context) -> str:
    """Plan a city trip: asks where to and which tour, and holds places on it."""
    where = await ctx.elicit("Where do you want to go?", sorted(api.TOURS))
    if where.action != "accept":
        return "No trip was planned."
    tours = api.TOURS[where.data]
    tour = await ctx.elicit(f"Which tour in {where.data}?", {name: {"title": name} for name in tours})
    if tour.action != "accept":
        return "No trip was planned."
    number = await api.hold_place(tour.data, people)
    sure = await ctx.elicit(f"{people} x {tour.data} for {people * tours[tour.data]} euros?", ["yes", "no"])
    if sure.action != "accept" or sure.data == "no":
        return f"Hold {number} lapses by itself."
    return f"{where.data}: {tour.data} for {people}, hold {number}."
