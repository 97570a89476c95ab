"""What became of one conversation, as its client told it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

FINISHED, SERVER_ERROR, NOT_SENT, REFUSED, UNKNOWN, NO_END = (
    "finished",
    "the server's error",
    "not sent",
    "refused",
    "unknown",
    "no end",
)
KNOWN = (SERVER_ERROR, NOT_SENT, REFUSED)
"""Outcomes other than a result that say what became of the call."""
WITHOUT_EFFECT = (NOT_SENT, REFUSED)
"""Those that say that nothing was done."""


@dataclass(slots=True)
class Told:
    """`client`: "milepost" or "stock"."""

    name: str
    server: str
    era: str
    tool: str
    client: str
    fault: str
    outcome: str = NO_END
    why: str = ""
    result: dict[str, Any] | None = None
    """Structured content of a result that is no error."""
    hits: list[str] = field(default_factory=list)
    """Faults that hit."""
    shown: Sequence[tuple[str, str]] = ()
    """("asked" | "answered" | "kept" | "killed", text) in order. Of a client with a journal, an answer counts once it
    is kept there."""
    seconds: float = 0.0
    kills: int = 0
    must_finish: bool = False

    @property
    def struck(self) -> bool:
        """Whether the fault that it is counted under hit."""
        return self.fault in self.hits
