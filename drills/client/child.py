"""A client in a process of its own, with a journal, that may be killed at any moment and started again.

What happens is appended to a file line by line, so nothing is lost with the process. The second life goes on with
what the journal holds, and calls anew only where the first one never came to send anything.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import structlog

from drills.client.person import Person
from drills.client.talking import Outcome, call_once, of_result, told_by, with_ours
from drills.client.told import FINISHED
from milepost.client import Client
from milepost.client.events import Answered, Question


def main(spec: dict[str, Any]) -> None:
    """One life. `spec`: url, era, tool, name, thinks, journal, diary, dies_thinking (a question's number, or -1)."""
    quiet()
    asyncio.run(_live(spec))


def quiet() -> None:
    """What clients say of the faults that they meet is not wanted here."""
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def nothing() -> None:
    """A life that shows that all is imported."""


async def _live(spec: dict[str, Any]) -> None:
    diary = Path(spec["diary"])

    def note(kind: str, **facts: Any) -> None:
        append(diary, {"kind": kind, **facts})

    async def on_thinking(number: int) -> None:
        if number == spec["dies_thinking"]:
            note("killed")
            os.kill(os.getpid(), signal.SIGKILL)

    person = Person(spec["thinks"], note, on_thinking)
    outcome, why, result = await with_ours(
        spec["url"], spec["era"], person, f"sqlite:///{spec['journal']}", lambda client: _call(client, spec, note)
    )
    note("ended", outcome=outcome, why=why, result=result)


async def _call(client: Client, spec: dict[str, Any], note: Any) -> Outcome:
    events = client.events
    reading = asyncio.ensure_future(_read(events, note))
    try:
        if client.pending():
            (ended,) = await client.resume()
            note("resumed")
            return of_result(ended.result) if ended.result is not None else told_by(ended.error or RuntimeError())
        if was := _ended_before(spec["journal"]):
            return FINISHED if was == "result" else was, "its result went to the process that was killed", None
        return await call_once(client, spec["tool"], spec["name"])
    finally:
        reading.cancel()


async def _read(events: Any, note: Any) -> None:
    """An answer that is in the journal must never be asked for again."""
    texts: dict[str, str] = {}
    async for event in events:
        if isinstance(event, Question):
            texts[event.key] = event.message
        elif isinstance(event, Answered) and not event.acknowledged and event.key in texts:
            note("kept", text=texts[event.key])


def _ended_before(journal: str) -> str:
    """How the call of an earlier life ended; empty where there was none."""
    with closing(sqlite3.connect(journal)) as db:
        row = db.execute("SELECT ending FROM call WHERE ending <> 'open'").fetchone()
    return str(row[0]) if row else ""


def append(path: Path, line: dict[str, Any]) -> None:
    """One write, which is whole or not there."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, json.dumps(line).encode() + b"\n")
    finally:
        os.close(handle)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
