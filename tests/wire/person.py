"""Somebody who answers questions by their first words, and remembers what was asked."""

from __future__ import annotations

from typing import Any

from mcp.types import ElicitResult


class Person:
    def __init__(self, **answers: Any) -> None:
        self.asked: list[str] = []
        self.answers = {"Which day": {"day": 3}, "Which seat": {"seat": "4A"}, **answers}

    async def __call__(self, context: Any, params: Any) -> ElicitResult:
        self.asked.append(params.message)
        for words, content in self.answers.items():
            if params.message.startswith(words):
                answer = content.pop(0) if isinstance(content, list) else content
                if callable(answer):
                    answer = await answer()
                return answer if isinstance(answer, ElicitResult) else ElicitResult(action="accept", content=answer)
        raise AssertionError(params.message)
