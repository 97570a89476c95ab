"""The handshake era's streams, byte by byte: broken, read again, posted twice, closed, cancelled."""

from __future__ import annotations

import asyncio
from pathlib import Path

import anyio
import httpx2
import pytest

from wire.sample import Effects, a_server, second_replica
from wire.serving import LIMIT, Raw, Server, accept, call, events, request, serving, until

pytestmark = pytest.mark.anyio


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
