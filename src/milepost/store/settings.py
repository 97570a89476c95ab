"""The bounds of the stores, each with the reason for its default. Durations in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from milepost.core.outside import Retention
from milepost.core.records import ENTRY_FORMAT


@dataclass(frozen=True, slots=True)
class StoreBounds:
    """What both stores have."""

    retention: Retention = field(default_factory=Retention)
    inline: int = 4096
    """Characters up to which `load` brings an entry's value along: a page; longer ones are read on use."""
    extend_bound: float = 5.0
    """How long a heartbeat waits for its commit. Shorter than a lease, so that it can be tried again."""
    first_beat: float = 15.0
    """How long a replica counts as awake after `join`, before its first heartbeat."""
    suspect_after: int = 2
    """Crashes in a row from which a run waits before it is tried again (HAZARDS C5)."""
    suspect_pause: float = 1.0
    """The first such wait; doubled each time."""
    stuck_after: int = 5
    """Crashes from which it no longer waits, because the engine gives it up."""
    park_for: float = 900.0
    """How long a run that parks at the end of its attempt is kept, where nobody said how long."""
    entry_format: int = ENTRY_FORMAT
    """Runs with entries above this format are left to newer releases."""


@dataclass(frozen=True, slots=True)
class SqliteSettings(StoreBounds):
    poll: float = 0.01
    """How often commits of other processes are looked for: half of it is the mean wake-up across processes."""
    calm_poll: float = 0.05
    """How often where none has come for `calm_after`: looking a hundred times a second takes 1.6 % of a core."""
    calm_after: float = 1.0
    """Seconds without a change by another process after which `calm_poll` is often enough."""
    busy: float = 5.0
    """How long to wait for another process's write before giving up."""
    max_batch: int = 256
    """Jobs in one commit: beyond it the commit's fixed cost is shared enough, and a failure undoes less."""
    max_queue: int = 20_000
    """Jobs that may wait for the writer before new ones are refused: a second or two of work."""
    checkpoint_pages: int = 1000
    """Pages (4 KiB) in the write-ahead log from which it is copied back; SQLite's own default."""
    patience: float = 30.0
    """How long a commit with an unknown outcome is looked into before its callers are told that it is unknown."""
    retry_pause: float = 1.0
    """How often a writer that can't write looks whether it can again."""
    near_entries: int = 100
    """Journals up to this length are read on the event loop (well under 1 ms); longer ones in a thread."""
    near_events: int = 50
    """The same for events."""
    read_threads: int = 2
    """Threads for long reads; the machine's cores are for the loop and the writer."""


@dataclass(frozen=True, slots=True)
class PostgresSettings(StoreBounds):
    direct: str = ""
    """A URL straight to the database, where `store.url` leads through a pooler in transaction mode: for the one
    connection that needs a session (heartbeats, lock, notices), and for migrations."""
    pool: int = 10
    """Connections of one replica for its verbs. A verb is one round trip, so few serve many runs."""
    notices: bool = True
    """Tell other replicas of changes by LISTEN/NOTIFY. Without it they look for changes more often: only slower."""
    notice_pause: float = 0.005
    """How long changes are gathered into one notice: NOTIFY takes a lock that the whole database shares."""
    look: float = 1.0
    """How often the runs that are watched are looked at although no notice came: what a lost one costs."""
    look_unnoticed: float = 0.1
    """The same where there are no notices."""
    around: float = 0.25
    """How often a replica looks whose connections are gone. It is also its own connection's sign of life."""
    around_bound: float = 0.5
    """A look that takes longer puts the replica itself in doubt."""
    gone_after: float = 1.0
    """How long a replica's lock must be free before its runs are taken over, ahead of the end of their lease. Longer
    than `around` and `around_bound` together: by then a replica that lives knows that it is doubted."""
    statement_timeout: float = 5.0
    """The longest that one verb may take in the database. A connection that is silent for a second more is dropped."""
    lock_timeout: float = 3.0
    """The longest that one verb may wait for a row."""
    connect_timeout: float = 5.0
    """The longest that making a connection may take."""
    patience: float = 30.0
    """How long a verb is tried again while the database can't be reached (a restart, a failover), before its caller is
    told. `/readyz` tells at once."""
    secret_key: bytes = b""
    """What the store's secrets are made from, at least 32 bytes. Empty: a random one, kept in the database."""
