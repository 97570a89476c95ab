"""`milepost store migrate|check|sweep|copy`: what an operator does with a store as a whole.

Each takes the store's URL, because what is looked after is often not the one that a server's settings name.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any

from cyclopts import Parameter

from milepost import logs
from milepost.core.errors import ConfigurationError
from milepost.running import run
from milepost.seams import Store
from milepost.settings import Settings
from milepost.store.sqlite import SqliteStore
from milepost.store.url import open_store

Url = Annotated[str, Parameter(help="sqlite:///file or postgresql://user@host/database")]

_SWEEP = 1000
"""Rows of a kind in one transaction of a sweep."""


def migrate(url: Url) -> None:
    """Bring a store's schema up to date. Servers do it themselves, where their user may."""

    async def work() -> None:
        async with _at(url):
            _say(f"{url_shown(url)} is up to date")

    _do(work())


def check(url: Url) -> int:
    """Say what a store is, what it holds, and what about it puts the promises at risk (exit code 1)."""

    async def work() -> int:
        async with _at(url, must_exist=True) as store:
            findings = await store.check()
        for finding in findings:
            _say(f"{'ok  ' if finding.fine else 'RISK'}  {finding.what}")
        return 0 if all(finding.fine for finding in findings) else 1

    return _do(work())


def sweep(url: Url) -> None:
    """Fire due timers and delete what is past its time, as servers do all the while."""

    async def work() -> None:
        rounds, fired = 0, 0
        async with _at(url, must_exist=True) as store:
            more = True
            while more:
                swept = await store.sweep(limit=_SWEEP)
                rounds, fired, more = rounds + 1, fired + len(swept.runs), swept.more
        _say(f"{fired} timers fired, {rounds} rounds; what is past its time is deleted")

    _do(work())


def copy(
    source: Annotated[str, Parameter(help="sqlite:///file, that no server works on")],
    target: Annotated[str, Parameter(help="postgresql://user@host/database, with nothing in it yet")],
) -> None:
    """Move from one machine to many: copy all runs, sessions, streams and keys from a SQLite file to PostgreSQL."""

    async def work() -> None:
        async with _at(source, must_exist=True) as old, _at(target) as new:
            await copied(old, new)
            held = (await new.check())[1].what
        _say(f"copied to {url_shown(target)}; {held}. Start the servers with --store {url_shown(target)}")

    _do(work())


async def copied(old: Store, new: Store) -> None:
    """Copy `old` into `new`. Raises ConfigurationError where that can't be done."""
    from milepost.store.postgres import PostgresStore  # noqa: PLC0415 - an extra

    if not isinstance(old, SqliteStore) or not isinstance(new, PostgresStore):
        raise ConfigurationError("copy goes from sqlite:///FILE to postgresql://HOST/DATABASE")
    if alive := [replica.id for replica in await old.replicas() if replica.alive]:
        raise ConfigurationError(
            f"a server works on the source ({', '.join(alive)}): stop it first (SIGTERM drains it), then copy"
        )
    with old.dumped() as (tables, secrets):
        await new.fill(tables, secrets)


def url_shown(url: str) -> str:
    """The URL without user and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


@asynccontextmanager
async def _at(url: str, *, must_exist: bool = False) -> AsyncIterator[Store]:
    settings = Settings.read(store={"url": url})
    logs.configure(settings.log)
    store = open_store(url, sqlite=settings.sqlite(), postgres=settings.postgresql())
    if must_exist and isinstance(store, SqliteStore) and not store.path.exists():
        raise ConfigurationError(f"there is no store at {store.path}")
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


def _do(work: Coroutine[Any, Any, int | None]) -> int:
    return run(work) or 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
