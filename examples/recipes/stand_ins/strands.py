"""For Strands Agents."""

import json
from collections.abc import AsyncIterator
from typing import Any

from strands.models import Model


class Scripted(Model):
    def update_config(self, **options: Any) -> None:
        pass

    def get_config(self) -> dict[str, Any]:
        return {}

    def structured_output(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError  # the recipe asks for no structured output

    async def stream(self, messages: Any, *args: Any, **options: Any) -> AsyncIterator[Any]:
        results = [part["toolResult"] for part in messages[-1]["content"] if "toolResult" in part]
        start: dict[str, Any] = {}
        delta: dict[str, Any] = {"text": json.dumps(results[0]["content"])} if results else {}
        if not results:
            start = {"toolUse": {"toolUseId": "call_1", "name": "request_refund"}}
            delta = {"toolUse": {"input": '{"pnr": "QK7P2M"}'}}
        yield {"messageStart": {"role": "assistant"}}
        yield {"contentBlockStart": {"start": start}}
        yield {"contentBlockDelta": {"delta": delta}}
        yield {"contentBlockStop": {}}
        yield {"messageStop": {"stopReason": "end_turn" if results else "tool_use"}}
