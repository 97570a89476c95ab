"""What a stateless tool call over HTTP costs: `uv run python bench/endpoint.py [--quick]`.

The same server, with a tool that adds two numbers, as a process of `milepost serve` and as a process of the SDK's own
transport (`MCPServer.streamable_http_app()`) under uvicorn with the same loop and parser. The two take turns, eight
connections at once, and each gets the same bytes. CPU is that of the server's process, all threads; the client's is
not in it. A call a second is also the client's affair (it shares the cores), so the ratio of CPU is what counts.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path

from parts.client import Era, Handshake, Modern, connected
from parts.figures import Table, percentile, ratio, spread
from parts.processes import Served, milepost, sdk

from milepost.running import run as run_loop

CONNECTIONS = 8
ERAS: dict[str, Era] = {"2026-07-28": Modern, "2025-11-25": Handshake}
PEER = "SDK's own transport"
Figures = dict[str, dict[str, list[float]]]


async def measure(served: Served, era: Era, calls: int, found: dict[str, list[float]]) -> None:
    """One round: `calls` calls over connections that were opened before it."""
    async with AsyncExitStack() as stack:
        clients = [era(await stack.enter_async_context(connected(served.port))) for _ in range(CONNECTIONS)]
        for client in clients:
            await client.open()
        await at_once(clients, calls // 10, [])
        durations: list[float] = []
        begun, cpu = time.perf_counter(), served.cpu
        await at_once(clients, calls, durations)
        found["rate"].append(calls / (time.perf_counter() - begun))
        found["cpu"].append((served.cpu - cpu) / calls * 1e6)
        found["p50"].append(percentile(durations, 50) * 1e3)


async def at_once(clients: list[Modern | Handshake], total: int, durations: list[float]) -> None:
    left = iter(range(total))

    async def work(client: Modern | Handshake) -> None:
        for n in left:
            begun = time.perf_counter()
            answer = await client.call("add", a=n, b=1)
            durations.append(time.perf_counter() - begun)
            assert f'"result":{n + 1}'.encode() in answer.replace(b" ", b""), answer

    await asyncio.gather(*(work(client) for client in clients))


def show(era: str, found: Figures) -> None:
    table = Table([era, "CPU us per call", "x SDK", "calls/s", "x SDK", "p50 ms"])
    peer = found[PEER]
    for name, figures in found.items():
        cpu, rate = figures["cpu"], figures["rate"]
        p50 = f"{statistics.median(figures['p50']):.1f}"
        table.add(name, spread(cpu), ratio(cpu, peer["cpu"]), spread(rate), ratio(rate, peer["rate"]), p50)
    table.show()


async def main(*, quick: bool) -> None:
    rounds, calls = (3, 500) if quick else (7, 2000)
    print(f"  {rounds} rounds of {calls:,} calls, {CONNECTIONS} at once, taking turns: median [lowest..highest]")
    with tempfile.TemporaryDirectory(prefix="milepost-bench-", dir=os.environ.get("BENCH_DIR")) as folder:
        async with milepost(Path(folder)) as ours, sdk() as theirs:
            for name, era in ERAS.items():
                found: Figures = {"milepost serve": defaultdict(list), PEER: defaultdict(list)}
                for _ in range(rounds):
                    await measure(ours, era, calls, found["milepost serve"])
                    await measure(theirs, era, calls, found[PEER])
                show(name, found)


if __name__ == "__main__":
    run_loop(main(quick="--quick" in sys.argv))
