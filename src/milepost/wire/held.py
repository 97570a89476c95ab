"""What a caller is told whose run stands although it is a replica's turn: nobody may run it (DESIGN section 3).

Nothing is wrong with such a run, so its caller is told why as progress and goes on waiting. Who waits for long is
sent away with a way to come back: a client that can't be asked with a text and the run's id, the others with a state.
"""

from __future__ import annotations

import asyncio

from milepost.core.records import Run
from milepost.wire import by_hand
from milepost.wire.parts import Parts
from milepost.wire.rpc import Message


class HeldUp:
    """One stream's view of it. `look` is asked whenever the stream has been silent for a while."""

    def __init__(self, parts: Parts) -> None:
        self.why: str | None = None
        self._parts = parts
        self._since = 0.0

    async def look(self, run_id: str) -> str | None:
        """Why nobody goes on with the run, None where that isn't so."""
        now = asyncio.get_running_loop().time()
        if self.why is None:
            self._since = now
        self.why = await self._parts.runs.held_up(run_id)
        return self.why

    @property
    def for_long(self) -> bool:
        """Whether it was so for as long as a caller is kept waiting."""
        waited = asyncio.get_running_loop().time() - self._since
        return self.why is not None and waited >= self._parts.limits.held_wait


def held_result(run: Run, why: str, after: int) -> Message:
    """A tool result (handshake form) for a client that can't be asked: why its run stands, and how to look again."""
    arguments = f'{{"run_id": "{run.id}"}}'
    text = (
        f"{run.tool} can't go on right now: {why}. Nothing is lost. "
        f"Look again in {after} s or later, with the tool {by_hand.TOOL} and the arguments {arguments}."
    )
    body = {"status": "waiting_for_replica", "run_id": run.id, "reason": why, "retry_after": after}
    return {"content": [{"type": "text", "text": text}], "structuredContent": body, "isError": False}
