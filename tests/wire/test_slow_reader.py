"""Fault F16: a client that reads slowly, or not at all, costs the server bounded memory and makes nobody wait."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import psutil
import pytest
from mcp import Client

from processes import ServerProcess, served

LINES = 2000
"""Of 4 KB each: 8 MB for the one who doesn't read, far more than all sockets and buffers between hold."""
BOUND = 60.0


def deaf_call(server: ServerProcess, lines: int) -> socket.socket:
    """A modern call over a connection of its own, of which nobody reads the answer."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/logLevel": "info",
    }
    params = {"name": "chatter", "arguments": {"lines": lines}, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    head = (
        f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
        "Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n"
        f"Mcp-Method: tools/call\r\nMcp-Name: chatter\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    deaf = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.sendall(head.encode() + body)
    return deaf


async def test_a_client_that_reads_nothing_holds_bounded_memory_and_slows_no_one(tmp_path: Path) -> None:
    async with served("tests/wire/chatter.py:mcp", tmp_path) as server, Client(server.url) as client:
        assert server.process is not None
        process = psutil.Process(server.process.pid)
        warm = [deaf_call(server, 50) for _ in range(4)]
        await finished(client, len(warm))
        before = process.memory_info().rss
        deaf = [deaf_call(server, LINES) for _ in range(4)]
        await finished(client, len(warm) + len(deaf))
        grown = process.memory_info().rss - before
        for connection in [*warm, *deaf]:
            connection.close()
    assert grown < 16 * 2**20, f"{grown / 2**20:.1f} MiB for 32 MB that nobody reads"


async def finished(client: Client, runs: int) -> None:
    """Until so many runs are finished; meanwhile another client's calls are answered, one after the other."""
    async with asyncio.timeout(BOUND):
        while await ended(client) < runs:
            answer = await client.call_tool("add", {"a": 1, "b": 2})
            assert answer.structured_content == {"result": 3}


async def ended(client: Client) -> int:
    answer = await client.call_tool("ended", {})
    assert answer.structured_content is not None
    return int(answer.structured_content["result"])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
