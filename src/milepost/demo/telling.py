"""How the demo looks on a terminal: one line per thing that happens, with its time; tables for the proof.

Only standard colours, which every theme, light or dark, makes readable; each line has a mark too, so that nothing
depends on colour. When the output is no terminal, rich leaves all colours out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.box import ROUNDED
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from milepost.demo.proof import Check, RunProof

MARKS = {
    "question": ("?", "cyan", "a question reaches the client"),
    "answer": ("›", "green", "its answer"),
    "stage": ("▸", "magenta", "a stage of the run"),
    "effect": ("●", "blue", "something is done in the outside world"),
    "kill": ("✗", "bold red", "the server process is killed (SIGKILL)"),
    "recovery": ("↻", "bold green", "it is started anew, or found again"),
}
WIDTH = 100


class Telling:
    """Tells the story. Times are seconds since the demo began."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._console.width = min(self._console.width, WIDTH)
        self._begun = time.monotonic()
        self._stages: set[str] = set()

    def seconds(self) -> float:
        return time.monotonic() - self._begun

    def opening(self, promise: str, facts: Sequence[tuple[str, str]]) -> None:
        legend = Table.grid(padding=(0, 1))
        for mark, style, meaning in MARKS.values():
            legend.add_row(Text(mark, style=style), meaning)
        head = Table.grid(padding=(0, 2))
        for name, value in facts:
            head.add_row(Text(name, style="bold"), Text(value, overflow="fold"))
        inside = Group(Text(promise), "", head, "", legend)
        self._console.print(Panel(inside, title="Milepost", border_style="cyan", box=ROUNDED, padding=(0, 2)))

    def act(self, title: str, text: str) -> None:
        self._stages.clear()
        self._console.print()
        self._console.rule(Text(title, style="bold"), style="cyan", align="left")
        self._console.print(Text(text, style="italic"))
        self._console.print()

    def question(self, text: str) -> None:
        self._line("question", text)

    def answer(self, text: str) -> None:
        self._line("answer", text)

    def stage(self, name: str) -> None:
        """A stage that the client hears of. A stream that is read again tells it again; a reader needs it once."""
        if name not in self._stages:
            self._stages.add(name)
            self._line("stage", name)

    def effect(self, text: str) -> None:
        self._line("effect", text)

    def kill(self, text: str) -> None:
        self._line("kill", text)

    def recovery(self, text: str) -> None:
        self._line("recovery", text)

    def result(self, text: str) -> None:
        self._console.print(Panel(Text(text), title="the tool's result", border_style="green", box=ROUNDED))

    def failure(self, text: str) -> None:
        self._console.print(Panel(Text(text), title="the demo failed", border_style="red", box=ROUNDED))

    def proof(self, title: str, proof: RunProof) -> None:
        table = Table(title=title, box=ROUNDED, title_justify="left", title_style="bold", expand=True)
        table.caption_justify = "left"
        for column in ("step", "recorded", "done outside", "times asked for"):
            table.add_column(column, justify="left" if column == "step" else "right")
        for step in proof.steps:
            outside = (str(step.effects), str(step.calls)) if step.effects else ("reads only", "")
            table.add_row(step.name, str(step.recorded), *outside)
        table.caption = (
            f"{proof.run_id}: {proof.state}, {proof.attempts} attempts\n"
            f"{proof.asked} questions asked, {proof.answered} answered"
        )
        self._console.print()
        self._console.print(table)

    def verdict(self, checks: Sequence[Check]) -> None:
        good = all(check.holds for check in checks)
        lines = Table.grid(padding=(0, 1))
        for check in checks:
            mark = Text("✓", style="bold green") if check.holds else Text("✗", style="bold red")
            lines.add_row(mark, check.claim, Text(check.found, style="dim"))
        title = "all of it holds" if good else "something does NOT hold"
        style = "green" if good else "red"
        self._console.print()
        self._console.print(Panel(lines, title=title, border_style=style, box=ROUNDED, padding=(0, 2)))

    def closing(self, text: str) -> None:
        self._console.print(Text(f"{text} ({self.seconds():.0f} s)"))

    def _line(self, kind: str, text: str) -> None:
        mark, style, _ = MARKS[kind]
        row = Table.grid(padding=(0, 1))
        row.add_column(width=6, justify="right", style="dim")
        row.add_column(width=1)
        row.add_column()
        row.add_row(f"{self.seconds():.1f}s", Text(mark, style=style), Text(text, style=style))
        self._console.print(row)
