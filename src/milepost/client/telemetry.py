"""Spans and metrics by the MCP conventions of OpenTelemetry, and a trace context for every request (SEP-414).

Through the OpenTelemetry API alone: where no SDK is set up it costs next to nothing, and a request still carries a
trace context, made from its interaction's own trace id. Source: semantic-conventions-genai, docs/gen-ai/mcp.md
(development status), which names no session on metrics.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from mcp import MCPError
from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, StatusCode

from milepost.client.interaction import Interaction

_BUCKETS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400)
"""The convention's, and on to a day: a call may wait for a person."""
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}\Z")

_tracer = trace.get_tracer("milepost.client")
_meter = metrics.get_meter("milepost.client")
_duration = _meter.create_histogram(
    "mcp.client.operation.duration",
    unit="s",
    description="Duration of a request as its caller sees it, retries and questions included",
    explicit_bucket_boundaries_advisory=_BUCKETS,
)
_session_duration = _meter.create_histogram(
    "mcp.client.session.duration",
    unit="s",
    description="Duration of a handshake-era session",
    explicit_bucket_boundaries_advisory=_BUCKETS,
)
_recoveries = _meter.create_counter(
    "milepost.client.recoveries", unit="{recovery}", description="What was mended without the caller's doing, by kind"
)


@dataclass(slots=True)
class Where:
    """The parts of the attributes that are the same for all requests of a link."""

    origin: str
    address: str | None = None
    """None: it is no address, but a child process."""
    port: int | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        if self.address is None:
            return {"network.transport": "pipe"}
        return {"network.transport": "tcp", "server.address": self.address}


@contextmanager
def operation(method: str, name: str, interaction: Interaction, where: Where) -> Iterator[str]:
    """A client span and a measurement around a request. Gives the traceparent to send with it."""
    attributes = _attributes(method, name, where)
    began, failed = time.perf_counter(), ""
    with _tracer.start_as_current_span(
        f"{method} {name}" if "gen_ai.tool.name" in attributes or method.startswith("prompts/") else method,
        kind=SpanKind.CLIENT,
        attributes={**attributes, "milepost.call_id": interaction.call_id},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield _traceparent(span, interaction)
        except BaseException as exc:
            failed = str(exc.code) if isinstance(exc, MCPError) else type(exc).__name__
            span.set_attribute("error.type", failed)
            span.set_status(StatusCode.ERROR, str(exc)[:200])
            raise
        finally:
            _duration.record(time.perf_counter() - began, attributes | ({"error.type": failed} if failed else {}))


def _attributes(method: str, name: str, where: Where) -> dict[str, Any]:
    attributes: dict[str, Any] = {"mcp.method.name": method, **where.attributes}
    if where.port is not None:
        attributes["server.port"] = where.port
    if method == "tools/call":
        attributes |= {"gen_ai.tool.name": name, "gen_ai.operation.name": "execute_tool"}
    elif method == "prompts/get":
        attributes["gen_ai.prompt.name"] = name
    return attributes


def _traceparent(span: trace.Span, interaction: Interaction) -> str:
    """Of the span that is recorded, if one is; else the interaction's own trace, with a new span id."""
    context = span.get_span_context()
    if context.is_valid:
        interaction.trace_id = f"{context.trace_id:032x}"
        return f"00-{interaction.trace_id}-{context.span_id:016x}-{int(context.trace_flags):02x}"
    return f"00-{interaction.trace_id}-{secrets.token_hex(8)}-00"


def trace_in(traceparent: object) -> str | None:
    """The trace id of a caller's own traceparent, None where it is none."""
    match = _TRACEPARENT.match(traceparent) if isinstance(traceparent, str) else None
    return match[1] if match else None


def tool_failed() -> None:
    """The tool's result says `isError`: the span is of an operation that failed."""
    span = trace.get_current_span()
    span.set_attribute("error.type", "tool_error")
    span.set_status(StatusCode.ERROR, "the tool failed")


def recovered(kind: str) -> None:
    """`kind`: reconnected, re-initialized, re-issued, resumed."""
    _recoveries.add(1, {"milepost.recovery": kind})
    trace.get_current_span().add_event(f"milepost.{kind}")


def session_over(seconds: float, where: Where) -> None:
    _session_duration.record(seconds, where.attributes)
