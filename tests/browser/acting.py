"""A server of either era with one tool, `act`, which does what the test says; and a page that calls it."""

from __future__ import annotations

from typing import Any

from browser.conftest import Tab
from browser.peer import Asked, Out, Peer, discovered, tools

HASTE = {"first": 5, "longest": 20, "deadline": 60_000}


SHORT = HASTE | {"budget": 3}


SMALL = 64 * 1024
"""The message limit of these tests, in characters."""


def modern(peer: Peer, call: Any, **listed: Any) -> None:
    """A modern server with the tool `act`, which does what the test says."""

    async def script(asked: Asked, out: Out) -> None:
        if asked.rpc == "server/discover":
            await out.result(asked, discovered())
        elif asked.rpc == "tools/list":
            await out.result(asked, tools("act", **listed))
        elif asked.rpc == "tools/call":
            await call(asked, out)
        else:
            await out.text(404)

    peer.script = script


def handshake(peer: Peer, call: Any, session: str = "s-1", **listed: Any) -> None:
    """One of the handshake era. `call` gets tools/call, and whatever has no method of its own (GET, answers)."""

    async def script(asked: Asked, out: Out) -> None:
        if asked.rpc == "server/discover":
            await out.json({"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "no session"}}, 400)
        elif asked.rpc == "initialize":
            about = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "p", "version": "1"}}
            await out.result(asked, about, {"mcp-session-id": session})
        elif asked.rpc == "tools/list":
            await out.result(asked, tools("act", **listed))
        elif asked.rpc.startswith("notifications/"):
            await out.text(202)
        else:
            await call(asked, out)

    peer.script = script


async def acted(page: Tab, **options: Any) -> Any:
    """Connect and call `act`. Returns the outcome."""
    started = await page.start(**{"retry": SHORT, "message": SMALL, **options})
    if "error" in started:
        return started
    await page.call("act")
    return await page.outcome()


def text(outcome: Any) -> Any:
    assert "result" in outcome, outcome
    return outcome["result"]["content"][0]["text"]
