"""`milepost.testing`: what authors test their workflows with, tested the way they would use it."""

from __future__ import annotations

import pytest
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import SamplingMessage, TextContent
from pydantic import BaseModel

from milepost import step, workflow
from milepost.core.errors import CallerError
from milepost.core.states import RunState
from milepost.testing import workbench

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")

mcp = MCPServer("tested")


class Wish(BaseModel):
    day: str
    seats: int = 1


@step
async def book(day: str, seats: int) -> str:
    return f"{seats} on {day}"


@mcp.tool()
@workflow
async def plan(pnr: str, ctx: Context) -> str:
    wish = await ctx.elicit(f"When, for {pnr}?", Wish)
    if wish.action != "accept":
        return wish.action
    booked = await book(wish.data.day, wish.data.seats)
    sure = await ctx.elicit(f"{booked}, sure?", Wish)
    return f"{booked}: {sure.action}"


@mcp.tool()
@workflow
async def letter(ctx: Context) -> str:
    message = SamplingMessage(role="user", content=TextContent(type="text", text="Write"))
    return str((await ctx.session.create_message([message], max_tokens=5)).content.text)


async def test_a_workflow_is_called_answered_restarted_and_looked_at() -> None:
    async with workbench(mcp) as bench:
        trial = await bench.call("plan", pnr="X1")
        assert (await trial.question()).params["message"] == "When, for X1?"
        await trial.answer(day="Monday", seats=2)
        await trial.question()
        await bench.restart()
        assert await trial.steps() == {"book": 1}
        await trial.decline()
        assert await trial.text() == "2 on Monday: decline"
        assert await trial.steps() == {"book": 1}
        assert await trial.asked() == ["When, for X1?", "2 on Monday, sure?"]
    with pytest.raises(RuntimeError, match="closed"):
        _ = bench.runs


async def test_a_wrong_answer_is_refused_with_its_reason() -> None:
    async with workbench(mcp) as bench:
        trial = await bench.call("plan", pnr="X1")
        with pytest.raises(CallerError, match="day"):
            await trial.answer(seats=2)
        await trial.dismiss()
        assert await trial.text() == "cancel"
        with pytest.raises(CallerError, match="it asks nothing: it is completed"):
            await trial.question()


async def test_other_questions_take_a_whole_result_or_an_error() -> None:
    async with workbench(mcp) as bench:
        trial = await bench.call("letter")
        await trial.reply({"role": "assistant", "model": "m", "content": {"type": "text", "text": "Dear"}})
        assert await trial.text() == "Dear"
        trial = await bench.call("letter", capabilities={"elicitation": {}})
        with pytest.raises(CallerError, match="ended with an error"):
            await trial.text()


async def test_waiting_for_the_end_of_a_run_that_asks_says_so() -> None:
    async with workbench(mcp) as bench:
        trial = await bench.call("plan", pnr="X1")
        await trial.question()
        with pytest.raises(CallerError, match="it is not done: it is waiting"):
            await trial.outcome()
        await trial.cancel()
        await trial.outcome()
        assert (await trial.loaded()).run.state is RunState.CANCELLED


async def test_waits_are_bounded() -> None:
    @step
    async def never() -> None:
        import asyncio  # noqa: PLC0415

        await asyncio.Event().wait()

    slow = MCPServer("slow")

    @slow.tool()
    @workflow
    async def hang() -> str:
        await never()
        return "done"

    async with workbench(slow, patience=0.3, engine={"drain_limit": 0.1, "unwind_grace": 0.1}) as bench:
        trial = await bench.call("hang")
        with pytest.raises(TimeoutError, match=r"did not come to rest within 0\.3 s: it is running"):
            await trial.rest()
