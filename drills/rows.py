"""The store's rows, read from outside with SQL of our own: nothing of Milepost's comes between them and the checks.

Both stores have the same tables and columns. What differs: what joins a run to what hangs off it, where the tables are,
and how JSON is looked into.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw

from drills.history import StoredEntry, StoredEvent, StoredQuestion, StoredRun, text_of
from lab.postgres import PostgresServer


class Rows:
    """Base of both sides: questions that the drills put to a store, in SQL that both understand."""

    key = "id"
    """The column of `run` that entries, questions, events and streams point to."""
    argument = "conversation"
    """The argument of a call that names its conversation."""

    @property
    def conversation(self) -> str:
        """SQL for the conversation of a run."""
        raise NotImplementedError  # each store says it

    def ask(self, sql: str, bindings: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows; `?` stands for a binding."""
        raise NotImplementedError  # each store has its driver

    def runs(self) -> list[StoredRun]:
        """All runs with everything that hangs off them, in order of their making."""
        found = self.ask(
            f"SELECT {self.key}, id, tool, call, state, event_seq, journal_seq, "  # noqa: S608  a column's name, ours
            f"merged_into, outcome, epoch, reason, rival FROM run ORDER BY created_at, id"
        )
        entries, questions, events, streams = self._entries(), self._questions(), self._events(), self._streams()
        return [
            StoredRun(
                id=row[1],
                tool=row[2],
                conversation=str(json.loads(row[3])["arguments"][self.argument]),
                state=row[4],
                event_seq=row[5],
                journal_seq=row[6],
                merged_into=row[7],
                outcome=json.loads(row[8]) if row[8] else None,
                entries=entries.get(row[0], []),
                questions=questions.get(row[0], []),
                events=events.get(row[0], []),
                streams=streams.get(row[0], []),
                epoch=row[9],
                reason=row[10],
                rival=row[11],
            )
            for row in found
        ]

    def _entries(self) -> dict[Any, list[StoredEntry]]:
        made: dict[Any, list[StoredEntry]] = {}
        sql = "SELECT run, n, kind, name, digest, key, occurrence, at, value FROM entry ORDER BY run, n"
        for run, *fields in self.ask(sql):
            made.setdefault(run, []).append(StoredEntry(*fields))
        return made

    def _questions(self) -> dict[Any, list[StoredQuestion]]:
        made: dict[Any, list[StoredQuestion]] = {}
        sql = "SELECT run, id, method, params, state, reply, answered_at FROM question ORDER BY run, id"
        for run, number, method, params, state, reply, at in self.ask(sql):
            question = StoredQuestion(number, method, json.loads(params), state, _object(reply), at)
            made.setdefault(run, []).append(question)
        return made

    def _events(self) -> dict[Any, list[StoredEvent]]:
        made: dict[Any, list[StoredEvent]] = {}
        sql = (
            f"SELECT e.run, e.n, e.kind, coalesce(e.body, run.outcome) AS told "  # noqa: S608  a column's name, ours
            f"FROM event e JOIN run ON run.{self.key} = e.run ORDER BY e.run, e.n"
        )
        for run, n, kind, body in self.ask(sql):
            made.setdefault(run, []).append(StoredEvent(n, kind, _object(body) or {}))
        return made

    def _streams(self) -> dict[Any, list[str]]:
        made: dict[Any, list[str]] = {}
        for run, stream in self.ask("SELECT run, id FROM stream"):
            made.setdefault(run, []).append(stream)
        return made

    # --- single looks, while the drill goes on ------------------------------------------------------

    def crashes(self) -> int:
        """The most crashes in a row of any run that isn't finished."""
        sql = "SELECT coalesce(max(crashes), 0) AS most FROM run WHERE state IN ('ready', 'running', 'waiting')"
        rows = self.ask(sql)
        return int(rows[0][0]) if rows else 0

    def has_recorded(self, token: str) -> bool:
        """Whether a step's value, as the outside gave it, is recorded."""
        return bool(self.ask("SELECT 1 AS made FROM entry WHERE kind = 'done' AND value = ?", (json.dumps(token),)))

    def answered(self, conversation: str) -> set[str]:
        """What was asked and has its answer, of one conversation."""
        sql = (
            f"SELECT q.method, q.params FROM question q "  # noqa: S608  a column's name and an expression, ours
            f"JOIN run ON run.{self.key} = q.run WHERE q.state = 'answered' AND {self.conversation} = ?"
        )
        return {text_of(method, json.loads(params)) for method, params in self.ask(sql, (conversation,))}


class SqliteRows(Rows):
    """A file, read-only. Opened anew for each look, so that nothing of ours keeps it open in between."""

    key = "seq"

    @property
    def conversation(self) -> str:
        return f"json_extract(run.call, '$.arguments.{self.argument}')"

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, sql: str, bindings: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        if not self._path.exists():
            return []
        db = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            db.set_busy_timeout(5000)
            return list(db.execute(sql, bindings))
        finally:
            db.close()


class PostgresRows(Rows):
    """A database, read with PostgreSQL's own client; `server` is asked each time, for a standby may have taken over."""

    @property
    def conversation(self) -> str:
        return f"run.call::json -> 'arguments' ->> '{self.argument}'"

    def __init__(self, server: Callable[[], PostgresServer], database: str, schema: str = "milepost") -> None:
        self._server = server
        self._database = database
        self._schema = schema

    def ask(self, sql: str, bindings: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        for binding in bindings:
            sql = sql.replace("?", "'" + str(binding).replace("'", "''") + "'", 1)
        select = f"SELECT row_to_json(asked) FROM ({sql}) asked"  # noqa: S608  a query of this file, bindings quoted
        whole = f"SET search_path = {self._schema}; {select}"
        told = self._server().sql(whole, database=self._database)
        return [json.loads("\x1f".join(row), object_pairs_hook=_values) for row in told]


def _values(pairs: list[tuple[str, Any]]) -> tuple[Any, ...]:
    return tuple(value for _, value in pairs)


def _object(text: str | None) -> dict[str, Any] | None:
    if not text:
        return None
    decoded = json.loads(text)
    return decoded if isinstance(decoded, dict) else None
