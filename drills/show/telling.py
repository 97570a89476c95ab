"""How it looks on a terminal: `milepost demo`'s way, with the figures of a crowd."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import ROUNDED
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from drills.history import Told
from milepost.demo.telling import WIDTH, Telling

_STYLES = {"crowd": ("·", "dim"), "kill": ("✗", "bold red"), "recovery": ("↻", "bold green"), "new": ("+", "blue")}


class CrowdTelling(Telling):
    """Tells of many at once. Times are seconds since the demo began."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._out = self._console

    def begin(self, promise: str, facts: Sequence[tuple[str, str]]) -> None:
        head = Table.grid(padding=(0, 2))
        for name, value in facts:
            head.add_row(Text(name, style="bold"), Text(value, overflow="fold"))
        inside = Table.grid()
        inside.add_row(Text(promise))
        inside.add_row("")
        inside.add_row(head)
        self._out.print(
            Panel(inside, title="Milepost, many replicas", border_style="cyan", box=ROUNDED, padding=(0, 2))
        )

    def line(self, kind: str, text: str) -> None:
        mark, style = _STYLES[kind]
        row = Table.grid(padding=(0, 1))
        row.add_column(width=6, justify="right", style="dim")
        row.add_column(width=1)
        row.add_column()
        row.add_row(f"{self.seconds():.1f}s", Text(mark, style=style), Text(text, style=style))
        self._out.print(row)

    def crowd(self, told: Sequence[Told]) -> None:
        table = self._table("The crowd", ("", "travellers", "with receipt", "connections cut", "answers taken"))
        for era, name in (("handshake", "2025-11-25, sessions"), ("modern", "2026-07-28, no sessions")):
            own = [one for one in told if one.era == era]
            done = sum(one.result is not None for one in own)
            figures = (len(own), done, sum(one.breaks for one in own), sum(len(one.acks) for one in own))
            table.add_row(name, *map(str, figures))
        self._out.print(table)

    def times(self, rows: Sequence[tuple[str, Sequence[float]]]) -> None:
        table = self._table("How long it took to go on (s)", ("", "n", "median", "95 %", "longest"))
        for name, seconds in rows:
            rising = sorted(seconds)
            picked = [rising[min(len(rising) - 1, int(share * len(rising)))] for share in (0.5, 0.95)] if rising else []
            shown = [f"{value:.2f}" for value in (*picked, *rising[-1:])] or ["-"] * 3
            table.add_row(name, str(len(rising)), *shown)
        self._out.print(table)

    def _table(self, title: str, heads: Sequence[str]) -> Table:
        table = Table(
            title=title, box=ROUNDED, title_justify="left", title_style="bold", width=min(WIDTH, self._out.width)
        )
        for n, head in enumerate(heads):
            table.add_column(head, justify="right" if n else "left")
        return table
