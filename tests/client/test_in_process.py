"""A server that is no URL: the SDK's own link, with rounds, events of questions and the journal above it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp.server import Server

from client.talking import Person, question, text_of
from milepost.client import Client, unfinished
from milepost.client.events import Answered, Finished, Question

pytestmark = pytest.mark.anyio


async def call(_: Any, params: types.CallToolRequestParams) -> types.CallToolResult | types.InputRequiredResult:
    if params.input_responses:
        return types.CallToolResult(content=[types.TextContent(type="text", text="done")])
    asked = {"resultType": "input_required", "inputRequests": {"k": question("who?")}, "requestState": "sealed"}
    return types.InputRequiredResult.model_validate(asked)


async def tools(_: Any, params: Any) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[types.Tool(name="look", input_schema={"type": "object"})])


async def test_a_call_that_asked_is_told_of_and_leaves_nothing_pending_when_it_has_ended(tmp_path: Path) -> None:
    journal = f"sqlite:///{tmp_path / 'client.db'}"
    server = Server("desk", on_call_tool=call, on_list_tools=tools)
    person = Person()
    async with Client(server, elicitation_callback=person, journal=journal) as client:
        events = client.events
        assert text_of(await client.call_tool("look", {})) == "done"
        assert client.pending() == []
    assert unfinished(journal) == []
    assert person.asked == ["who?"]
    assert [type(event) async for event in events] == [Question, Answered, Answered, Finished]
