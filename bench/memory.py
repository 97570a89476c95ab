"""What waiting runs cost in memory: `uv run python bench/memory.py [--quick]`.

A `milepost serve` process on SQLite is given 10,000 calls of a workflow that does a step and then waits for a person.
Its resident memory is taken when it is idle (after a warm-up with 500 such runs, and with its garbage collected), and
again with 10,000 more of them waiting. Fails above 20 MB: a waiting run costs rows only.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

from parts.client import Modern, connected
from parts.processes import Served, milepost

from milepost.running import run as run_loop

LIMIT = 20_000_000
"""Bytes over idle."""
CONNECTIONS = 16
WARM_UP = 500


async def make_wait(served: Served, numbers: Iterable[int]) -> None:
    """One more waiting run for each number."""
    left = iter(numbers)

    async def work(client: Modern) -> None:
        for number in left:
            answer = await client.call("trip", number=number)
            assert b'"input_required"' in answer, answer

    async with AsyncExitStack() as stack:
        clients = [Modern(await stack.enter_async_context(connected(served.port))) for _ in range(CONNECTIONS)]
        await asyncio.gather(*(work(client) for client in clients))


async def resident(served: Served) -> int:
    """Bytes, with the garbage collected."""
    async with connected(served.port) as connection:
        for _ in range(3):  # what the first one freed may free more
            await Modern(connection).call("collect")
    return served.rss


def say(what: str, figure: str) -> None:
    print(f"  {what:<28} {figure:>12}", flush=True)


async def main(*, quick: bool) -> int:
    runs = 2_000 if quick else 10_000
    with tempfile.TemporaryDirectory(prefix="milepost-bench-", dir=os.environ.get("BENCH_DIR")) as folder:
        async with milepost(Path(folder)) as served:
            await make_wait(served, range(WARM_UP))
            idle = await resident(served)
            await make_wait(served, range(WARM_UP, WARM_UP + runs))
            waiting = await resident(served)
    cost = waiting - idle
    say("idle", f"{idle / 1e6:.1f} MB")
    say(f"with {runs:,} runs waiting", f"{waiting / 1e6:.1f} MB")
    say(f"difference (limit {LIMIT / 1e6:.0f} MB)", f"{cost / 1e6:.1f} MB")
    say("per waiting run", f"{cost / runs / 1e3:.2f} KB")
    return 0 if cost <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(run_loop(main(quick="--quick" in sys.argv)))
