"""One request of a host, forwarded: arguments and `_meta` there; result, errors, progress, logs and questions back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import mcp_types as types
import structlog
from mcp import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, LOG_LEVEL_META_KEY
from mcp_types import methods as spec
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ConfigDict, TypeAdapter, ValidationError

from milepost.client import CallError, Client, JournalInUse, Pending
from milepost.client.events import Stage
from milepost.connect.changes import Changes
from milepost.connect.hosts import LEVELS, Context, Host, Hosts, declared_by, level_of
from milepost.connect.remote import Remote, is_modern
from milepost.core.errors import StoreError
from milepost.wire.dispatch import speaking

log = structlog.get_logger("milepost")

_OURS = frozenset({"milepost/call_id"})
"""Keys of a request's `_meta` that are between a client and the server that it speaks with."""
_LANE = "milepost/lane"
"""What a tool's `_meta` says of how it is served. It holds between us and the remote: whether a call that a host makes
again finds its run depends on the journal here, so no host is promised that."""

KEEP_LEFT = 30 * 86400.0
"""Seconds that an unfinished call is kept for its host to come back: as long as Milepost keeps runs by default."""


class Anything(types.Result):
    """A result of a method that only its host and the remote know."""

    model_config = ConfigDict(extra="allow")


class Unknown(types.Request[dict[str, Any] | None, str]):
    """A request of a method that only its host and the remote know."""


