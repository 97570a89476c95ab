"""A managed runtime's own `Mcp-Session-Id` in the handshake era: served where the setting says so, and kept nowhere."""

from __future__ import annotations

from pathlib import Path

import anyio
import httpx2
import pytest

from milepost.core.outside import Find
from milepost.core.states import RunState
from wire.sample import Effects, a_server
from wire.serving import INIT, LIMIT, Raw, call, request, serving

pytestmark = pytest.mark.anyio
PLATFORMS_ID = "b9f6a3c2-0000-4000-8000-platform-made"


async def test_a_platforms_session_id_is_unknown_unless_the_setting_says_so(raw: Raw) -> None:
    raw.session = PLATFORMS_ID
    refused = await raw.post(call("add", {"a": 1, "b": 2}))
    assert (refused.status_code, refused.json()["id"]) == (404, 1)


async def test_under_a_platforms_session_id_plain_tools_are_served(store_path: Path, effects: Effects) -> None:
    async with (
        serving(a_server(effects), store_path, http={"platform_sessions": True}) as server,
        httpx2.AsyncClient(timeout=15) as http,
    ):
        raw = Raw(http, server.url, session=PLATFORMS_ID)
        with anyio.fail_after(LIMIT):
            opened = await raw.post(request("initialize", INIT, id=0))
            assert opened.headers["mcp-session-id"] == PLATFORMS_ID
            assert opened.json()["result"]["protocolVersion"] == "2025-11-25"
            assert "error" in (await raw.post(request("initialize", {}, id=0))).json()
            assert (await raw.post({"jsonrpc": "2.0", "method": "notifications/initialized"})).status_code == 202
            assert (await raw.post(request("ping"))).json()["result"] == {}
            for _ in range(2):  # without a session nothing tells two calls with one id apart from one sent twice
                answer = await raw.post(call("add", {"a": 1, "b": 2}, id=7))
                assert answer.json()["result"]["structuredContent"] == {"result": 3}
                assert answer.headers["mcp-session-id"] == PLATFORMS_ID
            assert (await http.get(server.url, headers=raw._headers())).status_code == 405
            assert (await http.delete(server.url, headers=raw._headers())).status_code == 405
            own = await Raw(http, server.url).open()
            assert (await own.post(request("ping"))).json()["result"] == {}
            assert own.session != PLATFORMS_ID
        assert effects == ["add", "add"]


async def test_under_a_platforms_session_id_a_workflow_asks_by_its_result(store_path: Path, effects: Effects) -> None:
    """Such a client can't be asked: it is told the question, and answers with `continue_run`."""
    async with (
        serving(a_server(effects), store_path, http={"platform_sessions": True}) as server,
        httpx2.AsyncClient(timeout=15) as http,
    ):
        raw = Raw(http, server.url, session=PLATFORMS_ID)
        with anyio.fail_after(LIMIT):
            assert "Which day, Ann?" in (await raw.post(call("trip", {"name": "Ann"}))).text
            assert "Which day, Ann?" in (await raw.post(call("trip", {"name": "Ann"}))).text
            one, other = await server.runs.find(Find(states={RunState.WAITING}))
            assert one.id != other.id, "the platform's id leads to no run"
            for answer in ({"q1": {"day": 3}}, {"q2": {"seat": "4A"}}):
                told = await raw.post(call("continue_run", {"run_id": one.id, "answers": answer}))
            assert "Ann: B-34A" in told.text
    assert effects == ["book 3 4A"]
