"""The handshake era (MCP up to 2025-11-25) over HTTP: sessions, POST, GET and DELETE.

Any replica serves any session, its streams and its answers; a socket that breaks costs nothing, because closing
one is no cancellation in this era. Each request runs and is answered on its own, so no call waits for another.
Source: 2025-11-25 basic/transports.mdx, basic/lifecycle.mdx.
"""

from __future__ import annotations

from typing import Any

from mcp.shared.jsonrpc_dispatcher import cancelled_request_id_from_params
from mcp.shared.transport_context import TransportContext
from mcp_types import INVALID_REQUEST
from starlette.requests import Request

from milepost.core import ids
from milepost.core.records import Lane, Principal
from milepost.wire import answers, rpc
from milepost.wire.dispatch import WireContext, tear_down
from milepost.wire.follow import SseSink
from milepost.wire.hot import LiveCall
from milepost.wire.http import Exchange
from milepost.wire.parts import Parts
from milepost.wire.platform import begun, is_foreign, shaken, stand_in
from milepost.wire.requests import Carrier, Requests
from milepost.wire.rpc import Kind, Message, Refused
from milepost.wire.sessions import LiveSession, Sessions
from milepost.wire.telling import Standalone, Teller, named, no_stream, resumable


class Handshake:
    """Serves one exchange of this era."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.sessions = Sessions(parts)
        self.requests = Requests(parts, self.sessions)
        self._teller = Teller(parts, self.requests)

    # --- POST ----------------------------------------------------------------------------------------

    async def post(self, exchange: Exchange, principal: Principal, kind: Kind, message: Message) -> None:
        """Serve one message. Raises Refused before anything was said."""
        request_id = message.get("id") if kind is Kind.REQUEST else None
        _check_accept(exchange, request_id)
        session_id = exchange.headers.get("mcp-session-id")
        if session_id is not None and is_foreign(self._parts, session_id):
            await self._foreign(exchange, principal, kind, message, session_id)
            return
        if kind is Kind.REQUEST and message["method"] == "initialize":
            await self._initialize(exchange, principal, message)
            return
        if session_id is None:
            await self._without_session(exchange, kind, message)
            return
        live = await self.sessions.find(session_id, principal, request_id)
        if kind is Kind.REQUEST:
            await self._request(exchange, principal, live, message)
            return
        if kind is Kind.NOTIFICATION:
            await self._notification(live, message)
        else:
            await answers.take(self._parts, message, session=live.row.id, principal=principal)
        await exchange.reply(202)

    async def _initialize(self, exchange: Exchange, principal: Principal, message: Message) -> None:
        try:
            live, result = await self.sessions.open(message, principal)
        except Refused:
            raise
        except Exception as exc:
            await exchange.reply_json({"jsonrpc": "2.0", "id": message["id"], "error": rpc.error_of(exc)})
            return
        await exchange.reply_json(rpc.success(message["id"], result), headers=named(live))

    async def _foreign(
        self, exchange: Exchange, principal: Principal, kind: Kind, message: Message, session_id: str
    ) -> None:
        """A request under a platform's own session id."""
        if kind is not Kind.REQUEST:
            await exchange.reply(202)
            return
        live = stand_in(self._parts, session_id, exchange.headers.get("mcp-protocol-version"), principal)
        try:
            if message["method"] == "initialize":
                await exchange.reply_json(await shaken(live, message), headers=named(live))
            else:
                await self._request(exchange, principal, begun(live), message)
        finally:
            await tear_down(live.connection)

    async def _without_session(self, exchange: Exchange, kind: Kind, message: Message) -> None:
        """Only a ping needs no session (lifecycle: it may come before `initialize`)."""
        if kind is Kind.REQUEST and message["method"] == "ping":
            await exchange.reply_json(rpc.success(message["id"], {}))
            return
        raise Refused(
            400,
            INVALID_REQUEST,
            "Missing Mcp-Session-Id: send `initialize` first, and then its session id with every request",
            request_id=message.get("id"),
        )

    async def _notification(self, live: LiveSession, message: Message) -> None:
        method, params = message["method"], message.get("params")
        if method == "notifications/cancelled":
            request_id = cancelled_request_id_from_params(params)
            in_flight = live.calls.get(request_id) if request_id is not None else None
            if in_flight is not None:
                in_flight.cancel()
            elif request_id is not None:
                await self.requests.cancel_left(live, request_id)
        context = WireContext(None, TransportContext(kind="streamable-http", can_send_request=False), None)
        await live.runner.on_notify(context, method, params)
        if method == "notifications/initialized" and not live.row.initialized:
            await self.sessions.save(live, initialized=True)

    async def _request(self, exchange: Exchange, principal: Principal, live: LiveSession, message: Message) -> None:
        """A request: attach to the same one if it is in flight here, else start it."""
        call = self.requests.in_flight(live, message)
        if call is not None:
            await self._teller.tell_again(exchange, live, call, after=0)
            return
        if self.requests.lane(message) is Lane.WORKFLOW:
            sink = SseSink(exchange)
            follower, run_id, after = await self.requests.workflow(live, message, principal, sink)
            await self._teller.tell_run(exchange, live, follower, run_id, after)
            return
        carrier = Carrier(
            TransportContext(kind="streamable-http", can_send_request=True, headers=exchange.headers),
            Request(exchange.scope, exchange.receive),
            resumable=resumable(live),
        )
        await self._teller.tell_call(exchange, live, await self.requests.begin(live, message, principal, carrier))

    # --- GET and DELETE ------------------------------------------------------------------------------

    async def get(self, exchange: Exchange, principal: Principal) -> None:
        """The session's standalone stream, or, with Last-Event-ID, the rest of a request's stream."""
        if not exchange.accepts()[1]:
            raise Refused(406, INVALID_REQUEST, "Not acceptable: a GET is answered with text/event-stream")
        live = await self._session_of(exchange, principal)
        last = exchange.headers.get("last-event-id")
        if last:
            await self._resume(exchange, principal, live, last)
        else:
            await Standalone(self._parts, exchange, live).serve()

    async def delete(self, exchange: Exchange, principal: Principal) -> None:
        """The client ends its session."""
        await self.sessions.end(await self._session_of(exchange, principal))
        await exchange.reply(200)

    async def _session_of(self, exchange: Exchange, principal: Principal) -> LiveSession:
        session_id = exchange.headers.get("mcp-session-id")
        if session_id is None:
            raise Refused(400, INVALID_REQUEST, "Missing Mcp-Session-Id")
        if is_foreign(self._parts, session_id):
            text = "Method not allowed: a platform's session has no stream and no end here"
            raise Refused(405, INVALID_REQUEST, text, headers=((b"allow", b"POST"),))
        return await self.sessions.find(session_id, principal, None)

    async def _resume(self, exchange: Exchange, principal: Principal, live: LiveSession, last: str) -> None:
        """Go on with a stream after event `last`: its owner only, and no other stream's messages."""
        place = ids.parse_event_id(last)
        if place is None:
            raise no_stream()
        call = next((c for c in live.calls.values() if isinstance(c, LiveCall) and c.stream.id == place[0]), None)
        if call is not None and call.hot is None:
            await self._teller.tell_again(exchange, live, call, after=call.written)
            return
        stream = await self._parts.store.stream(place[0])
        if stream is None or stream.session != live.row.id or stream.owner.owner != principal.owner:
            raise no_stream()
        await self._teller.resume(exchange, live, stream, place[1])


def _check_accept(exchange: Exchange, request_id: Any) -> None:
    if exchange.accepts() != (True, True):
        raise Refused(
            406,
            INVALID_REQUEST,
            "Not acceptable: `Accept` must list application/json and text/event-stream",
            request_id=request_id,
        )
