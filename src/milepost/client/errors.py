"""What a call through this client may end with, other than its result.

A server that says no with a JSON-RPC error raises the SDK's `MCPError`, as with the official client. Everything else is
one of these, and says what is known of the call, for that decides what its caller may do next:

    NotSent          the server never had it             call again
    Refused          the server had it, and did nothing  mend what it says, then call again
    OutcomeUnknown   it was sent; what came of it isn't known, and it isn't safe to send it again unasked
    TimedOut         the caller's own limit is over; `known` says which of the three it is

All are `MCPError`s too, so code written for the official client catches them.
"""

from __future__ import annotations

from typing import Any, ClassVar

from mcp import MCPError
from mcp_types import CONNECTION_CLOSED, INVALID_REQUEST, REQUEST_TIMEOUT, ErrorData


class CallError(MCPError):
    """Root of them. `call_id`: the interaction's id in events, logs and the journal."""

    CODE: ClassVar[int] = CONNECTION_CLOSED

    def __init__(self, message: str, *, call_id: str = "", code: int | None = None, data: Any = None) -> None:
        super().__init__(self.CODE if code is None else code, message, data)
        self.call_id = call_id

    def __reduce__(self) -> tuple[Any, ...]:
        """To be copied, and sent to another process, like any exception."""
        return _again, (type(self), self.error, vars(self))


def _again(kind: type[CallError], error: ErrorData, state: dict[str, Any]) -> CallError:
    made = kind.__new__(kind, error.code, error.message, error.data)
    MCPError.__init__(made, error.code, error.message, error.data)
    vars(made).update(state)
    return made


class NotSent(CallError):
    """The server never had this request: nothing was done."""


class CircuitOpen(NotSent):
    """Not even tried: this server has failed again and again, and is given a rest. `retry_after`: seconds."""

    def __init__(self, message: str, *, call_id: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message, call_id=call_id)
        self.retry_after = retry_after


class Refused(CallError):
    """The server said no before it did anything. `status`: the HTTP status, 0 where it was no HTTP answer."""

    def __init__(self, message: str, *, call_id: str = "", status: int = 0) -> None:
        super().__init__(message, call_id=call_id, code=INVALID_REQUEST)
        self.status = status


class Unauthorized(Refused):
    """401, or 403: this client has no token that opens the server. Authorize, then call again."""


class OutcomeUnknown(CallError):
    """The request was sent, and no answer came: it may have been done, or not, or still be going on."""


class TimedOut(CallError):
    """The caller's own time limit is over. `known`: "not sent", "refused" or "unknown", as of the other errors."""

    CODE = REQUEST_TIMEOUT

    def __init__(self, message: str, *, call_id: str = "", known: str = "unknown") -> None:
        super().__init__(message, call_id=call_id)
        self.known = known


class ServerUnavailable(ConnectionError):
    """No connection could be made: the server can't be reached, or has no room, for as long as was waited.

    Not an `MCPError`, so that nothing takes it for a server's word about the protocol that it speaks.
    """


class JournalInUse(RuntimeError):
    """A pending call belongs to a client that is still alive."""
