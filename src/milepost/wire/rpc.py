"""JSON-RPC on the wire: reading one message, and saying no.

Everything that a client may send reaches the rest of the wire as a plain dict that has passed
`read`; everything that is refused before a response has begun is a `Refused`, which names the
HTTP status, the JSON-RPC error and what to do. Source: JSON-RPC 2.0; MCP basic/index (errors).
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

import pydantic_core
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR
from pydantic import ValidationError

Message = dict[str, Any]
RequestId = str | int


class Refused(Exception):
    """A request that can't be served as it is. The text says what to do."""

    def __init__(
        self,
        status: int,
        code: int,
        message: str,
        *,
        request_id: RequestId | None = None,
        data: object = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
        self.data = data
        self.headers = headers

    def body(self) -> Message:
        """The JSON-RPC error, `id` null where the request's id isn't known."""
        return failure(self.request_id, self.code, self.message, self.data)


class Kind(Enum):
    REQUEST = "request"
    NOTIFICATION = "notification"
    ANSWER = "answer"


def read(body: bytes) -> tuple[Kind, Message]:
    """One JSON-RPC message out of a POST body. Raises Refused (400) with the reason."""
    try:
        decoded = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as exc:
        raise Refused(400, PARSE_ERROR, f"Parse error: {exc}") from None
    if isinstance(decoded, list):
        raise Refused(400, INVALID_REQUEST, "Invalid request: batches aren't served, send one message per POST")
    if not isinstance(decoded, dict) or decoded.get("jsonrpc") != "2.0":
        raise Refused(400, INVALID_REQUEST, 'Invalid request: expected one JSON-RPC object with "jsonrpc": "2.0"')
    return kind_of(decoded), decoded


def kind_of(message: Message) -> Kind:
    """Which of the three a message is. Raises Refused (400) where it is none."""
    request_id = message.get("id")
    if "id" in message and not is_request_id(request_id):
        raise Refused(400, INVALID_REQUEST, "Invalid request: `id` must be a string or an integer")
    if "method" not in message:
        if "id" in message and ("result" in message) != ("error" in message):
            return Kind.ANSWER
        raise Refused(400, INVALID_REQUEST, "Invalid request: neither a request nor a response", request_id=request_id)
    if not isinstance(message["method"], str):
        raise Refused(400, INVALID_REQUEST, "Invalid request: `method` must be a string", request_id=request_id)
    params = message.get("params")
    if params is not None and not isinstance(params, dict):
        raise Refused(400, INVALID_REQUEST, "Invalid request: `params` must be an object", request_id=request_id)
    return Kind.REQUEST if "id" in message else Kind.NOTIFICATION


def is_request_id(value: object) -> bool:
    """Strings and integers are ids; booleans would alias 0 and 1."""
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def encode(message: object) -> bytes:
    """A message as compact JSON; text that UTF-8 can't hold (lone surrogates) goes out escaped."""
    try:
        return pydantic_core.to_json(message)
    except (pydantic_core.PydanticSerializationError, UnicodeEncodeError):
        return json.dumps(message, separators=(",", ":")).encode()


def success(request_id: RequestId, result: Any) -> Message:
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def failure(request_id: RequestId | None, code: int, message: str, data: object = None) -> Message:
    error: Message = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def notification(method: str, params: Any) -> Message:
    message: Message = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    return message


def error_of(exc: BaseException) -> Message:
    """What a caller sees of an exception: the SDK's own errors as they are, anything else without its text."""
    if isinstance(exc, MCPError):
        error: Message = {"code": exc.error.code, "message": exc.error.message}
        if exc.error.data is not None:
            error["data"] = exc.error.data
        return error
    if isinstance(exc, ValidationError):
        return {"code": INVALID_PARAMS, "message": "Invalid request parameters", "data": ""}
    return {"code": INTERNAL_ERROR, "message": "Internal server error"}
