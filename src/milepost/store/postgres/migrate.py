"""Bringing a PostgreSQL store's schema up to date, and this build's functions into it.

Migrations only add, so old and new replicas run side by side; the functions of each build stand in a schema of their
own (`sqltext`). All is one transaction under a lock, so any number of replicas may start at once. A replica whose user
may not create schemas needs them made before, by `milepost store migrate` with one who may.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from milepost.core.errors import StoreTooNew, StoreUnavailable
from milepost.store.postgres.pool import PlainConnection
from milepost.store.postgres.sqltext import SqlText
from milepost.store.sqlfiles import Migration

ROOT = "root"
"""The name of the secret from which the others are made."""
_NO_PRIVILEGE = "42501"


async def migrate(
    connection: PlainConnection, sql: SqlText, steps: Sequence[Migration]
) -> tuple[str, dict[str, bytes]]:
    """Apply what is missing; returns the store's id and its secrets by name. Raises StoreTooNew, StoreUnavailable."""
    if not await _is_current(connection, sql, steps):
        try:
            async with connection.transaction():
                await connection.execute(sql["migration_lock"])
                await _upgrade(connection, sql, steps)
        except Exception as error:
            if getattr(error, "sqlstate", None) != _NO_PRIVILEGE:
                raise
            raise StoreUnavailable(
                f"this user may not make the schemas {sql.schema!r} and {sql.verbs_schema!r} ({error}): run "
                "`milepost store migrate URL` as one who may, then start again"
            ) from error
    store: Sequence[Any] = await connection.fetchrow(sql["schema"])
    secrets: Sequence[Sequence[Any]] = await connection.fetch(sql["secrets"])
    return str(store[2]), {row[0]: row[1] for row in secrets}


async def _is_current(connection: PlainConnection, sql: SqlText, steps: Sequence[Migration]) -> bool:
    if not await connection.fetchval(sql["has_schema"]):
        return False
    schema, min_reader, _ = await connection.fetchrow(sql["schema"])
    _check(steps, schema, min_reader)
    return schema >= steps[-1].version and bool(await connection.fetchval(sql["has_verbs"]))


def _check(steps: Sequence[Migration], schema: int, min_reader: int) -> None:
    known = steps[-1].version
    if min_reader > known:
        raise StoreTooNew(
            f"this store has schema {schema} and needs a Milepost that knows at least schema {min_reader}; "
            f"this one knows {known}. Upgrade Milepost, or use another store."
        )


async def _upgrade(connection: PlainConnection, sql: SqlText, steps: Sequence[Migration]) -> None:
    if await connection.fetchval(sql["has_schema"]):
        schema, min_reader, _ = await connection.fetchrow(sql["schema"])
        _check(steps, schema, min_reader)
        for step in steps[schema:]:
            await connection.execute(sql.placed(step.sql))
            await connection.execute(sql["raise_schema"], step.version, step.min_reader)
    else:
        await connection.execute(sql["create_schema"])
        for step in steps:
            await connection.execute(sql.placed(step.sql))
        lowest = max(step.min_reader for step in steps)
        await connection.execute(sql["insert_store"], os.urandom(16).hex(), steps[-1].version, lowest)
        await connection.execute(sql["make_secret"], ROOT, os.urandom(32))
    if not await connection.fetchval(sql["has_verbs"]):
        await connection.execute(sql["create_verbs"])
        await connection.execute(sql.verbs)
