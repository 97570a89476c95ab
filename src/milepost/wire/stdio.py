"""MCP over stdin and stdout, for hosts that start servers as child processes: both eras, with the same durability.

The client's first request decides the era, as in the SDK. The caller is the one local user, so that after a restart
of the process a call that is made again goes on with its run. A pipe that ends ends nothing but itself: runs are given
back, and the next process goes on with them.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, BinaryIO

import structlog
from mcp.server.connection import Connection, NotifyOnlyOutbound
from mcp.server.runner import ServerRunner
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.inbound import InboundLadderRejection, classify_inbound_request
from mcp.shared.jsonrpc_dispatcher import cancelled_request_id_from_params
from mcp.shared.transport_context import TransportContext
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PARSE_ERROR,
    PROTOCOL_VERSION_META_KEY,
    UNSUPPORTED_PROTOCOL_VERSION,
)
from mcp_types.version import LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION, MODERN_PROTOCOL_VERSIONS

from milepost.core.errors import StoreError
from milepost.core.records import LOCAL_USER, Delivery, Lane, Session
from milepost.wire import answers, rpc
from milepost.wire.calls import meta_of, progress_token
from milepost.wire.dispatch import WireContext, tear_down
from milepost.wire.endpoint import Endpoint
from milepost.wire.follow import Follower
from milepost.wire.hot import CANCELLED, LiveCall
from milepost.wire.replying import Speaking
from milepost.wire.requests import Carrier, Following
from milepost.wire.rpc import Kind, Message, Refused, RequestId
from milepost.wire.sessions import LiveSession

_log = structlog.get_logger(__name__)

Write = Callable[[bytes], Awaitable[None]]

_DUPLEX = TransportContext(kind="stdio", can_send_request=True)
_ONE_WAY = TransportContext(kind="stdio", can_send_request=False)


class Pipe:
    """One client at the other end of two streams of lines."""

    def __init__(self, endpoint: Endpoint, write: Write) -> None:
        self._endpoint = endpoint
        self._parts = endpoint.parts
        self._write = write
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._era: Handshaken | Enveloped | None = None

    async def serve(self, lines: AsyncIterator[bytes]) -> None:
        """Serve until the lines end (or the endpoint drains)."""
        try:
            async for line in lines:
                if line.strip():
                    await self._line(line)
        finally:
            for task in tuple(self._tasks):
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=5)
            if self._era is not None:
                await self._era.aclose()

    async def _line(self, line: bytes) -> None:
        try:
            if len(line) > self._parts.limits.max_body:
                raise Refused(413, PARSE_ERROR, f"Message too large: the limit is {self._parts.limits.max_body} bytes")
            kind, message = rpc.read(line)
        except Refused as refused:
            await self.say(refused.body())
            return
        if self._era is None:
            self._era = self._open(kind, message)
        if kind is Kind.REQUEST and message["method"] == "initialize":
            await self._request(message)  # inline: what the client sends right behind it finds it done
        elif kind is Kind.REQUEST:
            self.start(self._request(message))
        else:
            self.start(self._other(kind, message))

    def _open(self, kind: Kind, message: Message) -> Handshaken | Enveloped | None:
        """The era that the first request opens."""
        if kind is not Kind.REQUEST:
            return None
        enveloped = message["method"] != "initialize" and _is_enveloped(message)
        return Enveloped(self, self._endpoint) if enveloped else Handshaken(self, self._endpoint)

    async def _request(self, message: Message) -> None:
        assert self._era is not None  # noqa: S101  opened by the first request
        try:
            await self._era.request(message)
        except Refused as refused:
            refused.request_id = message["id"]
            await self.say(refused.body())
        except StoreError as exc:
            await self.say(
                rpc.failure(message["id"], INTERNAL_ERROR, f"The server can't store anything right now: {exc}")
            )
        except Exception:
            _log.exception("a request failed", method=message["method"])
            await self.say({"jsonrpc": "2.0", "id": message["id"], "error": rpc.error_of(Exception())})

    async def _other(self, kind: Kind, message: Message) -> None:
        if self._era is None:
            _log.debug("a message before the first request was dropped")
            return
        try:
            await (self._era.notification(message) if kind is Kind.NOTIFICATION else self._era.answer(message))
        except Refused as refused:
            _log.info("a message was refused", reason=refused.message)
        except Exception:
            _log.exception("a message failed")

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run in a task that ends with the pipe."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def say(self, message: Message) -> None:
        """One message, whole, on one line."""
        async with self._writing:
            await self._write(rpc.encode(message) + b"\n")


class PipeSink:
    """A pipe as `follow.Sink`: no event ids, and no need for signs of life."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    async def say(self, message: Message, event_id: str | None = None) -> None:
        await self._pipe.say(message)

    async def beat(self) -> None:
        return None


# --- the handshake era -----------------------------------------------------------------------------


