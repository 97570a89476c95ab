"""Strands Agents, through the proxy: it needs mcp<2.2 and Milepost mcp 2.3, so each has an environment of its own.

    python with_strands.py http://127.0.0.1:8000/mcp     # `milepost` must be on the path

Strands starts `milepost connect URL` as a server of this machine; what becomes of the remote is the proxy's matter.
"""

import sys
from typing import Any

from mcp import StdioServerParameters, stdio_client
from mcp.types import ElicitResult
from person import ask
from stand_ins.strands import Scripted
from strands import Agent
from strands.tools.mcp import MCPClient


async def ask_person(context: Any, params: Any) -> ElicitResult:
    return ElicitResult(action="accept", content=await ask(params.message, params.requested_schema))


def main(url: str) -> None:
    proxy = StdioServerParameters(command="milepost", args=["connect", url])
    with MCPClient(lambda: stdio_client(proxy), elicitation_callback=ask_person) as client:
        agent = Agent(model=Scripted(), tools=client.list_tools_sync(), callback_handler=None)
        print(agent("Please refund QK7P2M."))  # in real life: Agent(model=BedrockModel(...), tools=[...])


if __name__ == "__main__":
    main(sys.argv[1])
