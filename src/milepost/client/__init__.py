"""A client of any MCP server, for which sessions, expiry, dropped streams and its own death are infrastructure.

    from milepost.client import Client

    async with Client("https://example.org/mcp", journal="sqlite:///client.db") as client:
        result = await client.call_tool("change_itinerary", {"pnr": "AB12CD"})

It has the shape of the official SDK's `mcp.Client`. docs/client.md says what it adds, and how far that goes.
"""

from milepost.client.client import Client, Ended
from milepost.client.errors import (
    CallError,
    CircuitOpen,
    JournalInUse,
    NotSent,
    OutcomeUnknown,
    Refused,
    ServerUnavailable,
    TimedOut,
    Unauthorized,
)
from milepost.client.journal import Pending, unfinished
from milepost.client.policy import Policy

__all__ = [
    "CallError",
    "CircuitOpen",
    "Client",
    "Ended",
    "JournalInUse",
    "NotSent",
    "OutcomeUnknown",
    "Pending",
    "Policy",
    "Refused",
    "ServerUnavailable",
    "TimedOut",
    "Unauthorized",
    "unfinished",
]
