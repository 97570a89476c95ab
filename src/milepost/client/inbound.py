"""What the SDK's session sees of a message that the server sent: the context it hands to callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import anyio
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.transport_context import TransportContext
from mcp_types import RequestId

_TRANSPORT: Final = TransportContext(kind="streamable-http", can_send_request=False)


class Inbound:
    """One inbound request or notification. A client has no channel of its own inside one: it calls the server."""

    __slots__ = ("cancel_requested", "message_metadata", "request_id", "transport")

    def __init__(self, request_id: RequestId | None = None) -> None:
        self.request_id = request_id
        self.transport = _TRANSPORT
        self.message_metadata = None
        self.cancel_requested = anyio.Event()

    @property
    def can_send_request(self) -> bool:
        return False

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Nobody listens here."""

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Nobody listens here."""
