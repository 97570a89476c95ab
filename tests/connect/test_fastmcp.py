"""A FastMCP server behind the proxy: it asks in the middle of a tool, which only the handshake era can carry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp.types import ElicitResult

from connect.running import HOSTS, LIMIT, WIRES, stock, through

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize("mode", HOSTS)
@pytest.mark.parametrize("wire", WIRES)
async def test_a_fastmcp_server_asks_a_host_of_either_era(wire: str, mode: str, tmp_path: Path) -> None:
    asked: list[str] = []

    async def four(context: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content={"value": 4})

    options: dict[str, Any] = {"mode": "legacy" if mode == "legacy" else "auto", "elicitation_callback": four}
    with anyio.fail_after(LIMIT * 2):
        async with (
            stock("fast_shop.py", tmp_path) as remote,
            through(wire, tmp_path, remote.url, "--era", "handshake", **options) as client,
        ):
            assert client.server_info is not None
            assert client.server_info.name == "fast-shop"
            said = [await client.call_tool("order", {})]
            await remote.restart()
            assert (await client.call_tool("add", {"a": 2, "b": 3})).structured_content == {"result": 5}
            await remote.restart()
            said.append(await client.call_tool("order", {}))
    assert [result.content[0].text for result in said if isinstance(result.content[0], types.TextContent)] == [
        "ordered 4",
        "ordered 4",
    ]
    assert asked == ["How many?"] * 2
    assert remote.wrote == ["ordered 4"] * 2
