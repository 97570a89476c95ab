"""Progress as one rising number over the declared stages (MCP: progress MUST increase).

With n declared stages the scale goes from 0 to n: a stage's begin is just above its index, its end is
index + 1, and what the author reports inside it moves within its share. Without stages the author's
own numbers pass through. What is not above everything shown before is not shown, but for the marks of
stages: each is a small step at least, so that also those that weren't declared, and those in a loop, are seen.
"""

from __future__ import annotations

from collections.abc import Sequence

_BEGUN = 0.01
"""How far a stage counts as done when it has only begun."""
_NEARLY = 0.98
"""How far it can get before its end."""
_SEEN = 0.001
"""The least that a stage's begin or end adds while there is room,"""
_SEEN_AT_THE_END = 0.000_01
"""and where there is none: however many come, the total is not passed by more than people overlook."""


class ProgressScale:
    """Maps what is reported to what is shown; pure but for the highest value shown so far."""

    def __init__(self, stages: Sequence[str], shown: float) -> None:
        self._index = {name: i for i, name in enumerate(stages)}
        self.total: float | None = float(len(stages)) if stages else None
        self.shown = shown

    def begin(self, stage: str) -> float:
        return self._at(stage, _BEGUN)

    def end(self, stage: str) -> float:
        return self._at(stage, 1.0)

    def report(self, stage: str | None, progress: float, total: float | None) -> float | None:
        """What to show for the author's own report; None: nothing new."""
        if self.total is None:
            value = progress
        elif stage in self._index:
            value = self._index[stage] + _BEGUN + (_NEARLY - _BEGUN) * _fraction(progress, total)
        else:
            return None
        if value <= self.shown:
            return None
        self.shown = value
        return value

    def _step(self) -> float:
        if self.total is None:
            return _SEEN
        return min(_SEEN, max(_SEEN_AT_THE_END, (self.total - self.shown) / 2))

    def _at(self, stage: str, share: float) -> float:
        least = round(self.shown + self._step(), 6)
        self.shown = max(least, self._index[stage] + share) if stage in self._index else least
        return self.shown


def _fraction(progress: float, total: float | None) -> float:
    if total is not None and total > 0:
        return min(1.0, max(0.0, progress / total))
    return 1.0 - 1.0 / (1.0 + max(0.0, progress))
