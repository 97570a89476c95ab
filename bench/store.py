"""How fast the store is: `uv run python bench/store.py [--quick]`.

Figures to compare with (facts of a lean prototype on two cores): 0.28 ms per durable step, 349 workflows/s one at
a time, 5,096/s at 100 at once, 10 ms to wake a run in another process. A workflow is a create, three appends of a
step, and a settle; all of it durable (`synchronous=FULL`).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw

from milepost.core.attempts import Batch, Claim, Claimant, Created, End, EndKind
from milepost.core.records import (
    CallContext,
    Entry,
    EntryKind,
    EventKind,
    Lane,
    NewEvent,
    NewQuestion,
    NewRun,
    Outcome,
    Principal,
    Reply,
    Stream,
)
from milepost.store import SqliteStore

ANN = Principal("https://id", "ann", "app", ("book",), person=True)
CLAIMANT = Claimant("r1", 10.0, frozenset({("rebook", 1)}))
LEASE = 10.0
OUTCOME = Outcome(result={"content": [{"type": "text", "text": "booked"}], "structuredContent": {"ok": True}})
numbers = itertools.count(1)


async def create(store: SqliteStore, owner: str = "r1") -> Claim:
    number = next(numbers)
    run_id = f"run-{os.getpid():08x}{number:024x}"
    call = CallContext(
        "rebook", {"pnr": "ABC123", "day": "2026-12-24"}, number, "2025-11-25", {"name": "bench", "version": "1"},
        {"elicitation": {"form": {}}}, ANN, trace_id="ab" * 16,
    )  # fmt: skip
    new = NewRun(run_id, "rebook", 1, Lane.WORKFLOW, call, f"{run_id}-call", "ann", b"0123456789abcdef")
    stream = Stream(f"{os.getpid():x}-{number}", run_id, number, session="s1" + run_id, owner=ANN, replica=owner)
    made = await store.create(new, stream, known=(), claim=Claimant(owner, LEASE, CLAIMANT.accepts))
    assert isinstance(made, Created)
    assert made.claim is not None
    return made.claim


def step(n: int) -> Batch:
    return Batch([Entry(n, EntryKind.DONE, "search_flights", "d" * 32, value='{"flights":[{"no":"LH1","fare":120}]}')])


async def workflow(store: SqliteStore) -> None:
    claim = await create(store)
    for n in (1, 2, 3):
        await store.append(claim.fence, step(n), lease=LEASE)
    await store.settle(claim.fence, End(EndKind.COMPLETE, outcome=OUTCOME))


async def at_once(many: int, total: int, work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """(units per second, CPU microseconds per unit) of `total` units, `many` at a time."""
    left = iter(range(total))

    async def worker() -> None:
        for _ in left:
            await work()

    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(many)))
    return total / (time.perf_counter() - begun), (time.process_time() - cpu) / total * 1e6


def bare_commit(directory: Path, total: int) -> None:
    """The floor under every durable write here and now: one small row, one fsync, no thread, no store."""
    connection = apsw.Connection(str(directory / "bare.db"))
    connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (a, b)").fetchall()
    durations = []
    for n in range(total):
        begun = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO t VALUES (?, ?)", (n, "x" * 100))
        connection.execute("COMMIT")
        durations.append(time.perf_counter() - begun)
    connection.close()
    say("bare SQLite commit (the floor)", f"{statistics.median(durations) * 1e3:.3f} ms")


async def appends(store: SqliteStore, total: int) -> None:
    claim = await create(store)
    durations = []
    for n in range(1, total + 1):
        begun = time.perf_counter()
        await store.append(claim.fence, step(n), lease=LEASE)
        durations.append(time.perf_counter() - begun)
    say(
        "append, one at a time",
        f"{statistics.median(durations) * 1e3:.3f} ms (p95 {percentile(durations, 95) * 1e3:.3f})",
    )
    claims = [await create(store) for _ in range(100)]
    counts = {claim.fence.attempt_id: itertools.count(1) for claim in claims}
    turns = itertools.cycle(claims)

    async def one() -> None:
        mine = next(turns)
        await store.append(mine.fence, step(next(counts[mine.fence.attempt_id])), lease=LEASE)

    rate, cpu = await at_once(100, total * 20 // 100 * 100, one)
    say("append, 100 at once", f"{rate:,.0f}/s ({cpu:.0f} µs of CPU each, both threads)")


async def workflows(store: SqliteStore, total: int) -> None:
    rate, _ = await at_once(1, total, lambda: workflow(store))
    say("workflows, one at a time", f"{rate:,.0f}/s")
    rate, cpu = await at_once(100, total * 10, lambda: workflow(store))
    say("workflows, 100 at once", f"{rate:,.0f}/s ({cpu:.0f} µs of CPU each, both threads)")


async def reads(store: SqliteStore, total: int) -> None:
    """What a read costs on the loop, against a hop to a thread: the reason why small ones stay."""
    claim = await create(store)
    for n in range(1, 11):
        await store.append(claim.fence, step(n), lease=LEASE)
    durations = []
    for _ in range(total):
        begun = time.perf_counter()
        await store.load(claim.run.id)
        durations.append(time.perf_counter() - begun)
    hops = []
    for _ in range(total):
        begun = time.perf_counter()
        await asyncio.to_thread(int)
        hops.append(time.perf_counter() - begun)
    say(
        "load (10 entries) on the loop",
        f"{statistics.median(durations) * 1e6:.0f} µs (p99 {percentile(durations, 99) * 1e6:.0f})",
    )
    say("a hop to a thread and back", f"{statistics.median(hops) * 1e6:.0f} µs (p99 {percentile(hops, 99) * 1e6:.0f})")


async def claims(store: SqliteStore, waiting: int) -> None:
    """A claim with many waiting runs around it."""

    async def ask() -> None:
        claim = await create(store)
        question = NewQuestion(1, "elicitation/create", {"message": "When?"}, "q", expires_in=86400.0)
        batch = Batch(questions=[question], events=[NewEvent(EventKind.QUESTION, {"question": 1})])
        await store.settle(claim.fence, End(EndKind.SUSPEND, 0, frozenset({1}), batch=batch))

    rate, _ = await at_once(100, waiting, ask)
    say(f"{waiting:,} runs made to wait", f"{rate:,.0f}/s")
    durations = []
    for _ in range(200):
        begun = time.perf_counter()
        await store.claim(CLAIMANT, limit=50, takeovers=8)
        durations.append(time.perf_counter() - begun)
    say("a claim that finds nothing among them", f"{statistics.median(durations) * 1e3:.3f} ms")


async def wakes(path: Path, store: SqliteStore, total: int) -> None:
    """Answer in this process; the other one claims, and the time is from before the answer to its claim's commit."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--claimer", str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    latencies = []
    for _ in range(total):
        claim = await create(store)
        question = NewQuestion(1, "elicitation/create", {"message": "When?"}, "q")
        await store.settle(claim.fence, End(EndKind.SUSPEND, 0, frozenset({1}), batch=Batch(questions=[question])))
        await asyncio.sleep(0.03 + random.random() * 0.02)  # not in step with the other's poll
        begun = time.monotonic()
        await store.answer(claim.run.id, {1: Reply(result={"action": "accept"})}, by=ANN, via="bench")
        latencies.append(float(await process.stdout.readline()) - begun)
    process.terminate()
    await process.wait()
    say(
        "wake in another process",
        f"{statistics.median(latencies) * 1e3:.1f} ms (p95 {percentile(latencies, 95) * 1e3:.1f})",
    )


