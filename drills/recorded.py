"""The history of a drill as a file of JSON lines, Jepsen's way: written while it happens, checked afterwards.

A line has a time (UTC seconds), a process (a conversation, the nemesis, the ledger or the store), a type, what it is
about, and a value. Types: `invoke` begins an operation; `ok` ends it well, `fail` says that it surely had no effect,
`info` that it may have had one; `saw` is something that came on its own. At the end the ledger and the store's rows
are read once and written down too, so that the file alone is enough to check the drill again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from drills.checks import History
from drills.history import (
    Disruption,
    Sink,
    StoredEntry,
    StoredEvent,
    StoredQuestion,
    StoredRun,
    Told,
)
from drills.ledger import Effect

LEDGER, STORE, NEMESIS = "ledger", "store", "nemesis"
DISRUPTED = "disrupted"

Line = Mapping[str, Any]


class Recorder:
    """Appends lines to one file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def line(self, process: str, kind: str, what: str, value: Any) -> None:
        written = {"at": round(time.time(), 6), "process": process, "type": kind, "f": what, "value": value}
        self._file.write(json.dumps(written) + "\n")

    def sink(self, process: str) -> Sink:
        """What a conversation tells its lines to."""
        return lambda kind, what, value: self.line(process, kind, what, value)

    def conversation(self, told: Told) -> None:
        """It begins: from now on its lines are recorded."""
        self.line(told.name, "saw", "era", told.era)
        told.sink = self.sink(told.name)

    def left(self, effects: Iterable[Effect], runs: Iterable[StoredRun], disruptions: Iterable[Disruption]) -> None:
        """What the other witnesses say at the end."""
        for effect in effects:
            self.line(LEDGER, "ok", "effect", asdict(effect))
        for run in runs:
            self.line(STORE, "ok", "run", asdict(run))
        for one in disruptions:
            self.line(NEMESIS, "info", DISRUPTED, asdict(one))

    def close(self) -> None:
        self._file.close()


def lines(path: Path) -> Iterator[Line]:
    with path.open(encoding="utf-8") as file:
        for text in file:
            yield json.loads(text)


def history(recorded: Iterable[Line], steps: Sequence[str]) -> History:
    """The history that the lines tell."""
    told: dict[str, Told] = {}
    found: dict[str, list[Any]] = {"effect": [], "run": [], DISRUPTED: []}
    for line in recorded:
        process, what, value = line["process"], line["f"], line["value"]
        if process in (LEDGER, STORE, NEMESIS):
            if what in _READ:
                found[what].append(_READ[what](value))
        elif what == "era":
            told[process] = Told(process, value)
        elif line["type"] == "saw":
            told[process].saw(what, *value)
    return History(found["run"], found["effect"], list(told.values()), found[DISRUPTED], steps)


def _run(value: dict[str, Any]) -> StoredRun:
    parts = {
        "entries": [StoredEntry(**one) for one in value["entries"]],
        "questions": [StoredQuestion(**one) for one in value["questions"]],
        "events": [StoredEvent(**one) for one in value["events"]],
    }
    return StoredRun(**{**value, **parts})


_READ = {"effect": lambda value: Effect(**value), "run": _run, DISRUPTED: lambda value: Disruption(**value)}


def open_operations(recorded: Iterable[Line]) -> list[str]:
    """Operations without an end: a client that was never told, nor gave up. There must be none."""
    begun: dict[tuple[str, str, int], float] = {}
    for line in recorded:
        if line["type"] not in ("invoke", "ok", "fail", "info") or line["process"] in (LEDGER, STORE):
            continue
        value = line["value"]
        operation = (line["process"], line["f"], value["op"] if isinstance(value, dict) and "op" in value else 0)
        if line["type"] == "invoke":
            begun[operation] = line["at"]
        else:
            begun.pop(operation, None)
    return [f"operation {what} {number} of {process} has no end" for process, what, number in begun]
