"""Call ids on the wire: a call that is made again finds its run, on any session, either era, and over a pipe."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from milepost.core.outside import Find
from milepost.core.states import RunState
from wire.sample import Effects, a_server
from wire.serving import INIT, LIMIT, Raw, Server, accept, call, enveloped, events, request, serving, until
from wire.test_modern import ASKABLE, ask, retry
from wire.test_pipe import piped, shake

pytestmark = pytest.mark.anyio

ID = "0b7e51d6-8c5c-4d0e-9a6e-5a5ce0b1a7d3"
OTHER = "wish_2.5a5ce0b1a7d3"


def wish(tool: str, arguments: dict[str, Any], call_id: Any = ID, *, id: Any = 1) -> dict[str, Any]:  # noqa: A002
    message = call(tool, arguments, id=id)
    message["params"]["_meta"] = {"milepost/call_id": call_id}
    return message


TRIP = wish("trip", {"name": "Ann"})


def names(asked: dict[str, Any]) -> tuple[str, str]:
    """(run, question) of a question as sent."""
    meta = asked["params"]["_meta"]
    return meta["milepost/run_id"], meta["milepost/question"]


# --- the handshake era -----------------------------------------------------------------------------


async def test_after_its_session_was_deleted_a_call_made_again_in_a_new_one_goes_on_with_its_run(
    server: Server, raw: Raw, effects: Effects
) -> None:
    await raw.open()
    with anyio.fail_after(LIMIT):
        async with raw.stream(TRIP) as response:
            stream = events(response)
            first = await until(stream, method="elicitation/create")
            assert (await raw.post(accept(first.message, day=4))).status_code == 202
            asked = await until(stream, method="elicitation/create")
        assert (await raw.http.delete(raw.url, headers=raw._headers())).status_code == 200
        assert (await raw.post(TRIP)).status_code == 404
        raw.session = None
        await raw.open()
        async with raw.stream(TRIP) as response:
            stream = events(response)
            again = await until(stream, method="elicitation/create")
            assert names(again.message) == names(asked.message), "asked anew by the same name"
            assert again.message["id"] != asked.message["id"]
            assert (await raw.post(accept(again.message, seat="9F"))).status_code == 202
            result = (await until(stream)).message["result"]
    assert names(first.message)[1] == "q1"
    assert names(asked.message)[1] == "q2"
    assert result["content"][0]["text"] == "Ann: B-49F"
    assert result["_meta"]["milepost/attached"] is True
    assert result["_meta"]["milepost/run_id"] == names(asked.message)[0]
    assert effects == ["book 4 9F"]
    assert len(await server.runs.find(Find())) == 1


async def test_a_finished_call_made_again_gives_its_result_in_any_session_for_ever(
    raw: Raw, effects: Effects, store_path: Path
) -> None:
    message = wish("slow", {})
    gate = asyncio.Event()
    gate.set()
    texts = []
    with anyio.fail_after(LIMIT):
        async with serving(a_server(effects, gate), store_path) as server, httpx2.AsyncClient(timeout=15) as http:
            for _ in range(2):
                here = await Raw(http, server.url).open()
                for number in (1, 2):
                    async with here.stream({**message, "id": number}) as response:
                        result = (await until(events(response))).message["result"]
                        texts.append((result["content"][0]["text"], "milepost/attached" in result["_meta"]))
            assert len(await server.runs.find(Find())) == 1
    assert texts == [("done", False)] + [("done", True)] * 3
    assert effects == ["waited"]


async def test_two_sessions_that_make_one_call_at_once_share_one_run(
    server: Server, raw: Raw, effects: Effects, gate: asyncio.Event, store_path: Path
) -> None:
    async with serving(a_server(effects, gate), store_path) as other, httpx2.AsyncClient(timeout=15) as http:
        sessions = [await Raw(http, url).open() for url in (server.url, other.url, server.url, other.url)]

        async def made(session: Raw) -> tuple[str, bool]:
            async with session.stream(wish("slow", {})) as response:
                meta = (await until(events(response))).message["result"]["_meta"]
            return meta["milepost/run_id"], meta.get("milepost/attached", False)

        with anyio.fail_after(LIMIT):
            tasks = [asyncio.create_task(made(session)) for session in sessions]
            while not await server.runs.find(Find()):
                await asyncio.sleep(0.005)
            gate.set()
            results = await asyncio.gather(*tasks)
    assert len({run_id for run_id, _ in results}) == 1
    assert sorted(attached for _, attached in results) == [False, True, True, True]
    assert effects == ["waited"]


@pytest.mark.parametrize("era", ["handshake", "modern"])
@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        (wish("trip", {"name": "Bob"}), -32600, "another tool or with other arguments"),
        (wish("pair", {}), -32600, "another tool or with other arguments"),
        (wish("trip", {"name": "Ann"}, "short"), -32602, "16 to 128"),
        (wish("trip", {"name": "Ann"}, 7), -32602, "16 to 128"),
        (wish("trip", {"name": "Ann"}, None), -32602, "16 to 128"),
        (wish("trip", {"name": "Ann"}, "x" * 129), -32602, "16 to 128"),
        (wish("trip", {"name": "Ann"}, "no blanks in an id"), -32602, "16 to 128"),
    ],
)
async def test_an_id_of_another_call_and_a_malformed_one_are_refused_in_words(
    server: Server, raw: Raw, message: dict[str, Any], code: int, says: str, era: str
) -> None:
    await ask(raw, TRIP)
    refused = {**message, "id": 31}
    if era == "modern":
        response = await raw.modern(refused, ASKABLE)
    else:
        await raw.open()
        response = await raw.post(refused)
    body = response.json()
    assert (body["id"], body["error"]["code"]) == (31, code)
    assert says in body["error"]["message"]
    assert len(await server.runs.find(Find())) == 1


@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_tools_that_are_no_workflows_ignore_it(raw: Raw, era: str) -> None:
    await raw.open()
    post = raw.post if era == "handshake" else raw.modern
    for number, call_id in enumerate((ID, ID, "short", 7), start=1):
        response = await post(wish("add", {"a": number, "b": 1}, call_id, id=number))
        assert response.json()["result"]["structuredContent"] == {"result": number + 1}


# --- the modern era --------------------------------------------------------------------------------


async def test_a_modern_call_made_again_asks_the_same_question_and_a_state_wins_over_the_id(
    raw: Raw, effects: Effects
) -> None:
    with anyio.fail_after(LIMIT):
        first, again = await ask(raw, TRIP), await ask(raw, {**TRIP, "id": 2})
        assert [result["_meta"].get("milepost/attached") for result in (first, again)] == [None, True]
        assert [names(result["inputRequests"]["q1"]) for result in (first, again)] == [
            (first["_meta"]["milepost/run_id"], "q1")
        ] * 2
        leg = retry("trip", {"name": "Ann"}, again, {"q1": {"day": 6}})
        leg["params"]["_meta"] = {"milepost/call_id": OTHER}
        second = await ask(raw, leg)
        assert list(second["inputRequests"]) == ["q2"]
        leg = retry("trip", {"name": "Ann"}, second, {"q2": {"seat": "3D"}})
        leg["params"]["_meta"] = {"milepost/call_id": "not looked at"}
        done = await ask(raw, leg)
        assert done["content"][0]["text"] == "Ann: B-63D"
        given = await ask(raw, TRIP)
        assert (given["content"], given["_meta"]["milepost/attached"]) == (done["content"], True)
        assert "inputRequests" in await ask(raw, wish("trip", {"name": "Ann"}, OTHER)), "another wish"
    assert effects == ["book 6 3D"]


async def test_a_call_begun_in_one_era_goes_on_in_the_other(raw: Raw, effects: Effects) -> None:
    with anyio.fail_after(LIMIT):
        first = await ask(raw, TRIP)
        await ask(raw, retry("trip", {"name": "Ann"}, first, {"q1": {"day": 6}}))
        await raw.open()
        async with raw.stream(TRIP) as response:
            stream = events(response)
            asked = await until(stream, method="elicitation/create")
            assert names(asked.message) == (first["_meta"]["milepost/run_id"], "q2")
            await raw.post(accept(asked.message, seat="1A"))
            assert (await until(stream)).message["result"]["_meta"]["milepost/attached"] is True
    assert effects == ["book 6 1A"]


async def test_a_run_that_was_parked_with_its_request_is_woken_by_the_call(
    server: Server, raw: Raw, effects: Effects, gate: asyncio.Event
) -> None:
    body, headers = enveloped(wish("slow", {}))
    with anyio.fail_after(LIMIT):
        async with raw.http.stream("POST", raw.url, json=body, headers=headers) as response:
            assert response.status_code == 200
            (run,) = await server.runs.find(Find())
        while not (run := await server.runs.run(run.id)).park_asked:
            await asyncio.sleep(0.005)
        gate.set()
        while (run := await server.runs.run(run.id)).state is not RunState.PARKED:
            await asyncio.sleep(0.005)
        result = await ask(raw, wish("slow", {}))
    assert result["content"][0]["text"] == "done"
    assert result["_meta"]["milepost/run_id"] == run.id
    assert effects == ["waited"]


async def test_a_request_that_closes_while_the_call_is_followed_elsewhere_parks_nothing(
    server: Server, raw: Raw, effects: Effects, gate: asyncio.Event, store_path: Path
) -> None:
    body, headers = enveloped(wish("slow", {}))
    with anyio.fail_after(LIMIT):
        async with serving(a_server(effects, gate), store_path) as other:
            async with raw.http.stream("POST", raw.url, json=body, headers=headers) as first:
                assert first.status_code == 200
                again = asyncio.create_task(ask(Raw(raw.http, other.url), wish("slow", {})))
                (run,) = await server.runs.find(Find())
                while not other.app.parts.endpoint.parts.followers.get(run.id):
                    await asyncio.sleep(0.005)
            while server.app.parts.endpoint.parts.followers.get(run.id):
                await asyncio.sleep(0.005)
            gate.set()
            result = await again
    assert result["content"][0]["text"] == "done"
    assert result["_meta"]["milepost/attached"] is True
    assert effects == ["waited"]


# --- over a pipe -----------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_over_another_pipe_a_call_made_again_finds_its_run(server: Server, effects: Effects, era: str) -> None:
    seen = []
    for _ in range(2):
        async with piped(server) as ends:
            if era == "handshake":
                await shake(ends)
                ends.say(TRIP)
                seen.append(names(await ends.hear()))
            else:
                ends.modern(TRIP, ASKABLE)
                seen.append(names((await ends.hear())["result"]["inputRequests"]["q1"]))
    assert seen[0] == seen[1]
    assert seen[0][1] == "q1"


async def test_over_a_pipe_a_refused_id_is_said_in_words(server: Server) -> None:
    async with piped(server) as ends:
        await shake(ends)
        ends.say(TRIP)
        await ends.hear()
        for message, code in ((wish("pair", {}, id=2), -32600), (wish("pair", {}, "short", id=3), -32602)):
            ends.say(message)
            refused = await ends.hear()
            assert (refused["id"], refused["error"]["code"]) == (message["id"], code)


# --- what else a client is told --------------------------------------------------------------------


@pytest.mark.parametrize("capabilities", [ASKABLE, {}])
@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_a_tool_list_names_the_tools_whose_calls_can_be_made_again(
    raw: Raw, era: str, capabilities: dict[str, Any]
) -> None:
    if era == "handshake":
        await raw.open({**INIT, "capabilities": capabilities})
        listed = (await raw.post(request("tools/list"))).json()
    else:
        listed = (await raw.modern(request("tools/list"), capabilities)).json()
    lanes = {tool["name"]: tool.get("_meta", {}).get("milepost/lane") for tool in listed["result"]["tools"]}
    lanes.pop("continue_run", None)
    assert {name for name, lane in lanes.items() if lane == "stateful"} == {"trip", "pair", "letter", "slow"}
    assert {lane for lane in lanes.values() if lane != "stateful"} == {None}


async def test_a_stages_progress_names_the_stage(raw: Raw) -> None:
    await raw.open()
    message = wish("trip", {"name": "Ann"})
    message["params"]["_meta"]["progressToken"] = "t"
    with anyio.fail_after(LIMIT):
        async with raw.stream(message) as response:
            told = await until(events(response), method="notifications/progress")
    assert told.message["params"]["_meta"] == {"milepost/stage": "asking", "milepost/mark": "begin"}
