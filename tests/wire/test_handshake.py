"""The handshake era, byte by byte: sessions, answers, and what happens when a part of it goes away."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.shared.subscriptions import ToolsListChanged
from mcp.types import SetLevelRequestParams

from milepost.core.errors import StoreUnavailable
from milepost.core.outside import Find
from wire.sample import Effects, a_server, second_replica
from wire.serving import INIT, LIMIT, Raw, Server, accept, call, events, request, serving, until

pytestmark = pytest.mark.anyio


# --- sessions -------------------------------------------------------------------------------------


async def test_a_session_is_served_by_any_replica_and_outlives_them(
    server: Server, raw: Raw, effects: Effects, gate: asyncio.Event, store_path: Path
) -> None:
    await raw.open()
    async with second_replica(server, effects, gate, store_path) as other:
        other.session = raw.session
        answer = (await other.post(call("add", {"a": 1, "b": 2}))).json()
        assert answer["result"]["structuredContent"] == {"result": 3}


async def test_a_session_that_was_ended_is_unknown_on_every_replica(
    server: Server, raw: Raw, effects: Effects, gate: asyncio.Event, store_path: Path
) -> None:
    await raw.open()
    async with second_replica(server, effects, gate, store_path, sessions={"trust": 0}) as other:
        other.session = raw.session
        assert (await other.post(request("ping"))).status_code == 200
        assert (await raw.http.delete(raw.url, headers=raw._headers())).status_code == 200
        assert (await raw.post(request("ping"))).status_code == 404
        assert (await other.post(request("ping"))).status_code == 404


@pytest.mark.parametrize("session", ["garbage", "x" * 34, "é" * 34, "0" * 10_000])
async def test_an_unknown_session_is_404_with_the_requests_id(raw: Raw, session: str) -> None:
    headers = {"mcp-session-id": session.encode("latin-1")}
    response = await raw.http.post(
        raw.url,
        json=request("ping", id="abc"),
        headers={**raw._headers(), **headers},  # type: ignore[dict-item]
    )
    assert response.status_code == 404
    assert response.json()["id"] == "abc"
    assert "initialize" in response.json()["error"]["message"]


async def test_without_a_session_only_initialize_and_ping_are_served(raw: Raw) -> None:
    assert (await raw.post(request("ping"))).json() == {"jsonrpc": "2.0", "id": 1, "result": {}}
    refused = await raw.post(request("tools/list", id=9))
    assert refused.status_code == 400
    assert refused.json()["id"] == 9


async def test_at_the_cap_a_new_session_gets_503_and_retry_after(effects: Effects, store_path: Path) -> None:
    async with (
        serving(a_server(effects), store_path, sessions={"max": 1}) as server,
        httpx2.AsyncClient() as http,
    ):
        first = await Raw(http, server.url).open()
        refused = await Raw(http, server.url).post(request("initialize", INIT))
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert "Too many open sessions" in refused.json()["error"]["message"]
        assert (await first.post(request("ping"))).status_code == 200


async def test_hazard_p2_13_what_a_session_set_is_replayed_when_its_connection_is_rebuilt(
    server: Server, raw: Raw, effects: Effects, gate: asyncio.Event, store_path: Path
) -> None:
    await raw.open()
    levels: list[Any] = []

    async def set_level(context: Any, params: Any) -> Any:
        levels.append((context.session.client_params.client_info.name, params.level))
        return {}

    for app in (server.app,):
        app.parts.hosted.server.add_request_handler("logging/setLevel", SetLevelRequestParams, set_level)
    assert (await raw.post(request("logging/setLevel", {"level": "error"}))).json()["result"] == {}
    async with serving(a_server(effects, gate), store_path) as second, httpx2.AsyncClient() as http:
        second.app.parts.hosted.server.add_request_handler("logging/setLevel", SetLevelRequestParams, set_level)
        other = Raw(http, second.url, session=raw.session)
        assert (await other.post(call("add", {"a": 1, "b": 1}))).status_code == 200
    assert levels == [("raw", "error"), ("raw", "error")]


# --- answers --------------------------------------------------------------------------------------


async def test_an_answer_that_breaks_the_schema_is_400_and_the_question_comes_anew(raw: Raw) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("trip", {"name": "Ann"})) as response:
            stream = events(response)
            asked = await until(stream, method="elicitation/create")
            refused = await raw.post(accept(asked.message, day="soon"))
            assert refused.status_code == 400
            assert "asked again" in refused.json()["error"]["message"]
            again = await until(stream, method="elicitation/create")
            assert again.message["id"] != asked.message["id"]
            assert "must be of type integer" in again.message["params"]["message"]


async def test_a_late_answer_is_acknowledged_and_changes_nothing(raw: Raw, effects: Effects) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("trip", {"name": "Ann"})) as response:
            stream = events(response)
            asked = await until(stream, method="elicitation/create")
            assert (await raw.post(accept(asked.message, day=1))).status_code == 202
            assert (await raw.post(accept(asked.message, day=1))).status_code == 202
            assert (await raw.post(accept(asked.message, day=2))).status_code == 202
            seat = await until(stream, method="elicitation/create")
            await raw.post(accept(seat.message, seat="1A"))
            assert (await until(stream)).message["result"]["content"][0]["text"] == "Ann: B-11A"


async def test_a_question_answered_another_way_is_withdrawn(server: Server, raw: Raw) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("trip", {"name": "Ann"})) as response:
            stream = events(response)
            asked = await until(stream, method="elicitation/create")
            run = (await _runs(server))[0]
            by_hand = call("continue_run", {"run_id": run.id, "answers": {"q1": {"day": 8}}}, id=2)
            async with raw.stream(by_hand):
                withdrawn = await until(stream, method="notifications/cancelled")
    assert withdrawn.message["params"]["requestId"] == asked.message["id"]


async def _runs(server: Server) -> Any:
    return await server.runs.find(Find())


# --- strangers ------------------------------------------------------------------------------------


async def test_another_sessions_question_stream_and_call_are_out_of_reach(server: Server, raw: Raw) -> None:
    await raw.open()
    stranger = await Raw(raw.http, raw.url).open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("trip", {"name": "Ann"}, id=4)) as response:
            stream = events(response)
            asked = await until(stream, method="elicitation/create")
            assert (await stranger.post(accept(asked.message, day=1))).status_code == 404
            async with stranger.listen(asked.id) as refused:
                assert refused.status_code == 400
            cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 4}}
            await stranger.post(cancelled)
            assert (await raw.post(accept(asked.message, day=1))).status_code == 202
            await until(stream, method="elicitation/create")


@pytest.mark.parametrize("event_id", ["nonsense", "A" * 16 + ".0", "A" * 16 + ".99999999999", ".", "a.b.c"])
async def test_an_unknown_event_id_is_refused_in_words(raw: Raw, event_id: str) -> None:
    await raw.open()
    async with raw.listen(event_id) as response:
        assert response.status_code == 400
        await response.aread()
        assert "names no stream" in response.json()["error"]["message"]


# --- drain ----------------------------------------------------------------------------------------


async def test_a_drain_ends_streams_with_retry_and_refuses_what_is_new(server: Server, raw: Raw) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("trip", {"name": "Ann"})) as response, raw.listen() as standalone:
            stream = events(response)
            await until(stream, method="elicitation/create")
            await server.endpoint.drain()
            assert [event.retry for event in [event async for event in stream]][-1] is not None
            assert [event.retry async for event in events(standalone)][-1] is not None
        refused = await raw.post(request("ping"))
    assert refused.status_code == 503
    assert "retry-after" in refused.headers


async def test_answers_are_taken_while_draining(server: Server, raw: Raw, effects: Effects, store_path: Path) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("trip", {"name": "Ann"}, id=5)) as response:
            asked = await until(events(response), method="elicitation/create")
        await server.endpoint.drain()
        assert (await raw.post(accept(asked.message, day=4))).status_code == 202
        await server.app.drain()
        async with serving(a_server(effects), store_path) as second:
            other = Raw(raw.http, second.url, session=raw.session)
            async with other.listen(asked.id) as response:
                assert (await until(events(response), method="elicitation/create")).message["params"]["message"] == (
                    "Which seat?"
                )


# --- what the server says on its own --------------------------------------------------------------


async def test_hazard_p2_23_what_changed_reaches_the_sessions_standalone_stream(server: Server, raw: Raw) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.listen() as response:
            await server.app.parts.hosted.bus.publish(ToolsListChanged())
            told = await until(events(response), method="notifications/tools/list_changed")
    assert "params" not in told.message


async def test_a_newer_standalone_stream_takes_the_place_of_an_older(raw: Raw) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.listen() as older, raw.listen():
            assert [event.retry async for event in events(older)][-1] is not None


async def test_a_silent_call_shows_signs_of_life(effects: Effects, gate: asyncio.Event, store_path: Path) -> None:
    async with (
        serving(a_server(effects, gate), store_path, http={"heartbeat": 0.1}) as server,
        httpx2.AsyncClient(timeout=15) as http,
    ):
        raw = await Raw(http, server.url).open()
        with anyio.fail_after(LIMIT):
            async with raw.stream(call("slow", id=1, token="t")) as response:
                stream = events(response)
                seen = [(await until(stream, method="notifications/progress")).message["params"] for _ in range(4)]
                gate.set()
                await until(stream)
    values = [params["progress"] for params in seen]
    assert values == sorted(set(values))


async def test_a_store_that_cannot_write_is_a_503_that_says_so(server: Server, raw: Raw) -> None:
    await raw.open()

    async def fails(*args: Any, **more: Any) -> None:
        raise StoreUnavailable("the disk is full")

    server.endpoint.parts.runs.store.create = fails
    refused = await raw.post(call("trip", {"name": "Ann"}))
    assert refused.status_code == 503
    assert "the disk is full" in refused.json()["error"]["message"]
    assert "retry-after" in refused.headers


async def test_more_sessions_than_are_kept_warm_are_all_served(effects: Effects, store_path: Path) -> None:
    async with (
        serving(a_server(effects), store_path, sessions={"cache": 2}) as server,
        httpx2.AsyncClient(timeout=15) as http,
    ):
        clients = [await Raw(http, server.url).open() for _ in range(5)]
        for _ in range(2):
            for client in clients:
                assert (await client.post(call("add", {"a": 1, "b": 1}))).status_code == 200
        assert len(server.endpoint.handshake.sessions._warm) <= 3
