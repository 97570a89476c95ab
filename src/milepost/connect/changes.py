"""What a remote says to nobody's request: lists that changed, resources that were updated. All hosts are told.

Handshake-era hosts get it on their session's own stream, modern ones through `subscriptions/listen`. Such messages say
no more than "look again", so one too many does no harm and one that is lost costs freshness, never truth.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import mcp_types as types
from mcp.server.session import ServerSession
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)
from mcp.shared.subscriptions import event_from_wire, event_to_notification

from milepost.connect.hosts import Context, served
from milepost.wire.dispatch import speaking

MAX_SESSIONS = 1000
"""Sessions of hosts that are told of changes: as many as the wire keeps warm. The longest silent one goes first."""

MAX_WATCHED = 1000
"""Resources watched for all hosts together: each is a subscription that the remote has to keep too."""

LISTS: tuple[ServerEvent, ...] = (ToolsListChanged(), PromptsListChanged(), ResourcesListChanged())


class Changes:
    """Who is to be told what."""

    def __init__(self) -> None:
        self.bus = InMemorySubscriptionBus()
        self._sessions: OrderedDict[str, ServerSession] = OrderedDict()
        self._watchers: dict[str, dict[object, ServerSession | None]] = {}
        self.on_watched: Callable[[], Awaitable[None]] | None = None
        """Called when the set of watched resources has changed."""

    def know(self, ctx: Context) -> None:
        """A handshake-era host is there. (A modern one is told through the streams that it opens.)"""
        call: Any = speaking.get()
        session = call.stream.session if call is not None else None
        if session is not None:
            self._sessions[session] = ctx.session
            self._sessions.move_to_end(session)
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)

    # --- resources that hosts watch ------------------------------------------------------------------

    @property
    def watched(self) -> frozenset[str]:
        """The URIs that at least one host watches."""
        return frozenset(self._watchers)

    async def watch(self, uri: str, by: object, session: ServerSession | None) -> None:
        """`by` watches a resource; it is told over `session`, or (None) over the bus. Raises ValueError: too many."""
        if uri not in self._watchers and len(self._watchers) >= MAX_WATCHED:
            raise ValueError(f"{MAX_WATCHED} resources are watched already: unsubscribe from some")
        fresh = uri not in self._watchers
        self._watchers.setdefault(uri, {})[by] = session
        if fresh:
            await self._tell_watched()

    async def unwatch(self, uri: str, by: object) -> None:
        watchers = self._watchers.get(uri, {})
        watchers.pop(by, None)
        if uri in self._watchers and not watchers:
            del self._watchers[uri]
            await self._tell_watched()

    async def _tell_watched(self) -> None:
        if self.on_watched is not None:
            await self.on_watched()

    # --- telling -------------------------------------------------------------------------------------

    async def notified(self, notification: types.ServerNotification) -> None:
        """A notification of the remote. What belongs to a call is its callbacks' affair."""
        body = notification.model_dump(by_alias=True, mode="json", exclude_none=True)
        event = event_from_wire(body["method"], body.get("params"))
        if event is not None:
            await self.publish(event)
        elif isinstance(notification, types.ElicitCompleteNotification) or (
            isinstance(notification, types.LoggingMessageNotification) and served() is None
        ):
            await self._to_sessions(notification, self._sessions.values())

    async def publish(self, event: ServerEvent) -> None:
        await self.bus.publish(event)
        told: Any = self._sessions.values()
        if isinstance(event, ResourceUpdated):
            told = [session for session in self._watchers.get(event.uri, {}).values() if session is not None]
        await self._to_sessions(event_to_notification(event, {}), told)

    async def all_lists(self) -> None:
        """Everything may have changed unseen."""
        for event in LISTS:
            await self.publish(event)

    async def _to_sessions(self, notification: types.ServerNotification, sessions: Any) -> None:
        for session in list(sessions):
            with contextlib.suppress(Exception):  # its host is gone: that is its own affair
                await session.send_notification(notification)


class Listening(ListenHandler):
    """`subscriptions/listen` of modern hosts: what they want to hear of resources, the remote is asked for."""

    def __init__(self, changes: Changes) -> None:
        super().__init__(changes.bus)
        self._changes = changes

    async def __call__(
        self, ctx: Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        uris = params.notifications.resource_subscriptions or ()
        mine = object()
        try:
            for uri in uris:
                await self._changes.watch(uri, mine, None)
            return await super().__call__(ctx, params)
        finally:
            for uri in uris:
                await self._changes.unwatch(uri, mine)
