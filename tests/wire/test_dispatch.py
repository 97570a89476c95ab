"""One request on a connection of its own."""

from __future__ import annotations

from typing import Any

from mcp.server.connection import Connection
from mcp.server.context import CallNext, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.transport_context import TransportContext
from mcp_types import ListToolsResult

from milepost.wire.dispatch import WireContext, serve_once

VERSION = "2026-07-28"


async def test_what_a_handler_hung_on_its_connection_is_unwound_after_the_call() -> None:
    said: list[str] = []
    connection = Connection.from_envelope(VERSION, None, {})

    async def close() -> None:
        said.append("closed")

    async def hang(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> Any:
        connection.exit_stack.push_async_callback(close)
        said.append("hung")
        return ListToolsResult(tools=[]).model_dump(by_alias=True, mode="json")

    server: Server[Any] = Server("hanging")
    server.middleware.append(hang)
    context = WireContext(1, TransportContext(kind="test", can_send_request=False), None)
    await serve_once(server, context, {"method": "tools/list"}, connection=connection, state=None)
    assert said == ["hung", "closed"]
