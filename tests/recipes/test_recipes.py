"""Each recipe of docs/client.md, with the real library: a refund of two questions, and a server that is killed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from processes import served
from recipes.conftest import cooking

TARGET = "examples/travel_ops/server.py:mcp"
CLIENT = ["openai_agents", "pydantic_ai", "langgraph"]
"""Those that share an environment with Milepost, and use its client."""
PROXY = ["langchain_mcp", "strands"]
"""Those that can't, and start `milepost connect`."""
MORE = {"langgraph": ["conversation-5d1c8a40"]}
"""What they want to know beside the URL."""


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", [*CLIENT, *PROXY])
async def test_an_agent_gets_its_refund_although_the_server_is_killed_between_a_question_and_its_answer(
    name: str, tmp_path: Path
) -> None:
    ledger = tmp_path / "travel.db"
    async with served(TARGET, tmp_path, env={"TRAVEL_OPS_DB": str(ledger)}) as server:
        async with cooking(name, tmp_path, server.url, *MORE.get(name, ())) as recipe:
            await recipe.until("Why do you ask for a refund?")
            recipe.type("illness")
            await recipe.until("For a supervisor")
            await server.kill()
            recipe.type("approve", "120", "Ada")  # answered while there is nobody to hear it
            await recipe.until("Your name")
            await server.start()
            code = await recipe.ended()
            assert code == 0, recipe.log.read_text()
        assert "refunded" in recipe.all
        assert sum("Refund of trip" in line for line in recipe.said) == 1
        assert sum("For a supervisor" in line for line in recipe.said) == 1
    assert _effects(ledger) == [("pay_refund", 1), ("send_letter", 1)]


@pytest.mark.timeout(200)
async def test_a_graph_goes_on_where_it_was_although_its_own_process_and_the_server_are_killed_at_each_question(
    tmp_path: Path,
) -> None:
    ledger = tmp_path / "travel.db"
    async with served(TARGET, tmp_path, env={"TRAVEL_OPS_DB": str(ledger)}) as server:
        arguments = ("langgraph", tmp_path, server.url, *MORE["langgraph"])
        async with cooking(*arguments) as recipe:
            await recipe.until("Why do you ask for a refund?")
            await recipe.kill()
        await server.restart()
        async with cooking(*arguments) as recipe:
            await recipe.until("Why do you ask for a refund?")
            recipe.type("illness")
            await recipe.until("For a supervisor")
            await recipe.kill()
        await server.restart()
        async with cooking(*arguments) as recipe:
            await recipe.until("For a supervisor")
            recipe.type("approve", "120", "Ada")
            assert await recipe.ended() == 0, recipe.log.read_text()
        assert "refunded" in recipe.all
        assert "Refund of trip" not in recipe.all
    assert _effects(ledger) == [("pay_refund", 1), ("send_letter", 1)]


def _effects(ledger: Path) -> list[tuple[str, int]]:
    with sqlite3.connect(ledger) as db:
        return db.execute("SELECT kind, calls FROM effects ORDER BY n").fetchall()
