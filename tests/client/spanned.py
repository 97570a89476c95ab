"""One client with an OpenTelemetry SDK set up, as a process of its own: a provider is for the whole process, for good.

Calls `look` twice on the server at the URL given and reads a resource, and prints what was exported as a line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from mcp import MCPError
from opentelemetry import baggage, context, metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from milepost.client import Client


def shown(span: ReadableSpan) -> dict[str, Any]:
    assert span.context is not None
    return {
        "name": span.name,
        "kind": span.kind.name,
        "attributes": dict(span.attributes or {}),
        "status": span.status.status_code.name,
        "trace": f"{span.context.trace_id:032x}",
        "span": f"{span.context.span_id:016x}",
    }


async def main(url: str) -> None:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([reader]))
    async with Client(url, mode="legacy") as client:
        await client.call_tool("look")
        with contextlib.suppress(MCPError):
            await client.call_tool("look")
        with contextlib.suppress(MCPError), attached(baggage.set_baggage("tenant", "blue")):
            await client.read_resource("desk://seats")
    data = reader.get_metrics_data()
    assert data is not None
    metrics_ = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
    points = {m.name: [dict(point.attributes or {}) for point in m.data.data_points] for m in metrics_}
    spans = [shown(span) for span in exporter.get_finished_spans()]
    sys.stdout.write(json.dumps({"spans": spans, "metrics": points}) + "\n")


@contextlib.contextmanager
def attached(inside: context.Context) -> Iterator[None]:
    token = context.attach(inside)
    try:
        yield
    finally:
        context.detach(token)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
