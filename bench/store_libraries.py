"""apsw against the standard library's sqlite3, on what the store's writer does.

`uv run python bench/store_libraries.py`.
Each round alternates the two, so that a busy machine hits both. The read is one row by its key.
"""

from __future__ import annotations

import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

Execute = Callable[..., Any]

SCHEMA = """
CREATE TABLE run (id TEXT PRIMARY KEY, attempt TEXT, journal_seq INTEGER, lease REAL, call TEXT);
CREATE TABLE entry (run TEXT, n INTEGER, name TEXT, value TEXT, PRIMARY KEY (run, n)) WITHOUT ROWID;
INSERT INTO run VALUES ('r', 'a', 0, 0.0, 'x');
"""
ADVANCE = "UPDATE run SET journal_seq = journal_seq + 1, lease = ? WHERE id = ? AND attempt = ? RETURNING journal_seq"
INSERT = "INSERT INTO entry VALUES (?, ?, ?, ?)"
READ = "SELECT * FROM run WHERE id = ?"
ROUNDS, COMMITS, BATCH = 5, 100, 100


def open_apsw(path: Path) -> tuple[Execute, Callable[[str], Any]]:
    connection = apsw.Connection(str(path))
    return connection.cursor().execute, lambda script: connection.execute(script).fetchall()


def open_stdlib(path: Path) -> tuple[Execute, Callable[[str], Any]]:
    connection = sqlite3.connect(path, isolation_level=None)
    return connection.cursor().execute, connection.executescript


def prepare(script: Callable[[str], Any]) -> None:
    script("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + SCHEMA)


def append(execute: Execute) -> None:
    (n,) = execute(ADVANCE, (1.0, "r", "a")).fetchall()[0]
    execute(INSERT, ("r", n, "search_flights", '{"flights":[1,2,3]}'))


def commit_of(execute: Execute, jobs: int) -> float:
    begun = time.perf_counter()
    execute("BEGIN IMMEDIATE")
    for _ in range(jobs):
        append(execute)
    execute("COMMIT")
    return time.perf_counter() - begun


def reads(execute: Execute) -> float:
    begun = time.perf_counter()
    for _ in range(1000):
        execute(READ, ("r",)).fetchall()
    return (time.perf_counter() - begun) / 1000


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="milepost-bench-") as directory:
        libraries = {"apsw": open_apsw(Path(directory) / "a.db"), "sqlite3": open_stdlib(Path(directory) / "b.db")}
        for _, script in libraries.values():
            prepare(script)
        found: dict[str, list[list[float]]] = {name: [[], [], []] for name in libraries}
        for _ in range(ROUNDS):
            for name, (execute, _) in libraries.items():
                single, batched, read = found[name]
                single.append(statistics.median(commit_of(execute, 1) for _ in range(COMMITS)) * 1e3)
                batched.append(statistics.median(commit_of(execute, BATCH) for _ in range(20)) / BATCH * 1e6)
                read.append(reads(execute) * 1e6)
    versions = {"apsw": apsw.sqlite_lib_version(), "sqlite3": sqlite3.sqlite_version}
    for name, figures in found.items():
        single, batched, read = (statistics.median(values) for values in figures)
        print(
            f"{name:8} SQLite {versions[name]:7} append+commit {single:.3f} ms, append in a commit of {BATCH} "
            f"{batched:.1f} µs, read of a row {read:.1f} µs"
        )


if __name__ == "__main__":
    main()
