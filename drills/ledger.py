"""The outside ledger: what was really done, as the outside world saw it.

It knows nothing of runs and attempts beyond what a step tells it. One line per mark, each appended in one write to a
file opened with O_APPEND: a process that is killed leaves whole lines behind, and none is lost with it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

PLACE = "DRILL_LEDGER"
"""The environment variable that tells a server's process where the ledger is."""
SHIFT = "DRILL_CLOCK_SHIFT"
"""And the one that says by how many seconds its clock is wrong: the outside world's is right."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One execution of a step's body. Times are UTC seconds; `end` is None where it was cut."""

    conversation: str
    step: str
    call: str
    """The author's call: the step's name and what was passed to it."""
    key: str
    """The idempotency key that the outside was given."""
    run: str
    pid: int
    begin: float
    end: float | None = None
    token: str = ""
    """What the outside gave back: another one for each execution."""


def mark(kind: str, **facts: Any) -> None:
    """Append one line from within a step."""
    at = time.time() - float(os.environ.get(SHIFT, "0"))
    line = json.dumps({"mark": kind, "pid": os.getpid(), "at": at, **facts}) + "\n"
    handle = os.open(os.environ[PLACE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


class Ledger:
    """Reads the ledger as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._effects: dict[str, Effect] = {}

    def effects(self) -> list[Effect]:
        """All executions so far, in order of their beginnings."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                news = file.read()
            whole = news.rfind(b"\n") + 1
            self._read += whole
            self._take(json.loads(line) for line in news[:whole].splitlines())
        return list(self._effects.values())

    def in_flight(self, pids: Iterable[int]) -> list[Effect]:
        """Executions that these processes have begun and not ended."""
        wanted = set(pids)
        return [effect for effect in self.effects() if effect.end is None and effect.pid in wanted]

    def _take(self, marks: Iterable[dict[str, Any]]) -> None:
        for line in marks:
            token = line["token"]
            if line["mark"] == "end":
                self._effects[token] = replace(self._effects[token], end=line["at"])
                continue
            self._effects[token] = Effect(
                conversation=line["conversation"],
                step=line["step"],
                call=line["call"],
                key=line["key"],
                run=line["run"],
                pid=line["pid"],
                begin=line["at"],
                token=token,
            )
