"""What is no message, too much of one, or from the wrong place: each a clear error, and nothing is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wire.serving import BOTH, Raw, call, request

pytestmark = pytest.mark.anyio

DEEP = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"\xff\xfe", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":NaN}}', -32700),
        (DEEP, -32700),
        (b"[]", -32600),
        (json.dumps([request("ping"), request("ping")]).encode(), -32600),
        (b"7", -32600),
        (b'"text"', -32600),
        (b'{"id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":7}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}', -32600),
        (b'{"jsonrpc":"2.0","id":1}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}', -32600),
    ],
)
@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
async def test_what_is_no_message_is_400_with_a_json_rpc_error(raw: Raw, body: bytes, code: int, version: str) -> None:
    response = await raw.post(body, **{"mcp-protocol-version": version})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == code
    assert response.json()["error"]["message"]


@pytest.mark.parametrize("declared", [True, False])
async def test_five_mebibytes_are_413_and_the_session_lives_on(raw: Raw, declared: bool) -> None:
    await raw.open()
    body = json.dumps(call("add", {"a": 1, "b": 2, "c": "x" * (5 << 20)})).encode()

    async def chunks() -> Any:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    response = await raw.http.post(raw.url, content=body if declared else chunks(), headers=raw._headers())
    assert response.status_code == 413
    assert "4194304 bytes" in response.json()["error"]["message"]
    assert (await raw.post(call("add", {"a": 1, "b": 2}))).status_code == 200


async def test_a_foreign_host_is_421_and_a_foreign_origin_403(raw: Raw) -> None:
    assert (await raw.post(request("ping"), host="evil.example")).status_code == 421
    assert (await raw.post(request("ping"), origin="https://evil.example")).status_code == 403
    assert (await raw.post(request("ping"), origin="http://localhost:3000")).status_code == 200


async def test_another_media_type_is_415_and_an_accept_that_lacks_one_406(raw: Raw) -> None:
    assert (await raw.post(request("ping"), **{"content-type": "text/plain"})).status_code == 415
    assert (await raw.post(request("ping"), **{"content-type": "application/json; charset=utf-8"})).status_code == 200
    assert (await raw.post(request("ping"), accept="application/json")).status_code == 406
    assert (await raw.post(request("ping"), accept="*/*")).status_code == 200
    assert (await raw.post(request("ping"), accept=BOTH.upper())).status_code == 200


async def test_an_unknown_tool_and_wrong_arguments_are_answered_in_words(raw: Raw) -> None:
    await raw.open()
    unknown = (await raw.post(call("nonsense"))).json()
    assert "nonsense" in json.dumps(unknown)
    wrong = (await raw.post(call("add", {"a": "x"}))).json()
    assert wrong["result"]["isError"] is True


async def test_an_unknown_run_is_not_continued(raw: Raw) -> None:
    await raw.open()
    for run_id in ("run-" + "0" * 32, "nonsense", None, 7):
        refused = await raw.post(call("continue_run", {"run_id": run_id, "answers": {}}))
        assert refused.status_code == 400
        assert "no run" in refused.json()["error"]["message"]
