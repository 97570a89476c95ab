"""`subscriptions/listen` over a link that breaks: the subscription goes on under the id that its reader knows.

A stream that is opened again has a new request id, and what changed meanwhile is not replayed (2026-07-28
basic/patterns/subscriptions). So ids are put back, and after a gap everything that was subscribed to counts as changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY

from milepost.client.interaction import JSON
from milepost.client.request import Request

_LISTS: Final = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}


def renamed(params: JSON | None, request: Request) -> JSON | None:
    """The params of a notification on this stream, under the id that the request was made with."""
    meta = (params or {}).get("_meta")
    if params is None or not isinstance(meta, dict) or meta.get(SUBSCRIPTION_ID_META_KEY) != request.wire_id:
        return params
    return {**params, "_meta": {**meta, SUBSCRIPTION_ID_META_KEY: request.own_id}}


def after_a_gap(request: Request) -> Iterator[tuple[str, JSON]]:
    """What may have changed while a subscription was down: (method, params) of each notification."""
    if request.tries < 2:
        return
    wanted: Any = request.params.get("notifications")
    if not isinstance(wanted, dict):
        return
    meta = {"_meta": {SUBSCRIPTION_ID_META_KEY: request.own_id}}
    for name, method in _LISTS.items():
        if wanted.get(name):
            yield method, dict(meta)
    for uri in wanted.get("resourceSubscriptions") or ():
        yield "notifications/resources/updated", {"uri": uri, **meta}
