"""The SDK's kernel behind `seams.Kernel`: runs a tool's function once, with a channel of ours behind its context.

Rules:

- The kernel inside always speaks 2025-11-25, whatever the wire. Only there do `ctx.elicit()`, `Resolve`
  parameters and FastMCP's elicitation ask imperatively, which is what a journal can answer. `shape_for_wire`
  puts the result into the caller's era.
- A tool has two ways back to its client, the DispatchContext and its Connection's `outbound`
  (`create_message()` and `list_roots()` use the second). Both lead to the one channel of the attempt.
- Only elicitation, sampling and roots are questions. A ping is answered here (a timer that pings must not
  suspend a run); any other request has no back-channel.
- What the tool sees (request id, capabilities, client, session, principal) comes from the pinned call context
  alone, so that every attempt, on any replica, with or without a client, sees the same.
- Engine signals are BaseExceptions and pass through; nothing here catches them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, get_args

import anyio
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.connection import Connection
from mcp.server.lowlevel import Server
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp.shared.jsonrpc_dispatcher import handler_exception_to_error_data
from mcp.shared.transport_context import TransportContext
from mcp_types import (
    INTERNAL_ERROR,
    SERVER_INFO_META_KEY,
    ClientCapabilities,
    Implementation,
    InitializeRequestParams,
    LoggingLevel,
)
from mcp_types.version import LATEST_HANDSHAKE_VERSION, MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from milepost.core.errors import PeerError
from milepost.core.records import CallContext, JSONObject, Outcome, Principal
from milepost.seams import Channel
from milepost.wire.dispatch import serve_once
from milepost.wire.sdk import calling_as

logger = logging.getLogger(__name__)

INNER_VERSION: Final = LATEST_HANDSHAKE_VERSION
"""The version that the kernel inside a workflow speaks: the last one with a back-channel (2025-11-25)."""

QUESTION_METHODS: Final = frozenset({"elicitation/create", "sampling/createMessage", "roots/list"})
"""The only requests to a client that are questions: recorded, answered once, replayed."""

PROGRESS_TOKEN: Final = "milepost"  # noqa: S105  a progress token is no secret
"""The token of every inner call: both SDKs report progress only where there is one. Streams put in the client's."""

RESERVED_META: Final = "io.modelcontextprotocol/"
"""`_meta` keys with this prefix belong to the wire's envelope; the inner call has none."""

_SDK_INVALID: Final = "Handler returned an invalid result"
_INVALID: Final = (
    f"The tool returned a result that MCP {INNER_VERSION} does not have. If it is an InputRequiredResult: in a "
    "workflow, ask with ctx.elicit() instead"
)

_LOG_LEVELS: Final[tuple[str, ...]] = get_args(LoggingLevel)


class SdkKernel:
    """`seams.Kernel` over one low-level server of the SDK (FastMCP's is one too)."""

    def __init__(self, server: Server[Any], lifespan_state: Any) -> None:
        self._server = server
        self._state = lifespan_state

    async def execute(self, call: CallContext, channel: Channel) -> Outcome:
        """Run the tool once. What the tool did wrong is in the outcome; engine signals pass through."""
        back = BackChannel(call, channel)
        with calling_as(user_of(call.principal)):
            try:
                result = await serve_once(
                    self._server,
                    back,
                    {"method": "tools/call", "params": inner_params(call)},
                    connection=connection_for(call, back),
                    state=self._state,
                )
            except Exception as exc:
                return _failed(exc)
        return Outcome(result=result)


def _failed(exc: Exception) -> Outcome:
    """What the SDK's own transports would answer to this exception, as a JSON-RPC error."""
    error = handler_exception_to_error_data(exc)
    if error is None:
        logger.error("the server's tools/call handler raised", exc_info=exc)
        return Outcome(error={"code": INTERNAL_ERROR, "message": "Internal server error"})
    if error.code == INTERNAL_ERROR and error.message == _SDK_INVALID:
        return Outcome(error={"code": INTERNAL_ERROR, "message": _INVALID})
    return Outcome(error=error.model_dump(by_alias=True, mode="json", exclude_none=True))


def inner_params(call: CallContext) -> dict[str, Any]:
    """The params of the inner `tools/call`: no envelope, no requestState, no inputResponses, a token of ours."""
    meta = {key: value for key, value in call.meta.items() if not key.startswith(RESERVED_META)}
    return {
        "name": call.tool,
        "arguments": dict(call.arguments),
        "_meta": {**meta, "progressToken": PROGRESS_TOKEN},
    }


