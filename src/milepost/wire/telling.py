"""Telling a handshake-era client over HTTP: one socket shows one stream, until it is told, left, or ended by us.

A call in memory is told from memory, and from its run's events once it has rows; a workflow from its run's events
alone. A socket is only a view: when it ends early nothing is lost, and the client comes back by Last-Event-ID.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace

import anyio
from mcp.shared.subscriptions import ResourceUpdated, ServerEvent, event_to_notification
from mcp_types import INVALID_REQUEST
from mcp_types.version import is_version_at_least

from milepost.core import ids
from milepost.core.errors import UnknownRun
from milepost.core.records import Delivery, Stream
from milepost.wire.follow import Ended, Follower, Hold, SseSink, locate
from milepost.wire.hot import LiveCall
from milepost.wire.http import Exchange, Headers
from milepost.wire.parts import Parts
from milepost.wire.requests import Following, Requests
from milepost.wire.rpc import Message, Refused, notification
from milepost.wire.sessions import LiveSession
from milepost.wire.streams import COMMENT, farewell, frame, priming

_LINGER = 60.0
"""Seconds for which a call in memory is kept for a client whose socket broke before it was told the result."""
_QUEUE = 1000
"""Notifications that a standalone stream may lag behind; older ones are dropped (they are advisory)."""


def resumable(live: LiveSession) -> bool:
    """Whether this client understands a stream that is closed and comes back (since 2025-11-25)."""
    return live.stored and is_version_at_least(live.row.version, "2025-11-25")


def named(live: LiveSession) -> Headers:
    return ((b"mcp-session-id", live.shown.encode()),)


def no_stream() -> Refused:
    return Refused(
        400,
        INVALID_REQUEST,
        "Last-Event-ID names no stream of this session that can be taken up. A call that was still in the memory of a "
        "replica that is gone is lost: nothing of it runs any more, and it may be made again.",
    )


class Teller:
    """Tells a session's client, over HTTP, what its requests say."""

    def __init__(self, parts: Parts, requests: Requests) -> None:
        self._parts = parts
        self._requests = requests

    # --- calls in memory -----------------------------------------------------------------------------

    async def tell_call(self, exchange: Exchange, live: LiveSession, call: LiveCall) -> None:
        """The first answer to a call: JSON if it is done at once and said nothing on the way, else a stream."""
        news = call.listen()
        try:
            if await self._done_soon(call, news):
                live.calls.pop(call.stream.request_id, None)
                await exchange.reply_json(call.reply(), headers=named(live))
                return
            call.promote_later()
            if call.closed:
                await self._begin(exchange, live, call.stream.id)
                await self._end(exchange, Ended.CLOSED, None)
            else:
                await self._stream_call(exchange, live, call, news, 0)
        finally:
            call.deafen(news)

    async def tell_again(self, exchange: Exchange, live: LiveSession, call: LiveCall, *, after: int) -> None:
        """The same call's stream for another POST with its id, or for a client that came back."""
        news = call.listen()
        try:
            await self._stream_call(exchange, live, call, news, after)
        finally:
            call.deafen(news)

    async def _done_soon(self, call: LiveCall, news: asyncio.Event) -> bool:
        timer = asyncio.get_running_loop().call_later(self._parts.limits.commit_after, news.set)
        await news.wait()
        timer.cancel()
        news.clear()
        return call.outcome is not None and call.hot is None and not call.said

    async def _stream_call(
        self, exchange: Exchange, live: LiveSession, call: LiveCall, news: asyncio.Event, after: int
    ) -> None:
        followers: list[Follower] = []

        async def story() -> None:
            await self._from_memory(exchange, call, news, after)
            if call.hot is not None:
                stream = replace(call.stream, run_id=call.hot.run_id)
                followers.append(await self._requests.follower(live, stream, SseSink(exchange)))
                await followers[0].follow(stream.run_id, 0)

        await self._begin(exchange, live, call.stream.id)
        why = await Hold(self._parts, exchange.disconnected, call.stream.id).tell(story())
        await self._end(exchange, why, followers[0] if followers else None)
        if why is Ended.TOLD or call.hot is not None:
            _forget(live, call)
        else:
            asyncio.get_running_loop().call_later(_LINGER, _forget, live, call)

    async def _from_memory(self, exchange: Exchange, call: LiveCall, news: asyncio.Event, after: int) -> None:
        """What a call says until it is done or has rows."""
        while call.hot is None:
            while message := call.unread(after):
                after += 1
                await exchange.put(frame(message))
            if call.hot is None and call.outcome is not None:
                await exchange.put(frame(call.reply()))
                return
            if not news.is_set() and not await _heard(news, self._parts.limits.ping_every):
                await exchange.put(COMMENT)
            news.clear()

    # --- runs ------------------------------------------------------------------------------------------

    async def tell_run(
        self, exchange: Exchange, live: LiveSession, follower: Follower, run_id: str, after: int
    ) -> None:
        """A workflow's stream, from its beginning."""
        await self._begin(exchange, live, follower.rendering.stream.id)
        await self._follow(exchange, live, follower, run_id, after)

    async def resume(self, exchange: Exchange, live: LiveSession, stream: Stream, n: int) -> None:
        """The rest of a stored stream, after its event `n`."""
        run, after = await locate(self._parts, stream, n)
        if run is None:
            raise no_stream()
        if run.outcome is not None and after >= run.event_seq:
            await self._parts.runs.detach(stream, delivery=Delivery.CONFIRMED)
            await exchange.begin_stream(named(live))
            await exchange.end_stream()
            return
        try:
            stream = await self._parts.runs.attach(stream.run_id, stream)
        except UnknownRun:
            raise no_stream() from None
        follower = await self._requests.follower(live, stream, SseSink(exchange))
        follower.rendering.offset = n - after
        await exchange.begin_stream(named(live))
        await exchange.put(farewell(self._parts.limits.retry))
        await self._follow(exchange, live, follower, run.id, after)

    async def _follow(self, exchange: Exchange, live: LiveSession, follower: Follower, run_id: str, after: int) -> None:
        stream = follower.rendering.stream
        following = Following(self._parts, follower, run_id)
        live.calls[stream.request_id] = following
        within = self._parts.limits.max_wait if resumable(live) else None
        why = Ended.GONE
        try:
            hold = Hold(self._parts, exchange.disconnected, stream.id)
            why = await hold.tell(follower.follow(run_id, after), within=within)
        finally:
            if live.calls.get(stream.request_id) is following:
                del live.calls[stream.request_id]
            with anyio.CancelScope(shield=True):
                await self._end(exchange, why, follower)

    # --- both ------------------------------------------------------------------------------------------

    async def _begin(self, exchange: Exchange, live: LiveSession, stream_id: str) -> None:
        await exchange.begin_stream(named(live))
        if resumable(live):
            await exchange.put(priming(ids.event_id(stream_id, 0), self._parts.limits.retry))

    async def _end(self, exchange: Exchange, why: Ended, follower: Follower | None) -> None:
        if why is Ended.CLOSED:
            held_up = follower is not None and follower.held.why is not None
            limits = self._parts.limits
            await exchange.end_stream(farewell(limits.retry_after if held_up else limits.retry))
        elif why is Ended.TOLD:
            await exchange.end_stream()
        if follower is not None:
            await follower.leave(delivery=Delivery.SENT if why is Ended.TOLD and follower.final else None)


