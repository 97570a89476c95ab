-- min_reader: 1
-- The first schema. Later files only add: nullable or defaulted columns, tables, indexes.
-- `milepost.` stands for the store's own schema. Times are UTC seconds by the database's clock.
-- Everything of a run hangs off its id, so that the tables can be distributed by it.

CREATE TABLE milepost.store (
    one integer PRIMARY KEY CHECK (one = 1),
    store_id text NOT NULL,
    schema integer NOT NULL,
    min_reader integer NOT NULL,
    created_at double precision NOT NULL
);

CREATE TABLE milepost.secret (
    name text PRIMARY KEY,
    value bytea NOT NULL
);

CREATE TABLE milepost.replica (
    id text COLLATE "C" PRIMARY KEY,
    release text NOT NULL DEFAULT '',
    accepts text NOT NULL DEFAULT '[]',
    beat_at double precision NOT NULL,
    beat_until double precision NOT NULL,
    gone_at double precision           -- since when its lock is seen to be free
);

-- Which release new runs of a tool are given to; `*` stands for every tool without rows of its own.
CREATE TABLE milepost.given (
    tool text NOT NULL,
    release text NOT NULL,
    weight double precision NOT NULL CHECK (weight > 0),
    PRIMARY KEY (tool, release)
);

CREATE TABLE milepost.run (
    id text COLLATE "C" PRIMARY KEY,
    tool text NOT NULL,
    version integer NOT NULL,
    lane text NOT NULL,
    state text NOT NULL,
    call text NOT NULL,
    call_key text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    salt bytea NOT NULL,
    release text NOT NULL,
    created_at double precision NOT NULL,
    updated_at double precision NOT NULL,
    epoch integer NOT NULL DEFAULT 0,
    attempt_id text,
    owner text COLLATE "C",
    crashes integer NOT NULL DEFAULT 0,
    wake_seq integer NOT NULL DEFAULT 0,
    event_seq integer NOT NULL DEFAULT 0,
    journal_seq integer NOT NULL DEFAULT 0,
    working double precision NOT NULL DEFAULT 0,
    stage text,
    progress double precision NOT NULL DEFAULT 0,
    next_at double precision,
    reason text,
    cancel text,
    accept_drift boolean NOT NULL DEFAULT false,
    rival text,
    merged_into text,
    outcome text,
    delivery text,
    sent_at double precision,
    given_to text NOT NULL DEFAULT '',
    kind text COLLATE "C" NOT NULL,    -- what a replica must accept to run it: "<version> <tool>", or "hot"
    principal text NOT NULL,           -- JSON [issuer, subject, client]
    format integer NOT NULL DEFAULT 1,
    lease_until double precision NOT NULL DEFAULT 0,
    mark double precision NOT NULL DEFAULT 0,  -- work up to here is in `working`
    park_for double precision,         -- a park was asked for while it ran
    final_at double precision,
    appended text,                     -- names the last append: the proof of one whose outcome was not told
    settled text                       -- the last attempt that was settled: the same proof
) WITH (fillfactor = 70);

-- None of these holds a column that an append changes, so that appends stay within their page (HOT).
CREATE INDEX run_due ON milepost.run (kind, coalesce(next_at, 0), id) WHERE state IN ('ready', 'cancelling');
CREATE INDEX run_running ON milepost.run (owner) WHERE state = 'running';
CREATE INDEX run_timer ON milepost.run (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX run_rival ON milepost.run (call_key, scope)
    WHERE merged_into IS NULL AND (delivery IS NULL OR delivery <> 'confirmed');
CREATE INDEX run_final ON milepost.run (final_at) WHERE final_at IS NOT NULL;
CREATE INDEX run_newest ON milepost.run (created_at, id);

CREATE TABLE milepost.entry (
    run text COLLATE "C" NOT NULL,
    n integer NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    digest text NOT NULL,
    key text NOT NULL,
    occurrence integer NOT NULL,
    value text,
    size integer NOT NULL,
    at double precision NOT NULL,
    epoch integer NOT NULL,
    format integer NOT NULL DEFAULT 1,
    PRIMARY KEY (run, n)
);

CREATE TABLE milepost.question (
    run text COLLATE "C" NOT NULL,
    id integer NOT NULL,
    method text NOT NULL,
    params text NOT NULL,
    digest text NOT NULL,
    key text NOT NULL,
    occurrence integer NOT NULL,
    state text NOT NULL DEFAULT 'open',
    stage text,
    asked_at double precision NOT NULL,
    expires_at double precision,
    reply text,
    reply_digest text,
    by text,
    by_owner text,
    via text,
    answered_at double precision,
    PRIMARY KEY (run, id)
);

CREATE INDEX question_expiry ON milepost.question (expires_at) WHERE state = 'open' AND expires_at IS NOT NULL;

CREATE TABLE milepost.event (
    run text COLLATE "C" NOT NULL,
    n integer NOT NULL,
    kind text NOT NULL,
    body text,                         -- NULL: the run's outcome, which is stored once
    at double precision NOT NULL,
    format integer NOT NULL DEFAULT 1,
    PRIMARY KEY (run, n)
);

CREATE TABLE milepost.session (
    id text COLLATE "C" PRIMARY KEY,
    version text NOT NULL,
    client_params text NOT NULL,
    owner text NOT NULL,
    created_at double precision NOT NULL,
    seen_at double precision NOT NULL,
    initialized boolean NOT NULL,
    log_level text,
    subscriptions text NOT NULL,
    ended boolean NOT NULL
);

CREATE INDEX session_seen ON milepost.session (ended, seen_at);
CREATE INDEX session_born ON milepost.session (created_at) WHERE NOT ended;

CREATE TABLE milepost.stream (
    id text COLLATE "C" PRIMARY KEY,
    run text COLLATE "C" NOT NULL,
    request_id text NOT NULL,
    session text COLLATE "C",
    progress_token text,
    owner text NOT NULL,
    replica text COLLATE "C",
    attached boolean NOT NULL,
    opened_at double precision NOT NULL,
    detached_at double precision
);

CREATE INDEX stream_run ON milepost.stream (run);
CREATE INDEX stream_replica ON milepost.stream (replica) WHERE replica IS NOT NULL;
CREATE UNIQUE INDEX stream_request ON milepost.stream (session, request_id) WHERE session IS NOT NULL;
