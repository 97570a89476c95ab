"""Which part of a conversation an HTTP request is: read off its JSON-RPC message."""

from __future__ import annotations

import json

from lab.http1 import Request


def named(request: Request) -> str:
    """initialize, discover, initialized, list, call, round, answer, reread, listen, goodbye, or other."""
    if request.method == "GET":
        return "reread" if "last-event-id" in request.headers else "listen"
    if request.method == "DELETE":
        return "goodbye"
    try:
        message = json.loads(request.body)
    except ValueError:
        return "other"
    method = message.get("method")
    if method is None:
        return "answer"
    if method == "tools/call":
        params = message.get("params") or {}
        return "round" if "requestState" in params or "inputResponses" in params else "call"
    return {
        "initialize": "initialize",
        "server/discover": "discover",
        "notifications/initialized": "initialized",
        "tools/list": "list",
    }.get(method, "other")
