"""The official conformance suite: how it is installed, started and judged, for both sides of the protocol.

What is required is asked of the suite itself (its frozen lists per revision of the specification), so a scenario that
was not run counts as failed, and one that passed without a single check does too.

The Node side (the suite, and a Node that is new enough for it) is pinned by package-lock.json and installed beside
this file on first use.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HERE = Path(__file__).resolve().parent
SETS = ("2026-07-28", "2025-11-25")
SUMMARY_LINE = re.compile(
    r"^(?P<mark>[✓✗]) (?P<scenario>[\w./-]+): (?P<passed>\d+) passed, (?P<failed>\d+) failed", re.MULTILINE
)
SUMMARY_HEAD = re.compile(r"^=== (?:SUITE )?SUMMARY ===$", re.MULTILINE)

INSTALL_LIMIT = 300.0
SET_LIMIT = 240.0
"""Seconds."""

Side = Literal["Server", "Client"]


class Failure(Exception):
    """The suite could not be run at all. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Score:
    """One scenario's checks. `failed` is at least 1 where the suite marks the scenario as failed."""

    passed: int
    failed: int

    @property
    def good(self) -> bool:
        return self.passed > 0 and not self.failed


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


def required(revision: str, command: list[str], side: Side) -> list[str]:
    """The names of the scenarios that a revision requires of servers, or of clients."""
    return required_in(run_suite([*command, "list", "--requirements", revision]), side)


def required_in(listing: str, side: Side) -> list[str]:
    """The same, out of the suite's listing."""
    part = listing.split(f"{side} scenarios", 1)[-1].split("\n\n", 1)[0]
    return re.findall(r"^\s+- ([\w./-]+)", part, re.MULTILINE)


def run_suite(command: list[str]) -> str:
    done = subprocess.run(
        command, cwd=HERE, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SET_LIMIT, check=False
    )
    return done.stdout + done.stderr


# --- the verdicts ---------------------------------------------------------------------------------


def scores(output: str) -> dict[str, Score]:
    """Each scenario's checks, as the suite's summary gives them."""
    summary = SUMMARY_HEAD.split(output)[-1]
    return {line["scenario"]: _score(line) for line in SUMMARY_LINE.finditer(summary)}


def _score(line: re.Match[str]) -> Score:
    failed = int(line["failed"])
    return Score(int(line["passed"]), failed if line["mark"] == "✓" else max(failed, 1))  # a warning fails a client


def judge_set(revision: str, names: list[str], found: Mapping[str, Score]) -> Verdict:
    failing = tuple(name for name in names if not found.get(name, Score(0, 0)).good)
    return Verdict(revision, len(names) - len(failing), len(names), failing)


def judge_extra(name: str, checks: int, found: Mapping[str, Score]) -> Verdict:
    score = found.get(name, Score(0, 0))
    return Verdict(name, 0 if score.failed else min(score.passed, checks), checks)


def report(verdicts: list[Verdict]) -> bool:
    """Prints a line a set. Whether all of them are full, and none is empty."""
    for verdict in verdicts:
        print(f"{verdict.name}: {verdict.passed}/{verdict.required}", flush=True)
        for name in verdict.failing:
            print(f"  failed: {name}", flush=True)
    return all(verdict.full and verdict.required for verdict in verdicts)


def say(words: str) -> None:
    print(f"# {words}", flush=True)


@contextmanager
def kept_at(wanted: Path | None) -> Iterator[Path]:
    """Where the suite's output goes: a folder to keep, or one that is gone afterwards."""
    if wanted is None:
        with tempfile.TemporaryDirectory(prefix="milepost-conformance-") as folder:
            yield Path(folder)
    else:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted.resolve()
