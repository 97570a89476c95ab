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

_serving: ContextVar[Host | None] = ContextVar("milepost_connect_serving", default=None)
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
        self.over = False
        """It was answered. (What was begun in its context, such as a session's own stream, lives on.)"""

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


_NOBODY = types.ErrorData(
    code=INVALID_REQUEST, message="it can't be told which call this question belongs to, so there is nobody to ask"
)


class Hosts:
    """The hosts of one connection to the remote, while they wait for something; and the client's callbacks to them.

    A question on the session's own stream (some servers ask for roots there) names no call. It is put to a host only
    where just one waits, so that nobody is shown what is another's.
    """

    def __init__(self, *, one: bool = False) -> None:
        """`one`: all requests are of one host, which started this process."""
        self._one = one
        self._waiting: list[tuple[object, Host]] = []

    @contextmanager
    def serving(self, ctx: Context) -> Iterator[Host]:
        """While a request of a host is forwarded."""
        host = Host(ctx)
        call: Any = speaking.get()
        session = None if self._one or call is None else call.stream.session
        waiting = (None if self._one else session or host, host)
        self._waiting.append(waiting)
        token = _serving.set(host)
        try:
            yield host
        finally:
            _serving.reset(token)
            host.over = True
            self._waiting.remove(waiting)

    def _whose(self) -> Host | None:
        """Whose question the current task brings."""
        host = served()
        if host is None and len({who for who, _ in self._waiting}) == 1:
            host = self._waiting[-1][1]
        return host

    async def elicit(
        self, context: ClientRequestContext, params: types.ElicitRequestParams
    ) -> types.ElicitResult | types.ErrorData:
        host = self._whose()
        if isinstance(params, types.ElicitRequestURLParams) and params.elicitation_id is None:
            # The handshake era wants one, and a modern remote has none to give.
            params = params.model_copy(update={"elicitation_id": secrets.token_hex(16)})
        return _NOBODY if host is None else await host.ask(types.ElicitRequest(params=params), types.ElicitResult)

    async def sample(
        self, context: ClientRequestContext, params: types.CreateMessageRequestParams
    ) -> types.CreateMessageResult | types.CreateMessageResultWithTools | types.ErrorData:
        host = self._whose()
        if host is None:
            return _NOBODY
        request = types.CreateMessageRequest(params=params)
        if params.tools is None:
            return await host.ask(request, types.CreateMessageResult)
        return await host.ask(request, types.CreateMessageResultWithTools)

    async def list_roots(self, context: ClientRequestContext) -> types.ListRootsResult | types.ErrorData:
        host = self._whose()
        return _NOBODY if host is None else await host.ask(types.ListRootsRequest(), types.ListRootsResult)

    async def log(self, params: types.LoggingMessageNotificationParams) -> None:
        """What belongs to no call, `Changes` tells to all."""
        host = served()
        if host is not None:
            await host.log(params)


def served() -> Host | None:
    """The host's request that what the current task brings belongs to."""
    host = _serving.get()
    return None if host is None or host.over else host
