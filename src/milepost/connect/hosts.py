"""The host's side of a call: whose question, progress or log line it is, and the way back to them.

The client runs a call's callbacks with that call's context variables. So the host's request that is served is one of
them, and nothing that a remote sends can reach another host than the one whose call it belongs to.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, get_args

import mcp_types as types
from mcp import MCPError
from mcp.client.session import ClientRequestContext
from mcp.server.context import ServerRequestContext
from mcp.shared.message import ServerMessageMetadata
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, LOG_LEVEL_META_KEY
from pydantic import BaseModel, ValidationError

from milepost.wire.dispatch import speaking
from milepost.wire.kernel import wanted_log_levels

Context = ServerRequestContext[Any, Any]
R = TypeVar("R", bound=BaseModel)

LEVELS: tuple[types.LoggingLevel, ...] = get_args(types.LoggingLevel)
"""From the least to the most severe."""

serving: ContextVar[Host | None] = ContextVar("milepost_connect_serving", default=None)
"""The host's request that the current task works for."""


class Host:
    """One request of a host, while it is served."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._related = ServerMessageMetadata(related_request_id=ctx.request_id)
        self.log_level = level_of(ctx)
        call: Any = speaking.get()
        version = call.call.wire_version if call is not None else ctx.protocol_version
        self._levels = wanted_log_levels(version, self.log_level)

    async def ask(self, request: types.ServerRequest, result_type: type[R]) -> R | types.ErrorData:
        """Put a question of the remote to the host; its refusal is an answer too."""
        try:
            return await self._ctx.session.send_request(request, result_type, metadata=self._related)
        except MCPError as error:  # also where this request has no way back to its host (NoBackChannelError)
            return error.error
        except ValidationError:
            return types.ErrorData(code=INTERNAL_ERROR, message="the host's answer is not of the form that MCP has")

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        await self._ctx.session.report_progress(progress, total, message)

    async def log(self, params: types.LoggingMessageNotificationParams) -> None:
        if params.level in self._levels:
            notification = types.LoggingMessageNotification(params=params)
            await self._ctx.session.send_notification(notification, related_request_id=self._ctx.request_id)


def level_of(ctx: Context) -> types.LoggingLevel | None:
    """From which level on this request's host wants log messages; None where it has not said."""
    call: Any = speaking.get()
    level = call.call.log_level if call is not None else (ctx.meta or {}).get(LOG_LEVEL_META_KEY)
    return level if level in LEVELS else None


def declared_by(ctx: Context) -> types.ClientCapabilities | None:
    """What this request's host says it can be asked. (A tool sees more than that: Milepost declares forms for all.)"""
    call: Any = speaking.get()
    if call is None:
        return ctx.session.client_capabilities
    try:
        return types.ClientCapabilities.model_validate(call.call.capabilities, by_name=False)
    except ValidationError:
        return None


@contextmanager
def served(ctx: Context) -> Iterator[Host]:
    """While a request of a host is forwarded."""
    host = Host(ctx)
    token = serving.set(host)
    try:
        yield host
    finally:
        serving.reset(token)


# --- the client's callbacks ------------------------------------------------------------------------

_NOBODY = types.ErrorData(
    code=INVALID_REQUEST, message="this question belongs to no call in progress, so there is nobody to ask"
)


async def elicit(
    context: ClientRequestContext, params: types.ElicitRequestParams
) -> types.ElicitResult | types.ErrorData:
    host = serving.get()
    if host is None:
        return _NOBODY
    if isinstance(params, types.ElicitRequestURLParams) and params.elicitation_id is None:
        # The handshake era wants one, and a modern remote has none to give.
        params = params.model_copy(update={"elicitation_id": secrets.token_hex(16)})
    return await host.ask(types.ElicitRequest(params=params), types.ElicitResult)


async def sample(
    context: ClientRequestContext, params: types.CreateMessageRequestParams
) -> types.CreateMessageResult | types.CreateMessageResultWithTools | types.ErrorData:
    host = serving.get()
    if host is None:
        return _NOBODY
    request = types.CreateMessageRequest(params=params)
    if params.tools is None:
        return await host.ask(request, types.CreateMessageResult)
    return await host.ask(request, types.CreateMessageResultWithTools)


async def list_roots(context: ClientRequestContext) -> types.ListRootsResult | types.ErrorData:
    host = serving.get()
    return _NOBODY if host is None else await host.ask(types.ListRootsRequest(), types.ListRootsResult)


async def tell_log(params: types.LoggingMessageNotificationParams) -> None:
    """What belongs to no call, `Changes` tells to all."""
    host = serving.get()
    if host is not None:
        await host.log(params)
