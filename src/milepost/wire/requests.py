"""One request of a handshake-era session, wherever it came from: a POST or a line on a pipe.

Workflows are runs of the engine, which this only starts and follows. Everything else is a call in memory, run by
the SDK's kernel on the session's own connection at the version that was negotiated, its params untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mcp.server.connection import Connection
from mcp.shared.dispatcher import Outbound
from mcp.shared.inbound import InboundModernRoute
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST
from structlog.contextvars import bind_contextvars

from milepost.core.errors import CallerError, CallIdUsed, Overloaded, RequestIdUsed, UnknownRun
from milepost.core.outside import Verdict
from milepost.core.records import CallContext, Lane, Outcome, Principal, Stream
from milepost.engine.admission import Place
from milepost.engine.runs import caller_of
from milepost.wire import by_hand
from milepost.wire.calls import call_id_of, context_of, stream_of
from milepost.wire.dispatch import WireContext, speaking
from milepost.wire.follow import Follower, Sink
from milepost.wire.hot import CANCELLED, LiveCall
from milepost.wire.parts import Parts
from milepost.wire.rpc import Message, Refused
from milepost.wire.sessions import LiveSession, Sessions
from milepost.wire.streams import META, Rendering

_WORK = frozenset({"tools/call", "resources/read", "prompts/get", "completion/complete"})
"""Methods that run an author's code. The others cost next to nothing, or wait for ever (`subscriptions/listen`)."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """How a request reached us, as far as its handler may know."""

    transport: TransportContext
    request: Any = None
    """What the tool sees as its HTTP request; None on a pipe."""
    resumable: bool = False
    """Whether its stream may be closed and come back to (`ctx.close_sse_stream()`)."""
    outbound: Outbound | None = None
    """A pipe's own way to say what belongs to no request; over HTTP a modern request has none."""

    def connection(self, route: InboundModernRoute) -> Connection:
        """The connection of one modern request."""
        more = {} if self.outbound is None else {"outbound": self.outbound}
        return Connection.from_envelope(route.protocol_version, route.client_info, route.client_capabilities, **more)


