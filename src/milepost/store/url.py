"""From a store's URL to the store: the one place that knows which schemes there are."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from milepost.core.errors import ConfigurationError
from milepost.seams import Clock, Store
from milepost.store.settings import SqliteSettings
from milepost.store.sqlite import SqliteStore

_EXAMPLES = "sqlite:///milepost.db (beside the working directory) or sqlite:////var/lib/milepost.db"


def open_store(url: str, *, clock: Clock | None = None, sqlite: SqliteSettings | None = None) -> Store:
    """The store behind `url`, not yet opened (`await store.open()`). Raises ConfigurationError."""
    parts = urlsplit(url)
    if parts.scheme in ("postgresql", "postgres"):
        raise ConfigurationError(f"PostgreSQL stores are not supported yet: use a local file, {_EXAMPLES}")
    if parts.scheme != "sqlite":
        raise ConfigurationError(f"the store {url!r} has no scheme that is known: use {_EXAMPLES}")
    path = unquote(parts.path).removeprefix("/")
    if parts.netloc or not path or path == ":memory:" or parts.query:
        raise ConfigurationError(f"the store {url!r} does not name a file: use {_EXAMPLES}")
    return SqliteStore(Path(path).absolute(), clock=clock, settings=sqlite)
