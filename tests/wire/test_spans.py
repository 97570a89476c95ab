"""The SDK's spans are made wherever somebody records them or a trace is to be handed on, and else not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from mcp.server import MCPServer

from milepost.wire import sdk
from milepost.wire.spans import SpansWithPurpose, spare_spans

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"
NONE = "0" * 32


def test_a_callers_trace_reaches_the_tool_and_every_span_that_can_be_recorded_is() -> None:
    script = Path(__file__).with_name("spanned.py")
    told = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=True)
    seen = json.loads(told.stdout)
    assert seen["bare"] == [NONE, CALLER]
    assert seen["traced"][0] not in (NONE, CALLER)
    assert seen["traced"][1] == CALLER
    assert seen["spans"] == ["tools/call look"] * 2


def test_a_server_that_is_hosted_again_has_its_tracing_wrapped_once() -> None:
    server = sdk.lowlevel_of(MCPServer("travel"))
    spare_spans(server)
    chain = list(server.middleware)
    spare_spans(server)
    assert server.middleware == chain
    assert [type(middleware) for middleware in chain].count(SpansWithPurpose) == 1
