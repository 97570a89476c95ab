"""What a client says of itself: typed events, spans and metrics, and one id that joins them with the server's."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from client import peer as wire
from client.peer import TEXT, Peer
from client.talking import Person, client_of, events_of, question
from milepost.client import Policy
from milepost.client.events import (
    Answered,
    Bulletin,
    CircuitChanged,
    Event,
    Finished,
    Question,
    Reconnected,
    Resumed,
    Retrying,
    Sent,
    Stage,
)

pytestmark = pytest.mark.anyio

TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-0[01]\Z")
SPANNED = Path(__file__).with_name("spanned.py")
STAGE_META = {"milepost/stage": "booking", "milepost/mark": "begin"}


def progress(value: float, message: str, meta: dict[str, str] | None = None) -> wire.Frame:
    def one(seen: wire.Seen) -> bytes:
        params: dict[str, Any] = {"progressToken": seen.meta["progressToken"], "progress": value, "message": message}
        params |= {"_meta": meta} if meta else {}
        return wire.frame({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    return one


async def test_a_calls_story_is_told_in_order_under_one_id(peer: Peer, policy: Policy) -> None:
    ask = {"resultType": "input_required", "inputRequests": {"k": question("who?")}, "requestState": "s"}
    done = {**TEXT, "_meta": {"milepost/run_id": "run-1"}}
    peer.on(
        "tools/call",
        wire.stream(progress(1, "booking", STAGE_META), wire.response(ask)),
        wire.status(503, "retry-after: 0"),
        wire.result(done),
    )
    async with client_of(peer, policy, elicitation_callback=Person()) as client, events_of(client) as told:
        await client.call_tool("look")
    mine = [event for event in told if event.call_id == told[0].call_id]
    assert [type(event) for event in mine] == [
        Sent, Stage, Question, Answered, Sent, Retrying, Sent, Answered, Finished,
    ]  # fmt: skip
    assert {seen.meta["milepost/call_id"] for seen in peer.of("tools/call")} == {told[0].call_id}
    (stage,) = [event for event in mine if isinstance(event, Stage)]
    assert (stage.name, stage.mark, stage.progress, stage.message) == ("booking", "begin", 1.0, "booking")
    assert [event.attempt for event in mine if isinstance(event, Sent)] == [1, 2, 3]
    (end,) = [event for event in mine if isinstance(event, Finished)]
    assert (end.run_id, end.is_error, end.name) == ("run-1", False, "look")


async def test_every_request_carries_a_trace_context_one_trace_for_a_call(peer: Peer, policy: Policy) -> None:
    ask = {"resultType": "input_required", "inputRequests": {"k": question("who?")}, "requestState": "s"}
    peer.on("tools/call", wire.result(ask), wire.result(TEXT))
    async with client_of(peer, policy, mode="auto", elicitation_callback=Person()) as client:
        await client.call_tool("look")
        await client.list_tools()
    traces = [TRACEPARENT.match(seen.meta["traceparent"]) for seen in peer.seen]
    assert all(traces)
    of_call = {match[1] for match, seen in zip(traces, peer.seen, strict=True) if match and seen.method == "tools/call"}
    assert len(of_call) == 1


async def test_a_callers_own_trace_is_kept(peer: Peer, policy: Policy) -> None:
    own = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    async with client_of(peer, policy) as client, events_of(client) as told:
        await client.call_tool("look", meta={"traceparent": own})
    assert peer.of("tools/call")[0].meta["traceparent"] == own
    assert told[0].trace_id == "ab" * 16


async def test_spans_and_metrics_follow_the_conventions(peer: Peer) -> None:
    peer.on("tools/call", wire.result({**TEXT, "isError": True}), wire.drop)
    peer.on("resources/read", wire.error(-32002, "no such desk"))
    process = await asyncio.create_subprocess_exec(sys.executable, SPANNED, peer.url, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(50):
        told = json.loads((await process.communicate())[0])
    first, second = [span for span in told["spans"] if span["name"] == "tools/call look"]
    assert first["kind"] == "CLIENT"
    wanted = {
        "mcp.method.name": "tools/call",
        "gen_ai.tool.name": "look",
        "gen_ai.operation.name": "execute_tool",
        "mcp.protocol.version": "2025-11-25",
        "network.transport": "tcp",
        "network.protocol.name": "http",
        "server.address": "127.0.0.1",
        "server.port": int(peer.url.split(":")[2].removesuffix("/mcp")),
        "error.type": "tool_error",
    }
    own = {"milepost.call_id", "jsonrpc.request.id"}
    assert {key: value for key, value in first["attributes"].items() if key not in own} == wanted
    assert first["attributes"]["jsonrpc.request.id"] == str(peer.of("tools/call")[0].id)
    assert (second["status"], second["attributes"]["error.type"]) == ("ERROR", "OutcomeUnknown")
    (third,) = [span for span in told["spans"] if span["name"] == "resources/read"]
    refused = {"error.type": "-32002", "rpc.response.status_code": "-32002"}
    assert third["attributes"].items() >= {"mcp.resource.uri": "desk://seats", **refused}.items()
    sent = peer.of("tools/call")[0].meta["traceparent"]
    assert sent.split("-")[1:3] == [first["trace"], first["span"]]
    assert peer.of("resources/read")[0].meta["baggage"] == "tenant=blue"
    measured = told["metrics"]["mcp.client.operation.duration"]
    assert wanted in measured
    assert {**wanted, "error.type": "OutcomeUnknown"} in measured
    assert {point.get("rpc.response.status_code") for point in measured} == {None, "-32002"}
    (session,) = told["metrics"]["mcp.client.session.duration"]
    assert session == {key: wanted[key] for key in session}
    assert {"mcp.protocol.version", "server.address", "server.port"} <= set(session)


async def test_a_reader_that_falls_behind_loses_the_oldest_and_knows_it() -> None:
    board = Bulletin(3)
    assert not board.is_read
    reader = board.reader()
    for n in range(5):
        board.post(CircuitChanged(state=str(n)))
    board.close()
    seen: list[Event] = [event async for event in reader]
    assert [event.state for event in seen if isinstance(event, CircuitChanged)] == ["2", "3", "4"]
    assert reader.missed == 2
    assert not board.is_read


async def test_each_reader_has_all_events_from_when_it_began() -> None:
    board = Bulletin(10)
    early = board.reader()
    board.post(CircuitChanged(state="open"))
    late = board.reader()
    board.post(CircuitChanged(state="closed"))
    counts: dict[str, int] = {}

    async def count(name: str, reader: Any) -> None:
        counts[name] = len([event async for event in reader])

    async with anyio.create_task_group() as group:
        group.start_soon(count, "early", early)
        group.start_soon(count, "late", late)
        await anyio.wait_all_tasks_blocked()
        board.close()
    assert counts == {"early": 2, "late": 1}
    assert Reconnected().reason == Resumed(method="tools/call").how == ""


async def test_a_reader_that_nobody_holds_takes_no_room(peer: Peer, policy: Policy) -> None:
    async with client_of(peer, policy) as client:
        kept = client.events
        for _ in range(100):
            assert client.events is not kept
        gc.collect()
        assert len(client._bulletin._readers) == 1
