"""What a server's response means: pure. From status, headers and bytes to a message, the server's error, or a `Fault`.

An HTTP status alone says less than it seems. This is what is taken from it about a request that may have had effects:

    401, 403, other 4xx   refused: nothing was done
    429, and a 503 that says when to come back, or why (a JSON-RPC error)    refused for now: may be sent again
    other 503, 500, 502, 504    unknown: gateways say these also after the request went through
    any status with a JSON-RPC error for this request (but 429, 503)    the server's own word: that is the outcome
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic_core
from mcp import MCPError
from mcp_types import INTERNAL_ERROR

from milepost.client.exchange import Response
from milepost.client.interaction import JSON
from milepost.client.retrying import Fault, Known, SessionGone, parse_retry_after

_MEANS = {
    404: ": nothing is at the path of this URL (many servers have their endpoint at /mcp)",
    407: ": a proxy on the way wants a password",
}
"""What some statuses say where the server says nothing."""

_ERROR_BODY = 2**20
"""Bytes: what is read of an error's body."""


def parse(data: bytes) -> JSON:
    """One JSON-RPC message. Raises Fault (no use in trying again: it came whole)."""
    try:
        message = pydantic_core.from_json(data, allow_inf_nan=False)
    except ValueError as exc:
        raise Fault(Known.UNKNOWN, f"the server's message is no JSON: {exc}", again=False) from None
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise Fault(Known.UNKNOWN, "the server's message is no JSON-RPC 2.0 object", again=False)
    return message


def error_in(message: JSON) -> MCPError | None:
    """The error of a response, as the SDK raises it; None where it is none."""
    error = message.get("error")
    if not isinstance(error, Mapping):
        return None
    code, text = error.get("code"), error.get("message")
    if isinstance(code, bool) or not isinstance(code, int):
        code = INTERNAL_ERROR
    return MCPError(
        code, text if isinstance(text, str) else "the server gave an error without a message", error.get("data")
    )


def result_in(message: JSON) -> JSON:
    """The result of a response. Raises MCPError: the server's; Fault: it is neither."""
    said = error_in(message)
    if said is not None:
        raise said
    result = message.get("result")
    if not isinstance(result, dict):
        raise Fault(Known.UNKNOWN, "the server's response has neither a result nor an error", again=False)
    return result


def is_response(message: JSON) -> bool:
    return "method" not in message and "id" in message


def same_id(one: Any, other: Any) -> bool:
    """Whether a response's id is a request's: servers may turn 7 into "7" (both SDKs take that)."""
    return not isinstance(one, bool) and (one == other or str(one) == str(other))


async def refusal(response: Response, wire_id: Any, *, in_session: bool) -> Exception:
    """What a status of 400 or more means: a Fault to raise, or the server's MCPError."""
    said = await _said(response, wire_id)
    status, after = response.status, parse_retry_after(response.headers.get("retry-after"))
    if status == 404 and in_session:
        return SessionGone()
    told = f": {said.message[:300]}" if said is not None else _MEANS.get(status, "")
    reason = f"the server answered {status}{told}"
    if status in (425, 429) or (status == 503 and (after is not None or said is not None)):
        return Fault(Known.REFUSED, reason, retry_after=after, status=status, said=said)
    if said is not None and status not in (401, 403):
        return said
    if status >= 500 or status == 408:
        return Fault(Known.UNKNOWN, reason, retry_after=after, status=status)
    return Fault(Known.REFUSED, reason, again=False, status=status, said=said)


async def _said(response: Response, wire_id: Any) -> MCPError | None:
    """The JSON-RPC error in an error's body, if it is for this request or for none by name."""
    if not response.is_json:
        return None
    try:
        message = parse(await response.body(_ERROR_BODY))
    except Fault:
        return None
    own = message.get("id")
    return error_in(message) if own is None or same_id(own, wire_id) else None