class Forward:
    """The handlers of a mirror."""

    def __init__(
        self,
        changes: Changes,
        client_for: Callable[[Context], Awaitable[tuple[Client, Hosts]]],
        remotes: Callable[[], Sequence[Remote]],
    ) -> None:
        self._changes = changes
        self._client_for = client_for
        self._remotes = remotes
        self._taken: set[str] = set()
        """Pending calls that a host's call goes on with right now."""
        self._told: set[str] = set()
        """Pending calls whose host was told what is known of them: made again, they are new wishes."""

    @asynccontextmanager
    async def _through(self, ctx: Context) -> AsyncIterator[tuple[Client, Host]]:
        """A client, with the host's request as the one that callbacks belong to. Raises only MCPErrors."""
        client, hosts = await self._client_for(ctx)
        with hosts.serving(ctx) as host, _as_errors(client, ctx.method):
            yield client, host

    # --- tools -----------------------------------------------------------------------------------------------

    async def call(self, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        """A tool is called. If the same call was left unfinished by an earlier process, it is gone on with."""
        arguments = params.arguments or {}
        async with self._through(ctx) as (client, host):
            try:
                left = self._left(client, params.name, arguments)
                if left is not None:
                    return await self._resumed(client, left, host)
                meta = onward(ctx, client)
                return await client.call_tool(params.name, arguments, progress_callback=host.progress, meta=meta)
            except CallError as error:
                self._told.add(error.call_id)
                raise

    def _left(self, client: Client, name: str, arguments: Mapping[str, Any]) -> Pending | None:
        """The oldest call like this one that no living process works on."""
        pending = client.pending()
        self._told &= {call.call_id for call in pending}
        for call in pending:
            mine = call.method == "tools/call" and call.name == name and dict(call.arguments) == arguments
            if mine and not call.alive and call.call_id not in self._taken | self._told:
                return call
        return None

    async def _resumed(self, client: Client, left: Pending, host: Host) -> types.CallToolResult:
        """Raises what is known of it, where there is no result."""
        log.info("a call is gone on with that an earlier process left", tool=left.name, call_id=left.call_id)
        self._taken.add(left.call_id)
        telling = asyncio.get_running_loop().create_task(_tell_stages(client, left.call_id, host))
        try:
            ended = await client.resume(left.call_id)
        finally:
            self._taken.discard(left.call_id)
            telling.cancel()
            await asyncio.wait({telling})
        for one in ended:
            if one.error is not None:
                raise one.error
            if one.result is not None:
                return one.result
        raise MCPError(INTERNAL_ERROR, f"the unfinished call of {left.name!r} was taken up elsewhere: call it again")

    async def list_tools(self, ctx: Context, params: types.PaginatedRequestParams) -> types.ListToolsResult:
        """A page of the tool list; the client reads along, for it needs the schemas."""
        async with self._through(ctx) as (client, _):
            asked = types.PaginatedRequestParams(cursor=params.cursor, _meta=onward(ctx, client))
            page = await client.session.list_tools(params=asked)
        for tool in page.tools:
            if tool.meta is not None:
                tool.meta.pop(_LANE, None)
        return page

    # --- what may ask between its rounds ---------------------------------------------------------------------

    async def get_prompt(
        self, ctx: Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult | types.InputRequiredResult:
        async with self._through(ctx) as (client, _):
            meta = onward(ctx, client)
            if not _rounds_pass(ctx, client):
                return await client.get_prompt(params.name, params.arguments, meta=meta)
            return await client.session.get_prompt(
                params.name,
                params.arguments,
                input_responses=params.input_responses,
                request_state=params.request_state,
                meta=meta,
                allow_input_required=True,
            )

    async def read_resource(
        self, ctx: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult | types.InputRequiredResult:
        async with self._through(ctx) as (client, _):
            meta = onward(ctx, client)
            if not _rounds_pass(ctx, client):
                return await client.read_resource(params.uri, meta=meta)
            return await client.session.read_resource(
                params.uri,
                input_responses=params.input_responses,
                request_state=params.request_state,
                meta=meta,
                allow_input_required=True,
            )

    # --- everything else -------------------------------------------------------------------------------------

    async def anything(self, ctx: Context, _: types.RequestParams) -> types.Result:
        """Any other method, known to MCP or not."""
        known = spec.MONOLITH_REQUESTS.get(ctx.method)
        async with self._through(ctx) as (client, host):
            params = {**(ctx.params or {}), "_meta": onward(ctx, client) or {}}
            request: Any = (
                Unknown(method=ctx.method, params=params)
                if known is None
                else known.model_validate({"method": ctx.method, "params": params}, by_name=False)
            )
            result_type: Any = Anything if known is None else _known_result(ctx.method)
            result: types.Result = await client.session.send_request(
                request, result_type, progress_callback=host.progress
            )
            return result

    async def subscribe(self, ctx: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        """A handshake-era host wants to hear of a resource; what is asked of the remote is for all hosts together."""
        by = _session_of(ctx)
        try:
            await self._changes.watch(params.uri, by, ctx.session)
        except ValueError as exc:
            raise MCPError(INVALID_PARAMS, str(exc)) from None
        except MCPError:
            await self._changes.unwatch(params.uri, by)
            raise
        return types.EmptyResult()

    async def unsubscribe(self, ctx: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        await self._changes.unwatch(params.uri, _session_of(ctx))
        return types.EmptyResult()

    async def set_level(self, ctx: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
        """A modern remote is told with each request; one of the handshake era once, the least that any host wants."""
        async with self._through(ctx) as (client, _):
            if not is_modern(client):
                asked = types.SetLevelRequest(params=types.SetLevelRequestParams(level=self._least(params.level)))
                await client.session.send_request(asked, types.EmptyResult)
        return types.EmptyResult()

    _lowest: types.LoggingLevel = "emergency"

    def _least(self, level: types.LoggingLevel) -> types.LoggingLevel:
        self._lowest = min(self._lowest, level, key=LEVELS.index)
        return self._lowest

    async def roots_changed(self, ctx: Context, params: types.NotificationParams) -> None:
        for remote in self._remotes():
            with contextlib.suppress(MCPError):
                client = await remote.client(0)
                if not is_modern(client):
                    await client.session.send_notification(types.RootsListChangedNotification())


async def forget_old(client: Client) -> None:
    """Let go of calls that nobody has made again for so long that the remote has forgotten them too."""
    for call in client.pending():
        if not call.alive and time.time() - call.begun > KEEP_LEFT:
            with contextlib.suppress(LookupError, JournalInUse):  # another proxy was first
                await client.forget(call.call_id)


async def has_lanes(client: Client) -> bool:
    """Whether the remote says of any of its tools how it is served. Raises MCPError."""
    cursor: str | None = None
    for _ in range(client.policy.max_tool_pages):
        page = await client.session.list_tools(params=types.PaginatedRequestParams(cursor=cursor))
        if any(_LANE in (tool.meta or {}) for tool in page.tools):
            return True
        cursor = page.next_cursor
        if cursor is None:
            break
    return False


def _known_result(method: str) -> TypeAdapter[types.Result]:
    row: Any = spec.MONOLITH_RESULTS[method]
    return TypeAdapter(row)


def onward(ctx: Context, client: Client) -> Any:
    """A request's `_meta` as it goes on: without what is between the host and us, with the log level that it wants."""
    mine: Mapping[str, Any] = (ctx.params or {}).get("_meta") or {}
    meta = {
        key: value
        for key, value in mine.items()
        if key != "progressToken" and key not in _OURS and not key.startswith("io.modelcontextprotocol/")
    }
    level = level_of(ctx)
    if level is not None and is_modern(client):
        meta[LOG_LEVEL_META_KEY] = level
    return meta or None


def _rounds_pass(ctx: Context, client: Client) -> bool:
    """Whether both ends speak in rounds, so that a question is passed on as it is and its state stays the remote's."""
    declared = declared_by(ctx)
    asks = declared is not None and declared.elicitation is not None
    return asks and ctx.protocol_version in MODERN_PROTOCOL_VERSIONS and is_modern(client)


def _session_of(ctx: Context) -> object:
    """Which session subscribes. Where none is named (it is rebuilt after a restart of ours), the subscription's own."""
    call: Any = speaking.get()
    return object() if call is None else call.stream.session


async def _tell_stages(client: Client, call_id: str, host: Host) -> None:
    async for event in client.events:
        if isinstance(event, Stage) and event.call_id == call_id:
            await host.progress(event.progress, event.total, event.message)


@contextmanager
def _as_errors(client: Client, method: str) -> Iterator[None]:
    """What goes wrong here, not there, in words for the host. The remote's own errors pass as they are."""
    try:
        yield
    except MCPError:
        raise
    except ValidationError as exc:
        text = f"the remote's answer to {method} is not of the form that MCP {client.protocol_version} has"
        raise MCPError(INTERNAL_ERROR, f"{text}: {exc.errors()[0]['msg']}") from exc
    except StoreError as exc:
        raise MCPError(INTERNAL_ERROR, f"{method} can't be kept, so it does not go on: {exc}") from exc
    except (RuntimeError, ConnectionError, TimeoutError) as exc:
        raise MCPError(INTERNAL_ERROR, f"{method} failed on the way to the remote: {exc}") from exc
