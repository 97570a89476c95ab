"""One request's response in the modern era: what is said on the way, and then the response itself.

Over HTTP it is plain JSON, with the status that its error calls for, unless something is said before it: then it is an
event stream. Over a pipe there is only one way to say anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from mcp.shared.inbound import ERROR_CODE_HTTP_STATUS

from milepost.wire import rpc
from milepost.wire.http import Exchange
from milepost.wire.rpc import Message
from milepost.wire.streams import COMMENT, farewell, frame


class Reply(Protocol):
    """Where a modern request is answered. Is a `follow.Sink` and a `dispatch.Voice`."""

    async def say(self, message: Message, event_id: str | None = None) -> None: ...

    async def beat(self) -> None: ...

    async def notify(self, method: str, params: Mapping[str, Any] | None) -> None: ...

    async def progress(self, progress: float, total: float | None, message: str | None) -> None: ...

    async def finish(self, message: Message, *, retry_after: int | None = None) -> None:
        """The response. `retry_after`: in how many seconds its client does well to come back."""
        ...

    @property
    def started(self) -> bool:
        """Whether something was said already, so that only `finish` is left to say no."""
        ...

    async def gone(self) -> None:
        """Returns when the client no longer wants this request."""
        ...


class Speaking:
    """What every reply does with notifications: `say` them."""

    token: str | int | None = None

    async def say(self, message: Message, event_id: str | None = None) -> None:
        raise NotImplementedError

    async def notify(self, method: str, params: Mapping[str, Any] | None) -> None:
        await self.say(rpc.notification(method, None if params is None else dict(params)))

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        """Nothing without a token."""
        if self.token is None:
            return
        params: Message = {"progressToken": self.token, "progress": progress}
        params |= {} if total is None else {"total": total}
        params |= {} if message is None else {"message": message}
        await self.say(rpc.notification("notifications/progress", params))


class HttpReply(Speaking):
    """The response to a POST."""

    def __init__(self, exchange: Exchange, token: str | int | None = None) -> None:
        self._exchange = exchange
        self.token = token

    async def say(self, message: Message, event_id: str | None = None) -> None:
        """Commits to an event stream. This era has no event ids."""
        await self._exchange.begin_stream()
        await self._exchange.put(frame(message))

    async def beat(self) -> None:
        """A sign of life commits too: a silent wait would be cut by some proxy."""
        await self._exchange.begin_stream()
        await self._exchange.put(COMMENT)

    async def finish(self, message: Message, *, retry_after: int | None = None) -> None:
        if self._exchange.started:
            await self._exchange.end_stream(frame(message) + (farewell(retry_after) if retry_after else b""))
            return
        status = ERROR_CODE_HTTP_STATUS.get(message["error"]["code"], 200) if "error" in message else 200
        after = ((b"retry-after", str(retry_after).encode()),) if retry_after else ()
        await self._exchange.reply_json(message, status, after)

    @property
    def started(self) -> bool:
        return self._exchange.started

    async def gone(self) -> None:
        await self._exchange.disconnected()
