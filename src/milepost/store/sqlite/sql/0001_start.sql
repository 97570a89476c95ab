-- min_reader: 1
-- The first schema. Later files only add: nullable or defaulted columns, tables, indexes.
-- Times are UTC seconds, but `lease_until`, `mark` and `beat_until` are seconds of the machine's boot clock.

CREATE TABLE store (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    store_id TEXT NOT NULL,
    schema INTEGER NOT NULL,
    min_reader INTEGER NOT NULL,
    created_at REAL NOT NULL
) STRICT;

-- One row per process that writes. `batch` rises with each of its commits: the proof of a commit whose outcome
-- was not told. `changes` rises with those that changed runs: the sign by which other processes notice (a heartbeat
-- is no change, or two processes would wake each other for ever).
CREATE TABLE writer (
    id TEXT PRIMARY KEY,
    batch INTEGER NOT NULL,
    changes INTEGER NOT NULL,
    at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE replica (
    id TEXT PRIMARY KEY,
    beat_at REAL NOT NULL,
    beat_until REAL NOT NULL,
    boot_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE run (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tool TEXT NOT NULL,
    version INTEGER NOT NULL,
    lane TEXT NOT NULL,
    state TEXT NOT NULL,
    call TEXT NOT NULL,
    call_key TEXT NOT NULL,
    scope TEXT NOT NULL,
    salt BLOB NOT NULL,
    release TEXT NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    epoch INTEGER NOT NULL DEFAULT 0,
    attempt_id TEXT,
    owner TEXT,
    crashes INTEGER NOT NULL DEFAULT 0,
    wake_seq INTEGER NOT NULL DEFAULT 0,
    event_seq INTEGER NOT NULL DEFAULT 0,
    journal_seq INTEGER NOT NULL DEFAULT 0,
    working REAL NOT NULL DEFAULT 0,
    stage TEXT,
    progress REAL NOT NULL DEFAULT 0,
    next_at REAL,
    reason TEXT,
    cancel TEXT,
    accept_drift INTEGER NOT NULL DEFAULT 0,
    rival TEXT,
    merged_into TEXT,
    outcome TEXT,
    delivery TEXT,
    sent_at REAL,
    kind TEXT NOT NULL,           -- what a replica must accept to run it: "<version> <tool>", or "hot"
    principal TEXT NOT NULL,      -- JSON [issuer, subject, client]
    format INTEGER NOT NULL DEFAULT 1,
    lease_until REAL NOT NULL DEFAULT 0,
    lease_boot TEXT NOT NULL DEFAULT '',
    mark REAL NOT NULL DEFAULT 0, -- work up to here is in `working`
    park_for REAL                 -- a park was asked for while it ran
) STRICT;

CREATE INDEX run_due ON run (kind, coalesce(next_at, 0.0)) WHERE state IN ('ready', 'cancelling');
CREATE INDEX run_lease ON run (lease_until) WHERE state = 'running';
CREATE INDEX run_timer ON run (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX run_rival ON run (call_key, scope)
    WHERE merged_into IS NULL AND (delivery IS NULL OR delivery <> 'confirmed');
CREATE INDEX run_final ON run (updated_at) WHERE outcome IS NOT NULL OR delivery IS NOT NULL;

CREATE TABLE entry (
    run INTEGER NOT NULL,
    n INTEGER NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    key TEXT NOT NULL,
    occurrence INTEGER NOT NULL,
    size INTEGER NOT NULL,
    at REAL NOT NULL,
    epoch INTEGER NOT NULL,
    format INTEGER NOT NULL DEFAULT 1,
    value TEXT,                   -- last, so that a large one is not read on the way to the others
    PRIMARY KEY (run, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE question (
    run INTEGER NOT NULL,
    id INTEGER NOT NULL,
    method TEXT NOT NULL,
    params TEXT NOT NULL,
    digest TEXT NOT NULL,
    key TEXT NOT NULL,
    occurrence INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'open',
    stage TEXT,
    asked_at REAL NOT NULL,
    expires_at REAL,
    reply TEXT,
    by TEXT,
    via TEXT,
    answered_at REAL,
    PRIMARY KEY (run, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX question_expiry ON question (expires_at) WHERE state = 'open' AND expires_at IS NOT NULL;

CREATE TABLE event (
    run INTEGER NOT NULL,
    n INTEGER NOT NULL,
    kind TEXT NOT NULL,
    at REAL NOT NULL,
    format INTEGER NOT NULL DEFAULT 1,
    body TEXT,                    -- NULL: the run's outcome, which is stored once
    PRIMARY KEY (run, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
    id TEXT PRIMARY KEY,
    version TEXT NOT NULL,
    client_params TEXT NOT NULL,
    owner TEXT NOT NULL,
    created_at REAL NOT NULL,
    seen_at REAL NOT NULL,
    initialized INTEGER NOT NULL,
    log_level TEXT,
    subscriptions TEXT NOT NULL,
    ended INTEGER NOT NULL
) STRICT;

CREATE INDEX session_open ON session (seen_at) WHERE ended = 0;
CREATE INDEX session_ended ON session (seen_at) WHERE ended = 1;

CREATE TABLE stream (
    id TEXT PRIMARY KEY,
    run INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    session TEXT,
    progress_token TEXT,
    owner TEXT NOT NULL,
    replica TEXT,
    attached INTEGER NOT NULL,
    opened_at REAL NOT NULL,
    detached_at REAL
) STRICT;

CREATE INDEX stream_run ON stream (run);
CREATE INDEX stream_replica ON stream (replica) WHERE replica IS NOT NULL;
CREATE UNIQUE INDEX stream_request ON stream (session, request_id) WHERE session IS NOT NULL;
