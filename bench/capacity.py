"""How many replicas, and which PostgreSQL: `uv run python bench/capacity.py [--figures FILE] [--steps 4] ...`.

A model, not a measurement: it scales what `bench/scale.py` measured (FILE, made by its `--json`; default
`bench/figures/scale.json`) to 10,000, a million and a hundred million runs a day. What it assumes stands in `Assumed`;
change it to yours. A run's cost is counted in verbs of the store, for each is one round trip and one commit.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parts.figures import Table

FIGURES = Path(__file__).parent / "figures" / "scale.json"
MEASURED_VERBS = 1 + 3 + 1
"""Of the workflow that was measured: create, three appends, settle."""


@dataclass(frozen=True, slots=True)
class Assumed:
    """A run, a day, and machines."""

    steps: int = 4
    questions: int = 3
    peak: float = 5.0
    """The busiest minute of the day against its mean."""
    busy: float = 0.5
    """How busy a core should be at the peak."""
    endpoint_cpu: float = 0.001
    """CPU seconds of a replica for a request over HTTP, with its stream: a call, and one for each answer."""
    replica_cores: int = 2
    database_cores: int = 32
    """Of the largest server that you would run; more are shards."""
    log_rate: float = 200e6
    """Bytes of write-ahead log a second that its disk and its standby take."""
    connections: int = 1000
    """That a server serves well; more go through a pooler."""
    pool: int = 10
    keep_days: float = 30.0

    @property
    def verbs(self) -> int:
        """Create and settle; a step begins and ends in one append; a question is an append, a suspension, an answer, a
        claim and a load."""
        return 2 + self.steps + 5 * self.questions


@dataclass(frozen=True, slots=True)
class Need:
    """What so many runs a day take."""

    rate: float
    replicas: int
    database: float
    log: float
    disk: float
    shards: int
    first: str


def need(runs_a_day: float, measured: Mapping[str, Any], assumed: Assumed) -> Need:
    rate = runs_a_day / 86400 * assumed.peak
    scale = assumed.verbs / MEASURED_VERBS
    cpu = measured["replica_cpu_s"] * scale + assumed.endpoint_cpu * (1 + assumed.questions)
    replicas = max(2, math.ceil(rate * cpu / assumed.busy / assumed.replica_cores) + 1)
    database = rate * measured["database_cpu_s"] * scale / assumed.busy
    log = rate * measured["log_bytes"] * scale
    # What is kept of a run is about a third of what its writing logs: rows without their changes and indexes twice.
    disk = runs_a_day * assumed.keep_days * measured["log_bytes"] * scale / 3
    limits = {
        "the database's CPU": database / assumed.database_cores,
        "its log": log / assumed.log_rate,
        "its connections": replicas * (assumed.pool + 1) / assumed.connections,
    }
    first = max(limits, key=lambda name: limits[name])
    shards = math.ceil(max(limits["the database's CPU"], limits["its log"]))
    return Need(rate, replicas, database, log, disk, max(1, shards), first)


def main() -> None:
    measured = json.loads(Path(option("--figures") or FIGURES).read_text())["throughput"]
    assumed = Assumed(steps=int(option("--steps") or 4), questions=int(option("--questions") or 3))
    print(f"A run: {assumed.steps} steps, {assumed.questions} questions, so {assumed.verbs} verbs. The busiest minute: "
          f"{assumed.peak:g} times the mean, with cores {assumed.busy:.0%} busy.")  # fmt: skip
    table = Table(
        ["runs a day", "runs/s at the peak", f"replicas ({assumed.replica_cores} cores)", "database cores", "log MB/s",
         f"disk GB ({assumed.keep_days:g} days)", f"shards of {assumed.database_cores} cores", "first bottleneck"]
    )  # fmt: skip
    for runs in (1e4, 1e6, 1e8):
        found = need(runs, measured, assumed)
        table.add(
            f"{runs:,.0f}", f"{found.rate:,.1f}", f"{found.replicas:,}", f"{found.database:,.1f}",
            f"{found.log / 1e6:,.2f}", f"{found.disk / 1e9:,.0f}", f"{found.shards}", found.first,
        )  # fmt: skip
    table.show()
    print(
        "Every table's rows hang off a run id, so shards by run id share nothing but sessions: each takes its part\n"
        "of CPU, log and disk. What a shard does not divide is the replicas' own CPU, and looking for runs to claim:\n"
        "each replica then asks each shard that it serves."
    )


def option(name: str) -> str | None:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else None


if __name__ == "__main__":
    main()
