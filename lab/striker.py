"""A proxy that understands HTTP/1.1 and event streams well enough to strike at a chosen place of a chosen exchange.

One stands before a server for each client, so that a strike hits the one conversation that it was drawn for. What it
does at a place is a `Strike`; what only its owner can do there (kill a process, end a session) goes through `act`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lab.answers import Head, message_in, read_head, units
from lab.faults import _reset as reset
from lab.http1 import LONGEST_HEAD, NotHttp, Request, read_request, with_header
from lab.ports import free_port

Place = Literal["before", "request", "done", "head", "between", "inside", "last", "along", "thinking"]
"""before: the server hasn't it; request: it has half of it; done: it has said all, or asks, and no byte came through;
head, inside: half of the response's head, or of an event or body, came through; between: what is before an event did;
last: all came through; along: all the way; thinking: not of an exchange, the owner says when."""
Kind = Literal["reset", "half-open", "cut", "ended", "status", "twice", "swapped", "doubled", "act"]
"""reset: RST to both; half-open: nothing more goes through, and nobody is told; cut: an end without the last chunk;
ended: with it; status: another answer instead; twice: each event twice; swapped: progress in another order;
doubled: the request is delivered twice; act: the owner's."""
_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(eq=False, slots=True)
class Strike:
    """One fault. `nth`: of the requests of these classes it hits the one with this number, or a later one."""

    kind: Kind
    place: Place
    targets: Sequence[str]
    nth: int = 0
    name: str = ""
    """For `act`, and for reports."""
    status: int = 0
    retry_after: str = ""
    event: int | None = None
    """Which event of a stream; None: the first that has a JSON-RPC id (a question, or the response)."""
    lost: bool = False
    """After an `act`: what was held back is lost too, with a reset."""
    hit: bool = False


class _Gone(Exception):
    """The client's connection has ended, by us or by itself."""


@dataclass(eq=False, slots=True)
class _Exchange:
    """One request and what comes of it."""

    request: Request
    client: asyncio.StreamWriter
    strike: Strike | None
    head: Head | None = None
    written: bool = False
    place: str = ""
    units: int = 0
    held: list[bytes] = field(default_factory=list)

    def due(self, *places: Place) -> Strike | None:
        """The strike, if it is for one of these places and still to come."""
        strike = self.strike
        return strike if strike is not None and not strike.hit and strike.place in places else None


Act = Callable[[Strike], Awaitable[None]]
Classify = Callable[[Request], str]


