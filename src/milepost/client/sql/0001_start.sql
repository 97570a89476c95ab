-- min_reader: 1
-- A client's journal: calls without an end, the sessions they run in, and what is known of each server's era.
CREATE TABLE call (
    call_id TEXT PRIMARY KEY,
    server TEXT NOT NULL,              -- its URL, without credentials
    owner TEXT NOT NULL,               -- the client that drives it: a name whose OS lock tells whether it lives
    ending TEXT NOT NULL,              -- open, result, error, cancelled
    begun REAL NOT NULL,               -- UTC seconds
    changed REAL NOT NULL,
    body TEXT NOT NULL                 -- JSON: request, questions and answers, requestState, stream
) STRICT;
CREATE INDEX call_open ON call (server) WHERE ending = 'open';

CREATE TABLE session (
    server TEXT NOT NULL,
    id TEXT NOT NULL,                  -- Mcp-Session-Id
    changed REAL NOT NULL,
    body TEXT NOT NULL,                -- JSON: version, initialize's params and result, log level, subscriptions
    PRIMARY KEY (server, id)
) STRICT;

CREATE TABLE era (
    server TEXT PRIMARY KEY,           -- its origin
    era TEXT NOT NULL,
    until REAL NOT NULL
) STRICT;
