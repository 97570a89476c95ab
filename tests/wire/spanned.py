"""Calls a hosted tool with no OpenTelemetry SDK, then with one, in a process of its own: a provider is for good.

Prints one line of JSON: the traces that the tool saw, and the spans that were exported.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from mcp.server import MCPServer
from mcp.server.connection import Connection
from mcp.shared.transport_context import TransportContext
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from milepost.wire.dispatch import WireContext, serve_once
from milepost.wire.target import host

VERSION = "2026-07-28"
CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"
mcp = MCPServer("spanned")


@mcp.tool()
def look() -> str:
    """The trace in which this runs."""
    return f"{trace.get_current_span().get_span_context().trace_id:032x}"


async def call(server: Any, **meta: Any) -> str:
    message = {"method": "tools/call", "params": {"name": "look", "arguments": {}, "_meta": meta}}
    context = WireContext(1, TransportContext(kind="test", can_send_request=False), None)
    result = await serve_once(
        server, context, message, connection=Connection.from_envelope(VERSION, None, {}), state=None
    )
    return str(result["content"][0]["text"])


async def main() -> None:
    server = (await host(mcp)).server
    prefix = "io.modelcontextprotocol/"
    envelope = {f"{prefix}protocolVersion": VERSION, f"{prefix}clientCapabilities": {}, "progressToken": "t"}
    parent = {"traceparent": f"00-{CALLER}-00f067aa0ba902b7-01"}
    bare = [await call(server, **envelope), await call(server, **envelope, **parent)]
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    traced = [await call(server, **envelope), await call(server, **envelope, **parent)]
    spans = [span.name for span in exporter.get_finished_spans()]
    sys.stdout.write(json.dumps({"bare": bare, "traced": traced, "spans": spans}) + "\n")


asyncio.run(main())
