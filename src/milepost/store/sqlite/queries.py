"""The SQLite store's SQL, by name."""

from __future__ import annotations

from milepost.store.sqlfiles import SqlFiles

_FILES = SqlFiles(__package__, ("runs.sql", "wire.sql"))

query, texts = _FILES.query, _FILES.texts
migrations = _FILES.migrations
