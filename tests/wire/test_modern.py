"""The modern era, byte by byte: rounds, sealed states, header rules, and closing as cancelling."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from milepost.core.outside import Find
from milepost.core.states import RunState
from wire.sample import Effects, Gate, a_server
from wire.serving import LIMIT, Raw, Server, call, enveloped, events, request, serving

pytestmark = pytest.mark.anyio
ASKABLE = {"elicitation": {"form": {}}}


def retry(tool: str, arguments: dict[str, Any], result: dict[str, Any], answers: dict[str, Any] | None = None) -> Any:
    """The same call again, with answers, as a client makes it."""
    message = call(tool, arguments, id=99)
    message["params"]["requestState"] = result["requestState"]
    if answers is not None:
        message["params"]["inputResponses"] = {
            key: {"action": "accept", "content": value} for key, value in answers.items()
        }
    return message


async def ask(raw: Raw, message: Any, capabilities: Any = ASKABLE) -> dict[str, Any]:
    response = await raw.modern(message, capabilities)
    assert response.status_code == 200, response.text
    if response.headers["content-type"] == "text/event-stream":
        return json.loads(response.text.rstrip().splitlines()[-1].removeprefix("data: "))["result"]
    result: dict[str, Any] = response.json()["result"]
    return result


async def test_each_round_says_what_is_open_and_a_replayed_leg_says_the_same(raw: Raw, effects: Effects) -> None:
    with anyio.fail_after(LIMIT):
        first = await ask(raw, call("trip", {"name": "Ann"}))
        assert first["resultType"] == "input_required"
        assert list(first["inputRequests"]) == ["q1"]
        again = retry("trip", {"name": "Ann"}, first, {"q1": {"day": 6}})
        second = await ask(raw, again)
        assert list(second["inputRequests"]) == ["q2"]
        assert list((await ask(raw, again))["inputRequests"]) == ["q2"]
        final = retry("trip", {"name": "Ann"}, second, {"q2": {"seat": "3D"}})
        done = await ask(raw, final)
        assert done["content"][0]["text"] == "Ann: B-63D"
        assert done["resultType"] == "complete"
        assert done["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "wire-sample"
        assert (await ask(raw, final))["content"] == done["content"]
        assert (await ask(raw, again))["content"] == done["content"]
    assert effects == ["book 6 3D"]


async def test_a_state_survives_a_restart(effects: Effects, store_path: Path) -> None:
    async with serving(a_server(effects), store_path) as server, httpx2.AsyncClient(timeout=15) as http:
        first = await ask(Raw(http, server.url), call("trip", {"name": "Ann"}))
    async with serving(a_server(effects), store_path) as server, httpx2.AsyncClient(timeout=15) as http:
        second = await ask(Raw(http, server.url), retry("trip", {"name": "Ann"}, first, {"q1": {"day": 6}}))
    assert list(second["inputRequests"]) == ["q2"]


async def test_an_answer_that_is_missing_is_asked_again(raw: Raw) -> None:
    first = await ask(raw, call("pair"))
    assert sorted(first["inputRequests"]) == ["q1", "q2"]
    second = await ask(raw, retry("pair", {}, first, {"q1": {"day": 1}, "zzz": {"seat": "x"}}))
    assert list(second["inputRequests"]) == ["q2"]
    assert list((await ask(raw, retry("pair", {}, first)))["inputRequests"]) == ["q2"]


async def test_an_answer_that_breaks_the_schema_is_asked_again_with_the_reason(raw: Raw) -> None:
    first = await ask(raw, call("trip", {"name": "Ann"}))
    second = await ask(raw, retry("trip", {"name": "Ann"}, first, {"q1": {"day": 0}}))
    assert "must be at least 1" in second["inputRequests"]["q1"]["params"]["message"]


async def test_an_answer_to_a_closed_question_changes_nothing(raw: Raw) -> None:
    first = await ask(raw, call("trip", {"name": "Ann"}))
    second = await ask(raw, retry("trip", {"name": "Ann"}, first, {"q1": {"day": 6}}))
    await ask(raw, retry("trip", {"name": "Ann"}, first, {"q1": {"day": 7}}))
    done = await ask(raw, retry("trip", {"name": "Ann"}, second, {"q2": {"seat": "1A"}}))
    assert done["content"][0]["text"] == "Ann: B-61A"


async def test_hazard_p2_14_a_question_goes_only_to_a_request_that_declares_it(raw: Raw) -> None:
    first = await ask(raw, call("trip", {"name": "Ann"}))
    bare = await ask(raw, retry("trip", {"name": "Ann"}, first), {})
    assert "inputRequests" not in bare
    assert bare["structuredContent"]["questions"][0]["key"] == "q1"
    assert bare["structuredContent"]["run_id"].startswith("run-")


@pytest.mark.parametrize(
    ("tool", "arguments", "state"),
    [
        ("trip", {"name": "Bob"}, None),
        ("pair", {}, None),
        ("trip", {"name": "Ann"}, "v1.AAAA"),
        ("trip", {"name": "Ann"}, ""),
        ("trip", {"name": "Ann"}, 7),
        ("trip", {"name": "Ann"}, {"a": 1}),
    ],
)
async def test_a_state_that_is_not_for_this_call_is_refused_in_frozen_words(
    raw: Raw, tool: str, arguments: dict[str, Any], state: Any
) -> None:
    first = await ask(raw, call("trip", {"name": "Ann"}))
    message = retry(tool, arguments, {"requestState": first["requestState"] if state is None else state})
    response = await raw.modern(message, ASKABLE)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "Invalid or expired requestState"
    assert response.json()["error"]["code"] == -32602
    assert response.json()["id"] == 99


async def test_a_tampered_state_is_refused(raw: Raw) -> None:
    first = await ask(raw, call("trip", {"name": "Ann"}))
    state = first["requestState"]
    bent = state[:-5] + ("A" if state[-5] != "A" else "B") + state[-4:]
    response = await raw.modern(retry("trip", {"name": "Ann"}, {"requestState": bent}), ASKABLE)
    assert response.json()["error"]["message"] == "Invalid or expired requestState"


async def test_the_state_does_not_grow_and_does_not_show_the_run(raw: Raw) -> None:
    first = await ask(raw, call("trip", {"name": "A" * 5000}))
    assert len(first["requestState"]) < 600
    assert "run-" not in first["requestState"]


# --- closing is cancelling -------------------------------------------------------------------------


async def test_hazard_p2_11_a_closed_request_parks_its_run_and_the_same_state_goes_on(
    server: Server, raw: Raw, effects: Effects, gate: asyncio.Event
) -> None:
    with anyio.fail_after(LIMIT):
        body, headers = enveloped(call("slow", token="t"), ASKABLE)
        async with raw.http.stream("POST", raw.url, json=body, headers=headers) as response:
            progress = await anext(events(response))
            assert progress.message["params"]["progressToken"] == "t"
        await _state(server, RunState.PARKED, gate)
    assert effects == ["waited"]


async def _state(server: Server, state: RunState, gate: asyncio.Event) -> None:
    """Wait for the only run to reach `state`; its step in flight is let go, for it is finished first."""
    while True:
        run = (await server.runs.find(Find()))[0]
        if run.park_asked or run.state is state:
            gate.set()
        if run.state is state:
            return
        await asyncio.sleep(0.02)


async def test_a_hot_call_that_is_closed_is_cancelled(server: Server, raw: Raw, effects: Effects) -> None:
    with anyio.fail_after(LIMIT):
        first = await ask(raw, call("hot"))
        body, headers = enveloped(retry("hot", {}, first), ASKABLE)
        done = await ask(raw, retry("hot", {}, first, {"q1": {"day": 2}}))
    assert done["content"][0]["text"] == "hot accept 2"
    assert effects == ["hot begun", "hot done"]
    del body, headers


async def test_a_stateless_call_that_is_closed_is_cancelled(raw: Raw, effects: Effects, gate: Gate) -> None:
    with anyio.fail_after(LIMIT):
        body, headers = enveloped(call("held", token=1))
        async with raw.http.stream("POST", raw.url, json=body, headers=headers) as response:
            await anext(events(response))
            while not gate.waiting:
                await asyncio.sleep(0.01)
        while gate.waiting:
            await asyncio.sleep(0.01)
        gate.set()
        await raw.modern(call("add", {"a": 1, "b": 1}))
    assert effects == ["held begun", "add"]


async def test_a_drain_hands_the_client_a_state_to_come_back_with(
    server: Server, raw: Raw, effects: Effects, gate: asyncio.Event, store_path: Path
) -> None:
    with anyio.fail_after(LIMIT):
        body, headers = enveloped(call("slow", token="t"), ASKABLE)
        async with raw.http.stream("POST", raw.url, json=body, headers=headers) as response:
            stream = events(response)
            await anext(stream)
            await server.endpoint.drain()
            last = [event async for event in stream][-1].message["result"]
        assert last["resultType"] == "input_required"
        assert "inputRequests" not in last
        gate.set()
        await server.app.drain()
        async with serving(a_server(effects, gate), store_path) as second:
            other = Raw(raw.http, second.url)
            done = await ask(other, retry("slow", {}, last))
    assert done["content"][0]["text"] == "done"
    assert effects == ["waited"]


# --- header rules, removed methods, bad input ------------------------------------------------------


async def test_header_values_lose_the_white_space_around_them(raw: Raw) -> None:
    body, headers = enveloped(call("add", {"a": 1, "b": 2}))
    data = json.dumps(body).encode()
    headers |= {"mcp-name": "  add  ", "host": "127.0.0.1", "content-length": str(len(data)), "connection": "close"}
    host, port = raw.url.removeprefix("http://").removesuffix("/mcp").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"POST /mcp HTTP/1.1\r\n{lines}\r\n".encode() + data)
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b'"structuredContent":{"result":3}' in answer


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"mcp-name": "sub"}, -32020),
        ({"mcp-method": "tools/list"}, -32020),
        ({"mcp-protocol-version": "2031-01-01"}, -32020),
    ],
)
async def test_headers_that_disagree_with_the_body_are_400(raw: Raw, changed: dict[str, str], code: int) -> None:
    body, headers = enveloped(call("add", {"a": 1, "b": 2}))
    response = await raw.http.post(raw.url, json=body, headers={**headers, **changed})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == code


async def test_an_envelope_without_its_headers_is_told_what_is_missing(raw: Raw) -> None:
    body, headers = enveloped(call("add", {"a": 1, "b": 2}))
    del headers["mcp-protocol-version"]
    response = await raw.http.post(raw.url, json=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == -32020


async def test_a_version_that_nobody_serves_is_named_with_those_that_are(raw: Raw) -> None:
    body, headers = enveloped(call("add", {"a": 1, "b": 2}))
    body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2031-01-01"
    response = await raw.http.post(raw.url, json=body, headers={**headers, "mcp-protocol-version": "2031-01-01"})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == -32022
    assert response.json()["error"]["data"]["supported"] == ["2026-07-28"]


@pytest.mark.parametrize(
    "method", ["ping", "initialize", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "nonsense"]
)
async def test_hazard_p2_22_removed_methods_are_404_by_the_wires_version(raw: Raw, method: str) -> None:
    response = await raw.modern(request(method, {}))
    assert response.status_code == 404
    assert response.json()["error"]["code"] == -32601


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_only_post_is_allowed(raw: Raw, method: str) -> None:
    response = await raw.http.request(method, raw.url, headers={"mcp-protocol-version": "2026-07-28"})
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


async def test_hazard_p2_20_an_early_error_of_a_workflow_stays_json(raw: Raw) -> None:
    response = await raw.modern(call("trip", {"wrong": 1}), ASKABLE)
    assert response.headers["content-type"] == "application/json"
    assert response.json()["result"]["isError"] is True


async def test_discover_names_the_server_and_its_versions(raw: Raw) -> None:
    result = (await raw.modern(request("server/discover", {}))).json()["result"]
    assert "2026-07-28" in result["supportedVersions"]


async def test_listening_is_acknowledged_and_ends_gracefully_at_a_drain(server: Server, raw: Raw) -> None:
    body, headers = enveloped(request("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, id="L"))
    with anyio.fail_after(LIMIT):
        async with raw.http.stream("POST", raw.url, json=body, headers=headers) as response:
            stream = events(response)
            assert (await anext(stream)).message["method"] == "notifications/subscriptions/acknowledged"
            await server.endpoint.drain()
            last = [event async for event in stream][-1]
    assert last.message["id"] == "L"
    assert last.message["result"]["resultType"] == "complete"
