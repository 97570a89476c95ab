"""Keeps what the remote is asked to watch equal to what its hosts watch, on each connection anew."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import anyio
import structlog
from mcp import MCPError
from mcp.client.subscriptions import Subscription, SubscriptionLost
from mcp_types import (
    METHOD_NOT_FOUND,
    EmptyResult,
    SubscribeRequest,
    SubscribeRequestParams,
    UnsubscribeRequest,
    UnsubscribeRequestParams,
)

from milepost.client import Client
from milepost.connect.changes import Changes
from milepost.connect.remote import is_modern

log = structlog.get_logger("milepost")

_FIRST_PAUSE, _LAST_PAUSE = 0.5, 30.0
"""Between two tries to listen: doubled each time."""


class Watching:
    """For one remote. Lists are listened to where it says that they change; resources where a host watches them."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._client: Client | None = None
        self._there: set[str] = set()
        self._changed = asyncio.Event()
        self._lock = asyncio.Lock()
        changes.on_watched = self.sync

    async def attend(self, client: Client) -> None:
        """Watch over this connection. Ends by being cancelled."""
        self._client, self._there = client, set()
        try:
            if is_modern(client):
                await self._listen(client)
            with contextlib.suppress(MCPError):  # one resource that is gone must not cost the others their connection
                await self.sync()
            await asyncio.Event().wait()
        finally:
            self._client = None

    async def sync(self) -> None:
        """The set of watched resources has changed. Raises the remote's MCPError where it won't have one watched."""
        client = self._client
        self._changed.set()
        if client is None or is_modern(client):
            return
        async with self._lock:
            wanted = self._changes.watched
            for uri in self._there - wanted:
                self._there.discard(uri)
                with contextlib.suppress(MCPError):
                    await client.session.send_request(
                        UnsubscribeRequest(params=UnsubscribeRequestParams(uri=uri)), EmptyResult
                    )
            for uri in wanted - self._there:
                await client.session.send_request(SubscribeRequest(params=SubscribeRequestParams(uri=uri)), EmptyResult)
                self._there.add(uri)

    # --- the modern era --------------------------------------------------------------------------------

    async def _listen(self, client: Client) -> None:
        pause = _FIRST_PAUSE
        while True:
            self._changed.clear()
            wanted = self._filter(client)
            if not any(wanted.values()):
                await self._changed.wait()
                continue
            try:
                async with client.listen(**wanted) as subscription:
                    pause = _FIRST_PAUSE
                    await self._until_changed(subscription)
                    continue
            except (MCPError, SubscriptionLost, TimeoutError) as exc:
                if isinstance(exc, MCPError) and exc.code == METHOD_NOT_FOUND:
                    await self._changed.wait()
                    continue
                log.info("the remote's changes are not heard of for a while", reason=str(exc))
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE)
            await self._changes.all_lists()  # what changed meanwhile, nobody heard

    def _filter(self, client: Client) -> dict[str, Any]:
        told = client.server_capabilities
        return {
            "tools_list_changed": told.tools is not None and bool(told.tools.list_changed),
            "prompts_list_changed": told.prompts is not None and bool(told.prompts.list_changed),
            "resources_list_changed": told.resources is not None and bool(told.resources.list_changed),
            "resource_subscriptions": sorted(self._changes.watched),
        }

    async def _until_changed(self, subscription: Subscription) -> None:
        """Listen until other things are to be watched. (What is heard comes by the client's message handler, too.)

        Raises SubscriptionLost.
        """
        lost: list[SubscriptionLost] = []

        async def drain() -> None:
            try:
                async for _ in subscription:
                    pass
            except SubscriptionLost as exc:
                lost.append(exc)
            else:
                lost.append(SubscriptionLost("the server ended the stream"))
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(drain)
            await self._changed.wait()
            group.cancel_scope.cancel()
        if lost:
            raise lost[0]