class Handshaken:
    """A client that begins with `initialize`: one session without a row, that lives as long as the pipe."""

    def __init__(self, pipe: Pipe, endpoint: Endpoint) -> None:
        self._pipe = pipe
        self._parts = endpoint.parts
        self._requests = endpoint.handshake.requests
        name = f"stdio-{secrets.token_hex(8)}"
        row = Session(id=name, version=LATEST_HANDSHAKE_VERSION, client_params={}, owner=LOCAL_USER)
        self._live = LiveSession(self._parts, row, name, stored=False)
        self._live.listener = self

    def push(self, message: Message) -> None:
        """As the session's standalone stream: the pipe is that too."""
        self._pipe.start(self._pipe.say(message))

    def close(self) -> None:
        return None

    async def request(self, message: Message) -> None:
        if message["method"] == "initialize":
            await self._initialize(message)
        elif _is_enveloped(message):
            raise Refused(
                400,
                INVALID_REQUEST,
                "This connection speaks the handshake era: 2026-07-28 envelopes aren't taken on it",
            )
        elif self._requests.in_flight(self._live, message) is not None:
            return  # the same request again: its one response is on its way
        elif self._requests.lane(message) is Lane.WORKFLOW:
            await self._workflow(message)
        else:
            await self._in_memory(message)

    async def _initialize(self, message: Message) -> None:
        live, params = self._live, message.get("params") or {}
        context = WireContext(message["id"], _DUPLEX, None)
        try:
            result = await live.runner.on_request(context, "initialize", params)
        except Exception as exc:
            await self._pipe.say({"jsonrpc": "2.0", "id": message["id"], "error": rpc.error_of(exc)})
            return
        live.row = replace(live.row, version=live.connection.protocol_version, client_params=params)
        await self._pipe.say(rpc.success(message["id"], result))

    async def _workflow(self, message: Message) -> None:
        sink = PipeSink(self._pipe)
        follower, run_id, after = await self._requests.workflow(self._live, message, LOCAL_USER, sink)
        self._live.calls[message["id"]] = Following(self._parts, follower, run_id)
        try:
            await self._follow(follower, run_id, after)
        finally:
            self._live.calls.pop(message["id"], None)

    async def _follow(self, follower: Follower, run_id: str, after: int) -> None:
        try:
            await follower.follow(run_id, after)
        finally:
            await follower.leave(delivery=Delivery.SENT if follower.final else None)

    async def _in_memory(self, message: Message) -> None:
        call = await self._requests.begin(self._live, message, LOCAL_USER, Carrier(_DUPLEX))
        if call.is_read:
            return  # the same request came again while the first waited for room
        news, told = call.listen(), 0
        try:
            while call.hot is None:
                while said := call.unread(told):
                    told += 1
                    await self._pipe.say(said)
                if call.outcome is not None:
                    break
                await news.wait()
                news.clear()
            await self._finish(call)
        finally:
            call.deafen(news)
            self._live.calls.pop(message["id"], None)

    async def _finish(self, call: LiveCall) -> None:
        if call.hot is not None:
            stream = replace(call.stream, run_id=call.hot.run_id)
            follower = await self._requests.follower(self._live, stream, PipeSink(self._pipe))
            await self._follow(follower, stream.run_id, 0)
        elif call.outcome is not CANCELLED:
            await self._pipe.say(call.reply())

    async def notification(self, message: Message) -> None:
        if message["method"] == "notifications/cancelled":
            _cancel(self._live.calls, message)
        await self._live.runner.on_notify(WireContext(None, _DUPLEX, None), message["method"], message.get("params"))

    async def answer(self, message: Message) -> None:
        await answers.take(self._parts, message, session=self._live.row.id, principal=LOCAL_USER)

    async def aclose(self) -> None:
        for call in tuple(self._live.calls.values()):
            if isinstance(call, LiveCall) and call.hot is None:
                call.cancel()
        await tear_down(self._live.connection)


# --- the modern era --------------------------------------------------------------------------------


class PipeReply(Speaking):
    """The response to one modern request on a pipe."""

    def __init__(self, pipe: Pipe, token: str | int | None) -> None:
        self._pipe = pipe
        self._unwanted = asyncio.Event()
        self.token = token

    async def say(self, message: Message, event_id: str | None = None) -> None:
        await self._pipe.say(message)

    async def beat(self) -> None:
        return None

    async def finish(self, message: Message, *, retry_after: int | None = None) -> None:
        await self._pipe.say(message)

    @property
    def started(self) -> bool:
        """Over a pipe an error is said in the same way at any time."""
        return False

    async def gone(self) -> None:
        await self._unwanted.wait()

    def cancel(self) -> None:
        """The client sent `notifications/cancelled` for it."""
        self._unwanted.set()


