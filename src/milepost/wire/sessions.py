"""Sessions of the handshake era: rows that any replica serves, and the few connections that this one keeps warm.

Whatever must outlive a replica is in the row (version, the client's own `initialize` params, whether it is
initialized, last log level, resource subscriptions). From it a `Connection` of the SDK is rebuilt and the rest
replayed into its kernel in silence. `Connection.state` is not durable.

Unknown, ended, expired and somebody else's session are told apart for nobody.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import structlog
from mcp.server.connection import Connection
from mcp.server.runner import ServerRunner
from mcp.shared.dispatcher import CallOptions
from mcp.shared.transport_context import TransportContext
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, InitializeRequestParams

from milepost.core.records import JSONObject, Principal, Session
from milepost.wire.dispatch import WireContext, ask, speaking, tear_down
from milepost.wire.parts import Parts
from milepost.wire.rpc import Message, Refused, RequestId, notification

_log = structlog.get_logger(__name__)


class Listener(Protocol):
    """An open standalone stream of a session."""

    def push(self, message: Message) -> None: ...

    def close(self) -> None: ...


class Cancellable(Protocol):
    """A request in flight that its client may cancel."""

    def cancel(self) -> None: ...


class LiveSession:
    """A session as this replica holds it. Also its `Connection.outbound`."""

    def __init__(self, parts: Parts, row: Session, reference: str, *, stored: bool = True) -> None:
        self.row = row
        self.reference = reference
        """The keyed hash that stands for the session's id in logs and runs."""
        self.shown = row.id
        """The id that its client knows it by."""
        self.calls: dict[RequestId, Any] = {}
        """Requests in flight here, by JSON-RPC id."""
        self.listener: Listener | None = None
        self.muted = False
        self.stored = stored
        """False on a pipe: such a session ends with its process, and has no row."""
        self.read_at = 0.0
        self.saved_at = 0.0
        self.connection = Connection(self, protocol_version=row.version, session_id=row.id if stored else None)
        self.runner: ServerRunner[Any] = ServerRunner(parts.server, self.connection, parts.state)

    @property
    def busy(self) -> bool:
        return bool(self.calls) or self.listener is not None

    @property
    def capabilities(self) -> JSONObject:
        declared = self.row.client_params.get("capabilities")
        return declared if isinstance(declared, dict) else {}

    @property
    def client_info(self) -> JSONObject | None:
        info = self.row.client_params.get("clientInfo")
        return info if isinstance(info, dict) else None

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """`Outbound`: a question asked through the connection belongs to the call that asks it."""
        return await ask(speaking.get(), method, params, opts)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """`Outbound`: to the session's standalone stream, if it is open here; else to nobody, as in the SDK."""
        if self.listener is not None and not self.muted:
            self.listener.push(notification(method, None if params is None else dict(params)))


