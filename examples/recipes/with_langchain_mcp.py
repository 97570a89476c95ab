"""langchain-mcp-adapters, through the proxy: it needs mcp<2 and Milepost mcp 2, so each has an environment of its own.

    python with_langchain_mcp.py http://127.0.0.1:8000/mcp     # `milepost` must be on the path

The adapters start `milepost connect URL` as a server of this machine; what becomes of the remote is the proxy's matter.
"""

import asyncio
import sys
from typing import Any

from langchain.agents import create_agent
from langchain_mcp_adapters.callbacks import Callbacks
from langchain_mcp_adapters.sessions import StdioConnection, create_session
from langchain_mcp_adapters.tools import load_mcp_tools
from mcp.types import ElicitResult
from person import ask
from stand_ins.langgraph import Scripted


async def ask_person(mcp_context: Any, params: Any, context: Any) -> ElicitResult:
    return ElicitResult(action="accept", content=await ask(params.message, params.requestedSchema))


async def main(url: str) -> None:
    proxy = StdioConnection(transport="stdio", command="milepost", args=["connect", url])
    callbacks = Callbacks(on_elicitation=ask_person).to_mcp_format(context=Any)
    # One session for the whole conversation: without it the adapters start a new proxy for each call.
    async with create_session(proxy, mcp_callbacks=callbacks) as session:
        await session.initialize()
        agent = create_agent(Scripted(), await load_mcp_tools(session))  # create_agent("openai:gpt-5.2", ...)
        state = await agent.ainvoke({"messages": [("user", "Please refund QK7P2M.")]})
        print(state["messages"][-1].content)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
