"""The SDK kernel's view of one message: the `DispatchContext` that each request is run with.

The kernel calls these few methods; what is behind them (an event stream, a call in memory, a run with rows)
is the `Voice` that it was made with.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from contextvars import ContextVar
from typing import Any, Protocol

import anyio
from mcp.server.connection import Connection
from mcp.server.lowlevel import Server
from mcp.server.runner import ServerRunner, aclose_shielded
from mcp.shared.dispatcher import CallOptions, DispatchContext
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types import REQUEST_TIMEOUT

from milepost.core.errors import PeerError
from milepost.core.replies import QUESTIONS
from milepost.seams import Channel
from milepost.wire.rpc import Message, RequestId

speaking: ContextVar[Channel | None] = ContextVar("milepost_speaking", default=None)
"""The channel of the call that the current task works for: the second door (`Connection.outbound`) leads there."""


class Voice(Protocol):
    """Where a request's notifications go."""

    async def notify(self, method: str, params: Mapping[str, Any] | None) -> None: ...

    async def progress(self, progress: float, total: float | None, message: str | None) -> None: ...


class WireContext:
    """`mcp.shared.dispatcher.DispatchContext` for one inbound message."""

    __slots__ = ("_cancel_requested", "_channel", "_voice", "message_metadata", "request_id", "transport")

    def __init__(
        self,
        request_id: RequestId | None,
        transport: TransportContext,
        metadata: ServerMessageMetadata | None,
        *,
        voice: Voice | None = None,
        channel: Channel | None = None,
    ) -> None:
        self.request_id = request_id
        self.transport = transport
        self.message_metadata = metadata
        self._voice: Voice | None = channel or voice
        self._channel = channel
        self._cancel_requested: anyio.Event | None = None

    @property
    def can_send_request(self) -> bool:
        return self._channel is not None

    @property
    def cancel_requested(self) -> anyio.Event:
        if self._cancel_requested is None:
            self._cancel_requested = anyio.Event()
        return self._cancel_requested

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        return await ask(self._channel, method, params, opts)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        if self._voice is not None:
            await self._voice.notify(method, params)

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        if self._voice is not None:
            await self._voice.progress(progress, total, message)


async def ask(
    channel: Channel | None, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None
) -> Message:
    """Ask the client over `channel`, as the SDK's own dispatchers do: its error is raised, a time limit holds.

    A ping is answered here: whether the client lives is the stream's affair.
    """
    if method == "ping":
        return {}
    if channel is None or method not in QUESTIONS:
        raise NoBackChannelError(method)
    try:
        with anyio.fail_after((opts or {}).get("timeout")):
            return dict(await channel.ask(method, dict(params or {})))
    except PeerError as error:
        raise MCPError(error.code, error.message, error.data) from error
    except TimeoutError:
        raise MCPError(REQUEST_TIMEOUT, f"Request {method!r} timed out") from None


async def serve_once(
    server: Server[Any],
    context: DispatchContext[TransportContext],
    message: Message,
    *,
    connection: Connection,
    state: Any,
) -> Message:
    """The result of one request, on a connection of its own, which is torn down after it.

    `message`: its `method` and `params`. Raises whatever the handler raises.
    """
    runner = ServerRunner(server, connection, state)
    try:
        return await runner.on_request(context, message["method"], message.get("params"))
    finally:
        # The runner keeps a method of its own: in that ring all that the request held would wait for the collector.
        vars(runner).pop("on_request", None)
        await tear_down(connection)


async def tear_down(connection: Connection) -> None:
    """Unwind what handlers hung on a connection: mostly nothing, and then without the SDK's shield and time limit."""
    if _hangs_any(connection.exit_stack):
        await aclose_shielded(connection)


def _hangs_any(stack: AsyncExitStack) -> bool:
    """`contextlib` has no public word for it. Should the name ever change, empty stacks are unwound too: no harm."""
    return bool(getattr(stack, "_exit_callbacks", True))