class Sessions:
    """The sessions of this replica: finds, opens, ends and saves them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._warm: OrderedDict[str, LiveSession] = OrderedDict()
        self._building: dict[str, asyncio.Lock] = {}

    async def open(self, message: Message, principal: Principal) -> tuple[LiveSession, Message]:
        """Run `initialize` and store the session. Returns it with the InitializeResult.

        Raises whatever the kernel refuses, and Refused (503) when no session may be opened now.
        """
        params = message.get("params") or {}
        session_id = self._parts.session_ids.new()
        row = Session(id=session_id, version="2025-11-25", client_params=params, owner=principal)
        live = LiveSession(self._parts, row, self._parts.session_ids.reference(session_id))
        context = WireContext(message["id"], _silent_transport, None)
        result = await live.runner.on_request(context, "initialize", params)
        live.row = replace(row, version=live.connection.protocol_version)
        if not await self._parts.store.save_session(live.row, cap=self._parts.limits.max_sessions):
            raise _full(self._parts, message["id"])
        self._keep(live)
        return live, result

    async def find(self, session_id: str, principal: Principal, request_id: RequestId | None) -> LiveSession:
        """The caller's session. Raises Refused: 404 whatever is wrong with it."""
        live = self._warm.get(session_id)
        now = asyncio.get_running_loop().time()
        if live is None or now - live.read_at > self._parts.limits.session_trust:
            live = await self._read(session_id, live, now)
        if live is None or live.row.owner.owner != principal.owner:
            raise not_found(request_id)
        if session_id in self._warm:
            self._warm.move_to_end(session_id)
        if now - live.saved_at > self._parts.limits.seen_every:
            await self.save(live)
        return live

    async def _read(self, session_id: str, live: LiveSession | None, now: float) -> LiveSession | None:
        if not self._parts.session_ids.genuine(session_id):
            return None
        row = await self._parts.store.session(session_id)
        if row is None or row.ended:
            if live is not None:
                await self._drop(live)
            return None
        if live is None:
            return await self._rebuild(row)
        live.row, live.read_at = row, now
        return live

    async def _rebuild(self, row: Session) -> LiveSession:
        """Build the connection of a session that another replica, or an earlier process, has opened."""
        lock = self._building.setdefault(row.id, asyncio.Lock())
        try:
            async with lock:
                known = self._warm.get(row.id)
                if known is not None:
                    return known
                live = LiveSession(self._parts, row, self._parts.session_ids.reference(row.id))
                await _replay(live)
                self._keep(live)
                return live
        finally:
            self._building.pop(row.id, None)

    async def end(self, live: LiveSession) -> None:
        """The client ended it (DELETE): unknown from now on; its runs go on without it."""
        await self._parts.store.end_session(live.row.id)
        if live.listener is not None:
            live.listener.close()
        await self._drop(live)

    async def save(self, live: LiveSession, **changes: Any) -> None:
        """Store what changed (and that the session was seen)."""
        live.row = replace(live.row, **changes)
        if not live.stored:
            return
        live.saved_at = asyncio.get_running_loop().time()
        await self._parts.store.save_session(live.row, cap=self._parts.limits.max_sessions)

    def _keep(self, live: LiveSession) -> None:
        live.read_at = live.saved_at = asyncio.get_running_loop().time()
        self._warm[live.row.id] = live
        if len(self._warm) > self._parts.limits.session_cache:
            idle = next((one for one in self._warm.values() if not one.busy and one is not live), None)
            if idle is not None:
                self._parts.runs.keep(self._drop(idle))

    async def _drop(self, live: LiveSession) -> None:
        if self._warm.get(live.row.id) is live:
            del self._warm[live.row.id]
            await tear_down(live.connection)

    async def aclose(self) -> None:
        """Unwind all connections; the rows stay."""
        for live in tuple(self._warm.values()):
            await self._drop(live)


_silent_transport = TransportContext(kind="milepost", can_send_request=False)


async def _replay(live: LiveSession) -> None:
    """Bring a new connection to where the session is, without a word to the client."""
    row = live.row
    live.connection.client_params = InitializeRequestParams.model_validate(row.client_params, by_name=False)
    live.connection.protocol_version = row.version
    live.muted = True
    try:
        if row.initialized:
            live.connection.initialized.set()
        if row.log_level is not None:
            await _say_again(live, "logging/setLevel", {"level": row.log_level})
        for uri in row.subscriptions:
            await _say_again(live, "resources/subscribe", {"uri": uri})
    finally:
        live.muted = False


async def _say_again(live: LiveSession, method: str, params: Message) -> None:
    try:
        await live.runner.on_request(WireContext(0, _silent_transport, None), method, params)
    except Exception as exc:
        _log.warning("a session's state could not be replayed", method=method, session=live.reference, error=repr(exc))


def not_found(request_id: RequestId | None) -> Refused:
    """Unknown, ended, expired, or not the caller's: all alike. The client starts anew with `initialize`."""
    return Refused(
        404,
        INVALID_REQUEST,
        "Session not found: it ended or expired, or was never opened here. Send `initialize` without a session id.",
        request_id=request_id,
    )


def _full(parts: Parts, request_id: RequestId) -> Refused:
    after = str(parts.limits.retry_after)
    return Refused(
        503,
        INTERNAL_ERROR,
        f"Too many open sessions (the limit is {parts.limits.max_sessions}). Try again in {after} s, or end a session.",
        request_id=request_id,
        headers=((b"retry-after", after.encode()),),
    )
