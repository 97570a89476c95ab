-- Named queries that only read, and those of the store itself.

-- name: run_columns
r.id, r.tool, r.version, r.lane, r.state, r.call, r.call_key, r.scope, r.salt, r.release, r.created_at, r.updated_at,
r.epoch, r.attempt_id, r.owner, r.crashes, r.wake_seq, r.event_seq, r.journal_seq, r.working, r.stage, r.progress,
r.next_at, r.reason, r.cancel, r.accept_drift, r.rival, r.merged_into, r.outcome, r.delivery, r.sent_at,
r.park_for IS NOT NULL, r.given_to, r.call_id

-- name: create
SELECT what, run, stream, at, rivals FROM verbs.create(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16
)

-- name: claim
SELECT {{run_columns}}, c.takeover
FROM verbs.claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) c, LATERAL (SELECT (c.claimed).*) r

-- name: append
SELECT event_seq, working, wake_seq, cancel FROM verbs.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)

-- name: settle
SELECT {{run_columns}} FROM verbs.settle(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23
) r

-- name: extend
SELECT attempt_id, event_seq, working, wake_seq, cancel FROM verbs.extend($1, $2, $3, $4, $5, $6, $7)

-- name: answer
SELECT question, verdict FROM verbs.answer($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: steer
SELECT {{run_columns}} FROM verbs.steer($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) r

-- name: sweep
SELECT runs, more, next_in, needs FROM verbs.sweep($1, $2, $3, $4, $5, $6, $7, $8)

-- name: save_session
SELECT verbs.save_session($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)

-- name: open_stream
SELECT s.id, s.run, s.request_id, s.session, s.progress_token, s.owner, s.replica, s.attached, s.opened_at, s.detached_at
FROM verbs.open_stream($1, $2, $3, $4, $5) s

-- name: close_stream
SELECT verbs.close_stream($1, $2, $3)

-- name: end_session
UPDATE milepost.session SET ended = true WHERE id = $1

-- name: run_by_id
SELECT {{run_columns}} FROM milepost.run r WHERE r.id = $1

-- name: load
-- One statement, so that run, entries and questions are of one moment.
SELECT {{run_columns}}, r.format,
    (SELECT coalesce(json_agg(json_build_array(
        e.n, e.kind, e.name, e.digest, e.key, e.occurrence, CASE WHEN e.size <= $2 THEN e.value END, e.size, e.at, e.epoch
    ) ORDER BY e.n), '[]')::text FROM milepost.entry e WHERE e.run = r.id),
    (SELECT coalesce(json_agg(json_build_array(
        q.run, q.id, q.method, q.params, q.digest, q.key, q.occurrence, q.state, q.stage, q.asked_at, q.expires_at,
        q.reply, q.by, q.via, q.answered_at
    ) ORDER BY q.id), '[]')::text FROM milepost.question q WHERE q.run = r.id)
FROM milepost.run r WHERE r.id = $1

-- name: value
SELECT value FROM milepost.entry WHERE run = $1 AND n = $2

-- name: events
SELECT e.n, e.kind, coalesce(e.body, r.outcome), e.at FROM milepost.event e JOIN milepost.run r ON r.id = e.run
WHERE e.run = $1 AND e.n > $2 ORDER BY e.n LIMIT $3

-- name: find
SELECT {{run_columns}} FROM milepost.run r
WHERE ($1::text[] IS NULL OR r.state = ANY ($1)) AND ($2::text IS NULL OR r.tool = $2)
    AND ($3::text IS NULL OR r.principal = $3)
    AND ($4::text IS NULL OR (r.created_at, r.id) < (SELECT o.created_at, o.id FROM milepost.run o WHERE o.id = $4))
ORDER BY r.created_at DESC, r.id DESC LIMIT $5

-- name: changed_since
-- What a look for changes compares: which of these runs have other counters than when they were last seen.
SELECT r.id, r.event_seq FROM milepost.run r WHERE r.id = ANY ($1)

-- name: session
-- Its row, the moment, and whether one of its runs still asks.
SELECT s.id, s.version, s.client_params, s.owner, s.created_at, s.seen_at, s.initialized, s.log_level, s.subscriptions,
    s.ended, verbs.clock($2), verbs.session_asks(s.id)
FROM milepost.session s WHERE s.id = $1

-- name: stream
SELECT s.id, s.run, s.request_id, s.session, s.progress_token, s.owner, s.replica, s.attached, s.opened_at, s.detached_at
FROM milepost.stream s WHERE s.id = $1

-- name: stream_by_request
SELECT s.id, s.run, s.request_id, s.session, s.progress_token, s.owner, s.replica, s.attached, s.opened_at, s.detached_at
FROM milepost.stream s WHERE s.session = $1 AND s.request_id = $2

-- name: replicas
SELECT id, release, accepts, beat_at, beat_until >= verbs.clock($1) AND verbs.is_held(id)
FROM milepost.replica WHERE gone_at IS NULL OR gone_at > verbs.clock($1) - $2 ORDER BY id

-- name: given
SELECT tool, release, weight FROM milepost.given ORDER BY tool, release

-- name: give
WITH gone AS (DELETE FROM milepost.given WHERE tool = $1 AND release <> ALL ($2))
INSERT INTO milepost.given (tool, release, weight) SELECT $1, s.release, s.weight
FROM unnest($2::text[], $3::double precision[]) s (release, weight)
ON CONFLICT (tool, release) DO UPDATE SET weight = excluded.weight

-- name: server
SELECT current_setting('server_version_num')::integer, current_setting('server_version'),
    current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on',
    current_setting('synchronous_commit'), current_setting('synchronous_standby_names'),
    (SELECT count(*) FROM pg_stat_replication), current_setting('max_connections')::integer,
    extract(epoch FROM clock_timestamp())::double precision

-- name: builds
-- The schemas with the functions of one build each.
SELECT nspname FROM pg_namespace
WHERE starts_with(nspname, $1 || '_') AND nspname ~ '_[0-9a-f]{10}$' AND nspname <> $2 ORDER BY nspname

-- name: states
SELECT state, count(*) FROM milepost.run GROUP BY state ORDER BY state

-- name: secrets
SELECT name, value FROM milepost.secret

-- name: is_empty
SELECT NOT EXISTS (SELECT 1 FROM milepost.run) AND NOT EXISTS (SELECT 1 FROM milepost.session)

-- name: keep_secret
INSERT INTO milepost.secret (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value

-- name: take_lock
SELECT pg_try_advisory_lock(verbs.lock_of($1))

-- name: end_former
-- A server process of ours ($2: any of these) that still has the lock, for it has not noticed that its connection broke.
SELECT pg_terminate_backend(h.pid) FROM verbs.holder($1) h (pid) WHERE h.pid = ANY ($2::integer[])

-- name: give_lock
SELECT pg_advisory_unlock(verbs.lock_of($1))

-- name: free_replica
SELECT verbs.free_replica($1, $2)

-- name: delete_replica
DELETE FROM milepost.replica WHERE id = $1

-- name: look_around
SELECT verbs.look_around($1, $2, $3, $4)

-- name: notify
SELECT pg_notify($1, $2)

-- name: has_schema
SELECT to_regclass('milepost.store') IS NOT NULL

-- name: has_verbs
SELECT to_regproc('verbs.look_around') IS NOT NULL

-- name: migration_lock
SELECT pg_advisory_xact_lock(hashtextextended('milepost migrations', 0))

-- name: create_schema
CREATE SCHEMA IF NOT EXISTS milepost

-- name: create_verbs
CREATE SCHEMA verbs

-- name: schema
SELECT schema, min_reader, store_id FROM milepost.store

-- name: insert_store
INSERT INTO milepost.store (one, store_id, schema, min_reader, created_at)
VALUES (1, $1, $2, $3, extract(epoch FROM clock_timestamp()))

-- name: raise_schema
UPDATE milepost.store SET schema = $1, min_reader = greatest(min_reader, $2)

-- name: make_secret
INSERT INTO milepost.secret (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING
