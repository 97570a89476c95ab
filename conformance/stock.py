"""Hosts the fixture on the SDK's own transport, for comparison with Milepost's endpoint.

    python conformance/stock.py PORT

The SDK ships no event store, and without one it can't close a stream and go on with it later, which
`server-sse-polling` asks for. So this file brings the smallest one that serves a single client.
"""

from __future__ import annotations

import sys

from fixture import mcp
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.types import JSONRPCMessage


class OneClientEvents(EventStore):
    """Events in one list; the event id is the place in it. Not for two clients."""

    def __init__(self) -> None:
        self.events: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self.events.append((stream_id, message))
        return str(len(self.events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        place = int(last_event_id)
        if not 0 < place <= len(self.events):
            return None
        stream_id, _ = self.events[place - 1]
        later = list(enumerate(self.events, start=1))[place:]
        for number, (stream, message) in later:
            if stream == stream_id and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream_id


if __name__ == "__main__":
    mcp.run(transport="streamable-http", port=int(sys.argv[1]), event_store=OneClientEvents(), retry_interval=100)
