"""From a store's URL to the store: the one place that knows which schemes there are."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from milepost.core.errors import ConfigurationError
from milepost.seams import Clock, Store
from milepost.store.settings import PostgresSettings, SqliteSettings
from milepost.store.sqlite import SqliteStore

_FILES = "sqlite:///milepost.db (beside the working directory) or sqlite:////var/lib/milepost.db"
_EXAMPLES = f"{_FILES}, or postgresql://user@host/database"


def open_store(
    url: str,
    *,
    clock: Clock | None = None,
    sqlite: SqliteSettings | None = None,
    postgres: PostgresSettings | None = None,
) -> Store:
    """The store behind `url`, not yet opened (`await store.open()`). Raises ConfigurationError."""
    scheme = urlsplit(url).scheme
    if scheme in ("postgresql", "postgres"):
        return _postgres(url, clock, postgres)
    if scheme != "sqlite":
        raise ConfigurationError(f"the store {url!r} has no scheme that is known: use {_EXAMPLES}")
    return SqliteStore(sqlite_path(url), clock=clock, settings=sqlite)


def sqlite_path(url: str) -> Path:
    """The file that a `sqlite:` URL names. Raises ConfigurationError."""
    parts = urlsplit(url)
    path = unquote(parts.path).removeprefix("/")
    if parts.netloc or not path or path == ":memory:" or parts.query:
        raise ConfigurationError(f"the store {url!r} does not name a file: use {_FILES}")
    return Path(path).absolute()


def _postgres(url: str, clock: Clock | None, settings: PostgresSettings | None) -> Store:
    try:
        from milepost.store.postgres import PostgresStore  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise ConfigurationError(
            'a PostgreSQL store needs the driver asyncpg: install "milepost[postgres]", then start again'
        ) from error
    return PostgresStore(url, clock=clock, settings=settings)
