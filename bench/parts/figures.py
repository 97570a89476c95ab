"""Figures with their spread.

A shared machine is slow at times, so no figure stands alone: everything is measured in several rounds in which
the sides take turns, and what is compared is the ratio of two sides in the same round.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """`median [lowest..highest]`."""
    return f"{statistics.median(values):{form}} [{min(values):{form}}..{max(values):{form}}]"


def percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Ours over theirs, round by round."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)], ".2f")


@dataclass
class Table:
    """Columns of plain text: a row per thing measured."""

    head: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        self.rows.append(cells)

    def show(self) -> None:
        lines = [self.head, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.head))]
        for line in lines:
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        print(flush=True)