class Requests:
    """Starts the requests of sessions."""

    def __init__(self, parts: Parts, sessions: Sessions) -> None:
        self._parts = parts
        self._sessions = sessions

    def lane(self, message: Message) -> Lane | None:
        """How a request is served: as a workflow, or (None) in memory. In this era hot and stateless are one."""
        if message["method"] != "tools/call":
            return None
        name = (message.get("params") or {}).get("name")
        if self.is_by_hand(name):
            return Lane.WORKFLOW
        return Lane.WORKFLOW if self._parts.lane(name) is Lane.WORKFLOW else None

    def is_by_hand(self, name: object) -> bool:
        """Whether this tool is our own `continue_run` (a tool of the server with that name is the server's)."""
        parts = self._parts
        return name == by_hand.TOOL and name not in parts.hosted.tools and parts.may_wait

    def in_flight(self, live: LiveSession, message: Message) -> LiveCall | None:
        """The call in memory that is this same request, sent before and not done yet.

        Raises Refused where the id names another request in flight: its client would take one answer for the other.
        """
        there = live.calls.get(message["id"])
        workflow = self.lane(message) is Lane.WORKFLOW
        if there is None or (workflow and isinstance(there, Following)):
            return None  # of a workflow, the run's rows tell whether it is the same
        if workflow or not isinstance(there, LiveCall) or not _same(there.message, message):
            raise Refused(400, INVALID_REQUEST, str(RequestIdUsed(message["id"])), request_id=message["id"])
        return there

    # --- in memory -----------------------------------------------------------------------------------

    async def room(self, message: Message, principal: Principal, session: str | None) -> Place | None:
        """A place for a request that may be work; None for one that costs next to nothing.

        Raises Refused (503) where there is none to be had.
        """
        if message["method"] not in _WORK:
            return None
        who, door = caller_of(principal, session), self._parts.admission
        place = door.enter_nowait(who)
        if place is not None:
            return place
        with refusing(message, self._parts):
            return await door.enter(who)

    async def begin(self, live: LiveSession, message: Message, principal: Principal, carrier: Carrier) -> LiveCall:
        """Run a request in a task of its own, once there is room. Raises Refused.

        Where the same one came again while this one waited for room, that one's call is returned.
        """
        place = await self.room(message, principal, live.reference)
        try:
            call = self.in_flight(live, message)
            if call is None:
                call = self._begin(live, message, principal, carrier)
                call.place, place = place, None
            return call
        finally:
            if place is not None:
                place.leave()

    def _begin(self, live: LiveSession, message: Message, principal: Principal, carrier: Carrier) -> LiveCall:
        call = LiveCall(
            self._parts,
            self._context(live, message, principal),
            stream_of(self._parts, message, principal, session=live.row.id),
        )
        call.message = message
        live.calls[message["id"]] = call
        call.task = self._parts.runs.keep(self._run(live, call, message, carrier))
        return call

    async def _run(self, live: LiveSession, call: LiveCall, message: Message, carrier: Carrier) -> None:
        speaking.set(call)
        bind_contextvars(tool=call.call.tool, session=live.reference, trace_id=call.call.trace_id)
        await call.run(self._dispatch(live, call, message, carrier))

    async def _dispatch(self, live: LiveSession, call: LiveCall, message: Message, carrier: Carrier) -> Outcome:
        metadata = None
        if carrier.request is not None:
            metadata = ServerMessageMetadata(
                request_context=carrier.request,
                close_sse_stream=call.close_stream if carrier.resumable else None,
                close_standalone_sse_stream=_closer(live) if carrier.resumable else None,
            )
        context = WireContext(message["id"], carrier.transport, metadata, channel=call)
        result = await live.runner.on_request(context, message["method"], message.get("params"))
        await self._remember(live, message)
        if message["method"] == "tools/list":
            self.fit_list(result, live.capabilities)
        return Outcome(result=result)

    async def _remember(self, live: LiveSession, message: Message) -> None:
        """Store what must outlive this replica of what a request changed in its session."""
        method, params = message["method"], message.get("params") or {}
        if method == "logging/setLevel":
            await self._sessions.save(live, log_level=params.get("level"))
        elif method in ("resources/subscribe", "resources/unsubscribe"):
            others = tuple(uri for uri in live.row.subscriptions if uri != params.get("uri"))
            added = (str(params.get("uri")),) if method == "resources/subscribe" else ()
            await self._sessions.save(live, subscriptions=others + added)

    def fit_list(self, result: Message, capabilities: Any) -> None:
        """Say in a tool list what only we know: of which tools a call that is made again finds its run."""
        for tool in result.get("tools", ()):
            if self._parts.is_stateful(tool.get("name")):
                tool["_meta"] = {**(tool.get("_meta") or {}), META + "lane": "stateful"}
        self._list_by_hand(result, capabilities)

    def _list_by_hand(self, result: Message, capabilities: Any) -> None:
        """Fit a tool list to a client that can't be asked: `continue_run` is in it, where there may be something to
        continue, and tools that may wait promise no output schema, for what they say while they wait doesn't fit one.
        """
        if "elicitation" in capabilities or not self.is_by_hand(by_hand.TOOL):
            return
        for tool in result.get("tools", ()):
            if self._parts.lane(tool.get("name")) is not None:
                tool.pop("outputSchema", None)
        if not result.get("nextCursor"):
            result["tools"] = [*result.get("tools", ()), by_hand.DEFINITION]

    def _context(self, live: LiveSession, message: Message, principal: Principal) -> CallContext:
        return context_of(
            self._parts,
            message,
            version=live.row.version,
            principal=principal,
            client_info=live.client_info,
            capabilities=live.capabilities,
            session=live.reference,
            log_level=live.row.log_level,
        )

    # --- workflows -----------------------------------------------------------------------------------

    async def workflow(
        self, live: LiveSession, message: Message, principal: Principal, sink: Sink
    ) -> tuple[Follower, str, int]:
        """Start, or attach to, the run of this call. Returns its follower, the run's id and where to begin.

        Raises Refused in this era's words.
        """
        call = self._context(live, message, principal)
        mine = stream_of(self._parts, message, principal, session=live.row.id)
        with refusing(message, self._parts):
            if self.is_by_hand(call.tool):
                return await self._by_hand(live, call, mine, sink)
            stream: Stream = await self._parts.runs.call(call, mine, call_id=call_id_of(message.get("params")))
        bind_contextvars(tool=call.tool, session=live.reference, run_id=stream.run_id, trace_id=call.trace_id)
        mine_alone = stream.id == mine.id and not stream.attached
        follower = await self.follower(live, stream, sink, trace_id=call.trace_id if mine_alone else "")
        return follower, stream.run_id, 0

    async def cancel_left(self, live: LiveSession, request_id: int | str) -> None:
        """Cancel the run of a workflow's request that has no open stream here: it is closed, or another replica's.

        As ever, a run that somebody follows is not ended by one who leaves.
        """
        stream = await self._parts.store.stream_of_request(live.row.id, request_id)
        if stream is None or self._parts.followers.get(stream.run_id):
            return
        run = await self._parts.runs.run(stream.run_id)
        if run is not None and run.lane is Lane.WORKFLOW:
            await self._parts.runs.cancel(run.id, reason="client")

    async def _by_hand(
        self, live: LiveSession, call: CallContext, mine: Stream, sink: Sink
    ) -> tuple[Follower, str, int]:
        """`continue_run`: answers first, then the stream, which begins where the run now is."""
        run_id, notes = await answer_by_hand(self._parts, call)
        run = await self._parts.runs.run(run_id)
        stream: Stream = await self._parts.runs.attach(run_id, mine)
        follower = await self.follower(live, stream, sink)
        follower.notes = notes
        return follower, run_id, run.event_seq if run is not None and run.outcome is None else 0

    async def follower(self, live: LiveSession, stream: Stream, sink: Sink, *, trace_id: str = "") -> Follower:
        """A follower of `stream` with this session's view of it."""
        started = 0.0
        if not trace_id:
            run = await self._parts.runs.run(stream.run_id)
            if run is not None:
                trace_id, started = run.call.trace_id, run.created_at
        rendering = Rendering(
            stream,
            capabilities=live.capabilities,
            shape=self._parts.shaper(live.row.version),
            trace_id=trace_id,
            started_at=started,
        )
        return Follower(self._parts, rendering, sink)


