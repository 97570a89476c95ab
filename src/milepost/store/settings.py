"""The bounds of the SQLite store, each with the reason for its default. Durations in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from milepost.core.records import ENTRY_FORMAT
from milepost.seams import Retention


@dataclass(frozen=True, slots=True)
class SqliteSettings:
    retention: Retention = field(default_factory=Retention)
    inline: int = 4096
    """Characters up to which `load` brings an entry's value along: a page; longer ones are read on use."""
    poll: float = 0.01
    """How often commits of other processes are looked for: half of it is the mean wake-up across processes."""
    busy: float = 5.0
    """How long to wait for another process's write before giving up."""
    max_batch: int = 256
    """Jobs in one commit: beyond it the commit's fixed cost is shared enough, and a failure undoes less."""
    max_queue: int = 20_000
    """Jobs that may wait for the writer before new ones are refused: a second or two of work."""
    checkpoint_pages: int = 1000
    """Pages (4 KiB) in the write-ahead log from which it is copied back; SQLite's own default."""
    extend_bound: float = 5.0
    """How long a heartbeat waits for its commit. Shorter than a lease, so that it can be tried again."""
    patience: float = 30.0
    """How long a commit with an unknown outcome is looked into before its callers are told that it is unknown."""
    retry_pause: float = 1.0
    """How often a writer that can't write looks whether it can again."""
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
    near_entries: int = 100
    """Journals up to this length are read on the event loop (well under 1 ms); longer ones in a thread."""
    near_events: int = 50
    """The same for events."""
    read_threads: int = 2
    """Threads for long reads; the machine's cores are for the loop and the writer."""
    entry_format: int = ENTRY_FORMAT
    """Runs with entries above this format are left to newer releases."""