def connection_for(call: CallContext, outbound: BackChannel) -> Connection:
    """A connection of this attempt alone, that looks like the one of the run's first call."""
    capabilities = _inner_capabilities(call.capabilities)
    info = _client_info(call.client_info)
    params = None
    if info is not None:
        params = InitializeRequestParams(protocol_version=INNER_VERSION, capabilities=capabilities, client_info=info)
    connection = Connection(
        outbound,
        protocol_version=INNER_VERSION,
        # FastMCP makes up a random id per connection where there is none, which would differ on each replay.
        session_id=call.session or f"call-{call.trace_id or call.request_id}",
        client_params=params,
    )
    connection.client_capabilities = capabilities
    connection.initialized.set()
    return connection


def _inner_capabilities(declared: JSONObject) -> ClientCapabilities:
    """What the client declared, plus elicitation: how a question reaches a person is Milepost's affair."""
    elicitation: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}}
    try:
        return ClientCapabilities.model_validate({**declared, **elicitation}, by_name=False)
    except ValidationError:
        return ClientCapabilities.model_validate(elicitation, by_name=False)


def _client_info(info: JSONObject | None) -> Implementation | None:
    try:
        return Implementation.model_validate(info, by_name=False) if info is not None else None
    except ValidationError:
        return None


def user_of(principal: Principal) -> AuthenticatedUser | None:
    """The caller as the SDKs' authorization checks want to see it, or None where no token was verified.

    A run outlives its token, is recovered without one, and never stores one. But FastMCP decides by the current
    access token whether a tool exists for its caller (`auth=require_scopes(...)`), so a replay without any would
    end as "Unknown tool". So each attempt, the first one too, sees the pinned identity and scopes with an EMPTY
    token string: checks of scopes work and are equal on every replay, and nothing can be called with it.
    """
    if principal.client is None:
        return None
    claims = {"iss": principal.issuer} if principal.issuer is not None else {}
    if principal.subject is not None:
        claims["sub"] = principal.subject
    return AuthenticatedUser(
        AccessToken(
            token="",
            client_id=principal.client,
            scopes=list(principal.scopes),
            subject=principal.subject,
            claims=claims,
        )
    )


class BackChannel:
    """Both of the SDK's ways back (`DispatchContext` and `Outbound`), as one view of the attempt's channel."""

    def __init__(self, call: CallContext, channel: Channel) -> None:
        self._channel = channel
        self._levels = wanted_log_levels(call.wire_version, call.log_level)
        self.request_id = call.request_id
        self.transport = TransportContext(kind="milepost", can_send_request=True)
        self.can_send_request = True
        self.message_metadata = None
        self.cancel_requested = anyio.Event()

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Ask the client. `opts` (a read timeout) is ignored: how long a person has is the stage's affair."""
        if method == "ping":
            return {}
        if method not in QUESTION_METHODS:
            raise NoBackChannelError(method)
        try:
            return dict(await self._channel.ask(method, dict(params or {})))
        except PeerError as error:
            raise MCPError(error.code, error.message, error.data) from error

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        if method == "notifications/progress" and params and params.get("progressToken") == PROGRESS_TOKEN:
            await self.progress(params["progress"], params.get("total"), params.get("message"))
        elif method != "notifications/message" or (params or {}).get("level") in self._levels:
            await self._channel.notify(method, params)

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        await self._channel.progress(progress, total, message)


def wanted_log_levels(wire_version: str, level: str | None) -> frozenset[str]:
    """Which `notifications/message` a caller wants. On a modern wire none unless it asked (spec 2026-07-28, logging).

    The kernel inside speaks the handshake era, in which the SDK filters nothing, so it is done here.
    """
    if level in _LOG_LEVELS:
        return frozenset(_LOG_LEVELS[_LOG_LEVELS.index(level) :])
    return frozenset() if wire_version in MODERN_PROTOCOL_VERSIONS else frozenset(_LOG_LEVELS)


def shape_for_wire(result: JSONObject, version: str, server: Server[Any]) -> dict[str, Any]:
    """A tool result of the inner kernel in the form of the caller's wire.

    2026-07-28: with `resultType` and the `serverInfo` stamp that the SDK's kernel would have put on it. Handshake era:
    as it is (the SDK, too, sends one form to all of its versions).
    """
    if version not in MODERN_PROTOCOL_VERSIONS:
        return dict(result)
    shaped = {**result, "resultType": result.get("resultType") or "complete"}
    meta = result.get("_meta")
    if meta is None:
        shaped["_meta"] = {SERVER_INFO_META_KEY: server.server_info_stamp}
    elif isinstance(meta, Mapping) and meta.get(SERVER_INFO_META_KEY) is None:
        shaped["_meta"] = {**meta, SERVER_INFO_META_KEY: server.server_info_stamp}
    return shaped