async def claimer(path: Path) -> None:
    """The other process of `wakes`: claims whenever it is told of a change, and says when."""
    store = SqliteStore(path)
    await store.open()
    await store.join("r2")
    changed = asyncio.Event()
    store.watch(lambda _runs: changed.set())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        await changed.wait()
        changed.clear()
        for _ in await store.claim(Claimant("r2", LEASE, CLAIMANT.accepts), limit=10, takeovers=0):
            sys.stdout.write(f"{time.monotonic()}\n")
            sys.stdout.flush()


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def say(what: str, figure: str) -> None:
    print(f"  {what:<40} {figure}", flush=True)


async def main(*, quick: bool) -> None:
    scale = 1 if quick else 5
    with tempfile.TemporaryDirectory(prefix="milepost-bench-", dir=os.environ.get("BENCH_DIR")) as directory:
        path = Path(directory) / "bench.db"
        store = SqliteStore(path)
        await store.open()
        await store.join("r1")
        print(f"SQLite {apsw.sqlite_lib_version()} through apsw, {path.parent}", flush=True)
        bare_commit(path.parent, 100 * scale)
        await appends(store, 200 * scale)
        await workflows(store, 200 * scale)
        await reads(store, 200 * scale)
        await claims(store, 2000 * scale)
        await wakes(path, store, 20 * scale)
        await store.leave("r1")
        await store.aclose()


if __name__ == "__main__":
    if "--claimer" in sys.argv:
        asyncio.run(claimer(Path(sys.argv[-1])))
    else:
        asyncio.run(main(quick="--quick" in sys.argv))
