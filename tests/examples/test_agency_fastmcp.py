"""An unchanged FastMCP server, made durable by `milepost.toml` alone: both eras, and kill -9 in its conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.types import ElicitResult

from processes import ROOT, ServerProcess, served

AGENCY = ROOT / "examples" / "agency_fastmcp"
LIMIT = 45.0


class Person:
    """Takes what is in its list, one value per question; kills the server at one of them."""

    def __init__(self, server: ServerProcess, values: list[str], kill_at: int) -> None:
        self.asked: list[str] = []
        self._server = server
        self._values = values
        self._kill_at = kill_at

    async def __call__(self, context: Any, params: Any) -> ElicitResult:
        self.asked.append(params.message)
        if len(self.asked) == self._kill_at:
            await self._server.restart()
        (field,) = params.requested_schema["properties"]
        return ElicitResult(action="accept", content={field: self._values[len(self.asked) - 1]})


@pytest.mark.timeout(120)
@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_an_unchanged_tool_is_asked_on_and_holds_once_after_its_server_was_killed(
    era: str, tmp_path: Path
) -> None:
    desk = tmp_path / "desk.jsonl"
    env = {"AGENCY_DESK": str(desk), "MILEPOST_HTTP_RETRY": "4s"}
    async with served("server.py:mcp", tmp_path, cwd=AGENCY, env=env) as server:
        person = Person(server, ["Vienna", "coffee houses", "yes"], kill_at=3)
        with anyio.fail_after(LIMIT):
            async with Client(server.url, mode=era, elicitation_callback=person) as client:
                result = await client.call_tool("plan_trip", {"people": 2})
    assert result.content[0].text == "Vienna: coffee houses for 2, hold 1."  # type: ignore[union-attr]
    assert desk.read_text().splitlines() == ['{"tour": "coffee houses", "people": 2}']
    assert len(person.asked) == 3
