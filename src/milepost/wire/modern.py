"""The modern era (MCP 2026-07-28) over HTTP: every POST stands for itself.

A request is answered as JSON, with the status that its error calls for, unless it has something to say on the way;
then it becomes an event stream. A client that closes its connection cancels that request, and a run that it was
following is parked. Source: 2026-07-28 basic/transports/streamable-http.mdx.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import anyio
import structlog
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    MCP_PROTOCOL_VERSION_HEADER,
    InboundLadderRejection,
    InboundModernRoute,
    classify_inbound_request,
    find_duplicated_routing_header,
    unsupported_protocol_version_rejection,
)
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types import HEADER_MISMATCH, INTERNAL_ERROR, INVALID_REQUEST
from starlette.requests import Request

from milepost.core.errors import StoreError
from milepost.core.records import CallContext, Delivery, JSONObject, Lane, Principal, Stream
from milepost.engine.runs import caller_of
from milepost.wire import rpc
from milepost.wire.calls import call_id_of, context_of, meta_of, progress_token, stream_of, trace_of
from milepost.wire.dispatch import WireContext, serve_once, speaking
from milepost.wire.follow import Ended, Hold
from milepost.wire.hot import LiveCall
from milepost.wire.http import Exchange
from milepost.wire.param_headers import ParamHeaders
from milepost.wire.parts import Parts
from milepost.wire.replying import HttpReply, Reply
from milepost.wire.requests import Carrier, Requests, answer_by_hand, refusing
from milepost.wire.rounds import Leg, take_up
from milepost.wire.rpc import Kind, Message, Refused
from milepost.wire.seal import Bound
from milepost.wire.streams import Rendering

_log = structlog.get_logger(__name__)


class Guard:
    """Watches a request that takes longer than a moment: when its client no longer wants it, it is cancelled."""

    def __init__(self, parts: Parts, reply: Reply) -> None:
        self._parts = parts
        self._reply = reply
        self.scope = anyio.CancelScope()
        self._tasks: list[asyncio.Task[None]] = []
        self._timer = asyncio.get_running_loop().call_later(parts.limits.commit_after, self._start)

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._watch()), loop.create_task(self._ping())]

    async def _watch(self) -> None:
        await self._reply.gone()
        self.scope.cancel()

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(self._parts.limits.ping_every)
            await self._reply.beat()

    def stop(self) -> None:
        self._timer.cancel()
        for task in self._tasks:
            task.cancel()


class Modern:
    """Serves one exchange of this era."""

    def __init__(self, parts: Parts, requests: Requests) -> None:
        self._parts = parts
        self._requests = requests
        self._param_headers = ParamHeaders(parts)

    async def post(self, exchange: Exchange, principal: Principal, kind: Kind, message: Message) -> None:
        """Serve one message. Raises Refused before anything was said."""
        if kind is Kind.NOTIFICATION:
            await self._notification(exchange)
            return
        if kind is Kind.ANSWER:
            raise Refused(400, INVALID_REQUEST, "Responses aren't POSTed at this version: retry the call instead")
        _check_accept(exchange, message["id"])
        route = await self._route(exchange, message)
        reply = HttpReply(exchange, progress_token(message.get("params")))
        transport = TransportContext(kind="streamable-http", can_send_request=False, headers=exchange.headers)
        await self.serve(
            reply, principal, message, route, Carrier(transport, Request(exchange.scope, exchange.receive))
        )

    async def serve(
        self, reply: Reply, principal: Principal, message: Message, route: InboundModernRoute, carrier: Carrier
    ) -> None:
        """Serve a request that has passed the envelope's rules, from HTTP or from a pipe."""
        lane = self._lane(message) if message["method"] == "tools/call" else None
        if lane is None:
            place = await self._requests.room(message, principal, None)
            try:
                await self._plain(reply, message, route, carrier)
            finally:
                if place is not None:
                    place.leave()
            return
        try:
            await self._call(reply, principal, message, route, lane)
        except (Refused, StoreError) as exc:
            if not reply.started:
                raise
            code = exc.code if isinstance(exc, Refused) else INTERNAL_ERROR
            await reply.finish(rpc.failure(message["id"], code, str(exc)))

    async def _notification(self, exchange: Exchange) -> None:
        """Acknowledged and dropped: this era has none from clients over HTTP, but some still send them."""
        refused = unsupported_protocol_version_rejection(exchange.headers.get(MCP_PROTOCOL_VERSION_HEADER, ""))
        if refused is not None:
            raise _refusal(refused, None)
        await exchange.reply(202)

    async def _route(self, exchange: Exchange, message: Message) -> InboundModernRoute:
        """The header rules and the envelope. Raises Refused with the first that fails."""
        request_id = message["id"]
        if exchange.repeated:
            pairs = ((k.decode("latin-1"), "") for k, _ in exchange.scope["headers"])
            doubled = find_duplicated_routing_header(pairs)
            if doubled is not None:
                raise Refused(400, HEADER_MISMATCH, f"{doubled} header appears more than once", request_id=request_id)
        verdict = classify_inbound_request(message, headers=exchange.headers)
        if isinstance(verdict, InboundLadderRejection):
            raise _refusal(verdict, request_id)
        if message["method"] == "tools/call":
            mismatch = await self._param_headers.mismatch(exchange, message, verdict)
            if mismatch is not None:
                raise _refusal(mismatch, request_id)
        return verdict

    def _lane(self, message: Message) -> Lane | None:
        name = message["params"].get("name")
        return Lane.WORKFLOW if self._requests.is_by_hand(name) else self._parts.lane(name)

    # --- the short way -------------------------------------------------------------------------------

    async def _plain(self, reply: Reply, message: Message, route: InboundModernRoute, carrier: Carrier) -> None:
        """A request that the SDK's kernel serves at the wire's version, its params untouched."""
        if message["method"] == "tools/call":
            trace_id = trace_of(meta_of(message["params"]), self._parts.noise(16))
            structlog.contextvars.bind_contextvars(tool=message["params"].get("name"), trace_id=trace_id)
        metadata = ServerMessageMetadata(request_context=carrier.request) if carrier.request is not None else None
        context = WireContext(message["id"], carrier.transport, metadata, voice=reply)
        guard = Guard(self._parts, reply)
        response: Message | None = None
        try:
            with guard.scope:
                response = await self._dispatch(context, message, route, carrier)
        finally:
            guard.stop()
        if response is not None:
            await reply.finish(response)

    async def _dispatch(
        self, context: WireContext, message: Message, route: InboundModernRoute, carrier: Carrier
    ) -> Message:
        parts = self._parts
        try:
            result = await serve_once(
                parts.server, context, message, connection=carrier.connection(route), state=parts.state
            )
        except Exception as exc:
            error = rpc.error_of(exc)
            if error["code"] == INTERNAL_ERROR:
                _log.exception("a request handler raised", method=message["method"])
            return {"jsonrpc": "2.0", "id": message["id"], "error": error}
        if message["method"] == "tools/list":
            self._requests.fit_list(result, route.client_capabilities or {})
        return rpc.success(message["id"], result)

    # --- runs ----------------------------------------------------------------------------------------

    async def _call(
        self, reply: Reply, principal: Principal, message: Message, route: InboundModernRoute, lane: Lane
    ) -> None:
        """A call of a tool that may ask: start or take up its run, and go one leg with it."""
        params = message["params"]
        call = context_of(
            self._parts,
            message,
            version=route.protocol_version,
            principal=principal,
            client_info=_object(route.client_info),
            capabilities=_object(route.client_capabilities),
        )
        structlog.contextvars.bind_contextvars(tool=call.tool, trace_id=call.trace_id)
        stream = stream_of(self._parts, message, principal)
        bound = Bound(principal, "tools/call", call.tool, call.arguments)
        with refusing(message, self._parts):
            if params.get("requestState") is not None:
                stream, after, notes = await take_up(self._parts, params, bound, stream)
            elif self._requests.is_by_hand(call.tool):
                stream, after, notes = await self._by_hand(call, stream)
            elif lane is Lane.HOT:
                await self._hot(call, stream, bound, reply)
                return
            else:
                stream, after, notes = await self._parts.runs.call(call, stream, call_id=call_id_of(params)), 0, {}
        await self._leg(await self._new_leg(call, stream, bound, reply, notes), after, reply)

    async def _by_hand(self, call: CallContext, stream: Stream) -> tuple[Stream, int, dict[int, str]]:
        run_id, notes = await answer_by_hand(self._parts, call)
        run = await self._parts.runs.run(run_id)
        return await self._parts.runs.attach(run_id, stream), run.event_seq if run is not None else 0, notes

    async def _new_leg(
        self, call: CallContext, stream: Stream, bound: Bound, reply: Reply, notes: Mapping[int, str]
    ) -> Leg:
        trace_id, started = call.trace_id, 0.0
        run = await self._parts.runs.run(stream.run_id) if stream.attached else None
        if run is not None:
            trace_id, started = run.call.trace_id, run.created_at
        shape = self._parts.shaper(call.wire_version)
        rendering = Rendering(stream, call.capabilities, shape, trace_id=trace_id, started_at=started)
        return Leg(self._parts, rendering, bound, reply, notes)

    async def _leg(self, leg: Leg, after: int, reply: Reply) -> None:
        """Go one leg; the socket's end before it is the request's cancellation."""
        structlog.contextvars.bind_contextvars(run_id=leg.rendering.stream.run_id)
        responses: list[Message] = []

        async def story() -> None:
            responses.append(await leg.response(after))

        why = Ended.GONE
        try:
            why = await Hold(self._parts, reply.gone, leg.rendering.stream.id).tell(story())
            if why is Ended.CLOSED:
                responses.append(leg.come_back())
            if responses:
                await reply.finish(responses[0], retry_after=leg.retry_after)
        finally:
            with anyio.CancelScope(shield=True):
                sent = bool(responses) and why is Ended.TOLD
                delivery = Delivery.SENT if sent and leg.final else None
                await leg.leave(delivery=delivery, park=why is Ended.GONE and not self._parts.traffic.draining)

    # --- hot -----------------------------------------------------------------------------------------

    async def _hot(self, call: CallContext, stream: Stream, bound: Bound, reply: Reply) -> None:
        """A tool that asks without being a workflow: in memory until it asks, then a leg like any other."""
        live = LiveCall(self._parts, call, stream)
        live.place = await self._parts.admission.enter(caller_of(call.principal, None))
        live.task = self._parts.runs.keep(self._run_hot(live))
        news = live.listen()
        try:
            why = await Hold(self._parts, reply.gone, stream.id).tell(self._from_memory(live, news, reply))
        finally:
            live.deafen(news)
        if why is Ended.GONE and live.hot is None:
            live.cancel()
        elif live.hot is not None:
            stored = await self._parts.runs.attach(live.hot.run_id, stream)
            await self._leg(await self._new_leg(call, stored, bound, reply, {}), 0, reply)
        elif live.outcome is not None:
            shape = self._parts.shaper(call.wire_version)
            await reply.finish(Rendering(stream, call.capabilities, shape).plain(live.outcome))

    async def _run_hot(self, live: LiveCall) -> None:
        speaking.set(live)
        await live.run(self._parts.kernel().execute(live.call, live))

    async def _from_memory(self, live: LiveCall, news: asyncio.Event, reply: Reply) -> None:
        told = 0
        while live.hot is None:
            while message := live.unread(told):
                told += 1
                await reply.say(message)
            if live.outcome is not None:
                return
            try:
                async with asyncio.timeout(self._parts.limits.ping_every):
                    await news.wait()
            except TimeoutError:
                await reply.beat()
            news.clear()


def _object(value: object) -> JSONObject | None:
    return value if isinstance(value, dict) else None


def _check_accept(exchange: Exchange, request_id: Any) -> None:
    if exchange.accepts() != (True, True):
        raise Refused(
            406,
            INVALID_REQUEST,
            "Not acceptable: `Accept` must list application/json and text/event-stream",
            request_id=request_id,
        )


def _refusal(rejection: InboundLadderRejection, request_id: Any) -> Refused:
    return Refused(
        ERROR_CODE_HTTP_STATUS.get(rejection.code, 400),
        rejection.code,
        rejection.message,
        request_id=request_id,
        data=rejection.data,
    )
