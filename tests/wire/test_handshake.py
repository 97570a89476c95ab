"""The handshake era, byte by byte: sessions, streams, answers, and what happens when a part of it goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.shared.subscriptions import ToolsListChanged
from mcp.types import SetLevelRequestParams

from milepost.core.errors import StoreUnavailable
from milepost.core.outside import Find
from wire.sample import Effects, a_server
from wire.serving import INIT, LIMIT, Raw, Server, Sse, call, events, request, serving

pytestmark = pytest.mark.anyio


def accept(asked: dict[str, Any], **content: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": content}}


async def until(stream: AsyncIterator[Sse], *, method: str | None = None) -> Sse:
    """The next message with this method; without one, the next response."""
    async for event in stream:
        if event.data and (event.message.get("method") == method):
            return event
    raise AssertionError("the stream ended")


@asynccontextmanager
async def second_replica(
    first: Server, effects: Effects, gate: asyncio.Event, store_path: Path, **flags: Any
) -> AsyncIterator[Raw]:
    async with (
        serving(a_server(effects, gate), store_path, **flags) as server,
        httpx2.AsyncClient(timeout=15) as http,
    ):
        yield Raw(http, server.url)


# --- sessions --------------------------------------------------------------------------------------


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


# --- a workflow's stream ---------------------------------------------------------------------------


async def test_a_stream_begins_with_a_point_to_come_back_to(raw: Raw) -> None:
    await raw.open()
    async with raw.stream(call("trip", {"name": "Ann"})) as response:
        first = await anext(events(response))
    assert first.id is not None
    assert first.id.endswith(".0")
    assert first.data == ""
    assert first.retry is not None


async def test_a_broken_stream_goes_on_by_last_event_id_on_another_replica(
    server: Server, raw: Raw, effects: Effects, gate: asyncio.Event, store_path: Path
) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("trip", {"name": "Ann"}, id=5)) as response:
            asked = await until(events(response), method="elicitation/create")
        async with second_replica(server, effects, gate, store_path) as other:
            other.session = raw.session
            async with other.listen(asked.id) as response:
                assert (await other.post(accept(asked.message, day=4))).status_code == 202
                stream = events(response)
                second = await until(stream, method="elicitation/create")
                assert second.message["params"]["message"] == "Which seat?"
                assert (await raw.post(accept(second.message, seat="9F"))).status_code == 202
                last = await until(stream)
    assert last.message["id"] == 5
    assert last.message["result"]["content"][0]["text"] == "Ann: B-49F"
    assert effects == ["book 4 9F"]


async def test_what_is_read_again_is_the_same_bytes(raw: Raw) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("trip", {"name": "Ann"})) as response:
            stream = events(response)
            start = await anext(stream)
            asked = await until(stream, method="elicitation/create")
        async with raw.listen(start.id) as response:
            again = await until(events(response), method="elicitation/create")
    assert (again.id, again.data) == (asked.id, asked.data)


async def test_the_result_is_given_again_until_it_was_received(raw: Raw, effects: Effects) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("trip", {"name": "Ann"})) as response:
            stream = events(response)
            for content in ({"day": 1}, {"seat": "1A"}):
                asked = await until(stream, method="elicitation/create")
                await raw.post(accept(asked.message, **content))
            result = await until(stream)
        async with raw.listen(asked.id) as response:
            again = await until(events(response))
        assert again.data == result.data
        async with raw.listen(result.id) as response:
            assert [event async for event in events(response)] == []
    assert effects == ["book 1 1A"]


async def test_a_duplicate_post_gets_the_one_result_and_runs_nothing_twice(raw: Raw, effects: Effects) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("trip", {"name": "Ann"}, id="same")) as one:
            first = events(one)
            asked = await until(first, method="elicitation/create")
            async with raw.stream(call("trip", {"name": "Ann"}, id="same")) as two:
                second = events(two)
                assert (await until(second, method="elicitation/create")).data == asked.data
                await raw.post(accept(asked.message, day=1))
                asked = await until(first, method="elicitation/create")
                await raw.post(accept(asked.message, seat="1A"))
                assert (await until(first)).data == (await until(second)).data
    assert effects == ["book 1 1A"]


async def test_a_duplicate_post_of_a_stateless_call_in_flight_runs_nothing_twice(
    raw: Raw, effects: Effects, gate: asyncio.Event
) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("held", id=3)) as one, raw.stream(call("held", id=3)) as two:
            gate.set()
            assert (await until(events(one))).message == (await until(events(two))).message
    assert effects == ["held begun", "held done"]


async def test_an_id_used_again_for_another_call_is_a_clear_error(raw: Raw, gate: asyncio.Event) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("slow", id=4)), raw.stream(call("held", id=5)):
            others = [
                call("trip", {"name": "Ann"}, id=4),  # another workflow than the one in flight
                call("add", {"a": 1, "b": 1}, id=4),  # a plain tool instead of it
                call("trip", {"name": "Ann"}, id=5),  # a workflow instead of a plain tool
                call("held", {"more": 1}, id=5),
                request("tools/list", id=5),
            ]
            for other in others:
                refused = await raw.post(other)
                assert (refused.status_code, refused.json()["id"]) == (400, other["id"])
                assert refused.json()["error"]["code"] == -32600
                assert f"the id {other['id']} was used already" in refused.json()["error"]["message"]
            async with raw.stream(call("slow", id=4, token="mine")) as same:
                gate.set()
                assert (await until(events(same))).message["result"]["content"][0]["text"] == "done"
        finished = await raw.post(call("pair", id=4))
        assert finished.json()["error"]["code"] == -32600, "a finished workflow's id stays used"


async def test_hazard_no_call_of_a_session_waits_for_another(raw: Raw, gate: asyncio.Event) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("held", id=1)), raw.stream(call("trip", {"name": "Ann"}, id=2)):
            assert (await raw.post(call("add", {"a": 1, "b": 1}, id=3))).json()["result"]["isError"] is False
        gate.set()


async def test_closing_the_connection_is_no_cancellation(raw: Raw, effects: Effects, gate: asyncio.Event) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("held", id=1)) as response:
            start = await anext(events(response))
        async with raw.listen(start.id) as response:
            gate.set()
            assert (await until(events(response))).message["result"]["content"][0]["text"] == "let go"
    assert effects == ["held begun", "held done"]


async def test_a_plain_tool_may_close_its_stream_and_go_on(raw: Raw) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("closing", id=8)) as response:
            seen = [event async for event in events(response)]
        assert seen[-1].retry is not None
        assert not any(event.data for event in seen)
        async with raw.listen(seen[0].id) as response:
            assert (await until(events(response))).message["id"] == 8


async def test_a_long_call_in_memory_gets_rows_so_that_its_client_can_come_back(
    effects: Effects, gate: asyncio.Event, store_path: Path
) -> None:
    async with (
        serving(a_server(effects, gate), store_path, http={"promote_after": 0.1}) as server,
        httpx2.AsyncClient(timeout=15) as http,
    ):
        raw = await Raw(http, server.url).open()
        with anyio.fail_after(LIMIT):
            async with raw.stream(call("held", id=1)) as response:
                start = await anext(events(response))
                while not server.endpoint.parts.live:
                    await asyncio.sleep(0.01)
            async with second_replica(server, effects, gate, store_path) as other:
                other.session = raw.session
                async with other.listen(start.id) as response:
                    gate.set()
                    assert (await until(events(response))).message["result"]["content"][0]["text"] == "let go"


async def test_the_server_may_close_a_long_wait_itself(effects: Effects, store_path: Path) -> None:
    async with (
        serving(a_server(effects), store_path, http={"max_wait": 0.3}) as server,
        httpx2.AsyncClient(timeout=15) as http,
    ):
        raw = await Raw(http, server.url).open()
        with anyio.fail_after(LIMIT):
            async with raw.stream(call("trip", {"name": "Ann"})) as response:
                seen = [event async for event in events(response)]
            assert seen[-1].retry is not None
            asked = next(event for event in seen if event.data)
            await raw.post(accept(asked.message, day=2))
            async with raw.listen(asked.id) as response:
                assert (await until(events(response), method="elicitation/create")).message["params"]


async def test_cancelling_a_call_cancels_its_run(server: Server, raw: Raw) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("trip", {"name": "Ann"}, id=6)) as response:
            stream = events(response)
            await until(stream, method="elicitation/create")
            cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 6}}
            assert (await raw.post(cancelled)).status_code == 202
            last = await until(stream)
    assert "error" in last.message or last.message["result"]["isError"]


async def test_cancelling_a_call_whose_stream_is_closed_cancels_its_run(server: Server, raw: Raw) -> None:
    """Closing it was no cancellation; the notification that comes afterwards is one."""
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("trip", {"name": "Ann"}, id=6)) as response:
            asked = await until(events(response), method="elicitation/create")
        while server.endpoint.parts.followers:
            await anyio.sleep(0.01)
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 6}}
        assert (await raw.post(cancelled)).status_code == 202
        async with raw.listen(asked.id) as response:
            last = await until(events(response))
    assert "error" in last.message or last.message["result"]["isError"]


async def test_cancelling_a_call_in_memory_stops_it(raw: Raw, effects: Effects) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("held", id=6)) as response:
            stream = events(response)
            await anext(stream)
            cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 6}}
            await raw.post(cancelled)
            assert (await until(stream)).message["error"]["code"] == -32800
    assert effects == ["held begun"]


# --- answers ---------------------------------------------------------------------------------------


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


# --- strangers -------------------------------------------------------------------------------------


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


# --- drain -----------------------------------------------------------------------------------------


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


# --- what the server says on its own ---------------------------------------------------------------


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


async def test_after_a_merger_a_stream_is_read_again_from_the_right_place(raw: Raw) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("trip", {"name": "Ann"}, id=1)) as response:
            await until(events(response), method="elicitation/create")
            async with raw.stream(call("trip", {"name": "Ann"}, id=2)) as second:
                two = events(second)
                which = await until(two, method="elicitation/create")
                name, field = next(iter(which.message["params"]["requestedSchema"]["properties"].items()))
                choices = field.get("enum") or [one["const"] for one in field["oneOf"]]
                await raw.post(accept(which.message, **{name: choices[0]}))
                moved = await until(two, method="elicitation/create")
        async with raw.listen(moved.id) as response:
            assert (await raw.post(accept(moved.message, day=1))).status_code == 202
            seat = await until(events(response), method="elicitation/create")
            assert seat.message["params"]["message"] == "Which seat?"
        async with raw.listen(seat.id) as response:
            await raw.post(accept(seat.message, seat="1A"))
            last = await until(events(response))
        assert last.message["id"] == 2
        assert last.message["result"]["content"][0]["text"] == "Ann: B-11A"


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


async def test_what_a_call_said_before_it_had_rows_is_in_them_once(
    raw: Raw, gate: asyncio.Event, server: Server
) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(call("held", id=1, token="t")) as response:
            stream = events(response)
            assert (await until(stream, method="notifications/progress")).message["params"]["progress"] == 1
            live = next(iter(server.endpoint.handshake.sessions._warm[raw.session].calls.values()))
            await live.promote()
            gate.set()
            rest = [event async for event in stream if event.data]
    assert [event.message.get("method") for event in rest] == [None]
