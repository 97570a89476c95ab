"""The MCP endpoint: both protocol eras behind one door, as bare ASGI.

What is decided here, once for both: who may come in (Host, Origin, body size, JSON), which era a message belongs to,
who calls, and how anything that goes wrong is said. Everything else is the era's.
"""

from __future__ import annotations

from typing import Any

import structlog
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, PROTOCOL_VERSION_META_KEY
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.types import Receive, Scope, Send

from milepost.core.errors import StoreError
from milepost.core.records import Principal
from milepost.engine.admission import Admission
from milepost.seams import Store
from milepost.wire import rpc
from milepost.wire.calls import meta_of
from milepost.wire.floor import Floor
from milepost.wire.handshake import Handshake
from milepost.wire.http import Exchange, Gone
from milepost.wire.limits import WireLimits
from milepost.wire.modern import Modern
from milepost.wire.parts import Parts
from milepost.wire.principals import principal_of
from milepost.wire.rpc import Kind, Message, Refused
from milepost.wire.seal import Seal
from milepost.wire.session_ids import SessionIds
from milepost.wire.target import Hosted
from milepost.wire.web_request import seen_by

_log = structlog.get_logger(__name__)


class Endpoint:
    """`/mcp` as an ASGI application. The store is open and the engine started before the first request."""

    def __init__(self, hosted: Hosted, lifespan_state: Any, runs: Any, store: Store, limits: WireLimits) -> None:
        keys = list(limits.request_state_keys) or [store.secret("request-state")]
        self._parts = Parts(
            hosted=hosted,
            state=lifespan_state,
            runs=runs,
            store=store,
            limits=limits,
            seal=Seal(keys, audience=limits.audience or hosted.name),
            session_ids=SessionIds(store.secret("sessions")),
            floor=Floor(runs.keep),
            admission=Admission(limits.in_memory()),
        )
        self.handshake = Handshake(self._parts)
        self._seen = seen_by(hosted.origin)
        self.modern = Modern(self._parts, self.handshake.requests)

    @property
    def parts(self) -> Parts:
        """What the pipe (`stdio`) shares with this endpoint."""
        return self._parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        try:
            await self._serve(exchange)
        except Refused as refused:
            await exchange.refuse(refused)
        except Gone:
            return
        except StoreError as exc:
            _log.error("the store failed under a request", error=str(exc))
            await exchange.refuse(self._unavailable(f"The server can't store anything right now: {exc}"))
        except Exception:
            _log.exception("a request failed")
            await exchange.refuse(Refused(500, INTERNAL_ERROR, "Internal server error"))
        finally:
            if exchange.started and not exchange.finished:
                await exchange.end_stream()

    async def _serve(self, exchange: Exchange) -> None:
        limits = self._parts.limits
        if limits.check_hosts:
            _check_origin(exchange, limits)
        if self._parts.traffic.draining and exchange.method != "POST":
            raise self._draining()
        principal = principal_of(exchange.scope, single_user=limits.single_user)
        if exchange.method == "POST":
            with self._parts.traffic.request():
                await self._post(exchange, principal)
            return
        version = exchange.headers.get(MCP_PROTOCOL_VERSION_HEADER)
        if version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS:
            raise _not_allowed(b"POST")
        if exchange.method == "GET":
            await self.handshake.get(exchange, principal)
        elif exchange.method == "DELETE":
            await self.handshake.delete(exchange, principal)
        else:
            raise _not_allowed(b"GET, POST, DELETE")

    async def _post(self, exchange: Exchange, principal: Principal) -> None:
        if not exchange.is_json():
            raise Refused(415, INVALID_REQUEST, "Unsupported media type: send application/json")
        kind, message = rpc.read(await exchange.body(self._parts.limits.max_body))
        if self._parts.traffic.draining and not _carries_answers(kind, message):
            raise self._draining()
        try:
            if self._seen is None:
                await self._era(exchange, principal, kind, message)
            else:
                with self._seen(exchange):
                    await self._era(exchange, principal, kind, message)
        except Refused as refused:
            if refused.request_id is None and kind is Kind.REQUEST:
                refused.request_id = message["id"]
            raise

    async def _era(self, exchange: Exchange, principal: Principal, kind: Kind, message: Message) -> None:
        if _is_modern(exchange, kind, message):
            await self.modern.post(exchange, principal, kind, message)
        else:
            await self.handshake.post(exchange, principal, kind, message)

    def _draining(self) -> Refused:
        return self._unavailable("This server is shutting down: try again, another will answer")

    def _unavailable(self, text: str) -> Refused:
        after = str(self._parts.limits.retry_after).encode()
        return Refused(503, INTERNAL_ERROR, text, headers=((b"retry-after", after),))

    async def start(self) -> None:
        """Nothing to begin with: what there is begins with a request."""

    async def drain(self) -> bool:
        """Take nothing new, end the streams (their clients come back), wait for what is in flight.

        Returns whether all was done within the grace. Idempotent.
        """
        listening = self._parts.server.get_request_handler("subscriptions/listen")
        close = getattr(listening.handler, "close", None) if listening is not None else None
        if close is not None:
            close()
        return await self._parts.traffic.drain(self._parts.limits.drain_grace)

    async def aclose(self) -> None:
        """Let go of all connections. After `drain`."""
        await self.handshake.sessions.aclose()


def _is_modern(exchange: Exchange, kind: Kind, message: Message) -> bool:
    """By the version header; without one, an enveloped request is a modern one that lacks its headers."""
    version = exchange.headers.get(MCP_PROTOCOL_VERSION_HEADER)
    if version is not None:
        return version not in HANDSHAKE_PROTOCOL_VERSIONS
    if kind is not Kind.REQUEST or message["method"] == "initialize" or "mcp-session-id" in exchange.headers:
        return False
    return PROTOCOL_VERSION_META_KEY in meta_of(message.get("params"))


def _carries_answers(kind: Kind, message: Message) -> bool:
    """Whether a person's answers are in it: those are taken to the end, for clients throw them away at a refusal."""
    return kind is Kind.ANSWER or "inputResponses" in (message.get("params") or ())


def _check_origin(exchange: Exchange, limits: WireLimits) -> None:
    """Against DNS rebinding: the names by which this server may be called, and from which pages."""
    host = exchange.headers.get("host", "")
    if not _allowed(host, limits.allowed_hosts):
        raise Refused(421, INVALID_REQUEST, f"Invalid Host header {host!r}: add it to the allowed hosts")
    origin = exchange.headers.get("origin")
    if origin and not _allowed(origin, limits.allowed_origins):
        raise Refused(403, INVALID_REQUEST, f"Invalid Origin header {origin!r}: add it to the allowed origins")


def _allowed(value: str, patterns: Any) -> bool:
    """`name` exactly, or `name:*` for any port."""
    if value in patterns:
        return True
    name, colon, port = value.rpartition(":")
    return bool(colon) and port.isdigit() and f"{name}:*" in patterns


def _not_allowed(methods: bytes) -> Refused:
    return Refused(405, INVALID_REQUEST, "Method not allowed", headers=((b"allow", methods),))
