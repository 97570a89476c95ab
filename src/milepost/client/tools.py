"""What a server's tool list says about calling a tool twice. Read only when a call was lost, or in passing.

A workflow of a Milepost server finds its run by the call's id; a tool that declares itself read-only or idempotent does
no harm a second time (2025-11-25 schema, ToolAnnotations). Of any other nothing is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from milepost.client.interaction import JSON, META

_MOST = 10_000
"""Tools that are remembered of one server."""


class Tools:
    """The tools of one server, as far as they were listed."""

    def __init__(self) -> None:
        self._reissuable: dict[str, bool] = {}
        self.are_milepost = False
        """A Milepost server listed them, of any release: those give signs of life while they work."""

    def learn(self, result: JSON) -> None:
        """Take in the result of a `tools/list`, whatever it holds."""
        tools = result.get("tools")
        for tool in tools if isinstance(tools, list) else ():
            if isinstance(tool, Mapping) and isinstance(tool.get("name"), str) and len(self._reissuable) < _MOST:
                self._reissuable[tool["name"]] = _may_be_reissued(tool)
                self.are_milepost |= _lane(tool) is not None

    def knows(self, name: str) -> bool:
        return name in self._reissuable

    def may_be_reissued(self, name: str) -> bool:
        return self._reissuable.get(name, False)

    def forget(self) -> None:
        """The server may be another build now."""
        self._reissuable.clear()


def _lane(tool: Mapping[str, Any]) -> object:
    """What a Milepost server says of it, None for another server's."""
    meta = tool.get("_meta")
    return meta.get(META + "lane") if isinstance(meta, Mapping) else None


def _may_be_reissued(tool: Mapping[str, Any]) -> bool:
    hints = tool.get("annotations")
    if _lane(tool) == "stateful":
        return True
    return isinstance(hints, Mapping) and (hints.get("readOnlyHint") is True or hints.get("idempotentHint") is True)
