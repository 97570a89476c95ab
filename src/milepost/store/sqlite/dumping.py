"""A SQLite store's rows in the form that PostgreSQL's takes in (`milepost store copy`), as of one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apsw

from milepost.store import rows
from milepost.store.sqlite.queries import query
from milepost.store.tables import Table

_BEGIN, _END = query("begin_read"), query("commit")
_DUMPS = {
    "run": query("dump_run"),
    "entry": query("dump_entry"),
    "question": query("dump_question"),
    "event": query("dump_event"),
    "session": query("dump_session"),
    "stream": query("dump_stream"),
    "given": query("dump_given"),
}
_BOOLEANS = frozenset({"accept_drift", "initialized", "ended", "attached"})
Convert = Callable[[Any], Any]


@contextmanager
def dumped(connection: apsw.Connection) -> Iterator[Iterator[Table]]:
    """All tables; the rows of one are read as they are asked for, and before the next table."""
    connection.execute(_BEGIN)
    try:
        yield (_table(connection, name, sql) for name, sql in _DUMPS.items())
    finally:
        connection.execute(_END)


def _table(connection: apsw.Connection, name: str, sql: str) -> Table:
    cursor = connection.execute(sql)
    try:
        columns = [column[0] for column in cursor.get_description()]
    except apsw.ExecutionCompleteError:  # SQLite names no columns where there are no rows
        return Table(name, (), ())
    converts = [_convert(column) for column in columns]
    found = (tuple(convert(value) for convert, value in zip(converts, row, strict=True)) for row in cursor)
    if name != "question":
        return Table(name, columns, found)
    reply, by = columns.index("reply"), columns.index("by")
    return Table(name, [*columns, "reply_digest", "by_owner"], (_answered(row, reply, by) for row in found))


def _convert(column: str) -> Convert:
    return bool if column in _BOOLEANS else _plain


def _plain(value: Any) -> Any:
    """PostgreSQL keeps no character 0 in a text."""
    return value.replace("\0", "?") if isinstance(value, str) else value


def _answered(row: Sequence[Any], reply: int, by: int) -> Sequence[Any]:
    text, who = row[reply], row[by]
    if text is None or who is None:
        return (*row, None, None)
    return (*row, rows.digest_of(text), rows.owner_text(rows.principal_of(who)))
