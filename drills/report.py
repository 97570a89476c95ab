"""What a drill prints: rich on a terminal, plain elsewhere, the same figures in both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from drills import checks
from drills.kills import Fought
from drills.nemesis import Hit
from drills.pauses import BLOCKED, LEASE, Pause, Paused
from drills.plan import ERAS

CLASSES = ("running step", "open question", "commit in flight", "idle server", "starting server", "other work")
_SHOWN = 30
"""Violations printed in full; the count is always given."""


class Report:
    """Writes to one console."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.fancy = self.console.is_terminal

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def kill(self, hit: Hit, of: int) -> None:
        """One line for one kill."""
        hits = "; ".join(f"{name} ({', '.join(sorted(eras))})" for name, eras in hit.classes.items())
        planned = hit.planned
        self.say(f"kill {planned.n + 1:3}/{of}  planned {planned.point} in {planned.era:15}  hit {hits}")

    def table(self, title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        if not self.fancy:
            self._plain(title, heads, rows)
            return
        table = Table(title=title, title_justify="left")
        for number, head in enumerate(heads):
            table.add_column(head, justify="left" if number == 0 else "right")
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        self.console.print(table)

    def _plain(self, title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        lines = [[str(cell) for cell in row] for row in (heads, *rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
        self.say(title)
        for line in lines:
            cells = [cell.ljust(width) if n == 0 else cell.rjust(width)
                     for n, (cell, width) in enumerate(zip(line, widths, strict=True))]  # fmt: skip
            self.say("  " + "  ".join(cells))

    # --- the kill drill ------------------------------------------------------------------------------

    def fought(self, fought: Fought, seed: int) -> bool:
        """All figures of a kill drill. False: something does not hold."""
        self.say("")
        self._kills(fought)
        self._conversations(fought)
        self._resumed(fought)
        return self.verdict(fought, f"seed {seed}")

    def _kills(self, fought: Fought) -> None:
        rows: list[list[object]] = []
        for name in CLASSES:
            hits = [hit for hit in fought.hits if name in hit.classes]
            rows.append([name, len(hits), *(sum(era in hit.classes[name] for hit in hits) for era in ERAS)])
        kills = sum(len(hit.disruptions) for hit in fought.hits)
        title = f"Kills: {kills}, by what they were seen to hit (one may hit several)"
        self.table(title, ["", "kills", *ERAS], rows)
        made, lost = sum(hit.recorded for hit in fought.hits), sum(hit.lost for hit in fought.hits)
        two = sum(len(hit.disruptions) for hit in fought.hits if hit.planned.servers == 2)
        self.say(f"Commits in flight: {made} had been made when the process died, {lost} had not.")
        self.say(f"With two servers on the store: {two} kills; with one: {kills - two}.")

    def _conversations(self, fought: Fought) -> None:
        told = fought.history.told
        rows = []
        for era in ERAS:
            own = [one for one in told if one.era == era]
            done = sum(one.result is not None for one in own)
            counts = [(one.breaks, one.drops, len(one.acks), one.asked_which) for one in own] or [(0, 0, 0, 0)]
            rows.append([era, len(own), done, *(sum(each) for each in zip(*counts, strict=True))])
        heads = [
            "",
            "conversations",
            "with result",
            "breaks",
            "own drops",
            "answers acknowledged",
            "asked to join or start over",
        ]
        self.table("Conversations", heads, rows)
        self.effects(fought.history)

    def effects(self, history: checks.History) -> None:
        again = Counter(
            effect.step for effects in checks.by_call(history).values() for effect in effects[1:]
        )  # fmt: skip
        self.say(
            f"Effects: {len(history.effects)} of {len(checks.by_call(history))} calls. Doubled in flight, under one "
            f"key (allowed): {checks.doubled(history)} {dict(again) or ''}. Others (must be 0): "
            f"{checks.doubled_otherwise(history)}."
        )

    def _resumed(self, fought: Fought) -> None:
        restarted = [one for one in fought.resumptions if one.began >= one.broke - 0.05]
        rows = [
            ["from the kill", *_spread([one.first - one.broke for one in fought.resumptions])],
            ["from the new process's start", *_spread([one.first - one.began for one in restarted])],
            ["from its being ready", *_spread([one.first - one.up for one in restarted if one.up])],
            ["a start takes", *_spread(fought.starts)],
        ]
        self.table("Time to resume: to the first message to a client that waited (s)", ["", "n", "p50", "p95", "max"],
                   rows)  # fmt: skip

    # --- the pause drill -----------------------------------------------------------------------------

    def pause(self, pause: Pause, of: int) -> None:
        """One line for one stop."""
        lasted = (pause.disruption.until or 0.0) - pause.disruption.at
        steps = ", ".join(f"{effect.step} of {effect.conversation}" for effect in pause.in_flight)
        what = f"with {steps} in flight" if steps else "with no step in flight"
        self.say(f"pause {pause.n + 1:3}/{of}  planned {pause.point:9} stopped for {lasted:.1f} s {what}")

    def paused(self, paused: Paused, seed: int) -> bool:
        """All figures of a pause drill. False: something does not hold."""
        history = paused.history
        tokens = {effect.token for pause in paused.pauses for effect in pause.in_flight}
        calls = checks.by_call(history).values()
        cut = [effects for effects in calls if tokens & {effect.token for effect in effects}]
        self.say("")
        self.say(
            f"Pauses: {len(paused.pauses)}, each longer than the lease of {LEASE:g} s, with another server on the "
            f"same store. Steps in flight in the stopped process: {len(tokens)}, of which "
            f"{sum(len(effects) > 1 for effects in cut)} are there twice."
        )
        blocked = [effects for effects in calls if effects[0].conversation in paused.blocked]
        times = sorted(len(effects) for effects in blocked)
        self.say(
            f"Event loops blocked for {BLOCKED:g} s: {len(paused.blocked)}; effects of these workflows: {len(blocked)} "
            f"calls, each there {' or '.join(str(n) for n in sorted(set(times)))} times."
        )
        done = sum(told.result is not None for told in history.told)
        ghosts = sum(run.ghost for run in history.runs)
        self.say(
            f"Conversations: {len(history.told)}, with result: {done}. Calls that a stopped server read when their "
            f"client had long gone: {ghosts}, which began nothing and expire."
        )
        self.effects(history)
        return self.verdict(paused, f"seed {seed}")

    # --- both -----------------------------------------------------------------------------------------

    def verdict(self, fought: Fought, what: str) -> bool:
        found = [*fought.failures, *checks.violations(fought.history)]
        for line in found[:_SHOWN]:
            self.say(f"VIOLATION {line}")
        self.say(f"Violations: {len(found)} ({what})")
        return not found


def _spread(seconds: Sequence[float]) -> list[str]:
    """Count, p50, p95 and maximum."""
    if not seconds:
        return ["0", "-", "-", "-"]
    rising = sorted(seconds)
    picked = [rising[min(len(rising) - 1, int(share * len(rising)))] for share in (0.5, 0.95)]
    return [str(len(rising)), *(f"{value:.2f}" for value in (*picked, rising[-1]))]
