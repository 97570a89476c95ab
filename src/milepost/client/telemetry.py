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
from opentelemetry import metrics, propagate, trace
from opentelemetry.trace import SpanKind, StatusCode

from milepost.client.errors import CallError
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
        named: dict[str, Any] = {
            "network.transport": "tcp",
            "network.protocol.name": "http",
            "server.address": self.address,
        }
        return named if self.port is None else named | {"server.port": self.port}


class Operation:
    """One request, as it is told of: a span and a measurement, of the same failure."""

    def __init__(self, span: trace.Span, attributes: dict[str, Any], interaction: Interaction) -> None:
        self._span = span
        self._attributes = attributes
        self._began = time.perf_counter()
        self.carried = _carried(span, interaction)
        """What goes out in `_meta`: `traceparent`, and what else the propagators that are set up want to go along."""

    def sent_as(self, request_id: object) -> None:
        """`request_id`: of its newest sending; None: there was none."""
        if request_id is not None:
            self._span.set_attribute("jsonrpc.request.id", str(request_id))

    def tool_failed(self) -> None:
        """The tool's result says `isError`: the operation failed, though the request went through."""
        self._failed({"error.type": "tool_error"}, "the tool failed")

    def ended_by(self, exc: BaseException) -> None:
        if isinstance(exc, MCPError) and not isinstance(exc, CallError):  # the server's own word
            self._failed({"error.type": str(exc.code), "rpc.response.status_code": str(exc.code)}, str(exc))
        else:
            self._failed({"error.type": type(exc).__name__}, str(exc))

    def _failed(self, how: dict[str, Any], words: str) -> None:
        self._attributes |= how
        self._span.set_attributes(how)
        self._span.set_status(StatusCode.ERROR, words[:200])

    def over(self) -> None:
        _duration.record(time.perf_counter() - self._began, self._attributes)


@contextmanager
def operation(method: str, interaction: Interaction, where: Where, version: str) -> Iterator[Operation]:
    """A client span and a measurement around a request. `version`: of the protocol, empty while it isn't known."""
    name = interaction.name
    attributes = _attributes(method, name, where, version)
    of_this_span = {"milepost.call_id": interaction.call_id}
    if method.startswith("resources/") and name:
        of_this_span["mcp.resource.uri"] = name
    with _tracer.start_as_current_span(
        f"{method} {name}" if "gen_ai.tool.name" in attributes or "gen_ai.prompt.name" in attributes else method,
        kind=SpanKind.CLIENT,
        attributes={**attributes, **of_this_span},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        operation = Operation(span, attributes, interaction)
        try:
            yield operation
        except BaseException as exc:
            operation.ended_by(exc)
            raise
        finally:
            operation.over()


def _attributes(method: str, name: str, where: Where, version: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {"mcp.method.name": method, **where.attributes, **_of(version)}
    if method == "tools/call":
        attributes |= {"gen_ai.tool.name": name, "gen_ai.operation.name": "execute_tool"}
    elif method == "prompts/get":
        attributes["gen_ai.prompt.name"] = name
    return attributes


def _of(version: str) -> dict[str, Any]:
    return {"mcp.protocol.version": version} if version else {}


def _carried(span: trace.Span, interaction: Interaction) -> dict[str, str]:
    """The context of the span that is recorded, if one is; else the interaction's own trace, with a new span id."""
    carried: dict[str, str] = {}
    propagate.inject(carried)
    context = span.get_span_context()
    if context.is_valid:
        interaction.trace_id = f"{context.trace_id:032x}"
        traceparent = f"00-{interaction.trace_id}-{context.span_id:016x}-{int(context.trace_flags):02x}"
    else:
        traceparent = f"00-{interaction.trace_id}-{secrets.token_hex(8)}-00"
    return {**carried, "traceparent": traceparent}


def trace_in(traceparent: object) -> str | None:
    """The trace id of a caller's own traceparent, None where it is none."""
    match = _TRACEPARENT.match(traceparent) if isinstance(traceparent, str) else None
    return match[1] if match else None


def recovered(kind: str) -> None:
    """`kind`: reconnected, re-initialized, re-issued, resumed."""
    _recoveries.add(1, {"milepost.recovery": kind})
    trace.get_current_span().add_event(f"milepost.{kind}")


def session_over(seconds: float, where: Where, version: str) -> None:
    _session_duration.record(seconds, where.attributes | _of(version))
