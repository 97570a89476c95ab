"""Stores: adapters of the `Store` seam. SQLite is the default; its SQL stands in `sql/*.sql`."""

from milepost.store.clock import SystemClock
from milepost.store.settings import SqliteSettings
from milepost.store.sqlite import SqliteStore
from milepost.store.url import open_store

__all__ = ["SqliteSettings", "SqliteStore", "SystemClock", "open_store"]
