"""Servers that are no URL: a child process, and one in this process over the SDK's own link."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from mcp import StdioServerParameters
from mcp.server import MCPServer

from client.talking import MODERN, Person, events_of, text_of
from milepost.client import Client
from milepost.client.events import Answered, Finished, Question, Sent, Stage

pytestmark = pytest.mark.anyio

DESK = Path(__file__).with_name("desk.py")


def child(folder: Path) -> StdioServerParameters:
    milepost = str(Path(sys.executable).with_name("milepost"))
    store = f"sqlite:///{folder / 'milepost.db'}"
    return StdioServerParameters(
        command=milepost,
        args=["serve", f"{DESK}:mcp", "--stdio", "--store", store],
        env={"LEDGER": str(folder / "ledger")},
    )


async def test_a_workflow_over_a_pipe_is_journaled_and_told(tmp_path: Path) -> None:
    person, journal = Person(), f"sqlite:///{tmp_path / 'client.db'}"
    async with (
        Client(child(tmp_path), mode=MODERN, journal=journal, elicitation_callback=person) as client,
        events_of(client) as told,
    ):
        result = await client.call_tool("arrange", {"case": "trip", "questions": 2})
        assert not client.pending()
    assert person.asked == ["trip: question 0?", "trip: question 1?"]
    assert text_of(result).startswith("booked trip answer")
    kinds = [type(event) for event in told if not isinstance(event, Sent | Stage)]
    assert kinds == [Question, Answered, Answered, Question, Answered, Answered, Finished]


async def test_a_server_of_this_process_works_and_has_no_journal() -> None:
    here = MCPServer("here")

    @here.tool()
    def add(a: int, b: int) -> int:
        return a + b

    async with Client(here) as client:
        assert text_of(await client.call_tool("add", {"a": 1, "b": 2})) == "3"
    with pytest.raises(ValueError, match="found again"):
        Client(here, journal="sqlite:///client.db")