async def answer_by_hand(parts: Parts, call: CallContext) -> tuple[str, dict[int, str]]:
    """Record the answers of a `continue_run`. Returns the run's id, and why answers were refused, by question.

    Raises UnknownRun where it isn't the caller's, CallerError where the answers can't be read.
    """
    run_id = call.arguments.get("run_id")
    run = await parts.runs.run(run_id) if isinstance(run_id, str) else None
    if run is None or run.call.principal.owner != call.principal.owner:
        raise UnknownRun(f"no run {run_id!r} of yours: use the run_id of the result that asked")
    replies = by_hand.replies_in(call.arguments, await parts.runs.open_questions(run.id))
    if not replies:
        return run.id, {}
    rulings = await parts.runs.answer(run.id, replies, by=call.principal, via="tool")
    return run.id, {number: ruling.reason for number, ruling in rulings.items() if ruling.verdict is Verdict.INVALID}


class refusing:  # noqa: N801 - reads as a verb: `with refusing(...)`
    """Turns what the engine says no with into a refusal on the wire."""

    def __init__(self, message: Message, parts: Parts) -> None:
        self._request_id = message["id"]
        self._retry_after = parts.limits.retry_after

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, Overloaded):
            after = max(1, round(exc.retry_after))
            raise Refused(
                503,
                INTERNAL_ERROR,
                str(exc),
                request_id=self._request_id,
                data={"retry_after": after},
                headers=((b"retry-after", str(after).encode()),),
            ) from exc
        if isinstance(exc, CallerError):
            code = INVALID_REQUEST if isinstance(exc, RequestIdUsed | CallIdUsed) else INVALID_PARAMS
            raise Refused(400, code, str(exc), request_id=self._request_id) from exc


def _same(one: Message, other: Message) -> bool:
    """Whether two requests with one id are the same, sent twice. Its `_meta` (a progress token, a trace) may differ."""
    return _essence(one) == _essence(other)


def _essence(message: Message) -> tuple[Any, dict[str, Any]]:
    return message["method"], {key: value for key, value in (message.get("params") or {}).items() if key != "_meta"}


def _closer(live: LiveSession) -> Callable[[], Any]:
    async def close() -> None:
        if live.listener is not None:
            live.listener.close()

    return close


class Following:
    """A workflow's request in flight: cancelling it cancels its run, unless somebody else follows that too."""

    def __init__(self, parts: Parts, follower: Follower, run_id: str) -> None:
        self._parts = parts
        self.follower = follower
        self.run_id = run_id

    def cancel(self) -> None:
        self._parts.runs.keep(self._cancel())

    async def _cancel(self) -> None:
        others = self._parts.followers.get(self.run_id, 0)
        if others > 1:
            await self.follower.give_up(CANCELLED)
        else:
            await self._parts.runs.cancel(self.run_id, reason="client")
