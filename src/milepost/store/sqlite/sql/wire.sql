-- Named queries over sessions, streams, replicas and the store itself.

-- name: session_columns
id, version, client_params, owner, created_at, seen_at, initialized, log_level, subscriptions, ended

-- name: session
SELECT {{session_columns}} FROM session WHERE id = ?

-- name: session_known
SELECT ended FROM session WHERE id = ?

-- name: sessions_open
SELECT count(*) FROM (SELECT 1 FROM session WHERE ended = 0 AND seen_at >= :since LIMIT :cap)

-- name: insert_session
INSERT INTO session ({{session_columns}}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: update_session
UPDATE session SET version = ?, client_params = ?, owner = ?, seen_at = ?, initialized = ?, log_level = ?,
    subscriptions = ?, ended = ?
WHERE id = ? AND ended = 0

-- name: end_session
UPDATE session SET ended = 1 WHERE id = ? AND ended = 0

-- name: session_asks
SELECT EXISTS (
    SELECT 1 FROM stream s JOIN question q ON q.run = s.run WHERE s.session = ? AND q.state = 'open'
)

-- name: idle_sessions
SELECT id FROM session
WHERE ended = 0 AND (seen_at < :idle_since OR created_at < :born_before) AND NOT (created_at >= :born_before AND EXISTS (
    SELECT 1 FROM stream s JOIN question q ON q.run = s.run WHERE s.session = session.id AND q.state = 'open'
))
ORDER BY seen_at LIMIT :limit

-- name: ended_sessions
-- Kept for a while, so that a replica that still remembers the session can't bring it back by saving it.
SELECT id FROM session WHERE ended = 1 AND seen_at < :idle_since ORDER BY seen_at LIMIT :limit

-- name: delete_session
DELETE FROM session WHERE id = ?

-- name: stream_columns
s.id, run.id, s.request_id, s.session, s.progress_token, s.owner, s.replica, s.attached, s.opened_at, s.detached_at

-- name: stream
SELECT {{stream_columns}} FROM stream s JOIN run ON run.seq = s.run WHERE s.id = ?

-- name: stream_by_request
SELECT {{stream_columns}} FROM stream s JOIN run ON run.seq = s.run WHERE s.session = ? AND s.request_id = ?

-- name: insert_stream
INSERT INTO stream (id, run, request_id, session, progress_token, owner, replica, attached, opened_at, detached_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)

-- name: take_up_stream
UPDATE stream SET replica = ?, detached_at = NULL WHERE id = ?

-- name: detach_stream
UPDATE stream SET replica = NULL, detached_at = coalesce(detached_at, ?) WHERE id = ? RETURNING run

-- name: detach_replica
UPDATE stream SET replica = NULL, detached_at = coalesce(detached_at, ?) WHERE replica = ?

-- name: connections
SELECT replica, detached_at FROM stream WHERE run = ?

-- name: deliver
-- Delivery only ever rises: unsent, sent, confirmed.
UPDATE run SET delivery = :delivery, sent_at = coalesce(sent_at, :wall)
WHERE seq = :run AND CASE :delivery
    WHEN 'sent' THEN delivery = 'unsent'
    WHEN 'confirmed' THEN delivery IN ('unsent', 'sent')
    ELSE 0 END
RETURNING id

-- name: introduce
UPDATE replica SET release = :release, accepts = :accepts WHERE id = :id

-- name: known_replicas
SELECT id, release, accepts, beat_at, beat_until, boot_id FROM replica ORDER BY id

-- name: given
SELECT tool, release, weight FROM given ORDER BY tool, release

-- name: take_back
DELETE FROM given WHERE tool = ?

-- name: give
INSERT INTO given (tool, release, weight) VALUES (?, ?, ?)

-- name: beat
INSERT INTO replica (id, beat_at, beat_until, boot_id) VALUES (:id, :wall, :until, :boot_id)
ON CONFLICT (id) DO UPDATE SET beat_at = excluded.beat_at, beat_until = max(beat_until, excluded.beat_until),
    boot_id = excluded.boot_id

-- name: replicas
SELECT id, beat_at, beat_until, boot_id FROM replica

-- name: delete_replica
DELETE FROM replica WHERE id = ?

-- name: runs_of
SELECT EXISTS (SELECT 1 FROM run WHERE state = 'running' AND owner = ?)

-- name: mark_batch
INSERT INTO writer (id, batch, changes, at) VALUES (?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET batch = excluded.batch, changes = excluded.changes, at = excluded.at

-- name: last_batch
SELECT batch FROM writer WHERE id = ?

-- name: changes_by_others
SELECT total(changes) FROM writer WHERE id <> ?

-- name: forget_writers
DELETE FROM writer WHERE at < ?

-- name: begin
BEGIN IMMEDIATE

-- name: begin_read
BEGIN

-- name: commit
COMMIT

-- name: rollback
ROLLBACK

-- name: data_version
PRAGMA data_version

-- name: has_schema
SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'store'

-- name: schema
SELECT schema, min_reader, store_id FROM store

-- name: insert_store
INSERT INTO store (one, store_id, schema, min_reader, created_at) VALUES (1, ?, ?, ?, ?)

-- name: raise_schema
UPDATE store SET schema = ?, min_reader = max(min_reader, ?)

-- name: write_ahead
PRAGMA journal_mode = WAL

-- name: settings
PRAGMA synchronous = FULL;
PRAGMA fullfsync = ON;
PRAGMA foreign_keys = OFF;
PRAGMA wal_autocheckpoint = 0;
PRAGMA journal_size_limit = 67108864;
PRAGMA mmap_size = 0;
PRAGMA temp_store = MEMORY;
PRAGMA trusted_schema = OFF;

-- name: read_only
PRAGMA query_only = ON

-- name: states
SELECT state, count(*) FROM run GROUP BY state ORDER BY state

-- name: damage
PRAGMA quick_check(1)

-- name: dump_run
-- Leases are over: whoever claims a run that was running takes it over.
SELECT id, tool, version, lane, state, call, call_key, scope, salt, release, created_at, updated_at, epoch, attempt_id,
    owner, crashes, wake_seq, event_seq, journal_seq, working, stage, progress, next_at, reason, cancel, accept_drift,
    rival, merged_into, outcome, delivery, sent_at, given_to, call_id, kind, principal, format,
    park_for,
    CASE WHEN delivery IS NOT NULL OR outcome IS NOT NULL THEN updated_at END AS final_at
FROM run ORDER BY seq

-- name: dump_entry
SELECT run.id AS run, e.n, e.kind, e.name, e.digest, e.key, e.occurrence, e.value, e.size, e.at, e.epoch, e.format
FROM entry e JOIN run ON run.seq = e.run ORDER BY e.run, e.n

-- name: dump_question
SELECT run.id AS run, q.id, q.method, q.params, q.digest, q.key, q.occurrence, q.state, q.stage, q.asked_at,
    q.expires_at, q.reply, q.by, q.via, q.answered_at
FROM question q JOIN run ON run.seq = q.run ORDER BY q.run, q.id

-- name: dump_event
SELECT run.id AS run, e.n, e.kind, e.body, e.at, e.format
FROM event e JOIN run ON run.seq = e.run ORDER BY e.run, e.n

-- name: dump_session
SELECT {{session_columns}} FROM session

-- name: dump_stream
-- No connection is left: what was live broke when its replica was last heard.
SELECT s.id, run.id AS run, s.request_id, s.session, s.progress_token, s.owner, s.attached, s.opened_at,
    coalesce(s.detached_at, (SELECT beat_at FROM replica WHERE replica.id = s.replica), s.opened_at) AS detached_at
FROM stream s JOIN run ON run.seq = s.run

-- name: dump_given
SELECT tool, release, weight FROM given
