"""A call in the stateless lane while it runs: in memory, without rows, until it needs them.

It needs them the moment it asks its client, closes its stream, or has run long. Then it is promoted: what it
says from there on are the events of a run in lane `hot`, and any replica can show them and take its answers.
The call itself stays where it is; lost with its replica, it is never run again, and its caller is told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

import anyio
import structlog
from mcp_types import INTERNAL_ERROR

from milepost.core.errors import Fenced, Signal
from milepost.core.records import CallContext, JSONObject, Outcome, Stream
from milepost.engine.admission import Place
from milepost.wire import rpc
from milepost.wire.parts import Parts
from milepost.wire.rpc import Message

_log = structlog.get_logger(__name__)

_REQUEST_CANCELLED = -32800
"""What the SDK answers to a cancelled request of this era (its name for it is private)."""

CANCELLED = Outcome(error={"code": _REQUEST_CANCELLED, "message": "Request cancelled"})


class LiveCall:
    """One call in memory. Is the `Channel` of its tool, and tells its readers when there is news."""

    def __init__(self, parts: Parts, call: CallContext, stream: Stream) -> None:
        self.call = call
        self.stream = stream
        self.message: Message = {}
        """The request as it came, so that the same one sent again is known; empty in the modern era."""
        self.outcome: Outcome | None = None
        """Set when the tool is done and the call has no rows."""
        self.hot: Any = None
        """The engine's `HotCall`, once promoted."""
        self.task: asyncio.Task[None] | None = None
        self.place: Place | None = None
        """Its place among the calls in memory; given up when it waits for a person, for then it is no work."""
        self.closed = False
        """The tool has closed the call's stream: whoever was about to open it shall come back."""
        self.said: list[Message] = []
        self.written = 0
        """How many of `said` went out on some socket: a reader that comes back gets the rest."""
        self._parts = parts
        self._token = stream.progress_token
        self._scope = anyio.CancelScope()
        self._readers: list[asyncio.Event] = []
        self._promotion: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- the tool's side ---------------------------------------------------------------------------

    async def run(self, work: Awaitable[Outcome]) -> None:
        """Do the work and keep, or store, what came of it. For a task that no request owns."""
        outcome: Outcome | None = None
        try:
            with self._scope:
                outcome = await _guarded(work)
        except Signal:
            _log.info("a call was ended from outside", tool=self.call.tool)
        finally:
            with anyio.CancelScope(shield=True):
                await self._end(outcome)

    async def _end(self, outcome: Outcome | None) -> None:
        """`outcome` None: it was cancelled."""
        self._give_up_place()
        if self._timer is not None:
            self._timer.cancel()
        if self._promotion is not None:
            await asyncio.wait({self._promotion})
        if self.hot is not None:
            await self._store(self.hot, outcome)
        self.outcome = outcome or CANCELLED
        self._tell()

    async def _store(self, hot: Any, outcome: Outcome | None) -> None:
        try:
            await (hot.abandon() if outcome is None else hot.finish(outcome))
        except Fenced:
            _log.warning("a hot call's result came after it was given up", run_id=hot.run_id)
        finally:
            self._parts.live.pop(hot.run_id, None)

    async def ask(self, method: str, params: JSONObject) -> JSONObject:
        """`Channel.ask`: the question is a row like any other, so any replica takes its answer."""
        self._give_up_place()
        hot = await self.promote()
        reply: JSONObject = await hot.ask(method, params)
        return reply

    def _give_up_place(self) -> None:
        if self.place is not None:
            self.place.leave()

    async def notify(self, method: str, params: Mapping[str, Any] | None) -> None:
        """`Channel.notify`."""
        if self._promotion is not None:
            hot = await self.promote()
            await hot.notify(method, params)
        elif len(self.said) - self.written < self._parts.limits.max_said:
            self.said.append(rpc.notification(method, None if params is None else dict(params)))
            self._tell()
        else:
            _log.warning("notification dropped: the reader lags too far behind", method=method)

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        """`Channel.progress`: nothing without a token; latest wins while nobody has read the one before."""
        if self._promotion is not None:
            hot = await self.promote()
            await hot.progress(progress, total, message)
        elif self._token is not None:
            params: Message = {"progressToken": self._token, "progress": progress}
            params |= {} if total is None else {"total": total}
            params |= {} if message is None else {"message": message}
            await self.notify("notifications/progress", params)

    async def close_stream(self) -> None:
        """The tool closes its socket (`ctx.close_sse_stream()`): the client comes back for the rest."""
        await self.promote()
        self.closed = True
        self._parts.end_watching(self.stream.id)

    # --- rows --------------------------------------------------------------------------------------

    async def promote(self) -> Any:
        """Give the call rows, once; what nobody has read yet goes into them first.

        In a task of its own: rows that are on their way are the call's also if who waits for them is cancelled.
        """
        if self.hot is None:
            if self._promotion is None or self._promotion.done():
                self._promotion = self._parts.runs.keep(self._promote())
            await asyncio.shield(self._promotion)
        structlog.contextvars.bind_contextvars(**self.hot.known)  # of the tool's own task, from here on
        return self.hot

    async def _promote(self) -> None:
        hot = await self._parts.runs.open_hot(self.call, self.stream)
        unread, self.written = self.said[self.written :], len(self.said)
        for message in unread:
            await _restate(hot, message)
        self._parts.live[hot.run_id] = self
        hot.on_end = self._scope.cancel
        self.hot = hot
        self._tell()

    def promote_later(self) -> None:
        """Give the call rows if it runs long, whether or not anybody listens by then."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._parts.limits.promote_after, self._promote_now)

    def _promote_now(self) -> None:
        if self.outcome is None and self._promotion is None:
            self._parts.runs.keep(self.promote())

    # --- the reader's side -------------------------------------------------------------------------

    @property
    def is_read(self) -> bool:
        """Whether somebody waits for what it says."""
        return bool(self._readers)

    def listen(self) -> asyncio.Event:
        """An event that is set at each change, until `deafen`."""
        news = asyncio.Event()
        self._readers.append(news)
        return news

    def unread(self, told: int) -> Message | None:
        """What a reader that was told so many messages gets next from memory: nothing once rows take over."""
        if told >= len(self.said) or self._promotion is not None:
            return None
        self.written = max(self.written, told + 1)
        return self.said[told]

    def deafen(self, news: asyncio.Event) -> None:
        self._readers.remove(news)

    def cancel(self) -> None:
        """Its client no longer wants it."""
        if self.hot is None:
            self._scope.cancel()
        else:
            self._parts.runs.keep(self._parts.runs.cancel(self.hot.run_id, reason="client"))

    def reply(self) -> Message:
        """The response, for a call without rows that is done."""
        outcome = self.outcome
        assert outcome is not None  # noqa: S101  callers look first
        if outcome.error is not None:
            return {"jsonrpc": "2.0", "id": self.stream.request_id, "error": outcome.error}
        return rpc.success(self.stream.request_id, outcome.result)

    def _tell(self) -> None:
        for news in self._readers:
            news.set()


async def _guarded(work: Awaitable[Outcome]) -> Outcome:
    """The outcome of the work; what it raises becomes the error that its caller sees."""
    try:
        return await work
    except Exception as exc:
        error = rpc.error_of(exc)
        if error["code"] == INTERNAL_ERROR:
            _log.exception("a request handler raised")
        return Outcome(error=error)


async def _restate(hot: Any, message: Message) -> None:
    """Say again, as an event, what was said in memory and read by nobody."""
    params = message.get("params") or {}
    if message["method"] == "notifications/progress":
        await hot.progress(params["progress"], params.get("total"), params.get("message"))
    else:
        await hot.notify(message["method"], message.get("params"))
