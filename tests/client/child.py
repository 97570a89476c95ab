"""A client as a process of its own, which tests kill: calls `arrange` with a journal, or resumes what is in it.

Says on stdout, a line each, what it was asked and how it ended. It answers a question when a line comes on stdin.
"""

from __future__ import annotations

import asyncio
import sys

from mcp.client import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult

from milepost.client import Client, Policy
from milepost.client.events import Reader, Stage

POLICY = Policy(first_delay=0.05, max_delay=0.5, give_up_after=30.0, silence=5.0, quiet=5.0)


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def person(_context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    say("asked", params.message)
    line = await asyncio.to_thread(sys.stdin.readline)
    if not line:
        await asyncio.Event().wait()
    say("answered", params.message)
    return ElicitResult(action="accept", content={"name": line.strip()})


async def tell_stages(events: Reader) -> None:
    async for event in events:
        if isinstance(event, Stage):
            say("stage", event.name, event.mark)


async def main(what: str, url: str, journal: str, mode: str, case: str) -> None:
    async with Client(url, mode=mode, journal=journal, elicitation_callback=person, policy=POLICY) as client:
        marks = asyncio.create_task(tell_stages(client.events))
        if what == "call":
            result = await client.call_tool("arrange", {"case": case})
            say("result", result.content[0].text)  # type: ignore[union-attr]
        elif what == "charge":
            await client.call_tool("charge", {"case": case})
            say("result")
        for ended in await client.resume() if what == "resume" else ():
            say("ended", ended.call.name, type(ended.error).__name__ if ended.error else ended.result.content[0].text)  # type: ignore[union-attr]
        say("pending", len(client.pending()))
    await marks


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
