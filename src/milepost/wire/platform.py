"""Session ids that a managed runtime made (the setting `http.platform_sessions`): served, and kept nowhere.

Such a platform puts its own `Mcp-Session-Id` on every request, to find the container by. It says nothing about who
calls, so it opens nothing: each request stands for itself, as on the SDK's stateless transport, and its client is one
that can't be asked. Plain tools are served as ever; a workflow says its question as a result, with the id of its run.
"""

from __future__ import annotations

import secrets

from mcp.shared.transport_context import TransportContext
from mcp_types import InitializeRequestParams

from milepost.core.records import Principal, Session
from milepost.wire import rpc
from milepost.wire.dispatch import WireContext
from milepost.wire.parts import Parts
from milepost.wire.rpc import Message
from milepost.wire.sessions import LiveSession

_UNSAID = "2025-03-26"
"""The version of a request that names none (2025-11-25 basic/transports.mdx)."""
_SILENT = TransportContext(kind="streamable-http", can_send_request=False)


def is_foreign(parts: Parts, session_id: str | None) -> bool:
    """Whether a platform made this id, and may."""
    return session_id is not None and parts.limits.platform_sessions and not parts.session_ids.genuine(session_id)


def stand_in(parts: Parts, session_id: str, version: str | None, principal: Principal) -> LiveSession:
    """A session for one request. Its own id is random, so that nobody reaches a run or stream by a platform's id."""
    params = {
        "protocolVersion": version or _UNSAID,
        "capabilities": {},
        "clientInfo": {"name": "unknown", "version": "0"},
    }
    name = f"platform-{secrets.token_hex(8)}"
    row = Session(id=name, version=version or _UNSAID, client_params=params, owner=principal, initialized=True)
    live = LiveSession(parts, row, name, stored=False)
    live.shown = session_id
    return live


def begun(live: LiveSession) -> LiveSession:
    """The same, as if its client had said `initialize`."""
    live.connection.client_params = InitializeRequestParams.model_validate(live.row.client_params, by_name=False)
    live.connection.initialized.set()
    return live


async def shaken(live: LiveSession, message: Message) -> Message:
    """The response to `initialize`."""
    try:
        context = WireContext(message["id"], _SILENT, None)
        result = await live.runner.on_request(context, "initialize", message.get("params"))
    except Exception as exc:
        return {"jsonrpc": "2.0", "id": message["id"], "error": rpc.error_of(exc)}
    return rpc.success(message["id"], result)
