"""The remote's mirror: a low-level server of the SDK that has nothing of its own, and forwards everything.

What it says of itself is what the remote says of itself. Its results, errors and `_meta` are the remote's. Milepost
hosts it as a server whose tools are known only once it runs and may all ask (`unlisted_may_ask`), so that a question of
the remote reaches its host as that host's era wants it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mcp_types as types
import structlog
from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult
from mcp.server.lowlevel import Server
from mcp.server.lowlevel.server import HandlerEntry
from mcp.server.models import InitializationOptions
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from milepost.client import Client
from milepost.connect import seen as seen_file
from milepost.connect.changes import Changes, Listening
from milepost.connect.forward import Forward, forget_old, has_lanes
from milepost.connect.hosts import Context, Hosts, declared_by
from milepost.connect.places import name_of
from milepost.connect.remote import FIRST_PATIENCE, PATIENCE, Door, Remote, Wants
from milepost.connect.seen import Seen
from milepost.connect.watching import Watching

log = structlog.get_logger("milepost")


class Mirror(Server[Any]):
    """The remote, as its hosts see it. The connections to it live as long as this server's lifespan."""

    def __init__(self, door: Door, seen: Path | None = None, *, one_host: bool = False) -> None:
        """`seen`: the file in which what the remote says of itself is remembered. `one_host`: on a pipe."""
        super().__init__(f"connect-{name_of(door.url)}", lifespan=_lifespan)  # the name is for our own use
        self._door = door
        self._one_host = one_host
        self._file = seen
        known = seen_file.remembered(seen)
        self._seen = known or Seen.nothing(door.url)
        self.on_by_hand: Callable[[bool], None] = lambda _: None
        """Called when it is known whether the remote has a `continue_run` of its own."""
        self._looked = False
        self._guessed = False
        """A host was told what may not be so: it is told to look again, once the remote is there."""
        self._remotes: dict[Wants, Remote] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changes = Changes()
        self._watching = Watching(self._changes)
        self._forward = Forward(self._changes, self.client, lambda: list(self._remotes.values()))
        self.middleware.append(self._noticing)
        self._serve()

    def _serve(self) -> None:
        forward = self._forward
        self.add_request_handler("server/discover", types.RequestParams, self._discover)
        self.add_request_handler("tools/call", types.CallToolRequestParams, forward.call)
        self.add_request_handler("tools/list", types.PaginatedRequestParams, forward.list_tools)
        self.add_request_handler("prompts/get", types.GetPromptRequestParams, forward.get_prompt)
        self.add_request_handler("resources/read", types.ReadResourceRequestParams, forward.read_resource)
        self.add_request_handler("resources/subscribe", types.SubscribeRequestParams, forward.subscribe)
        self.add_request_handler("resources/unsubscribe", types.UnsubscribeRequestParams, forward.unsubscribe)
        self.add_request_handler("logging/setLevel", types.SetLevelRequestParams, forward.set_level)
        self.add_request_handler(
            "subscriptions/listen", types.SubscriptionsListenRequestParams, Listening(self._changes)
        )
        self.add_notification_handler(
            "notifications/roots/list_changed", types.NotificationParams, forward.roots_changed
        )

    def get_request_handler(self, method: str) -> HandlerEntry[Any] | None:
        """Anything that isn't known here is the remote's to know."""
        return super().get_request_handler(method) or HandlerEntry(types.RequestParams, self._forward.anything)

    # --- what the remote is ------------------------------------------------------------------------------

    @property
    def server_info(self) -> types.Implementation:
        return self._seen.info

    @property
    def server_info_stamp(self) -> dict[str, Any]:
        return self._seen.info.model_dump(by_alias=True, mode="json", exclude_none=True)

    def create_initialization_options(self, *_: Any, **__: Any) -> InitializationOptions:
        info = self._seen.info
        return InitializationOptions(
            server_name=info.name,
            server_version=info.version,
            title=info.title,
            description=info.description,
            capabilities=self._seen.capabilities,
            instructions=self._seen.instructions,
            website_url=info.website_url,
            icons=info.icons,
        )

    async def _discover(self, ctx: Context, params: types.RequestParams) -> types.DiscoverResult:
        await self._look(Wants.of(declared_by(ctx)))
        return types.DiscoverResult(
            supported_versions=list(MODERN_PROTOCOL_VERSIONS),
            capabilities=self._seen.capabilities,
            instructions=self._seen.instructions,
        )

    async def _noticing(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Before a handshake is answered, the remote is given a moment to say what it is."""
        if ctx.method == "initialize":
            await self._look(_declared(ctx.params))
        elif ctx.request_id is not None:
            self._changes.know(ctx)
        return await call_next(ctx)

    async def _look(self, wants: Wants) -> None:
        try:
            async with asyncio.timeout(2 * FIRST_PATIENCE):
                await self._client(wants, FIRST_PATIENCE)
        except (MCPError, TimeoutError) as away:
            self._guessed = True
            log.warning("a host is told what was last known of the remote", reason=str(away) or "it is slow")

    # --- the connections -----------------------------------------------------------------------------------

    async def client(self, ctx: Context) -> tuple[Client, Hosts]:
        """The client for a host's request, and those who wait for it. Raises Away."""
        return await self._client(Wants.of(declared_by(ctx)))

    async def _client(self, wants: Wants, patience: float = PATIENCE) -> tuple[Client, Hosts]:
        """A host that can't be asked is given to a remote that knows what to do, if that is Milepost: what it holds is
        safer there than in the memory of this process. For any other remote, we do it."""
        remote = self.remote(replace(wants, forms=True))
        client = await remote.client(patience)
        if not wants.forms and await self._answers_by_hand(client):
            remote = self.remote(wants)
            client = await remote.client(patience)
        return client, remote.hosts

    async def _answers_by_hand(self, client: Client) -> bool:
        """Whether the remote says of a tool how it is served: only Milepost does. Looked at once for a connection."""
        if not self._looked:
            by_hand = await has_lanes(client)
            self._looked = True
            self._remember(self._seen.model_copy(update={"by_hand": by_hand}))
        return self._seen.by_hand

    @property
    def by_hand(self) -> bool:
        """Whether the remote has a `continue_run` of its own."""
        return self._seen.by_hand

    def _remember(self, seen: Seen) -> None:
        self._seen = seen
        seen_file.remember(self._file, seen)
        self.on_by_hand(seen.by_hand)

    def remote(self, wants: Wants) -> Remote:
        """The remote for hosts that can be asked this much; the first one also hears what changes."""
        remote = self._remotes.get(wants)
        if remote is None:
            first = not self._remotes
            hosts = Hosts(one=self._one_host)
            remote = Remote(self._door, wants, hosts, heard=self._changes.notified if first else None)
            self._remotes[wants] = remote
            task = asyncio.get_running_loop().create_task(remote.run(self._attend_first if first else _attend))
            self._tasks.add(task)
        return remote

    async def _attend_first(self, client: Client) -> None:
        self._looked = False  # it may be another build by now
        self._remember(Seen.of(client, self._door.url).model_copy(update={"by_hand": self._seen.by_hand}))
        await forget_old(client)
        if self._guessed:
            self._guessed = False
            await self._changes.all_lists()
        await self._watching.attend(client)

    def leave(self) -> None:
        """The hosts are going: their calls are left to be gone on with, not cancelled."""
        for remote in self._remotes.values():
            remote.leave()

    async def aclose(self) -> None:
        """Let go of the remote."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)


async def _attend(client: Client) -> None:
    await asyncio.Event().wait()


def _declared(params: Mapping[str, Any] | None) -> Wants:
    """What the host of this `initialize` can be asked."""
    with contextlib.suppress(ValueError):
        return Wants.of(types.InitializeRequestParams.model_validate(params or {}, by_name=False).capabilities)
    return Wants()


@asynccontextmanager
async def _lifespan(server: Server[Any]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if isinstance(server, Mirror):
            await server.aclose()
