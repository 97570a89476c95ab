"""Runs the official conformance suite against our fixture, hosted by Milepost (`make conformance`).

    python conformance/run.py [--stock] [--store URL] [--keep DIR]

What is required is asked of the suite itself (its frozen lists per revision of the specification), so a scenario that
was not run counts as failed, and one that passed without a single check does too. The two extra scenarios are not on
any list; their number of checks stands here, because the suite also "passes" them when there is nothing to check.

The Node side (the suite, and a Node that is new enough for it) is pinned by package-lock.json and installed beside
this file on first use. `--stock` hosts the same fixture on the SDK's own transport; `--store` gives it another store
than a file of its own (`postgresql://...`; `postgres` alone starts a server for it).
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab.postgres import PostgresServer

HERE = Path(__file__).resolve().parent
SETS = ("2026-07-28", "2025-11-25")
EXTRA = {"server-session-lifecycle": 3, "server-sse-polling": 3}
"""Checks that each must pass; they run along with the set of 2025-11-25."""
SUMMARY_LINE = re.compile(r"^[✓✗] (?P<scenario>[\w./-]+): (?P<passed>\d+) passed, (?P<failed>\d+) failed", re.MULTILINE)

INSTALL_LIMIT = 300.0
START_LIMIT = 30.0
SET_LIMIT = 240.0
STOP_LIMIT = 20.0
"""Seconds."""


class Failure(Exception):
    """The suite could not be run at all. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Score:
    """One scenario's checks."""

    passed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one required set, or of one extra scenario."""

    name: str
    passed: int
    required: int
    failing: tuple[str, ...] = ()

    @property
    def full(self) -> bool:
        return self.passed == self.required


# --- the Node side --------------------------------------------------------------------------------


def suite() -> list[str]:
    """The suite's command, installed first if it isn't there or is another version's."""
    modules, stamp = HERE / "node_modules", HERE / "node_modules" / ".milepost-lock"
    wanted = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        install()
        stamp.write_text(wanted)
    node = modules / "node" / "bin" / "node"
    return [str(node), str(modules / "@modelcontextprotocol" / "conformance" / "dist" / "index.js")]


def install() -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise Failure("npm was not found. The suite runs on Node: install Node 20 or newer, then try again.")
    say("installing the conformance suite from the npm registry (once)")
    command = [npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=HERE, stdin=subprocess.DEVNULL, timeout=INSTALL_LIMIT, check=False)
    if done.returncode:
        raise Failure(f"`npm ci` failed in {HERE} (exit {done.returncode}): is the npm registry reachable?")


def required(revision: str, command: list[str]) -> list[str]:
    """The names of the server scenarios that a revision requires."""
    listing = run_suite([*command, "list", "--requirements", revision])
    server_part = listing.split("Server scenarios", 1)[-1].split("Client scenarios", 1)[0]
    return re.findall(r"^\s+- ([\w./-]+)", server_part, re.MULTILINE)


def run_suite(command: list[str]) -> str:
    done = subprocess.run(
        command, cwd=HERE, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SET_LIMIT, check=False
    )
    return done.stdout + done.stderr


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
        time.sleep(0.05)
    raise Failure(f"the server did not start listening on port {port}. Its output:\n{log.read_text()[-4000:]}")


def stop(server: subprocess.Popen[bytes]) -> None:
    """By its own pid: asked first, killed if it doesn't listen."""
    server.terminate()
    try:
        server.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait(STOP_LIMIT)


# --- the verdicts ---------------------------------------------------------------------------------


def scores(output: str) -> dict[str, Score]:
    """Each scenario's checks, as the suite's summary gives them."""
    summary = output.split("=== SUMMARY ===", 1)[-1]
    return {
        line["scenario"]: Score(int(line["passed"]), int(line["failed"])) for line in SUMMARY_LINE.finditer(summary)
    }


def judge_set(revision: str, names: list[str], found: Mapping[str, Score]) -> Verdict:
    def good(name: str) -> bool:
        score = found.get(name, Score(0, 0))
        return score.passed > 0 and not score.failed

    failing = tuple(name for name in names if not good(name))
    return Verdict(revision, len(names) - len(failing), len(names), failing)


def judge_extra(name: str, checks: int, found: Mapping[str, Score]) -> Verdict:
    score = found.get(name, Score(0, 0))
    return Verdict(name, 0 if score.failed else min(score.passed, checks), checks)


def run_sets(url: str, command: list[str], folder: Path) -> Iterator[Verdict]:
    """One verdict a set, then one for each extra scenario. The suite's output is kept in `folder`."""
    for revision in SETS:
        say(f"running the server scenarios of {revision}")
        out = folder / revision
        output = run_suite([*command, "server", "--url", url, "--requirements", revision, "-o", str(out)])
        (folder / f"{revision}.txt").write_text(output)
        found = scores(output)
        yield judge_set(revision, required(revision, command), found)
    yield from (judge_extra(name, checks, found) for name, checks in EXTRA.items())


def report(verdict: Verdict) -> None:
    print(f"{verdict.name}: {verdict.passed}/{verdict.required}", flush=True)
    for name in verdict.failing:
        print(f"  failed: {name}", flush=True)


def say(words: str) -> None:
    print(f"# {words}", flush=True)


def check(folder: Path, *, stock: bool, store: str | None = None) -> bool:
    """Whether everything required passed. Prints a line per set."""
    command = suite()
    with serving(folder, stock=stock, store=store) as url:
        say(f"the fixture is served at {url} by {'the SDK' if stock else 'Milepost'}")
        verdicts = list(run_sets(url, command, folder))
    for verdict in verdicts:
        report(verdict)
    return all(verdict.full and verdict.required for verdict in verdicts)


@contextmanager
def store_at(wanted: str | None) -> Iterator[str | None]:
    if wanted != "postgres":
        yield wanted
        return
    with PostgresServer() as server:
        yield server.url()


@contextmanager
def kept_at(wanted: Path | None) -> Iterator[Path]:
    if wanted is None:
        with tempfile.TemporaryDirectory(prefix="milepost-conformance-") as folder:
            yield Path(folder)
    else:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted.resolve()


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
