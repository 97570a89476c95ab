"""Runs the official server suite against our fixture, hosted by Milepost (`make conformance`).

    python conformance/run.py [--stock] [--store URL] [--keep DIR]

`suite.py` says how it is judged. The two extra scenarios are on no list of required ones; their number of checks stands
here, because the suite also "passes" them when there is nothing to check.

`--stock` hosts the same fixture on the SDK's own transport; `--store` gives it another store than a file of its own
(`postgresql://...`; `postgres` alone starts a server for it).
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conformance.suite import (
    HERE,
    SETS,
    Failure,
    Verdict,
    judge_extra,
    judge_set,
    kept_at,
    report,
    required,
    run_suite,
    say,
    scores,
    suite,
)
from lab.postgres import PostgresServer

EXTRA = {"server-session-lifecycle": 3, "server-sse-polling": 3}
"""Checks that each must pass; they run along with the set of 2025-11-25."""

START_LIMIT = 30.0
STOP_LIMIT = 20.0
"""Seconds."""


# --- the server -----------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def server_command(port: int, folder: Path, *, stock: bool, store: str | None = None) -> list[str]:
    if stock:
        return [sys.executable, str(HERE / "stock.py"), str(port)]
    milepost = Path(sys.executable).with_name("milepost")
    target, store = f"{HERE / 'fixture.py'}:mcp", store or f"sqlite:///{folder / 'conformance.db'}"
    return [str(milepost), "serve", target, "--host", "127.0.0.1", "--port", str(port), "--store", store]


@contextmanager
def serving(folder: Path, *, stock: bool, store: str | None = None) -> Iterator[str]:
    """The fixture's URL, while it is served by a process of its own."""
    port, log = free_port(), folder / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            server_command(port, folder, stock=stock, store=store),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    try:
        await_port(server, port, log)
        yield f"http://localhost:{port}/mcp"
    finally:
        stop(server)


def await_port(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)  # another process is waited for: nothing tells when it listens
    raise Failure(f"the server did not start listening on port {port}. Its output:\n{log.read_text()[-4000:]}")


def stop(server: subprocess.Popen[bytes]) -> None:
    """By its own pid: asked first, killed if it doesn't listen."""
    server.terminate()
    try:
        server.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait(STOP_LIMIT)


# --- the run --------------------------------------------------------------------------------------


def run_sets(url: str, command: list[str], folder: Path) -> Iterator[Verdict]:
    """One verdict a set, then one for each extra scenario. The suite's output is kept in `folder`."""
    for revision in SETS:
        say(f"running the server scenarios of {revision}")
        out = folder / revision
        output = run_suite([*command, "server", "--url", url, "--requirements", revision, "-o", str(out)])
        (folder / f"{revision}.txt").write_text(output)
        found = scores(output)
        yield judge_set(revision, required(revision, command, "Server"), found)
    yield from (judge_extra(name, checks, found) for name, checks in EXTRA.items())


def check(folder: Path, *, stock: bool, store: str | None = None) -> bool:
    """Whether everything required passed. Prints a line per set."""
    command = suite()
    with serving(folder, stock=stock, store=store) as url:
        say(f"the fixture is served at {url} by {'the SDK' if stock else 'Milepost'}")
        verdicts = list(run_sets(url, command, folder))
    return report(verdicts)


@contextmanager
def store_at(wanted: str | None) -> Iterator[str | None]:
    if wanted != "postgres":
        yield wanted
        return
    with PostgresServer() as server:
        yield server.url()


def main() -> int:
    options = argparse.ArgumentParser(description="Run the official conformance suite against the fixture server.")
    options.add_argument("--stock", action="store_true", help="host it on the SDK's own transport, for comparison")
    options.add_argument("--store", metavar="URL", help="`postgres` starts a PostgreSQL server for it")
    options.add_argument("--keep", type=Path, metavar="DIR", help="keep the suite's output and the server's log here")
    chosen = options.parse_args()
    try:
        with store_at(chosen.store) as store, kept_at(chosen.keep) as folder:
            return 0 if check(folder, stock=chosen.stock, store=store) else 1
    except (Failure, subprocess.TimeoutExpired) as failure:
        print(f"conformance could not be run: {failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
