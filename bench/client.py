"""What a call costs its client: `uv run python bench/client.py [--quick] [--sdk | --pipe]`.

`milepost.client.Client` and the official `mcp.Client` in one process, taking turns, call a tool that adds two numbers
on the same server in another process (`milepost serve`; with `--sdk` the SDK's own transport, with `--pipe` a child
process of each client), in both eras, one call at a time and eight at once. CPU is that of this process, all threads,
while one side has its turn. Where there are two cores or more, this process and the server have one each.

What is asked of `milepost.client` is at most 1.1 times the official client's CPU per call. Two more rows say what is
paid for what the official client has not: a journal (each call is written to disk before it is sent, and when it has
ended), and a reader of its events.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import mcp
import psutil
from parts.figures import Table, percentile, ratio, spread
from parts.processes import HERE, milepost, sdk

from milepost.client import Client

MODES = {"2026-07-28": "2026-07-28", "2025-11-25": "legacy"}
CALLERS = (1, 8)
PEER = "mcp.Client"
PEER_SERVER = HERE / "peer.py"
Place = str | mcp.StdioServerParameters
Open = Callable[[Place, str], AbstractAsyncContextManager[mcp.Client]]
"""Opens a client of a URL or a command, in a mode."""
Figures = dict[str, dict[str, list[float]]]


@asynccontextmanager
async def read_all(url: Place, mode: str) -> AsyncIterator[mcp.Client]:
    async with Client(url, mode=mode) as client:
        events = client.events

        async def read() -> None:
            async for _ in events:
                pass

        reading = asyncio.ensure_future(read())
        yield client
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def sides(folder: Path) -> dict[str, Open]:
    """The official client, ours, and ours with what costs more."""
    return {
        PEER: lambda url, mode: mcp.Client(url, mode=mode),
        "milepost": lambda url, mode: Client(url, mode=mode),
        "... reading its events": read_all,
        "... with a journal": lambda url, mode: Client(url, mode=mode, journal=f"sqlite:///{folder / 'client.db'}"),
    }


async def measure(
    side: Callable[[], AbstractAsyncContextManager[mcp.Client]], callers: int, calls: int, found: dict[str, list[float]]
) -> None:
    """One turn, with a client of its own: a connection that idles while the others have theirs may be closed."""
    async with side() as client:
        await at_once(client, callers, calls // 4, [])
        gc.collect()
        durations: list[float] = []
        begun, cpu = time.perf_counter(), time.process_time()
        await at_once(client, callers, calls, durations)
        found["cpu"].append((time.process_time() - cpu) / calls * 1e6)
        found["rate"].append(calls / (time.perf_counter() - begun))
        found["p50"].append(percentile(durations, 50) * 1e3)


async def at_once(client: mcp.Client, callers: int, total: int, durations: list[float]) -> None:
    left = iter(range(total))

    async def work() -> None:
        for n in left:
            begun = time.perf_counter()
            result = await client.call_tool("add", {"a": n, "b": 1})
            durations.append(time.perf_counter() - begun)
            assert result.structured_content == {"result": n + 1}, result

    await asyncio.gather(*(work() for _ in range(callers)))


def show(title: str, found: Figures) -> None:
    table = Table([title, "CPU us per call", "x mcp.Client", "calls/s", "x mcp.Client", "p50 ms"])
    peer = found[PEER]
    for name, figures in found.items():
        cpu, rate = figures["cpu"], figures["rate"]
        p50 = f"{statistics.median(figures['p50']):.2f}"
        table.add(name, spread(cpu), ratio(cpu, peer["cpu"]), spread(rate), ratio(rate, peer["rate"]), p50)
    table.show()


def apart(server: psutil.Process) -> None:
    """A core for this process and another for the server, where the system can do that."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[:1])
        server.cpu_affinity(cores[1:])


async def compare(era: str, url: Place, rounds: int, calls: int, folder: Path) -> None:
    opened = {name: partial(side, url, MODES[era]) for name, side in sides(folder).items()}
    for callers in CALLERS:
        found: Figures = {name: defaultdict(list) for name in opened}
        for turn in range(rounds):
            order = list(opened) if turn % 2 else list(opened)[::-1]
            for name in order:
                await measure(opened[name], callers, calls, found[name])
        show(f"{era}, {callers} at once", found)


@asynccontextmanager
async def serving(folder: Path, *, stock: bool, piped: bool) -> AsyncIterator[Place]:
    """Where the server is, with a core of its own if it is one for all."""
    if piped:
        yield mcp.StdioServerParameters(command=sys.executable, args=[str(PEER_SERVER), "--stdio"])
        return
    async with sdk() if stock else milepost(folder) as served:
        apart(served.process)
        yield f"http://127.0.0.1:{served.port}/mcp"


async def main(*, quick: bool, stock: bool, piped: bool) -> None:
    rounds, calls = (5, 200) if quick else (9, 400)
    host = "a child process" if piped else "the SDK's own transport" if stock else "milepost serve"
    print(f"  {rounds} rounds of {calls:,} calls to {host}, taking turns: median [lowest..highest]")
    with tempfile.TemporaryDirectory(prefix="milepost-bench-", dir=os.environ.get("BENCH_DIR")) as folder:
        async with serving(Path(folder), stock=stock, piped=piped) as place:
            for era in MODES:
                await compare(era, place, rounds, calls, Path(folder))


if __name__ == "__main__":
    asyncio.run(main(quick="--quick" in sys.argv, stock="--sdk" in sys.argv, piped="--pipe" in sys.argv))
