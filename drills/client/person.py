"""The scripted person: answers the same to the same question, and notes each time that they are asked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from mcp.client import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult

_ROOMS = ("garden", "street", "attic")

Note = Callable[..., None]
"""Called with what happened, and facts."""
OnThinking = Callable[[int], Awaitable[None]]
"""Called when the person has a question before them: how many they had before it."""


def answer_to(question: str, field: str) -> Any:
    """Always the same to the same question."""
    draw = random.Random(question)
    return {
        "nights": draw.randint(1, 30),
        "room": draw.choice(_ROOMS),
        "go_ahead": draw.random() < 0.8,
    }[field]


class Person:
    """Of one conversation."""

    def __init__(self, thinks: float, note: Note, on_thinking: OnThinking) -> None:
        self._thinks = thinks
        self._note = note
        self._on_thinking = on_thinking
        self._had: list[str] = []

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        question = params.message
        self._note("asked", text=question)
        if question not in self._had:
            self._had.append(question)
            await self._on_thinking(len(self._had) - 1)
        await asyncio.sleep(self._thinks)
        schema = getattr(params, "requested_schema", None) or {}
        content = {field: answer_to(question, field) for field in schema["properties"]}
        self._note("answered", text=question)
        return ElicitResult(action="accept", content=content)
