"""LangGraph: the server's questions become interrupts of the graph. It shares an environment with Milepost.

    python with_langgraph.py http://127.0.0.1:8000/mcp CONVERSATION

An interrupt ends the tool in the middle of its call, and on `Command(resume=...)` LangGraph runs the tool from its top.
So the call is left (not cancelled), and made again under the same call id: the server, which must be Milepost, gives it
the same run, which asks only what is still open. That needs no memory of this process: kill it, and start it again.
CONVERSATION names the thread. It must be hard to guess, for the call id is made from it, and leads to the run.
"""

import asyncio
import hashlib
import sys
from contextvars import ContextVar
from typing import Annotated, Any

import anyio
from langchain.agents import create_agent
from langchain_core.tools import InjectedToolArg, StructuredTool
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command, interrupt
from mcp.types import ElicitResult
from person import ask
from stand_ins.langgraph import Scripted

from milepost.client import Client

calling: ContextVar["Calling"] = ContextVar("calling")


class Calling:
    """One try of a tool: the answers so far, and the question that it stopped at."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers, self.question, self.scope = answers, {}, anyio.CancelScope()


async def answer(context: Any, params: Any) -> ElicitResult:
    call, key = calling.get(), context.meta["milepost/question"]  # callbacks run with the context of their own call
    if key not in call.answers:
        call.question = {"key": key, "message": params.message, "schema": params.requested_schema}
        call.scope.cancel()
        await anyio.sleep_forever()
    return ElicitResult(action="accept", content=call.answers[key])


def tool_of(client: Client, one: Any) -> StructuredTool:
    async def run(runtime: Annotated[Any, InjectedToolArg()] = None, **arguments: Any) -> Any:
        thread = runtime.config["configurable"]["thread_id"]
        call_id = hashlib.sha256(f"{thread}/{runtime.tool_call_id}".encode()).hexdigest()
        answers: dict[str, Any] = {}
        while True:
            call = Calling(answers)
            calling.set(call)
            with call.scope:
                result = await client.call_tool(one.name, arguments, meta={"milepost/call_id": call_id})
                return [part.model_dump() for part in result.content]
            while call.question["key"] not in answers:  # the graph gives earlier answers first, then stops here
                answers.update(interrupt(call.question))

    return StructuredTool(name=one.name, description=one.description, args_schema=one.input_schema, coroutine=run)


async def main(url: str, conversation: str) -> None:
    async with (
        Client(url, elicitation_callback=answer) as client,
        AsyncSqliteSaver.from_conn_string("graph.db") as saver,
    ):
        client.leave()  # a call that is abandoned is left to be gone on with
        tools = [tool_of(client, one) for one in (await client.list_tools()).tools]
        agent = create_agent(Scripted(), tools, checkpointer=saver)  # create_agent("openai:gpt-5.2", ...) in real life
        thread: Any = {"configurable": {"thread_id": conversation}}
        if not (await agent.aget_state(thread)).values:
            await agent.ainvoke({"messages": [("user", "Please refund QK7P2M.")]}, thread)
        while (state := await agent.aget_state(thread)).next:
            # No interrupt, and yet not at its end: the process that ran it died in the middle of a step.
            await agent.ainvoke(await resumption(state.interrupts[0]) if state.interrupts else None, thread)
        print(state.values["messages"][-1].content)


async def resumption(stopped: Any) -> Command[Any]:
    content = await ask(stopped.value["message"], stopped.value["schema"])
    return Command(resume={stopped.id: {stopped.value["key"]: content}})


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
