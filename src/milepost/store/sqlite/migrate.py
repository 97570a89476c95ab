"""Bringing a store's schema up to date. Migrations only add, so old and new replicas run side by side.

The store's row has two numbers: `schema`, the newest migration it has had, and `min_reader`, the lowest
version of the code that may still use it. Code older than that refuses to open the store.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import apsw

from milepost.core.errors import StoreTooNew
from milepost.store.sqlfiles import Migration
from milepost.store.sqlite.queries import query

_BEGIN, _COMMIT, _ROLLBACK = query("begin"), query("commit"), query("rollback")
_HAS_SCHEMA, _SCHEMA = query("has_schema"), query("schema")
_INSERT, _RAISE = query("insert_store"), query("raise_schema")


def migrate(connection: apsw.Connection, steps: Sequence[Migration], *, wall: float) -> str:
    """Apply what is missing, in one transaction; returns the store's id. Raises StoreTooNew."""
    connection.execute(_BEGIN)
    try:
        found = _found(connection)
        if found is None:
            _create(connection, steps, wall)
        else:
            _upgrade(connection, steps, *found)
        connection.execute(_COMMIT)
    except BaseException:
        if connection.in_transaction:
            connection.execute(_ROLLBACK)
        raise
    return str(connection.execute(_SCHEMA).fetchall()[0][2])


def _found(connection: apsw.Connection) -> tuple[int, int] | None:
    if not connection.execute(_HAS_SCHEMA).fetchall()[0][0]:
        return None
    row: tuple[Any, ...] = connection.execute(_SCHEMA).fetchall()[0]
    return int(row[0]), int(row[1])


def _create(connection: apsw.Connection, steps: Sequence[Migration], wall: float) -> None:
    for step in steps:
        connection.execute(step.sql).fetchall()
    lowest = max(step.min_reader for step in steps)
    connection.execute(_INSERT, (os.urandom(16).hex(), steps[-1].version, lowest, wall))


def _upgrade(connection: apsw.Connection, steps: Sequence[Migration], schema: int, min_reader: int) -> None:
    known = steps[-1].version
    if min_reader > known:
        raise StoreTooNew(
            f"this store has schema {schema} and needs a Milepost that knows at least schema {min_reader}; "
            f"this one knows {known}. Upgrade Milepost, or use another store."
        )
    for step in steps[schema:]:
        connection.execute(step.sql).fetchall()
        connection.execute(_RAISE, (step.version, step.min_reader))
