"""When a server that says nothing is taken for dead: it may be at work, and plain JSON has no room to say so."""

from __future__ import annotations

import asyncio
import math
import socket
from typing import Any

import httpx2
import pytest

from client.peer import TEXT, Answer, Connection, Peer, hang, response, result, stream, tools
from client.talking import text_of
from milepost.client import Client, OutcomeUnknown, Policy, keepalive
from milepost.client.origins import Origins

READS = {"name": "act", "annotations": {"readOnlyHint": True}}
WORKFLOW = {"name": "act", "_meta": {"milepost/lane": "stateful"}}
LONG = 0.3
"""Seconds of work, far beyond the silence of these tests."""
POLICY = {"first_delay": 0.01, "max_delay": 0.05, "silence": 0.05, "quiet": 30.0}


def slow(then: Answer) -> Answer:
    async def answer(wire: Connection) -> None:
        await asyncio.sleep(LONG)  # the tool's work
        await then(wire)

    return answer


def client(peer: Peer, **limits: Any) -> Client:
    return Client(peer.url, policy=Policy(**{**POLICY, **limits}), origins=Origins())


async def test_a_call_answered_in_plain_json_may_take_longer_than_a_silence(peer: Peer) -> None:
    peer.on("tools/list", result(tools({"name": "act"})))
    peer.on("tools/call", slow(result(TEXT)))
    async with client(peer) as one:
        assert text_of(await one.call_tool("act")) == "done"
    assert len(peer.of("tools/call")) == 1


async def test_a_calls_own_limit_is_waited_for_where_it_is_longer(peer: Peer) -> None:
    peer.on("tools/list", result(tools({"name": "act"})))
    peer.on("tools/call", slow(result(TEXT)))
    async with client(peer, quiet=0.05) as one:
        assert text_of(await one.call_tool("act", read_timeout_seconds=30)) == "done"
    assert len(peer.of("tools/call")) == 1


async def test_a_quiet_server_is_not_waited_for_for_ever(peer: Peer) -> None:
    peer.on("tools/list", result(tools({"name": "act"})))
    peer.on("tools/call", hang)
    async with client(peer, quiet=0.1) as one:
        with pytest.raises(OutcomeUnknown, match=r"nothing was heard for 0\.1 s"):
            await one.call_tool("act")


async def test_what_only_looks_something_up_is_asked_for_again_soon(peer: Peer) -> None:
    peer.on("tools/list", hang, result(tools({"name": "act"})))
    async with client(peer) as one:
        assert [tool.name for tool in (await one.list_tools()).tools] == ["act"]
    assert len(peer.of("tools/list")) == 2


async def test_a_server_that_gave_signs_of_life_and_stops_is_dead(peer: Peer) -> None:
    peer.on("tools/list", result(tools(READS)))
    signs = stream(b": ping\n\n", b": ping\n\n", response(TEXT))
    peer.on("tools/call", signs, hang, result(TEXT))
    async with client(peer) as one:
        await one.call_tool("act")
        assert text_of(await one.call_tool("act")) == "done"
    assert len(peer.of("tools/call")) == 3


async def test_one_comment_is_a_greeting(peer: Peer) -> None:
    peer.on("tools/list", result(tools({"name": "act"})))
    peer.on("tools/call", stream(b": welcome\n\n", response(TEXT)), slow(result(TEXT)))
    async with client(peer) as one:
        await one.call_tool("act")
        assert text_of(await one.call_tool("act")) == "done"
    assert len(peer.of("tools/call")) == 2


async def test_a_milepost_server_is_known_by_its_list(peer: Peer) -> None:
    peer.on("tools/list", result(tools(WORKFLOW)))
    peer.on("tools/call", hang, result(TEXT))
    async with client(peer) as one:
        await one.list_tools()
        assert text_of(await one.call_tool("act")) == "done"
    assert len(peer.of("tools/call")) == 2


async def test_a_break_after_long_work_has_its_tries_as_any_other(peer: Peer) -> None:
    async def breaks(wire: Connection) -> None:
        wire.reset()

    peer.on("tools/list", result(tools(READS)))
    peer.on("tools/call", slow(breaks), result(TEXT))
    async with client(peer, give_up_after=LONG / 2) as one:
        assert text_of(await one.call_tool("act")) == "done"
    assert len(peer.of("tools/call")) == 2


async def test_the_system_watches_the_other_end_of_each_connection(peer: Peer) -> None:
    seen: list[socket.socket] = []

    async def look(answer: httpx2.Response) -> None:
        seen.append(answer.extensions["network_stream"].get_extra_info("socket"))

    peer.on("tools/list", result(tools()))
    async with (
        httpx2.AsyncClient(event_hooks={"response": [look]}) as http,
        Client(peer.url, http_client=http, policy=Policy(vanished=12.0), origins=Origins()) as one,
    ):
        await one.list_tools()
        wanted = keepalive.options(12.0)
        assert (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1) in wanted
        assert len(wanted) > 3, "seconds until the first probe, between them, and how many"
        for level, option, value in wanted:
            assert seen[0].getsockopt(level, option) == value


@pytest.mark.parametrize("vanished", [0.0, 1e9, math.inf])
async def test_no_limit_is_too_long_for_the_system(peer: Peer, vanished: float) -> None:
    with socket.socket() as one:
        for level, option, value in keepalive.options(vanished):
            one.setsockopt(level, option, value)


async def test_what_the_system_does_not_take_harms_no_connection() -> None:
    with socket.socket(socket.AF_UNIX) as one:
        kinds = {"return_value": _Stream(one)}
        await keepalive.watching(12.0)("connection.connect_tcp.complete", kinds)
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


class _Stream:
    def __init__(self, one: socket.socket) -> None:
        self._one = one

    def get_extra_info(self, _: str) -> socket.socket:
        return self._one
