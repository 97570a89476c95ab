"""Pydantic AI: one tool of the agent for each tool of the server. It shares an environment with Milepost.

    python with_pydantic_ai.py http://127.0.0.1:8000/mcp

`MCPToolset` takes FastMCP's client alone, so the tools are made here: name, description and schema are the server's.
"""

import asyncio
import sys
from typing import Any

from mcp.types import ElicitResult
from person import ask
from pydantic_ai import Agent, ModelRetry, Tool
from stand_ins.pydantic_ai import scripted

from milepost.client import Client


async def ask_person(context: Any, params: Any) -> ElicitResult:
    return ElicitResult(action="accept", content=await ask(params.message, params.requested_schema))


async def tools_of(client: Client) -> list[Tool[None]]:
    return [tool_of(client, one) for one in (await client.list_tools()).tools]


def tool_of(client: Client, one: Any) -> Tool[None]:
    async def call(**arguments: Any) -> Any:
        result = await client.call_tool(one.name, arguments)
        if result.is_error:  # the tool said no: the model may mend its arguments
            raise ModelRetry("\n".join(part.text for part in result.content if part.type == "text"))
        return result.structured_content or [part.model_dump() for part in result.content]

    return Tool.from_schema(call, one.name, one.description, one.input_schema)


async def main(url: str) -> None:
    async with Client(url, elicitation_callback=ask_person, journal="sqlite:///client.db") as client:
        agent = Agent(scripted, tools=await tools_of(client))  # Agent("openai:gpt-5.2", ...) in real life
        print((await agent.run("Please refund QK7P2M.")).output)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
