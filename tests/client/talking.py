"""Clients as the tests use them, and the people behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp.client import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult, TextContent

from client.peer import Peer
from milepost.client import Client, Policy
from milepost.client.events import Event
from milepost.client.origins import Origins

MODERN, LEGACY = "2026-07-28", "legacy"


@dataclass
class Person:
    """Answers what it is asked, and remembers each time."""

    asked: list[str] = field(default_factory=list)
    ready: anyio.Event | None = None
    """Answers only once it is set."""
    being_asked: anyio.Event = field(default_factory=anyio.Event)

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        self.asked.append(params.message)
        self.being_asked.set()
        if self.ready is not None:
            await self.ready.wait()
        return ElicitResult(action="accept", content={"name": f"answer to {params.message}"})


@asynccontextmanager
async def client_of(
    peer: Peer | str, policy: Policy, origins: Origins | None = None, mode: str = MODERN, **more: Any
) -> AsyncIterator[Client]:
    url = peer if isinstance(peer, str) else peer.url
    async with Client(url, mode=mode, policy=policy, origins=origins or Origins(), **more) as client:
        yield client


@asynccontextmanager
async def events_of(client: Client) -> AsyncIterator[list[Event]]:
    """A list that the client's events are put into, as they come."""
    seen: list[Event] = []
    reader = client.events

    async def read() -> None:
        async for event in reader:
            seen.append(event)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        yield seen
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()


def text_of(result: Any) -> str:
    block = result.content[0]
    assert isinstance(block, TextContent)
    return block.text


def question(message: str, wire_id: Any = None, **meta: str) -> dict[str, Any]:
    """An elicitation, as a request on a stream (with a wire id) or as one of a round."""
    params: dict[str, Any] = {
        "message": message,
        "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
    }
    if meta:
        params["_meta"] = {f"milepost/{key}": value for key, value in meta.items()}
    asked = {"method": "elicitation/create", "params": params}
    return asked if wire_id is None else {"jsonrpc": "2.0", "id": wire_id, **asked}
