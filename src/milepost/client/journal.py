"""The journal of a client: what must outlive its process, in one SQLite file that several processes may share.

A call is one row, written before the request is sent, before a question is shown, before its answer goes on, and when
it ends. Each row has an owner, the client that drives it, and the owner holds an OS lock for as long as its process
lives; so a call whose owner is gone can be told from one that is being driven, however the process died.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from milepost.client.errors import JournalInUse
from milepost.client.interaction import Interaction
from milepost.client.request import encode
from milepost.client.sessions import Keeper
from milepost.client.writing import Writer
from milepost.core.errors import ConfigurationError, StoreError
from milepost.loggers import Logger
from milepost.store.sqlfiles import SqlFiles
from milepost.store.sqlite.locks import Holder, LockFiles
from milepost.store.url import sqlite_path

_log = Logger(__name__)

_SQL = SqlFiles(__package__, ["journal.sql"])
_BUSY_MS = 5000
"""How long one process waits for another one's write: a write takes milliseconds."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A call that a journal holds without an end."""

    server: str
    """Its URL."""
    call_id: str
    method: str
    name: str
    arguments: Mapping[str, Any]
    begun: float
    """UTC seconds."""
    questions: tuple[Mapping[str, Any], ...]
    """Those that nobody has answered: `{"key", "method", "params"}`."""
    alive: bool
    """A client that is still running drives it."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A call without an end, as it was read."""

    server: str
    owner: str
    call: Interaction


class Journal:
    """One client's view of the file. Raises ConfigurationError (no such URL), StoreError (it can't be used)."""

    def __init__(self, url: str) -> None:
        if not url.startswith("sqlite:"):
            raise ConfigurationError(f"the journal {url!r} is no SQLite file: use sqlite:///client.db, with its path")
        self.path = sqlite_path(url)
        self.owner = f"client-{secrets.token_hex(8)}"
        self._owners = self.path.with_name(self.path.name + ".owners")
        self._locks = LockFiles(self._owners)
        self._writer: Writer | None = None
        self._db: sqlite3.Connection | None = None

    # --- life ----------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the file if there is none, and take this client's lock. Idempotent."""
        if self._db is not None:
            return
        with _told(self.path):
            self.path.touch(mode=0o600)
            db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            _migrate(db, self.path)
            self._locks.hold(self.owner)
            self._db, self._writer = db, Writer(db)

    def close(self) -> None:
        """Give back the lock: what is still open may be taken by others. Idempotent."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        db, self._db = self._db, None
        if db is not None:
            db.close()
            self._locks.release_all()

    async def _do(self, name: str, **values: Any) -> int:
        """One statement, durable on return (a commit waits for the disk). Returns the rows changed."""
        if self._writer is None:
            raise self._closed()
        with _told(self.path):
            return await self._writer.do(_SQL.query(name), values)

    def _rows(self, name: str, **values: Any) -> list[tuple[Any, ...]]:
        with _told(self.path):
            return self._open_db().execute(_SQL.query(name), values).fetchall()

    def _open_db(self) -> sqlite3.Connection:
        if self._db is None:
            raise self._closed()
        return self._db

    def _closed(self) -> StoreError:
        return StoreError(f"the journal {self.path} is closed")

    # --- calls ---------------------------------------------------------------------------------------

    async def save(self, server: str, call: Interaction) -> None:
        """Write the call as it stands, however its task is cancelled: what a person said must not be lost to that."""
        with anyio.CancelScope(shield=True):
            await self._do(
                "save_call",
                call_id=call.call_id,
                server=server,
                owner=self.owner,
                ending=call.ending.value,
                begun=call.begun,
                changed=time.time(),
                body=encode(call.as_json()).decode(),
            )

    def unfinished(self, server: str | None = None) -> list[Pending]:
        """Calls without an end, the oldest first, of one server or of all."""
        return [pending_of(row.server, row.call, alive=self._is_driven(row.owner)) for row in self._open_calls(server)]

    def _open_calls(self, server: str | None) -> Iterator[_Row]:
        """One row that can't be read (another release wrote it, or a disk) hides no other call."""
        for call_id, url, owner, begun, body in self._rows("open_calls", server=server):
            try:
                yield _Row(url, owner, Interaction.from_json(call_id, begun, json.loads(body)))
            except (ValueError, LookupError, TypeError, AttributeError) as exc:
                _log.warning("a call in the journal can't be read", call_id=call_id, reason=repr(exc))

    def _is_driven(self, owner: str) -> bool:
        """Whether another client that lives has it. (What this one drives itself, it knows better.)"""
        return owner != self.owner and self._locks.holder(owner) in (Holder.HERE, Holder.ALIVE)

    async def take(self, server: str, call_id: str) -> Interaction | None:
        """Become the owner of a call whose client is gone; None where it is no longer open.

        Raises JournalInUse where its client lives.
        """
        for row in self._open_calls(server):
            if row.call.call_id != call_id:
                continue
            if self._is_driven(row.owner):
                raise JournalInUse(f"the call {call_id} belongs to a client that is still running ({row.owner})")
            values = {"owner": self.owner, "from": row.owner, "call_id": call_id, "changed": time.time()}
            if await self._do("take_call", **values):
                return row.call
        return None

    async def sweep(self, older_than: float) -> None:
        """Forget calls that ended so many seconds ago, and what was kept for them."""
        now = time.time()
        await self._do("forget_calls", before=now - older_than)
        await self._do("forget_sessions", before=now - older_than)
        await self._do("forget_eras", before=now)
        await anyio.to_thread.run_sync(self._bury)

    def _bury(self) -> None:
        """Remove the locks of clients that died."""
        with _told(self.path):
            for lock in self._owners.iterdir():
                if lock.name != self.owner and self._locks.holder(lock.name) is Holder.GONE:
                    self._locks.bury(lock.name)

    # --- sessions and eras -----------------------------------------------------------------------------

    async def save_session(self, server: str, session_id: str, body: Mapping[str, Any]) -> None:
        await self._do("save_session", server=server, id=session_id, changed=time.time(), body=json.dumps(body))

    def session_of_pending(self, server: str) -> dict[str, Any] | None:
        """The session that the newest call of a dead client ran in."""
        for row in reversed(list(self._open_calls(server))):
            session_id = row.call.session_id
            if session_id is None or self._is_driven(row.owner):
                continue
            rows = self._rows("session", server=server, id=session_id)
            if rows:
                return {"id": session_id, **json.loads(rows[0][0])}
        return None

    async def drop_session(self, server: str, session_id: str) -> None:
        await self._do("drop_session", server=server, id=session_id)

    async def save_era(self, origin: str, era: str, until: float) -> None:
        await self._do("save_era", server=origin, era=era, until=until)

    def handshake_until(self, origin: str) -> float | None:
        """Until when (UTC seconds) a server is taken to speak no modern version; None where nothing is known."""
        rows = self._rows("era", server=origin, now=time.time())
        return float(rows[0][1]) if rows and rows[0][0] == "handshake" else None


