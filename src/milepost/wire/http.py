"""One HTTP exchange on bare ASGI: headers, body, and three ways to reply.

No framework objects on the hot path: a stateless call is held to a fraction of the SDK's CPU.
Header values lose the optional white space around them here (RFC 9110, 5.5), which httptools leaves on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcp_types import INVALID_REQUEST
from starlette.types import Receive, Scope, Send

from milepost.wire import rpc
from milepost.wire.rpc import Refused

Headers = Sequence[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")
SSE_HEADERS: Headers = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"connection", b"keep-alive"),
    (b"x-accel-buffering", b"no"),
)


_PATIENCE = 4
"""How many times the body limit is read and thrown away before a sender that goes on is cut off."""


class Gone(Exception):
    """The client closed the connection before it had sent its request."""


class Exchange:
    """One request and its response."""

    headers: dict[str, str]

    __slots__ = ("_send", "finished", "headers", "method", "receive", "repeated", "scope", "started")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = scope["headers"]
        self.scope = scope
        self.receive = receive
        self._send = send
        self.method: str = scope["method"]
        self.headers = {k.decode("latin-1"): v.decode("latin-1").strip(" \t") for k, v in raw}
        self.repeated = len(self.headers) != len(raw)
        """Some header came more than once; `headers` holds the last of each."""
        self.started = False
        self.finished = False

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises Refused (413) above `limit` bytes, Gone if the client left."""
        declared = self.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            await self._discard(int(declared), limit)
            raise _too_large(limit)
        message = await self.receive()
        if message["type"] != "http.request":
            raise Gone
        body: bytes = message.get("body", b"")
        if message.get("more_body", False) or len(body) > limit:
            return await self._rest(bytearray(body), limit, message)
        return body

    async def _rest(self, body: bytearray, limit: int, message: Any) -> bytes:
        while message.get("more_body", False) and len(body) <= limit:
            message = await self.receive()
            if message["type"] != "http.request":
                raise Gone
            body += message.get("body", b"")
        if len(body) > limit:
            if message.get("more_body", False):
                await self._discard(limit, limit)
            raise _too_large(limit)
        return bytes(body)

    async def _discard(self, expected: int, limit: int) -> None:
        """Read on for a while without keeping it: a client that is still sending would never see the refusal."""
        if expected > limit * _PATIENCE:
            return
        left = limit * _PATIENCE
        while left > 0:
            message = await self.receive()
            left -= len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body", False):
                return

    async def disconnected(self) -> None:
        """Returns when the client is gone (or the response is complete)."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    def accepts(self) -> tuple[bool, bool]:
        """(JSON, event stream): what the Accept header lets us send. Wildcards count (RFC 9110, 12.5.1)."""
        accept = self.headers.get("accept", "")
        if accept == "application/json, text/event-stream":
            return True, True
        kinds = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
        anything = "*/*" in kinds
        return (
            anything or not kinds.isdisjoint({"application/json", "application/*"}),
            anything or not kinds.isdisjoint({"text/event-stream", "text/*"}),
        )

    def is_json(self) -> bool:
        """Whether the body is declared as JSON."""
        kind: str = self.headers.get("content-type", "")
        return kind == "application/json" or kind.partition(";")[0].strip().lower() == "application/json"

    # --- replies ---------------------------------------------------------------------------------

    async def reply(self, status: int, body: bytes = b"", headers: Headers = ()) -> None:
        """A whole response."""
        if self.started:
            return
        self.started = self.finished = True
        length = (b"content-length", str(len(body)).encode())
        all_headers = [*headers, length] if not body else [JSON_TYPE, *headers, length]
        try:
            await self._send({"type": "http.response.start", "status": status, "headers": all_headers})
            await self._send({"type": "http.response.body", "body": body})
        except OSError:
            pass

    async def reply_json(self, message: Any, status: int = 200, headers: Headers = ()) -> None:
        await self.reply(status, rpc.encode(message), headers)

    async def refuse(self, refused: Refused, headers: Headers = ()) -> None:
        """Say no: the JSON-RPC error in the body, its reason in the status."""
        await self.reply_json(refused.body(), refused.status, (*headers, *refused.headers))

    async def begin_stream(self, headers: Headers = ()) -> None:
        """Commit to an event stream."""
        if self.started:
            return
        self.started = True
        await self._put({"type": "http.response.start", "status": 200, "headers": [*SSE_HEADERS, *headers]})

    async def put(self, chunk: bytes) -> None:
        """Some bytes of the event stream. Nothing is said to a client that is gone."""
        if not self.finished:
            await self._put({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end_stream(self, chunk: bytes = b"") -> None:
        if not self.finished:
            self.finished = True
            await self._put({"type": "http.response.body", "body": chunk, "more_body": False})

    async def _put(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except OSError:
            self.finished = True


def _too_large(limit: int) -> Refused:
    return Refused(
        413,
        INVALID_REQUEST,
        f"Request body too large: the limit is {limit} bytes",
        headers=((b"connection", b"close"),),
    )
