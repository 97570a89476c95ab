"""Who has the floor: of several streams of one session over one run, the newest live one asks its questions.

Else a person would see the same question twice (MCP 2025-11-25 transports: each message on one stream only). When a
newer stream comes, the older one takes its questions back; when it leaves, the older one asks them again.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

Keep = Callable[[Coroutine[Any, Any, None]], object]


class Speaker(Protocol):
    """One stream over a run."""

    @property
    def stream_id(self) -> str: ...

    async def step_back(self) -> None:
        """Take back the questions that were asked here and are open."""
        ...

    async def step_forward(self, run_id: str) -> None:
        """Ask the run's open questions."""
        ...


class Floor:
    """The streams of this replica by (session, run), oldest first."""

    def __init__(self, keep: Keep) -> None:
        self._lines: dict[tuple[str | None, str], list[Speaker]] = {}
        self._keep = keep

    def held_by(self, speaker: Speaker, session: str | None, run_id: str) -> bool:
        """Whether this stream is the one to ask. Two sockets may show the same stream."""
        line = self._lines.get((session, run_id))
        return not line or line[-1].stream_id == speaker.stream_id

    @contextmanager
    def taken(self, speaker: Speaker, session: str | None, run_id: str) -> Iterator[None]:
        """Have the floor while this lasts, or until a newer stream takes it.

        Whoever steps back or forward does so in a task of its own: a client that doesn't read holds up nobody else.
        """
        line = self._lines.setdefault((session, run_id), [])
        if line and line[-1].stream_id != speaker.stream_id:
            self._keep(line[-1].step_back())
        line.append(speaker)
        try:
            yield
        finally:
            had = line[-1] is speaker
            line.remove(speaker)
            if not line:
                del self._lines[session, run_id]
            elif had and line[-1].stream_id != speaker.stream_id:
                self._keep(line[-1].step_forward(run_id))