def _forget(live: LiveSession, call: LiveCall) -> None:
    if live.calls.get(call.stream.request_id) is call:
        del live.calls[call.stream.request_id]


async def _heard(news: asyncio.Event, seconds: float) -> bool:
    """Whether there was news within so many seconds."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await news.wait()
    except TimeoutError:
        return False
    return True


class Standalone:
    """A session's standalone stream: what the server says outside any request (list changes, updates)."""

    def __init__(self, parts: Parts, exchange: Exchange, live: LiveSession) -> None:
        self._parts = parts
        self._exchange = exchange
        self._live = live
        self._queue: deque[Message] = deque(maxlen=_QUEUE)
        self._news = asyncio.Event()
        self._hold = Hold(parts, exchange.disconnected, f"get:{live.row.id}")

    def push(self, message: Message) -> None:
        self._queue.append(message)
        self._news.set()

    def close(self) -> None:
        self._hold.close()

    async def serve(self) -> None:
        """Until the client leaves. A newer one takes the place of an older, whose break may be unnoticed yet."""
        if self._live.listener is not None:
            self._live.listener.close()
        self._live.listener = self
        await self._exchange.begin_stream(named(self._live))
        await self._exchange.put(COMMENT)
        bus = self._parts.hosted.bus
        unsubscribe = bus.subscribe(self._published) if bus is not None else None
        try:
            why = await self._hold.tell(self._story())
        finally:
            if unsubscribe is not None:
                unsubscribe()
            if self._live.listener is self:
                self._live.listener = None
        if why is Ended.CLOSED:
            await self._exchange.end_stream(farewell(self._parts.limits.retry))

    def _published(self, event: ServerEvent) -> None:
        """The author said by `ctx.notify_*` that something changed: that reaches this era's clients only here."""
        if isinstance(event, ResourceUpdated) and event.uri not in self._live.row.subscriptions:
            return
        told = event_to_notification(event, {}).model_dump(by_alias=True, mode="json", exclude_none=True)
        params = {key: value for key, value in (told.get("params") or {}).items() if key != "_meta"}
        self.push(notification(told["method"], params or None))

    async def _story(self) -> None:
        while True:
            while self._queue:
                await self._exchange.put(frame(self._queue.popleft()))
            self._news.clear()
            if not await _heard(self._news, self._parts.limits.ping_every):
                await self._exchange.put(COMMENT)