class Striker:
    """Listens on a port of its own, passes on to `upstream` (a port of 127.0.0.1)."""

    def __init__(self, upstream: int, strikes: Sequence[Strike], classify: Classify, act: Act) -> None:
        self.port = 0
        self.seen: Counter[str] = Counter()
        """Requests, by class."""
        self.session: str | None = None
        """The newest `Mcp-Session-Id` that went by."""
        self.expired: set[str] = set()
        """Sessions that are answered with 404 from now on."""
        self._upstream = upstream
        self._strikes = list(strikes)
        self._classify = classify
        self._act = act
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._frozen: set[asyncio.StreamWriter] = set()

    # --- life ----------------------------------------------------------------------------------------

    async def up(self) -> None:
        """Listen; always on the same port. Idempotent."""
        if self._server is None:
            self.port = self.port or free_port()
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=LONGEST_HEAD)

    def down_nowait(self) -> None:
        """Refuse connections; those that are there are left. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def aclose(self) -> None:
        self.down_nowait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Striker:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # --- strikes that are of no exchange ---------------------------------------------------------------

    async def strike_now(self, strike: Strike) -> None:
        """Befall all that is open."""
        if strike.kind == "act":
            strike.hit = True
            await self._act(strike)
            return
        strike.hit = bool(self._clients)
        for writer in list(self._clients):
            if strike.kind == "reset":
                reset(writer)
            else:
                self._frozen.add(writer)

    # --- connections -----------------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._keep(self._serve(reader, writer))

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            coming = asyncio.ensure_future(_next(reader))
            while (request := await coming) is not None:
                coming = asyncio.ensure_future(_next(reader))
                exchange = asyncio.ensure_future(self._exchange(request, writer))
                try:
                    await asyncio.wait({coming, exchange}, return_when=asyncio.FIRST_COMPLETED)
                    if not exchange.done() and coming.result() is None:
                        break
                    await exchange
                finally:
                    exchange.cancel()
                    with contextlib.suppress(asyncio.CancelledError, _Gone, OSError, EOFError):
                        await exchange
        except (OSError, EOFError):
            reset(writer)
        except _Gone:
            pass
        finally:
            coming.cancel()
            self._clients.discard(writer)
            writer.close()

    # --- one exchange ----------------------------------------------------------------------------------

    async def _exchange(self, request: Request, client: asyncio.StreamWriter) -> None:
        named = self._classify(request)
        number = self.seen[named]
        self.seen[named] += 1
        session = request.headers.get("mcp-session-id")
        self.session = session or self.session
        x = _Exchange(request, client, self._drawn(named, number))
        if (strike := x.due("before")) is not None and await self._befall(x, strike):
            return
        if session in self.expired:
            client.write(_answer(404, "", _NO_SESSION))
            await client.drain()
            return
        await self._pass_on(x)

    def _drawn(self, named: str, number: int) -> Strike | None:
        for strike in self._strikes:
            if not strike.hit and named in strike.targets and number >= strike.nth and strike.place != "thinking":
                return strike
        return None

    async def _pass_on(self, x: _Exchange) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream, limit=LONGEST_HEAD)
        try:
            raw = with_header(x.request.head, "connection", "close") + x.request.body
            if (strike := x.due("request")) is not None:
                writer.write(raw[: len(raw) - max(1, len(x.request.body) // 2)])
                await writer.drain()
                if strike.kind == "reset":
                    reset(writer)
                await self._befall(x, strike)
            writer.write(raw)
            await writer.drain()
            await self._respond(x, reader)
        finally:
            writer.close()

    async def _respond(self, x: _Exchange, reader: asyncio.StreamReader) -> None:
        x.head = head = await read_head(reader)
        self.session = head.headers.get("mcp-session-id", self.session)
        async for unit in _swapped(x, units(head, reader)):
            if await self._unit(x, unit):
                return
        if (strike := x.due("done")) is not None and await self._befall(x, strike):
            return
        await self._let_go(x)
        await self._write(x, _LAST_CHUNK if head.chunked else b"")
        if (strike := x.due("last")) is not None:
            await self._befall(x, strike)
        if not head.chunked and head.length is None and head.status != 204:
            raise _Gone

    async def _unit(self, x: _Exchange, unit: bytes) -> bool:
        """Pass one unit on. True: another answer has gone out instead of the whole response."""
        assert x.head is not None
        message = message_in(unit, is_event=x.head.is_events)
        decisive = message is not None and message.get("id") is not None
        if (strike := x.due("done")) is not None:
            x.held.append(unit)
            return decisive and await self._befall(x, strike)
        await self._let_go(x)
        if (strike := x.due("between", "inside")) is not None and _is_the_one(strike, x.units, decisive):
            if strike.place == "inside":
                await self._write(x, _framed(x.head, unit[: len(unit) // 2]))
            await self._befall(x, strike)
            if strike.place == "inside":
                unit = unit[len(unit) // 2 :]
        x.units += 1
        await self._write(x, _framed(x.head, unit))
        if (strike := x.strike) is not None and strike.kind == "twice" and x.head.is_events:
            strike.hit = True
            await self._write(x, _framed(x.head, unit))
        return False

    async def _let_go(self, x: _Exchange) -> None:
        """The head, and what was held back."""
        assert x.head is not None
        if not x.written:
            raw = x.head.without("connection")
            if (strike := x.due("head")) is not None:
                await self._write(x, raw[: len(raw) // 2])
                await self._befall(x, strike)
            x.written = True
            await self._write(x, raw)
        held, x.held = x.held, []
        for unit in held:
            await self._write(x, _framed(x.head, unit))

    async def _write(self, x: _Exchange, data: bytes) -> None:
        if x.client in self._frozen:
            await asyncio.Event().wait()
        if x.client.is_closing():
            raise _Gone
        x.client.write(data)
        await x.client.drain()

    async def _befall(self, x: _Exchange, strike: Strike) -> bool:
        """Do it. True: the exchange is answered. Raises _Gone where its connection has ended."""
        strike.hit = True
        match strike.kind:
            case "reset":
                reset(x.client)
                raise _Gone
            case "half-open":
                self._frozen.add(x.client)
                await asyncio.Event().wait()
            case "cut" | "ended":
                await self._end(x, strike)
            case "status":
                x.client.write(_answer(strike.status, strike.retry_after))
                await x.client.drain()
                return True
            case "doubled":
                self._keep(self._again(x.request))
            case "act":
                await self._act(strike)
                if strike.lost:
                    reset(x.client)
                    raise _Gone
        return False

    async def _end(self, x: _Exchange, strike: Strike) -> None:
        if strike.kind == "ended" and x.head is not None and x.head.chunked:
            x.client.write(_LAST_CHUNK)
            await x.client.drain()
        x.client.close()
        raise _Gone

    async def _again(self, request: Request) -> None:
        """Deliver it once more, and throw away what comes of that."""
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream)
            try:
                writer.write(with_header(request.head, "connection", "close") + request.body)
                while await reader.read(65536):
                    pass
            finally:
                writer.close()


async def _next(reader: asyncio.StreamReader) -> Request | None:
    """The next request; None at the connection's end, however it came."""
    with contextlib.suppress(OSError, NotHttp):
        return await read_request(reader)
    return None


async def _swapped(x: _Exchange, events: Any) -> Any:
    """The events, with progress that follows on progress before it, if that is the strike."""
    strike = x.strike
    if strike is None or strike.kind != "swapped":
        async for unit in events:
            yield unit
        return
    held: bytes | None = None
    async for unit in events:
        if held is not None and _is_progress(unit):
            strike.hit = True
            yield unit
            unit = held  # noqa: PLW2901  they change places
            held = None
        elif held is None and _is_progress(unit):
            held = unit
            continue
        elif held is not None:
            yield held
            held = None
        yield unit
    if held is not None:
        yield held


def _is_progress(unit: bytes) -> bool:
    message = message_in(unit, is_event=True)
    return message is not None and message.get("method") == "notifications/progress"


def _is_the_one(strike: Strike, number: int, decisive: bool) -> bool:
    return decisive if strike.event is None else number == strike.event


def _framed(head: Head, data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data) if head.chunked and data else data


_NO_SESSION = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Session not found"}}'


def _answer(status: int, retry_after: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status} Struck", f"content-length: {len(body)}"]
    lines += [f"retry-after: {retry_after}"] if retry_after else []
    lines += ["content-type: application/json"] if body else []
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
