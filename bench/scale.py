"""How a PostgreSQL store scales on this machine: `PYTHONPATH=. uv run python bench/scale.py [--quick] [--json FILE]`.

1. What the database itself can do: pgbench (C, ten connections) runs a workflow's verbs, as our functions in the
   database, and nothing else. Then 1, 2 and 4 replicas (engines, each a process, with a kernel that only calls the
   function) run workflows of three steps. All share these cores, so what counts is the ratio.
2. Whether what waits costs those who work: latency with 0, 10,000 and 100,000 waiting runs in the database.
3. The same with 10,000 open sessions.

The figures go to FILE, from which `bench/capacity.py` computes.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
from parts.figures import Table, percentile, ratio, spread

from lab.postgres import PostgresServer
from milepost.core.attempts import Batch, Claimant, End, EndKind
from milepost.core.records import EventKind, NewEvent, NewQuestion, Reply, Session
from milepost.running import run as run_loop
from milepost.store.postgres import PostgresStore
from milepost.store.postgres.sqltext import SqlText
from store import ANN, LEASE, create, workflow

HERE = Path(__file__).parent
CONNECTIONS = 10
CALLERS = 25
NOBODY = Claimant("r1", LEASE, frozenset({("nothing", 1)}))


def pgbench_script(server: PostgresServer) -> Path:
    """A workflow's verbs, where the server's user can read them."""
    text = (HERE / "parts" / "workflow.pgbench.sql").read_text()
    script = server.lodging.folder / "workflow.sql"
    script.write_text(text.replace("verbs.", f"{SqlText('milepost').verbs_schema}."))
    script.chmod(0o644)
    return script


def pgbench(server: PostgresServer, script: Path, seconds: int) -> float:
    """Workflows a second."""
    told = server.lodging.run(
        "pgbench", "-n", "-M", "prepared", "-c", str(CONNECTIONS), "-j", "2", "-T", str(seconds), "-f", str(script),
        "-h", "127.0.0.1", "-p", str(server.port), "-U", "milepost", "postgres",
    )  # fmt: skip
    return float(next(line for line in told.splitlines() if line.startswith("tps")).split()[2])


def database_cpu(server: PostgresServer) -> float:
    """CPU seconds of the server's processes so far."""
    main = psutil.Process(server.pid)
    spent = [main.cpu_times(), *(child.cpu_times() for child in main.children(recursive=True))]
    return sum(times.user + times.system + times.children_user + times.children_system for times in spent[:1]) + sum(
        times.user + times.system for times in spent[1:]
    )


def written(server: PostgresServer) -> int:
    """Bytes of write-ahead log so far."""
    return int(server.sql("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")[0][0])


