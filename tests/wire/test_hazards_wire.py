"""Hazards that show on the wire and concern no single module of it; docs/reliability.md lists them all."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.server import MCPServer

from milepost import workflow
from wire.sample import Effects, a_server
from wire.serving import LIMIT, Raw, Server, accept, call, enveloped, events, request, serving, until

pytestmark = pytest.mark.anyio


async def test_hazard_p2_10_a_call_that_waits_in_memory_is_answered_through_another_replica(
    raw: Raw, effects: Effects, store_path: Path
) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with (
            serving(a_server(effects), store_path) as other,
            httpx2.AsyncClient(timeout=15) as http,
            raw.stream(call("hot")) as response,
        ):
            elsewhere = Raw(http, other.url, session=raw.session, version=raw.version)
            stream = events(response)
            asked = await until(stream, method="elicitation/create")
            assert (await elsewhere.post(accept(asked.message, day=4))).status_code == 202
            assert (await until(stream)).message["result"]["content"][0]["text"] == "hot accept 4"
    assert effects == ["hot begun", "hot done"]


async def test_hazard_p2_10_a_call_in_memory_that_is_lost_says_so_and_is_not_run_again(
    effects: Effects, store_path: Path
) -> None:
    with anyio.fail_after(LIMIT):
        async with serving(a_server(effects), store_path) as first, httpx2.AsyncClient(timeout=15) as http:
            raw = await Raw(http, first.url).open()
            async with raw.stream(call("hot", id=8)) as response:
                asked = await until(events(response), method="elicitation/create")
                await first.app.drain()
        async with serving(a_server(effects), store_path) as second, httpx2.AsyncClient(timeout=15) as http:
            back = Raw(http, second.url, session=raw.session, version=raw.version)
            async with back.listen(asked.id) as response:
                told = await until(events(response))
    assert told.message["id"] == 8
    said = str(told.message.get("error") or told.message["result"])
    assert "hot" in said
    assert effects == ["hot begun"]


async def test_hazard_p2_24_a_drain_ends_listening_streams_with_their_response(server: Server, raw: Raw) -> None:
    wanted = request("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, id="L")
    body, headers = enveloped(wanted)
    with anyio.fail_after(LIMIT):
        async with raw.http.stream("POST", raw.url, json=body, headers=headers) as response:
            stream = events(response)
            await anext(stream)
            draining = asyncio.create_task(server.app.drain())
            last = [event async for event in stream][-1]
            await draining
    assert last.message["id"] == "L"
    assert "result" in last.message


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_hazard_p2_19_structured_results_of_workflows_are_the_same_on_both_eras(
    store_path: Path, mode: Any
) -> None:
    mcp = MCPServer("lists")

    @mcp.tool()
    @workflow
    async def numbers() -> list[int]:
        return [1, 2]

    @mcp.tool()
    async def plain_numbers() -> list[int]:
        return [1, 2]

    with anyio.fail_after(LIMIT):
        async with serving(mcp, store_path) as server, Client(server.url, mode=mode) as client:
            results = [(await client.call_tool(name, {})).structured_content for name in ("numbers", "plain_numbers")]
    assert results == [{"result": [1, 2]}] * 2
