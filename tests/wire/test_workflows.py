"""Workflows over both eras, with the official SDK's client."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.types import CreateMessageResult, ElicitResult, TextContent

from wire.person import Person
from wire.sample import Day, Effects, Seat
from wire.serving import LIMIT, Server, serving

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_workflow_asks_twice_and_books_once(server: Server, effects: Effects, mode: Any) -> None:
    person = Person()
    with anyio.fail_after(LIMIT):
        async with Client(server.url, mode=mode, elicitation_callback=person) as client:
            result = await client.call_tool("trip", {"name": "Ann"})
    assert result.content[0].text == "Ann: B-34A"
    assert person.asked == ["Which day, Ann?", "Which seat?"]
    assert effects == ["book 3 4A"]
    assert result.meta["milepost/run_id"].startswith("run-")


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_questions_asked_side_by_side_go_out_together(server: Server, mode: Any) -> None:
    person = Person()
    with anyio.fail_after(LIMIT):
        async with Client(server.url, mode=mode, elicitation_callback=person) as client:
            result = await client.call_tool("pair", {})
    assert result.content[0].text == "3 4A"
    assert sorted(person.asked) == ["Which day?", "Which seat?"]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_tool_that_asks_without_being_a_workflow_works_hot(server: Server, effects: Effects, mode: Any) -> None:
    person = Person()
    with anyio.fail_after(LIMIT):
        async with Client(server.url, mode=mode, elicitation_callback=person) as client:
            result = await client.call_tool("hot", {})
    assert result.content[0].text == "hot accept 3"
    assert effects == ["hot begun", "hot done"]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_hot_tool_that_gives_up_its_first_question_at_once_can_ask_another(store_path: Path, mode: Any) -> None:
    """The question's call is just being given rows, and must not be given them twice."""
    reached, go_on, person, mcp = asyncio.Event(), asyncio.Event(), Person(), MCPServer("hot")

    @mcp.tool()
    async def impatient(ctx: Context[Any]) -> str:
        first = asyncio.create_task(ctx.elicit("Which seat?", Seat))
        await reached.wait()
        first.cancel()
        await asyncio.wait({first})
        go_on.set()
        second = await ctx.elicit("Which day?", Day)
        return f"{first.cancelled()} {second.action}"

    async with serving(mcp, store_path) as server:
        original = server.runs.store.create

        async def create(*args: Any, **kwargs: Any) -> Any:
            made = await original(*args, **kwargs)
            reached.set()
            await go_on.wait()
            return made

        server.runs.store.create = create
        with anyio.fail_after(LIMIT):
            async with Client(server.url, mode=mode, elicitation_callback=person) as client:
                result = await client.call_tool("impatient", {})
    assert result.content[0].text == "True accept"
    assert person.asked == ["Which day?"]


@pytest.mark.filterwarnings("ignore:The sampling capability is deprecated")
@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_clients_model_is_asked(server: Server, mode: Any) -> None:
    async def sample(context: Any, params: Any) -> CreateMessageResult:
        return CreateMessageResult(role="assistant", content=TextContent(type="text", text="Dear Ann"), model="m")

    with anyio.fail_after(LIMIT):
        async with Client(server.url, mode=mode, sampling_callback=sample) as client:
            result = await client.call_tool("letter", {})
    assert result.content[0].text == "Dear Ann"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_declining_is_an_answer(server: Server, mode: Any, action: Any) -> None:
    person = Person(**{"Which day": ElicitResult(action=action)})
    with anyio.fail_after(LIMIT):
        async with Client(server.url, mode=mode, elicitation_callback=person) as client:
            result = await client.call_tool("trip", {"name": "Ann"})
    assert result.content[0].text == f"no day: {action}"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_an_answer_that_breaks_the_schema_is_asked_again_with_the_reason(server: Server, mode: Any) -> None:
    person = Person(**{"Which day": [{"day": 99}, {"day": 5}]})
    with anyio.fail_after(LIMIT):
        async with Client(server.url, mode=mode, elicitation_callback=person) as client:
            result = await client.call_tool("trip", {"name": "Ann"})
    assert result.content[0].text == "Ann: B-54A"
    assert len(person.asked) == 3
    assert "must be at most 31" in person.asked[1]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_client_that_cannot_be_asked_answers_with_continue_run(server: Server, mode: Any) -> None:
    with anyio.fail_after(LIMIT):
        async with Client(server.url, mode=mode) as client:
            assert "continue_run" in {tool.name for tool in (await client.list_tools()).tools}
            first = await client.call_tool("trip", {"name": "Ann"})
            run_id = first.structured_content["run_id"]
            assert [q["key"] for q in first.structured_content["questions"]] == ["q1"]
            refused = await client.call_tool("continue_run", {"run_id": run_id, "answers": {"q1": {"day": 77}}})
            assert "must be at most 31" in refused.content[0].text
            second = await client.call_tool("continue_run", {"run_id": run_id, "answers": {"q1": {"day": 7}}})
            assert [q["key"] for q in second.structured_content["questions"]] == ["q2"]
            last = await client.call_tool("continue_run", {"run_id": run_id, "answers": {"q2": {"seat": "1C"}}})
    assert last.content[0].text == "Ann: B-71C"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_progress_names_the_stages_and_never_falls(server: Server, mode: Any) -> None:
    seen: list[tuple[float, str | None]] = []

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, message))

    with anyio.fail_after(LIMIT):
        async with Client(server.url, mode=mode, elicitation_callback=Person()) as client:
            await client.call_tool("trip", {"name": "Ann"}, progress_callback=progressed)
    assert "asking" in {message for _, message in seen}
    assert "booking" in {message for _, message in seen}
    if mode == "legacy":
        assert [value for value, _ in seen] == sorted(value for value, _ in seen)
