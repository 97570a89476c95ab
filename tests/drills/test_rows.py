"""Both sides of the reader find the same in rows of the same shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from drills.rows import PostgresRows, Rows, SqliteRows
from lab.postgres import PostgresServer

CALL = json.dumps({"tool": "book_room", "arguments": {"conversation": "it's h1-1"}})
TABLES = """
CREATE TABLE run (seq integer, id text, tool text, call text, state text, event_seq integer, journal_seq integer,
    merged_into text, outcome text, epoch integer, reason text, rival text, created_at real, crashes integer);
CREATE TABLE entry (run {key}, n integer, kind text, name text, digest text, key text, occurrence integer, at real,
    value text);
CREATE TABLE question (run {key}, id integer, method text, params text, state text, reply text, answered_at real);
CREATE TABLE event (run {key}, n integer, kind text, body text);
CREATE TABLE stream (id text, run {key});
INSERT INTO run VALUES (5, 'run-1', 'book_room', '{call}', 'running', 1, 2, NULL, '{{"result": {{}}}}', 3, NULL, NULL,
    1.5, 2);
INSERT INTO entry VALUES ({run}, 1, 'begun', 'pay', 'd', '', 1, 10.0, NULL);
INSERT INTO entry VALUES ({run}, 2, 'done', 'pay', 'd', '', 1, 10.25, '"t1"');
INSERT INTO question VALUES ({run}, 1, 'elicitation/create', '{{"message": "How\\nmany?"}}', 'answered',
    '{{"result": {{"action": "accept"}}}}', 10.5);
INSERT INTO event VALUES ({run}, 1, 'result', NULL);
INSERT INTO stream VALUES ('s1', {run});
"""


def filled(key: str, run: str) -> str:
    return TABLES.format(key=key, run=run, call=CALL.replace("'", "''"))


@pytest.fixture
def sqlite(tmp_path: Path) -> Rows:
    file = tmp_path / "rows.db"
    db = apsw.Connection(str(file))
    db.execute(filled("integer", "5"))
    db.close()
    return SqliteRows(file)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as one:
        yield one


@pytest.fixture
def postgres(server: PostgresServer) -> Rows:
    server.create_database("rows")
    server.sql("CREATE SCHEMA milepost", database="rows")
    server.sql("SET search_path = milepost; " + filled("text", "'run-1'"), database="rows")
    return PostgresRows(lambda: server, "rows")


def test_both_sides_read_the_same(sqlite: Rows, postgres: Rows) -> None:
    assert sqlite.runs() == postgres.runs()
    (run,) = postgres.runs()
    assert (run.conversation, run.epoch, run.streams) == ("it's h1-1", 3, ["s1"])
    assert [(entry.kind, entry.value) for entry in run.entries] == [("begun", None), ("done", '"t1"')]
    assert run.questions[0].text == "How\nmany?"
    assert run.events[0].body == {"result": {}}
    for rows in (sqlite, postgres):
        assert rows.answered("it's h1-1") == {"How\nmany?"}
        assert rows.answered("another") == set()
        assert rows.crashes() == 2
        assert (rows.has_recorded("t1"), rows.has_recorded("t2")) == (True, False)


def test_a_file_that_is_not_there_has_no_rows(tmp_path: Path) -> None:
    rows = SqliteRows(tmp_path / "none.db")
    assert (rows.runs(), rows.crashes(), rows.has_recorded("t1")) == ([], 0, False)
