"""The modern era where a client errs, or makes the same call again: each refusal in words, each run once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from milepost.core.outside import Find
from milepost.core.states import RunState
from wire.sample import Effects, a_server
from wire.serving import LIMIT, Raw, call, enveloped, request, serving
from wire.test_modern import ask, retry

pytestmark = pytest.mark.anyio


async def send(raw: Raw, message: dict[str, Any], *more: tuple[str, str], without: str = "") -> httpx2.Response:
    body, headers = enveloped(message)
    kept = [(name, value) for name, value in headers.items() if name != without]
    return await raw.http.post(raw.url, json=body, headers=[*kept, *more])


async def test_notifications_are_acknowledged_and_answers_are_not_taken(raw: Raw) -> None:
    version = {"mcp-protocol-version": "2026-07-28"}
    told = await raw.post({"jsonrpc": "2.0", "method": "notifications/whatever"}, **version)
    assert (told.status_code, told.content) == (202, b"")
    unknown = await raw.post({"jsonrpc": "2.0", "method": "notifications/x"}, **{"mcp-protocol-version": "2099-01-01"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, -32022)
    answer = await raw.post({"jsonrpc": "2.0", "id": 1, "result": {}}, **version)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32600)
    assert "retry the call" in answer.json()["error"]["message"]


async def test_headers_that_are_missing_or_doubled_are_refused_in_words(raw: Raw) -> None:
    adding = call("add", {"a": 1, "b": 2}, id=5)
    picky = await send(raw, adding, ("accept", "application/json"), without="accept")
    assert (picky.status_code, picky.json()["id"]) == (406, 5)
    doubled = await send(raw, adding, ("mcp-method", "tools/list"))
    assert (doubled.status_code, doubled.json()["error"]["code"]) == (400, -32020)
    assert "more than once" in doubled.json()["error"]["message"]


async def test_an_unknown_method_and_a_broken_call_are_the_kernels_to_refuse(raw: Raw) -> None:
    assert (await raw.modern(request("no/such"))).status_code == 404
    broken = await raw.modern(call("add", {"a": "x"}))
    assert broken.json()["result"]["isError"] is True


@pytest.mark.parametrize("choice", ["go on", "start over"])
async def test_the_same_call_after_a_long_break_asks_whether_to_go_on(
    store_path: Path, effects: Effects, choice: str
) -> None:
    """The new run's first question is which of the two to keep; "go on" leads to the earlier one, where it was."""
    ann = {"name": "Ann"}
    async with (
        serving(a_server(effects), store_path, single_user=True, engine={"reattach_window": 0}) as server,
        httpx2.AsyncClient(timeout=15) as http,
    ):
        raw = Raw(http, server.url)
        with anyio.fail_after(LIMIT):
            first = await ask(raw, call("trip", ann))
            second = await ask(raw, retry("trip", ann, first, {"q1": {"day": 6}}))
            assert list(second["inputRequests"]) == ["q2"]
            again = await ask(raw, call("trip", ann, id=2))
            (asked,) = again["inputRequests"].values()
            assert "was left unfinished. Answered so far: Which day, Ann? -> day: 6" in asked["params"]["message"]
            kept = await ask(raw, retry("trip", ann, again, {"q1": {"choice": choice}}))
            if choice == "start over":
                assert kept["inputRequests"]["q2"]["params"]["message"] == "Which day, Ann?"
                kept = await ask(raw, retry("trip", ann, kept, {"q2": {"day": 7}}))
            (question,) = kept["inputRequests"]
            assert kept["inputRequests"][question]["params"]["message"] == "Which seat?"
            done = await ask(raw, retry("trip", ann, kept, {question: {"seat": "3D"}}))
            assert done["content"][0]["text"] == f"Ann: B-{6 if choice == 'go on' else 7}3D"
        runs = await server.runs.find(Find(states={RunState.COMPLETED, RunState.CANCELLED}))
    assert len(runs) == 2
    assert len(effects) == 1
