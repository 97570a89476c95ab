"""A channel that answers from a list, as the engine's journal does on a replay."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from milepost.core.errors import PeerError, Suspended
from milepost.core.records import CallContext

Answer = Mapping[str, Any] | PeerError


@dataclass
class FakeChannel:
    """Replays `answers` by method; a question beyond them waits until all are asked, then suspends."""

    answers: Sequence[tuple[str, Answer]] = ()
    asked: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    notified: list[tuple[str, Mapping[str, Any] | None]] = field(default_factory=list)
    progressed: list[tuple[float, float | None, str | None]] = field(default_factory=list)
    quiet: float = 0.02

    async def ask(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append((method, params))
        n = sum(1 for m, _ in self.asked if m == method)
        replies = [reply for m, reply in self.answers if m == method]
        if n <= len(replies):
            reply = replies[n - 1]
            if isinstance(reply, PeerError):
                raise reply
            return reply
        await asyncio.sleep(self.quiet)  # stands for "the attempt has come to rest"
        raise Suspended

    async def notify(self, method: str, params: Mapping[str, Any] | None) -> None:
        self.notified.append((method, params))

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        self.progressed.append((progress, total, message))


def a_call(tool: str, /, **changes: Any) -> CallContext:
    fields: dict[str, Any] = {"arguments": {}, "request_id": 7, "wire_version": "2026-07-28", **changes}
    return CallContext(tool=tool, **fields)


def accepted(**content: Any) -> dict[str, Any]:
    return {"action": "accept", "content": content}
