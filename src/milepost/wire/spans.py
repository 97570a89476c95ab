"""The SDK's span of each request, made only where it leads somewhere.

The SDK puts its tracing into every server. Where no OpenTelemetry SDK is set up nobody records these spans; then all
they do is hand on the caller's own trace context, if it sent one, to what the tool calls. Making them for nothing is
a sixth of the cost of a small call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.server.lowlevel import Server
from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider

from milepost.wire import sdk
from milepost.wire.kernel import RESERVED_META


class SpansWithPurpose(ServerMiddleware[Any]):
    """The SDK's tracing, passed by where it would change nothing. Asked at each request: a provider may come later."""

    def __init__(self, tracing: ServerMiddleware[Any]) -> None:
        self._tracing = tracing

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if _recorded() or _has_own_keys(ctx.meta):
            return await self._tracing(ctx, call_next)
        return await call_next(ctx)


def spare_spans(server: Server[Any]) -> None:
    """Put `SpansWithPurpose` around the tracing in the server's middleware. Idempotent."""
    chain = server.middleware
    for place, middleware in enumerate(chain):
        if sdk.is_tracing(middleware):
            chain[place] = SpansWithPurpose(middleware)


def _recorded() -> bool:
    """Whether somebody has set up an OpenTelemetry SDK."""
    return not isinstance(get_tracer_provider(), ProxyTracerProvider)


def _has_own_keys(meta: Mapping[str, Any] | None) -> bool:
    """Whether `_meta` holds more than the protocol's own: a trace context, in whatever form it travels."""
    return any(key not in _TOKENS and not key.startswith(RESERVED_META) for key in meta or ())


_TOKENS = ("progressToken", "progress_token")
