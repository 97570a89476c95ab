"""From a `tools/call` on the wire to the call context that a run is pinned to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mcp_types import LOG_LEVEL_META_KEY

from milepost.core import ids
from milepost.core.errors import CallerError
from milepost.core.records import CallContext, JSONObject, Principal, Stream
from milepost.wire.parts import Parts
from milepost.wire.rpc import Message
from milepost.wire.streams import META

_RESERVED = "io.modelcontextprotocol/"
_CALL_ID = META + "call_id"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}\Z")


def meta_of(params: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The request's `_meta`, empty where there is none."""
    meta = (params or {}).get("_meta")
    return meta if isinstance(meta, dict) else {}


def progress_token(params: Mapping[str, Any] | None) -> str | int | None:
    """The caller's progress token; a boolean is none (it would alias 0 or 1)."""
    token = meta_of(params).get("progressToken")
    return token if isinstance(token, (str, int)) and not isinstance(token, bool) else None


def call_id_of(params: Mapping[str, Any] | None) -> str | None:
    """The id by which the caller names this call however often it makes it; None where it has none.

    Raises CallerError where it can't be one.
    """
    meta = meta_of(params)
    if _CALL_ID not in meta:
        return None
    call_id = meta[_CALL_ID]
    if not isinstance(call_id, str) or not ids.CALL_ID.match(call_id):
        raise CallerError(
            f"_meta[{_CALL_ID!r}] must be a string of 16 to 128 letters, digits, dots, hyphens and underscores: "
            "make it from at least 128 random bits, or leave it out"
        )
    return call_id


def trace_of(meta: Mapping[str, Any], noise: bytes) -> str:
    """The caller's W3C trace id, or a new one."""
    parent = meta.get("traceparent")
    match = _TRACEPARENT.match(parent) if isinstance(parent, str) else None
    return match[1] if match and match[1].strip("0") else ids.trace_id(noise)


def context_of(
    parts: Parts,
    message: Message,
    *,
    version: str,
    principal: Principal,
    client_info: JSONObject | None = None,
    capabilities: JSONObject | None = None,
    session: str | None = None,
    log_level: str | None = None,
) -> CallContext:
    """What every attempt will see of this call. `message`: a `tools/call` whose params are an object."""
    params: Mapping[str, Any] = message.get("params") or {}
    meta = meta_of(params)
    arguments = params.get("arguments")
    return CallContext(
        tool=str(params.get("name", "")),
        arguments=arguments if isinstance(arguments, dict) else {},
        request_id=message["id"],
        wire_version=version,
        client_info=client_info,
        capabilities=capabilities or {},
        principal=principal,
        session=session,
        log_level=meta.get(LOG_LEVEL_META_KEY, log_level),
        trace_id=trace_of(meta, parts.noise(16)),
        meta={key: value for key, value in meta.items() if key != "progressToken" and not key.startswith(_RESERVED)},
    )


def stream_of(parts: Parts, message: Message, principal: Principal, *, session: str | None = None) -> Stream:
    """A stream for this request, not stored yet."""
    return Stream(
        id=ids.stream_id(parts.noise(12)),
        run_id="",
        request_id=message["id"],
        session=session,
        progress_token=progress_token(message.get("params")),
        owner=principal,
    )
