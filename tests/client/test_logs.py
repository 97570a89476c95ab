"""What a client says in a program that has set no logging up: nothing on stdout, and no local variables."""

from __future__ import annotations

import asyncio
import sys

import pytest

from client import peer as wire
from client.peer import Peer
from client.talking import question
from client.test_handshake import ANSWER

pytestmark = pytest.mark.anyio

PROGRAM = """
import asyncio, sys
from milepost.client import Client

async def ask(context, params):
    answer = "my" + "secret"
    raise ValueError("the form is broken")

async def main():
    async with Client(sys.argv[1], mode="legacy", elicitation_callback=ask) as client:
        await client.call_tool("look")

asyncio.run(main())
"""


async def test_a_program_that_set_no_logging_up_hears_of_trouble_on_stderr_without_what_was_answered(
    peer: Peer,
) -> None:
    async def asks(connection: wire.Connection) -> None:
        await connection.head(200, "content-type: text/event-stream")
        await connection.chunk(wire.frame(question("who?", "q1")))
        await peer.until("answer")
        await connection.chunk(wire.frame({"jsonrpc": "2.0", "id": connection.seen.id, "result": ANSWER}))
        await connection.end()

    peer.on("tools/call", asks)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, peer.url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(50):
        out, err = await process.communicate()
    assert (process.returncode, out) == (0, b""), err
    assert b"a callback failed on a question method='elicitation/create'\nTraceback" in err
    assert b"ValueError: the form is broken" in err
    assert b"mysecret" not in err