class JournalKeeper(Keeper):
    """Keeps the sessions of one server in a journal."""

    def __init__(self, journal: Journal, server: str) -> None:
        self._journal = journal
        self._server = server

    def load(self) -> Mapping[str, Any] | None:
        return self._journal.session_of_pending(self._server)

    async def save(self, body: Mapping[str, Any]) -> None:
        await self._journal.save_session(self._server, body["id"], body)

    async def drop(self, session_id: str) -> None:
        await self._journal.drop_session(self._server, session_id)


def unfinished(url: str) -> list[Pending]:
    """All calls without an end in the journal `url`, of all servers. An empty list where there is no such file."""
    journal = Journal(url)
    if not journal.path.exists():
        return []
    journal.open()
    try:
        return journal.unfinished()
    finally:
        journal.close()


def pending_of(server: str, call: Interaction, *, alive: bool) -> Pending:
    questions = tuple({"key": one.key, "method": one.method, "params": one.params} for one in call.unanswered)
    arguments = call.params.get("arguments") or {}
    return Pending(server, call.call_id, call.method, call.name, arguments, call.begun, questions, alive)


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    steps = _SQL.migrations()
    db.execute("BEGIN IMMEDIATE")
    try:
        there = db.execute("PRAGMA user_version").fetchone()[0]
        if there > len(steps):
            raise StoreError(f"the journal {path} was written by a newer release of Milepost: use that one, or another")
        for step in steps[there:]:
            for statement in step.sql.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {step.version}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as exc:
        raise StoreError(f"the journal {path} can't be used: {exc}") from exc
