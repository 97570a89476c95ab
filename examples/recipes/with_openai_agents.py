"""OpenAI Agents SDK: an `MCPServer` of its own kind, over a Milepost client. It shares an environment with Milepost.

    python with_openai_agents.py http://127.0.0.1:8000/mcp

The SDK's own HTTP server class has no way to be asked something (it declares no elicitation); here the client asks.
"""

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Any

from agents import Agent, Runner
from agents.mcp import MCPServer
from mcp.types import ElicitResult
from person import ask
from stand_ins.openai_agents import Scripted

from milepost.client import Client


async def ask_person(context: Any, params: Any) -> ElicitResult:
    return ElicitResult(action="accept", content=await ask(params.message, params.requested_schema))


class Durable(MCPServer):
    """What an agent takes in `mcp_servers`. All of it goes to the client, which deals with restarts and sessions."""

    def __init__(self, client: Client) -> None:
        super().__init__(failure_error_function=None)  # OutcomeUnknown is for the program, not for the model to retry
        self.client = client
        self.stack = AsyncExitStack()

    name = "travel-ops"

    async def connect(self) -> None:
        await self.stack.enter_async_context(self.client)

    async def cleanup(self) -> None:
        await self.stack.aclose()

    async def list_tools(self, run_context: Any = None, agent: Any = None) -> Any:
        return (await self.client.list_tools()).tools

    async def call_tool(self, tool_name: str, arguments: Any, meta: Any = None) -> Any:
        return await self.client.call_tool(tool_name, arguments, meta=meta)

    async def list_prompts(self) -> Any:
        return await self.client.list_prompts()

    async def get_prompt(self, name: str, arguments: Any = None) -> Any:
        return await self.client.get_prompt(name, arguments)


async def main(url: str) -> None:
    server = Durable(Client(url, elicitation_callback=ask_person, journal="sqlite:///client.db"))
    await server.connect()
    try:
        agent = Agent(name="assistant", model=Scripted(), mcp_servers=[server])  # model="gpt-5.2" in real life
        print((await Runner.run(agent, "Please refund QK7P2M.")).final_output)
    finally:
        await server.cleanup()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
