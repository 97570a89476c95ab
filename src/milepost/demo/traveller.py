"""The person at the client: answers what is asked, and notices when an answered question comes again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp.client import ClientRequestContext
from mcp.types import (
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitResult,
    TextContent,
)

from milepost.demo.telling import Telling

THINKS = 0.6
"""Seconds before an answer, so that a reader can follow."""

LETTER = "Hello, your new flight is booked and your seat is yours. Have a good journey!"


class Traveller:
    """Answers forms by the name of their field; what isn't in `wishes` is answered with the first choice offered."""

    def __init__(
        self, telling: Telling, wishes: Mapping[str, Any], before_answering: Callable[[str], Awaitable[None]]
    ) -> None:
        self._telling = telling
        self._wishes = wishes
        self._before_answering = before_answering
        self.answered: list[str] = []
        self.asked_again: list[str] = []
        """Questions that came although they had been answered. None should."""

    async def elicited(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        """The SDK's elicitation callback."""
        if not isinstance(params, ElicitRequestFormParams):
            return ElicitResult(action="decline")
        if params.message in self.answered:
            self.asked_again.append(params.message)
        self._telling.question(params.message)
        content = {name: self._wish(name, schema) for name, schema in _fields(params).items()}
        await asyncio.sleep(THINKS)
        for name in content:
            await self._before_answering(name)
        self.answered.append(params.message)
        self._telling.answer(", ".join(str(value) for value in content.values()))
        return ElicitResult(action="accept", content=content)

    async def sampled(self, context: ClientRequestContext, params: CreateMessageRequestParams) -> CreateMessageResult:
        """The SDK's sampling callback: this client's model has learned one letter by heart."""
        self._telling.question("(to the client's model) Draft a letter to the traveller.")
        await self._before_answering("letter")
        self._telling.answer(LETTER)
        return CreateMessageResult(
            role="assistant", content=TextContent(type="text", text=LETTER), model="demo", stop_reason="endTurn"
        )

    def _wish(self, name: str, schema: Mapping[str, Any]) -> Any:
        if name in self._wishes:
            return self._wishes[name]
        return schema["oneOf"][0]["const"]


def _fields(params: ElicitRequestFormParams) -> Mapping[str, Any]:
    properties: Mapping[str, Any] = params.requested_schema.get("properties", {})
    return properties
