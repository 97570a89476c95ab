"""What FastMCP's helpers (`get_http_request`, `get_http_headers`, `ctx.transport`) see during a request over HTTP.

FastMCP learns of the request from a middleware of its own web app, which our endpoint stands in for. Only loaded
FastMCP is touched: it is an optional extra.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from starlette.requests import Request

from milepost.wire import sdk
from milepost.wire.http import Exchange

Seen = Callable[[Exchange], AbstractContextManager[None]]


def seen_by(origin: object) -> Seen | None:
    """How a server of this kind is shown a request; None where it needs nothing (the SDK's own)."""
    return _shown_to_fastmcp if sdk.is_fastmcp(origin) else None


@contextmanager
def _shown_to_fastmcp(exchange: Exchange) -> Iterator[None]:
    context: Any = sys.modules["fastmcp.server.context"]
    http: Any = sys.modules["fastmcp.server.http"]
    token = context.set_transport("streamable-http")
    try:
        with http.set_http_request(Request(exchange.scope)):
            yield
    finally:
        context.reset_transport(token)
