"""How fast the engine is: `uv run python bench/engine.py [--quick]`.

A workflow is a start, three trivial durable steps and a finish, every one of them committed with
`synchronous=FULL` before the next. Four sides take turns: a bare commit per write (the floor), the lean prototype of
`parts/prototype.py`, Milepost's engine with a kernel that only calls the function, and with the SDK's own.
CPU is that of the whole process, both threads.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from parts.figures import Table, percentile, ratio, spread
from parts.sides import Side, at_once, engine, engine_and_sdk, floor, prototype

from milepost import logs
from milepost.running import run as run_loop
from milepost.running import settle
from milepost.settings import LogSettings

SIDES: dict[str, Side] = {
    "bare commits (the floor)": floor,
    "lean prototype": prototype,
    "engine": engine,
    "engine + SDK kernel": engine_and_sdk,
}
PEER = "lean prototype"
Figures = dict[str, dict[str, list[float]]]


async def measure(side: Side, scale: int, found: dict[str, list[float]]) -> None:
    """One round of one side, on a fresh file."""
    with tempfile.TemporaryDirectory(prefix="milepost-bench-", dir=os.environ.get("BENCH_DIR")) as directory:
        async with side(Path(directory)) as run:
            await at_once(10, 20, run, [])  # warm
            begun = time.perf_counter()
            await run(50 * scale)
            found["step"].append((time.perf_counter() - begun) / (50 * scale) * 1e3)
            for many, total in ((1, 40 * scale), (100, 400 * scale)):
                durations: list[float] = []
                begun, cpu = time.perf_counter(), time.process_time()
                await at_once(many, total, run, durations)
                found[f"rate {many}"].append(total / (time.perf_counter() - begun))
                found[f"cpu {many}"].append((time.process_time() - cpu) / total * 1e6)
                found[f"p50 {many}"].append(percentile(durations, 50) * 1e3)


def show(found: Figures, rounds: int) -> None:
    print(f"  {rounds} rounds, the sides taking turns: median [lowest..highest]")
    peer = found[PEER]
    table = Table(["", "ms per step", "workflows/s, 1 at a time", "p50 ms", "x prototype"])
    for name, figures in found.items():
        p50 = f"{statistics.median(figures['p50 1']):.1f}"
        times = ratio(figures["rate 1"], peer["rate 1"])
        table.add(name, spread(figures["step"], ".3f"), spread(figures["rate 1"]), p50, times)
    table.show()
    table = Table(["", "workflows/s, 100 at once", "p50 ms", "CPU us each", "x prototype"])
    for name, figures in found.items():
        p50 = f"{statistics.median(figures['p50 100']):.0f}"
        cpu, times = spread(figures["cpu 100"]), ratio(figures["rate 100"], peer["rate 100"])
        table.add(name, spread(figures["rate 100"]), p50, cpu, times)
    table.show()


async def main(*, quick: bool) -> None:
    rounds, scale = (3, 1) if quick else (5, 5)
    logs.configure(LogSettings(level="warning"))
    found: Figures = {name: defaultdict(list) for name in SIDES}
    settle()  # as `milepost serve` does
    for _ in range(rounds):
        for name, side in SIDES.items():
            await measure(side, scale, found[name])
    show(found, rounds)


if __name__ == "__main__":
    run_loop(main(quick="--quick" in sys.argv))
