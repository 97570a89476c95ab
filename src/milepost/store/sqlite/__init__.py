"""The SQLite store: one file, many processes of one machine. Its SQL stands in `sql/*.sql`."""

from milepost.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
