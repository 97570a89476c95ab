"""The letter to the traveller: drafted by the client's model where it has one, else from a template.

Whether a client can sample is a fact of the run's first call. The error that says it can't is an answer like any other,
so a run takes the same way in each of its attempts.
"""

from __future__ import annotations

from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp.types import CreateMessageResult, SamplingMessage, TextContent

from .domain import Booking, Itinerary, Refund

LONGEST = 2000
"""Characters of a drafted letter that are kept."""


async def draft(ctx: Context, task: str, template: str) -> str:
    """What the client's model makes of `task`; `template` where there is no model or it says nothing."""
    try:
        reply = await ctx.session.create_message(
            messages=[SamplingMessage(role="user", content=TextContent(type="text", text=task))],
            max_tokens=400,
            system_prompt="You write short, friendly letters for a travel agency. Plain text only, no placeholders.",
            related_request_id=ctx.request_id,
        )
    except (MCPError, NoBackChannelError):
        return template
    if isinstance(reply, CreateMessageResult) and isinstance(reply.content, TextContent) and reply.content.text.strip():
        return reply.content.text.strip()[:LONGEST]
    return template


def change_letter(trip: Itinerary, booking: Booking) -> tuple[str, str]:
    """What to ask a model for, and the letter without one."""
    facts = f"{booking.number} on {booking.day}, seat {booking.seat}, {booking.paid} euros paid"
    return (
        f"Tell {trip.passenger} that trip {booking.pnr} was changed: {facts}.",
        f"Dear {trip.passenger},\n\ntrip {booking.pnr} has been changed: you now fly {facts}.\n\nHave a good flight!",
    )


def refund_letter(trip: Itinerary, refund: Refund) -> tuple[str, str]:
    """What to ask a model for, and the letter without one."""
    return (
        f"Tell {trip.passenger} that {refund.amount} euros are paid back for trip {refund.pnr}, which is cancelled.",
        f"Dear {trip.passenger},\n\nyour trip {refund.pnr} is cancelled and {refund.amount} euros are on their way.",
    )
