"""`Mcp-Param-*` headers must say what the body's arguments say (2026-07-28 streamable-http.mdx, custom headers).

Which arguments are mirrored stands in the tool's input schema. A server that can name a tool's schema is asked; of
any other the tool list is walked, as this caller sees it, and what was found is remembered for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog
from mcp.server.connection import Connection
from mcp.shared.inbound import InboundLadderRejection, InboundModernRoute, validate_mcp_param_headers
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY
from starlette.datastructures import Headers
from starlette.requests import Request

from milepost.wire.dispatch import WireContext, serve_once
from milepost.wire.http import Exchange
from milepost.wire.parts import Parts
from milepost.wire.rpc import Message

_log = structlog.get_logger(__name__)

_PAGES = 100
"""A tool list that goes on for longer is a paginator gone wrong."""
_PREFIX = "mcp-param-"


class ParamHeaders:
    """Checks one call's headers against its arguments."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._known: dict[str, tuple[float, Any]] = {}

    async def mismatch(
        self, exchange: Exchange, message: Message, route: InboundModernRoute
    ) -> InboundLadderRejection | None:
        """The first header that disagrees. A schema that can't be found checks nothing."""
        params = message["params"]
        name, arguments = params.get("name"), params.get("arguments") or {}
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return None
        if not arguments and not any(key.startswith(_PREFIX) for key in exchange.headers):
            return None
        schema = await self._schema(exchange, message, route, name)
        if schema is None:
            return None
        headers: Mapping[str, str] = exchange.headers
        if exchange.repeated:
            headers = Headers(raw=[(k, v.strip(b" \t")) for k, v in exchange.scope["headers"]])
        return validate_mcp_param_headers(schema, arguments, headers)

    async def _schema(self, exchange: Exchange, message: Message, route: InboundModernRoute, name: str) -> Any:
        """The tool's schema if it mirrors any argument, else None."""
        now = asyncio.get_running_loop().time()
        until, schema = self._known.get(name, (0.0, None))
        if now < until:
            return schema
        schema = await self._look_up(exchange, message, route, name)
        if schema is not None and "x-mcp-header" not in str(schema):
            schema = None
        if len(self._known) < 10_000:
            self._known[name] = (now + self._parts.limits.param_schemas, schema)
        return schema

    async def _look_up(self, exchange: Exchange, message: Message, route: InboundModernRoute, name: str) -> Any:
        server = self._parts.server
        try:
            if server.get_tool_input_schema is not None:
                return server.get_tool_input_schema(name)
            if server.get_request_handler("tools/list") is None:
                return None
            return await self._listed(exchange, message, route, name)
        except Exception:
            _log.exception("Mcp-Param headers are not checked: the tool's schema could not be read", tool=name)
            return None

    async def _listed(self, exchange: Exchange, message: Message, route: InboundModernRoute, name: str) -> Any:
        meta: Message = {
            PROTOCOL_VERSION_META_KEY: route.protocol_version,
            CLIENT_CAPABILITIES_META_KEY: route.client_capabilities,
        }
        if route.client_info is not None:
            meta[CLIENT_INFO_META_KEY] = route.client_info
        context = WireContext(
            message["id"],
            TransportContext(kind="streamable-http", can_send_request=False, headers=exchange.headers),
            ServerMessageMetadata(request_context=Request(exchange.scope, exchange.receive)),
        )
        params: Message = {"_meta": meta}
        for _ in range(_PAGES):
            page = await serve_once(
                self._parts.server,
                context,
                {"method": "tools/list", "params": params},
                connection=Connection.from_envelope(
                    route.protocol_version, route.client_info, route.client_capabilities
                ),
                state=self._parts.state,
            )
            for tool in page.get("tools", ()):
                if tool.get("name") == name:
                    return tool.get("inputSchema")
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str):
                return None
            params = {"_meta": meta, "cursor": cursor}
        return None
