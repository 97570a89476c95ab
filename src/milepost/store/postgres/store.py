"""The PostgreSQL store: any number of replicas, on any number of machines, on one database.

Each verb of the seam is one function in the database (`sql/verbs.sql`) and one round trip. This module only turns
values into their arguments and rows into values; `pool` runs them, `hold` keeps the replica alive in the others' eyes.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
import structlog

from milepost.core.attempts import Appended, Batch, Claim, Claimant, Created, End, Fence, Loaded
from milepost.core.errors import ConfigurationError, StoreError, StoreUnavailable, UnknownRun, Unreplayable
from milepost.core.outside import Action, ActionKind, Find, Finding, Notice, Swept, Verdict
from milepost.core.records import (
    Delivery,
    Event,
    NewRun,
    Principal,
    Question,
    Replica,
    Reply,
    Rival,
    Run,
    Session,
    Stream,
)
from milepost.core.states import CLAIMABLE
from milepost.core.versions import Given, Need, Shares
from milepost.seams import Clock, Store
from milepost.store import rows
from milepost.store.clock import SystemClock
from milepost.store.postgres import making
from milepost.store.postgres.checking import Server, findings
from milepost.store.postgres.faults import BROKEN, in_our_words
from milepost.store.postgres.hold import Hold
from milepost.store.postgres.migrate import ROOT, migrate
from milepost.store.postgres.pool import PlainConnection, Pool, connect_options
from milepost.store.postgres.sqltext import SqlText, migrations
from milepost.store.postgres.watching import Watch
from milepost.store.settings import PostgresSettings
from milepost.store.sqlfiles import Migration
from milepost.store.tables import Table

log = structlog.get_logger("milepost.store")

PARKED_TOO_LONG = "expired: parked for too long"

_FORMAT, _ENTRIES, _QUESTIONS = rows.RUN_WIDTH, rows.RUN_WIDTH + 1, rows.RUN_WIDTH + 2
_LARGEST = 2**31 - 1
"""Of a number of an event; a client may ask for what comes after any."""
_NEAR = 200_000
"""Characters of JSON that are decoded on the event loop (about a millisecond); more in a thread."""


class PostgresStore(Store):
    """`Store` on one PostgreSQL database. Belongs to the event loop on which it was opened."""

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        settings: PostgresSettings | None = None,
        time_of: Callable[[], float | None] = lambda: None,
        steps: Sequence[Migration] | None = None,
    ) -> None:
        """`url`: `postgresql://user:password@host:port/database`, with `?schema=NAME` for another than `milepost`.

        `clock` is this process's, for `Claim.since`; leases and timers run on the database's. `time_of` is for tests:
        a time to go by instead of the database's. Raises ConfigurationError.
        """
        self._url, schema, self.where = _parted(url)
        self._sql = SqlText(schema)
        self._clock: Clock = clock or SystemClock()
        self._settings = settings or PostgresSettings()
        self._time_of = time_of
        self._steps = steps or migrations()
        self._pool = Pool(self._url, self.where, self._settings)
        self._direct = _parted(self._settings.direct)[0] if self._settings.direct else self._url
        self._hold = Hold(self._direct, self.where, self._sql, self._settings, self._clock, time_of)
        period = self._settings.look if self._settings.notices else self._settings.look_unnoticed
        self._watch = Watch(lambda runs: self._call("changed_since", runs), period)
        self._secrets: dict[str, bytes] = {}
        self.store_id = ""

    # --- life -------------------------------------------------------------------------------------

    async def open(self) -> None:
        self._watch.open()
        await self._prepare()
        await self._pool.open()
        self._hold.notices.on_notice = self._watch.tell_from_elsewhere
        self._hold.on_orphans = lambda: self._watch.tell_from_elsewhere(Notice((), work=True))
        await asyncio.to_thread(self._hold.start)

    async def _prepare(self) -> None:
        try:
            connection: PlainConnection = await asyncpg.connect(
                self._direct, connection_class=PlainConnection, **connect_options(self._settings)
            )
            try:
                self.store_id, self._secrets = await migrate(connection, self._sql, self._steps)
            finally:
                await connection.close()
        except (*BROKEN, asyncpg.PostgresError, ValueError) as error:
            told = in_our_words(error, self.where)
            raise (
                told
                if isinstance(told, StoreError)
                else StoreUnavailable(f"the store {self.where} can't be opened: {error}")
            ) from error

    async def aclose(self) -> None:
        self._watch.close()
        await self._pool.aclose()
        await asyncio.to_thread(self._hold.close)

    async def join(self, replica: str, *, release: str = "", accepts: Collection[tuple[str, int]] = ()) -> None:
        await self._on_hold(self._hold.join(replica, release, rows.accepts_text(accepts)))

    async def leave(self, replica: str) -> None:
        try:
            await self._on_hold(self._hold.leave(replica))
        except StoreUnavailable as error:  # a broken connection holds no lock: the others see that it is gone
            log.warning("the store could not be told that this replica leaves", error=str(error), replica=replica)

    async def _on_hold(self, work: Any) -> None:
        await asyncio.to_thread(self._hold.run, work, self._settings.statement_timeout)

    async def replicas(self) -> Sequence[Replica]:
        found = await self._call("replicas", self._time_of(), self._settings.gone_after)
        return [rows.replica_of(row[:4], alive=row[4]) for row in found]

    async def given(self) -> Given:
        shares: dict[str, dict[str, float]] = {}
        for tool, release, weight in await self._call("given"):
            shares.setdefault(tool, {})[release] = weight
        return shares

    async def give(self, tool: str, shares: Shares) -> None:
        await self._call("give", tool, list(shares), [float(weight) for weight in shares.values()])

    def healthy(self) -> str | None:
        return self._pool.trouble

    def secret(self, name: str) -> bytes:
        """From the given key or the kept one; a store that was copied here brought its own."""
        root = self._settings.secret_key or self._secrets[ROOT]
        return self._secrets.get(name) or hmac.digest(root, b"milepost " + name.encode(), "sha256")

    async def check(self) -> Sequence[Finding]:
        server = Server(*await self._row("server"))
        builds = [row[0] for row in await self._call("builds", self._sql.schema, self._sql.verbs_schema)]
        held = {row[0]: row[1] for row in await self._call("states")}
        return findings(server, self._sql, builds, held, wall=self._clock.wall())

    async def fill(self, tables: Iterable[Table], secrets: Mapping[str, bytes]) -> None:
        """Take in what another store holds, in one transaction. Raises ConfigurationError where there is something."""
        connection: PlainConnection = await asyncpg.connect(self._direct, connection_class=PlainConnection)
        try:
            async with connection.transaction():
                if not await connection.fetchval(self._sql["is_empty"]):
                    raise ConfigurationError(f"the store {self.where} is not empty: copy into a new database or schema")
                for table in tables:
                    if not table.columns:
                        continue
                    await connection.copy_records_to_table(
                        table.name, schema_name=self._sql.schema, columns=list(table.columns), records=table.rows
                    )
                for name, secret in secrets.items():
                    await connection.execute(self._sql["keep_secret"], name, secret)
        finally:
            await connection.close()

    def watch(
        self, listener: Callable[[Notice], None], watched: Callable[[], Collection[str]] = tuple
    ) -> Callable[[], None]:
        return self._watch.add(listener, watched)

    def glimpse(self, run_id: str, text: str) -> None:
        self._hold.show(run_id, text)

    def on_doubt(self, listener: Callable[[float], None]) -> None:
        self._hold.on_doubt = listener

    # --- runs: the life of an attempt -------------------------------------------------------------

    async def create(
        self, new: NewRun, stream: Stream, *, known: Collection[str], claim: Claimant | None, full: bool = False
    ) -> Created | Sequence[Rival]:
        attempt_id = making.fences(1)[0] if claim is not None else None
        since = self._clock.boot()
        settings = self._settings
        made = await self._row(
            "create", self._time_of(), settings.entry_format, self._hold.here, settings.gone_after,
            settings.retention.redeliver, list(known), *making.of_new_run(new),
            making.of_stream(stream), stream.attached, stream.opened_at or None,
            claim.owner if claim is not None else None, attempt_id, claim.lease if claim is not None else None,
            full,
        )  # fmt: skip
        what, run_id, stream_id, at, rivals = made
        if what == "rivals":
            found = [await self._rival(*rival) for rival in rows.decode(rivals or "[]")]
            if None in found:  # swept since: look again without it
                return await self.create(new, stream, known=known, claim=claim, full=full)
            return [rival for rival in found if rival is not None]
        if what == "again":
            return await self._made_before(run_id, stream_id, attempt_id, since)
        self._changed(new.id, work=claim is None)
        run = making.new_run(new, at, claim, attempt_id)
        fence = Fence(new.id, attempt_id) if attempt_id is not None else None
        opened = making.opened(stream, new.id, at)
        claimed = Claim(run, fence, takeover=False, since=since, now=at) if fence is not None else None
        return Created(run, opened, claimed)

    async def _made_before(self, run_id: str, stream_id: str, attempt_id: str | None, since: float) -> Created:
        """What stands there already; with its claim if it is this very call's, whose outcome was not told."""
        run, stream = await self._run(run_id), await self.stream(stream_id)
        if run is None or stream is None:
            raise StoreError(f"run {run_id} was deleted meanwhile")
        ours = attempt_id is not None and run.attempt_id == attempt_id
        fence = Fence(run_id, attempt_id or "")
        claim = Claim(run, fence, takeover=False, since=since, now=run.created_at) if ours else None
        return Created(run, stream, claim)

    async def _rival(self, run_id: str, *connections: Any) -> Rival | None:
        """`connections`: live, doubtful, orphaned_for, sent_for."""
        loaded = await self._loaded(run_id)
        if loaded is None:
            return None
        live, doubtful, orphaned_for, sent_for = connections
        return Rival(loaded.run, live, doubtful, orphaned_for, loaded.questions, sent_for)

    async def claim(self, claimant: Claimant, *, limit: int, takeovers: int) -> Sequence[Claim]:
        since, settings = self._clock.boot(), self._settings
        found = await self._call(
            "claim", self._time_of(), settings.entry_format, claimant.owner, claimant.lease,
            sorted(rows.kinds_of(claimant)), making.fences(limit), takeovers if self._hold.judges else 0,
            settings.gone_after, settings.suspect_after, settings.stuck_after, settings.suspect_pause,
        )  # fmt: skip
        claims = []
        for row in found:
            run = rows.run_of(row)
            fence = Fence(run.id, run.attempt_id or "")
            claims.append(Claim(run, fence, takeover=row[rows.RUN_WIDTH], since=since, now=run.updated_at))
        return claims

    async def append(self, fence: Fence, batch: Batch, *, lease: float) -> Appended:
        prepared = making.of_batch(batch)
        row = await self._row(
            "append", self._time_of(), self._settings.entry_format, fence.run_id, fence.attempt_id, batch.token, lease,
            *prepared,
        )  # fmt: skip
        if batch.events or batch.questions:
            self._changed(fence.run_id)
        return Appended(*row)

    async def settle(self, fence: Fence, end: End) -> Run:
        settings = self._settings
        row = await self._row(
            "settle", self._time_of(), settings.entry_format, self._hold.here, settings.gone_after,
            fence.run_id, fence.attempt_id, end.kind.value, making.cause_of(end.kind), end.seen, sorted(end.asked),
            end.timer_in, end.park, settings.park_for, making.outcome_of(end), end.merged_into,
            making.storable(end.reason), *making.of_batch(end.batch),
        )  # fmt: skip
        run = rows.run_of(row)
        self._changed(run.id, work=run.state in CLAIMABLE)
        return run

    def extend(self, owner: str, attempts: Sequence[Fence], *, lease: float) -> Mapping[str, Appended]:
        return self._hold.run(self._hold.extend(owner, attempts, lease), self._settings.extend_bound)

    # --- runs: from outside -----------------------------------------------------------------------

    async def answer(
        self, run_id: str, replies: Mapping[int, Reply], *, by: Principal, via: str
    ) -> Mapping[int, Verdict]:
        texts = [rows.reply_text(reply) for reply in replies.values()]
        found = await self._call(
            "answer", self._time_of(), self._settings.entry_format, run_id, list(replies), texts,
            [rows.digest_of(text) for text in texts], rows.principal_text(by), rows.owner_text(by),
            making.storable(via),
        )  # fmt: skip
        verdicts = {number: Verdict(verdict) for number, verdict in found}
        if Verdict.ACCEPTED in verdicts.values():
            self._changed(run_id, work=True)
        return verdicts

    async def steer(self, run_id: str, action: Action) -> Run | None:
        row = await self._row_or_none(
            "steer", self._time_of(), self._settings.entry_format, self._hold.here, self._settings.gone_after, run_id,
            action.kind.value, making.storable(action.reason), action.accept_drift, action.question,
            making.storable(action.note), action.park_for,
        )  # fmt: skip
        if row is None:
            return None
        self._changed(run_id, work=action.kind not in (ActionKind.REASK, ActionKind.PARK))
        return rows.run_of(row)

    async def sweep(self, *, limit: int) -> Swept:
        keep = self._settings.retention
        fired, more, next_in, needs = await self._row(
            "sweep", self._time_of(), self._settings.entry_format, limit, self._settings.gone_after, keep.runs,
            keep.session_idle, keep.session_lifetime, PARKED_TOO_LONG,
        )  # fmt: skip
        for run_id in fired:
            self._changed(run_id, work=True)
        return Swept(tuple(fired), more, next_in, {Need(*need) for need in rows.decode(needs)})

    # --- runs: reading ----------------------------------------------------------------------------

    async def load(self, run_id: str) -> Loaded | None:
        return await self._loaded(run_id)

    async def _loaded(self, run_id: str) -> Loaded | None:
        row = await self._row_or_none("load", making.storable(run_id), self._settings.inline)
        if row is None:
            return None
        if row[_FORMAT] > self._settings.entry_format:
            raise Unreplayable(
                f"run {run_id} has journal entries of format {row[_FORMAT]}; this release knows "
                f"{self._settings.entry_format}. A newer release goes on with it."
            )
        if len(row[_ENTRIES]) + len(row[_QUESTIONS]) > _NEAR:
            return await asyncio.to_thread(_loaded, row)
        return _loaded(row)

    async def _run(self, run_id: str) -> Run | None:
        row = await self._row_or_none("run_by_id", run_id)
        return rows.run_of(row) if row is not None else None

    async def value(self, run_id: str, n: int) -> str:
        row = await self._row_or_none("value", run_id, n)
        if row is None or row[0] is None:
            raise UnknownRun(f"run {run_id} has no value at journal entry {n}")
        return str(row[0])

    async def events(self, run_id: str, *, after: int, limit: int = 500) -> Sequence[Event]:
        found = await self._call("events", run_id, min(after, _LARGEST), limit)
        try:
            return [rows.event_of(run_id, row) for row in found]
        except KeyError as error:
            raise Unreplayable(f"run {run_id} has events of a kind that this release doesn't know: {error}") from None

    async def find(self, query: Find) -> Sequence[Run]:
        found = await self._call(
            "find", [state.value for state in query.states] if query.states is not None else None, query.tool,
            rows.owner_text(query.owner) if query.owner is not None else None, query.older_than, query.limit,
        )  # fmt: skip
        return [rows.run_of(row) for row in found]

    # --- sessions and streams ---------------------------------------------------------------------

    async def save_session(self, session: Session, *, cap: int) -> bool:
        row = await self._row(
            "save_session", self._time_of(), session.id, session.version, rows.body_text(session.client_params),
            rows.principal_text(session.owner), session.created_at or None, session.initialized, session.log_level,
            rows.encode(session.subscriptions), session.ended, cap, self._settings.retention.session_idle,
        )  # fmt: skip
        return bool(row[0])

    async def session(self, session_id: str) -> Session | None:
        row = await self._row_or_none("session", making.storable(session_id), self._time_of())
        if row is None:
            return None
        *known, now, asks = row
        session, keep = rows.session_of(known), self._settings.retention
        idle = now - session.seen_at > keep.session_idle and not asks
        return None if session.ended or idle or now - session.created_at > keep.session_lifetime else session

    async def end_session(self, session_id: str) -> None:
        await self._call("end_session", session_id)

    async def open_stream(self, stream: Stream) -> Stream:
        row = await self._row(
            "open_stream", self._time_of(), making.of_stream(stream), stream.run_id, stream.attached,
            stream.opened_at or None,
        )  # fmt: skip
        return rows.stream_of(row)

    async def stream(self, stream_id: str) -> Stream | None:
        row = await self._row_or_none("stream", making.storable(stream_id))
        return rows.stream_of(row) if row is not None else None

    async def stream_of_request(self, session: str, request_id: int | str) -> Stream | None:
        row = await self._row_or_none("stream_by_request", session, making.storable(rows.id_text(request_id)))
        return rows.stream_of(row) if row is not None else None

    async def close_stream(self, stream_id: str, *, delivery: Delivery | None) -> None:
        await self._call("close_stream", self._time_of(), stream_id, delivery.value if delivery is not None else None)

    # --- within -----------------------------------------------------------------------------------

    async def _call(self, name: str, *values: Any) -> Sequence[Sequence[Any]]:
        return await self._pool.call(self._sql[name], *values)

    async def _row(self, name: str, *values: Any) -> Sequence[Any]:
        return (await self._pool.call(self._sql[name], *values))[0]

    async def _row_or_none(self, name: str, *values: Any) -> Sequence[Any] | None:
        return await self._pool.row(self._sql[name], *values)

    def _changed(self, run_id: str, *, work: bool = False) -> None:
        """After a commit: tell those who watch, here at once, elsewhere by a notice."""
        self._watch.tell(Notice((run_id,)))
        self._hold.tell((run_id,), work=work)


def _loaded(row: Sequence[Any]) -> Loaded:
    entries = [rows.entry_of(entry) for entry in rows.decode(row[_ENTRIES])]
    questions: list[Question] = [rows.question_of(question) for question in rows.decode(row[_QUESTIONS])]
    return Loaded(rows.run_of(row), entries, questions)


def _parted(url: str) -> tuple[str, str, str]:
    """(the URL for the driver, the schema, the place for people: without a password)."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    schema = options.pop("schema", "milepost")
    if not parts.path.strip("/"):
        raise ConfigurationError(f"the store {parts.hostname or url!r} names no database: postgresql://host:5432/NAME")
    place = f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return urlunsplit(parts._replace(query=urlencode(options))), schema, place
