"""One replica of `bench/scale.py`: an engine on a PostgreSQL store that runs workflows of three steps.

    python -m parts.replica URL CALLERS

It says `ready`; on a line `go SECONDS` it runs for so long and says `done WORKFLOWS CPU-SECONDS`.
"""

from __future__ import annotations

import asyncio
import sys
import time

from milepost.core.spec import Catalogue, WorkflowSpec
from milepost.engine.runs import Runs
from milepost.running import run as run_loop
from milepost.store.clock import SystemClock
from milepost.store.postgres import PostgresStore
from parts.sides import PlainKernel, run_to_end


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def work(runs: Runs, callers: int, seconds: float) -> int:
    """How many workflows ended in that time."""
    ends = time.monotonic() + seconds
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.monotonic() < ends:
            await run_to_end(runs, "shop", {"n": 3})
            done += 1

    await asyncio.gather(*(caller() for _ in range(callers)))
    return done


async def main(url: str, callers: int) -> None:
    store = PostgresStore(url)
    await store.open()
    runs = Runs(store, PlainKernel(), Catalogue({"shop": WorkflowSpec(same_run="never")}), clock=SystemClock())
    await runs.start()
    await work(runs, callers, 0.5)  # warm: statements prepared, pages read
    say("ready")
    while line := await asyncio.to_thread(sys.stdin.readline):
        cpu = time.process_time()
        done = await work(runs, callers, float(line.split()[1]))
        say(f"done {done} {time.process_time() - cpu:.3f}")
    await runs.drain()
    await store.aclose()


if __name__ == "__main__":
    run_loop(main(sys.argv[1], int(sys.argv[2])))