class Enveloped:
    """A client whose every request carries its envelope (2026-07-28)."""

    def __init__(self, pipe: Pipe, endpoint: Endpoint) -> None:
        self._pipe = pipe
        self._parts = endpoint.parts
        self._modern = endpoint.modern
        self._calls: dict[RequestId, PipeReply] = {}
        self._outbound = NotifyOnlyOutbound(_PipeOutbound(pipe))

    async def request(self, message: Message) -> None:
        if message["method"] == "initialize":
            asked = (message.get("params") or {}).get("protocolVersion")
            raise Refused(
                400,
                UNSUPPORTED_PROTOCOL_VERSION,
                "This connection speaks 2026-07-28: `initialize` isn't taken on it",
                data={"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": str(asked)},
            )
        route = classify_inbound_request(message)
        if isinstance(route, InboundLadderRejection):
            raise Refused(400, route.code, route.message, data=route.data)
        reply = PipeReply(self._pipe, progress_token(message.get("params")))
        self._calls[message["id"]] = reply
        try:
            carrier = Carrier(_ONE_WAY, outbound=self._outbound)
            await self._modern.serve(reply, LOCAL_USER, message, route, carrier)
        finally:
            self._calls.pop(message["id"], None)

    async def notification(self, message: Message) -> None:
        if message["method"] == "notifications/cancelled":
            _cancel(self._calls, message)
        connection = Connection.from_envelope(LATEST_MODERN_VERSION, None, None, outbound=self._outbound)
        runner = ServerRunner(self._parts.server, connection, self._parts.state)
        await runner.on_notify(WireContext(None, _ONE_WAY, None), message["method"], message.get("params"))
        await tear_down(connection)

    async def answer(self, message: Message) -> None:
        _log.info("a response was dropped: nothing is asked of a client at this version")

    async def aclose(self) -> None:
        return None


class _PipeOutbound:
    """`Outbound`: notifications ride the pipe, requests have no way back in this era."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        await self._pipe.say(rpc.notification(method, None if params is None else dict(params)))


def _cancel(calls: Mapping[RequestId, Any], message: Message) -> None:
    request_id = cancelled_request_id_from_params(message.get("params"))
    call = calls.get(request_id) if request_id is not None else None
    if call is not None:
        call.cancel()


def _is_enveloped(message: Message) -> bool:
    return PROTOCOL_VERSION_META_KEY in meta_of(message.get("params"))


# --- the process's own streams ---------------------------------------------------------------------


async def serve_pipe(endpoint: Endpoint, at_end: Callable[[], None] = lambda: None) -> None:
    """Serve this process's stdin and stdout until stdin ends; then `at_end` is called, before what runs is cancelled.

    While serving, file descriptor 1 leads to stderr and 0 to nothing, so that a stray print (of a tool, or of a child
    process) does not break the protocol.
    """
    source, sink = _claim(0, "rb"), _claim(1, "wb")
    try:
        lines = _lines(source, endpoint.parts.limits.max_body)
        await Pipe(endpoint, _writer(sink)).serve(_and_then(lines, at_end))
    finally:
        sys.stdout.flush()
        os.dup2(source.fileno(), 0)
        os.dup2(sink.fileno(), 1)


def _claim(number: int, mode: str) -> BinaryIO:
    """A private copy of a standard stream; what used it before goes elsewhere."""
    private = os.dup(number)
    elsewhere = os.dup(2) if number == 1 else os.open(os.devnull, os.O_RDONLY)
    os.dup2(elsewhere, number)
    os.close(elsewhere)
    return os.fdopen(private, mode, buffering=-1 if number == 0 else 0, closefd=False)  # type: ignore[return-value]


def _writer(sink: BinaryIO) -> Write:
    loop = asyncio.get_running_loop()

    def put(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[sink.write(view) :]

    async def write(data: bytes) -> None:
        try:
            await loop.run_in_executor(None, put, data)
        except (BrokenPipeError, ValueError):
            _log.debug("the client no longer reads")

    return write


async def _and_then(lines: AsyncIterator[bytes], at_end: Callable[[], None]) -> AsyncIterator[bytes]:
    async for line in lines:
        yield line
    at_end()


async def _lines(source: BinaryIO, limit: int) -> AsyncIterator[bytes]:
    """The lines of a stream, read by a thread of its own, for a read can't be cancelled. Longer ones are cut off at
    `limit` + 1 bytes, so that they are refused without being held."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def read() -> None:
        try:
            while line := source.readline(limit + 1):
                while len(line) > limit and not line.endswith(b"\n") and (rest := source.readline(limit)):
                    if rest.endswith(b"\n"):
                        break
                loop.call_soon_threadsafe(queue.put_nowait, line)
            loop.call_soon_threadsafe(queue.put_nowait, None)
        except (OSError, ValueError, RuntimeError):
            return  # the stream, or the loop, is closed

    threading.Thread(target=read, name="milepost-stdin", daemon=True).start()
    while (line := await queue.get()) is not None:
        yield line