class Replica:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, url: str) -> Replica:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "parts.replica", url, str(CALLERS), stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}"},
        )  # fmt: skip
        replica = cls(process)
        await replica._line("ready")
        return replica

    async def _line(self, word: str) -> list[str]:
        assert self.process.stdout is not None
        while words := (await self.process.stdout.readline()).decode().split():
            if words[0] == word:
                return words
        raise RuntimeError("a replica ended")

    async def work(self, seconds: float) -> tuple[int, float]:
        """(workflows, CPU seconds)."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"go {seconds}\n".encode())
        _, done, cpu = await self._line("done")
        return int(done), float(cpu)

    async def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.wait()


async def throughput(server: PostgresServer, seconds: int, rounds: int) -> dict[str, Any]:
    store = PostgresStore(server.url())
    await store.open()
    script = pgbench_script(server)
    limit: list[float] = []
    rates: dict[int, list[float]] = {1: [], 2: [], 4: []}
    costs: dict[str, list[float]] = {"replica": [], "database": [], "log": []}
    for _ in range(rounds):
        limit.append(await asyncio.to_thread(pgbench, server, script, seconds))
        for count, found in rates.items():
            replicas = [await Replica.start(server.url()) for _ in range(count)]
            cpu, log, begun = database_cpu(server), written(server), time.perf_counter()
            done = await asyncio.gather(*(replica.work(seconds) for replica in replicas))
            total, took = sum(n for n, _ in done), time.perf_counter() - begun
            found.append(total / took)
            costs["replica"].append(sum(spent for _, spent in done) / total)
            costs["database"].append((database_cpu(server) - cpu) / total)
            costs["log"].append((written(server) - log) / total)
            await asyncio.gather(*(replica.stop() for replica in replicas))
    await store.aclose()
    print(f"  workflows of three steps a second, {rounds} rounds: median [lowest..highest]")
    table = Table(["", "workflows/s", "x the database's own limit", "x 1 replica"])
    table.add("the database alone (pgbench)", spread(limit), "1.00", "")
    for count, found in rates.items():
        table.add(f"{count} replica(s)", spread(found), ratio(found, limit), ratio(found, rates[1]))
    table.show()
    each = {name: statistics.median(values) for name, values in costs.items()}
    print(
        f"  a workflow costs {each['replica'] * 1e3:.2f} ms of a replica's CPU, {each['database'] * 1e3:.2f} ms of the "
        f"database's, {each['log'] / 1024:.1f} KiB of its log\n"
    )
    return {
        "pgbench_workflows_s": statistics.median(limit),
        "workflows_s": {str(count): statistics.median(found) for count, found in rates.items()},
        "replica_cpu_s": each["replica"], "database_cpu_s": each["database"], "log_bytes": each["log"],
    }  # fmt: skip


async def timed(work: Callable[[], Awaitable[object]], times: int) -> list[float]:
    """Milliseconds of each."""
    durations = []
    for _ in range(times):
        begun = time.perf_counter()
        await work()
        durations.append((time.perf_counter() - begun) * 1e3)
    return durations


async def answered(store: PostgresStore, ids: list[str]) -> None:
    """The wake of one waiting run: its answer, and the claim that finds it."""
    run_id = ids.pop()
    await store.answer(run_id, {1: Reply({"action": "accept", "content": {}})}, by=ANN, via="bench")
    claims = await store.claim(Claimant("r1", LEASE, frozenset({("rebook", 1)})), limit=1, takeovers=8)
    assert [claim.run.id for claim in claims] == [run_id]
    await store.settle(claims[0].fence, End(EndKind.COMPLETE))


async def wait(store: PostgresStore) -> str:
    claim = await create(store)
    question = NewQuestion(1, "elicitation/create", {"message": "When?"}, "d", expires_in=7 * 86400.0)
    await store.append(claim.fence, Batch([], [question], [NewEvent(EventKind.QUESTION, {"question": 1})]), lease=LEASE)
    await store.settle(claim.fence, End(EndKind.SUSPEND, 0, frozenset({1})))
    return claim.run.id


def multiply(server: PostgresServer, pattern: str, upto: int) -> None:
    """Copies of one waiting run, made by the database."""
    columns = server.sql(
        "SELECT string_agg(column_name, ', ' ORDER BY ordinal_position) FROM information_schema.columns "
        "WHERE table_schema = 'milepost' AND table_name = 'run' AND column_name NOT IN ('id', 'call_key')"
    )[0][0]
    have = int(server.sql("SELECT count(*) FROM milepost.run WHERE state = 'waiting'")[0][0])
    name = "'run-' || lpad(n::text, 32, 'f')"
    series = f"generate_series({have + 1}, {upto}) n"
    server.sql(
        f"INSERT INTO milepost.run (id, call_key, {columns}) SELECT {name}, {name}, {columns} "
        f"FROM milepost.run, {series} WHERE id = '{pattern}'"
    )
    server.sql(
        "INSERT INTO milepost.question (run, id, method, params, digest, key, occurrence, asked_at, expires_at) "
        f"SELECT {name}, id, method, params, digest, key, occurrence, asked_at, expires_at "
        f"FROM milepost.question, {series} WHERE run = '{pattern}'"
    )
    server.sql("VACUUM ANALYZE")


async def latency(server: PostgresServer, times: int, counts: list[int]) -> dict[str, Any]:
    store = PostgresStore(server.url())
    await store.open()
    await store.join("r1")
    server.sql("TRUNCATE milepost.run, milepost.entry, milepost.question, milepost.event, milepost.stream")
    pattern = await wait(store)
    print(f"  what waits: medians in ms (p95), {times} times each")
    table = Table(["waiting runs", "workflow", "answer, claim, settle", "claim of nothing", "sweep", "database MiB"])
    found: dict[str, Any] = {}
    for count in counts:
        await asyncio.to_thread(multiply, server, pattern, count)
        ids = [await wait(store) for _ in range(times)]
        works: dict[str, Callable[[], Awaitable[object]]] = {
            "workflow": lambda: workflow(store),
            "answer": lambda ids=ids: answered(store, ids),  # type: ignore[misc]  # bound now
            "claim": lambda: store.claim(NOBODY, limit=50, takeovers=8),
            "sweep": lambda: store.sweep(limit=500),
        }
        took = {name: await timed(work, times) for name, work in works.items()}
        size = int(server.sql("SELECT pg_database_size('postgres')")[0][0]) / 2**20
        cells = [f"{statistics.median(each):.2f} ({percentile(each, 95):.2f})" for each in took.values()]
        table.add(f"{count:,}", *cells, f"{size:,.0f}")
        found[str(count)] = {name: statistics.median(each) for name, each in took.items()} | {"mib": size}
    table.show()
    await store.aclose()
    return found


async def sessions(times: int, count: int, server: PostgresServer) -> dict[str, Any]:
    store = PostgresStore(server.url())
    await store.open()
    print(f"  sessions: medians in ms (p95), {times} times each")
    table = Table(["open sessions", "a new one", "one looked up"])
    found: dict[str, Any] = {}
    numbers = iter(range(10_000_000))

    async def new() -> None:
        session = Session(f"bench-{next(numbers)}", "2025-11-25", {"clientInfo": {"name": "bench"}}, ANN)
        assert await store.save_session(session, cap=count * 10)

    for many in (0, count):
        if many:
            server.sql(
                "INSERT INTO milepost.session SELECT 's' || n, '2025-11-25', '{}', '[null,null,null,[],false]', "
                "extract(epoch FROM now()), extract(epoch FROM now()), true, NULL, '[]', false "
                f"FROM generate_series(1, {many}) n"
            )
            server.sql("VACUUM ANALYZE milepost.session")
        made = await timed(new, times)
        looked = await timed(lambda: store.session("bench-1"), times)
        table.add(
            f"{many:,}", *(f"{statistics.median(each):.2f} ({percentile(each, 95):.2f})" for each in (made, looked))
        )
        found[str(many)] = {"new": statistics.median(made), "look": statistics.median(looked)}
    table.show()
    await store.aclose()
    return found


async def main() -> None:
    quick = "--quick" in sys.argv
    with PostgresServer(settings={"max_connections": "200", "shared_buffers": "512MB"}) as server:
        print(f"PostgreSQL {server.version}, {os.cpu_count()} cores for the database, the replicas and the clients")
        found = {
            "cores": os.cpu_count(),
            "throughput": await throughput(server, 3 if quick else 8, 1 if quick else 3),
            "latency": await latency(server, 50 if quick else 200, [0, 1000] if quick else [0, 10_000, 100_000]),
            "sessions": await sessions(50 if quick else 200, 1000 if quick else 10_000, server),
        }
    if "--json" in sys.argv:
        await asyncio.to_thread(keep, Path(sys.argv[sys.argv.index("--json") + 1]), found)


def keep(target: Path, found: dict[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    run_loop(main())
