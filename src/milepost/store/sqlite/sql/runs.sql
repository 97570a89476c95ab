-- Named queries over runs, their journals, questions and events.
-- `{{name}}` stands for the fragment of that name. Writes run inside BEGIN IMMEDIATE (writer.py), so a
-- row that was read there stays as read until COMMIT: this is SQLite's "lock the run row first".

-- name: run_columns
id, tool, version, lane, state, call, call_key, scope, salt, release, created_at, updated_at, epoch, attempt_id,
owner, crashes, wake_seq, event_seq, journal_seq, working, stage, progress, next_at, reason, cancel, accept_drift,
rival, merged_into, outcome, delivery, sent_at, park_for IS NOT NULL, given_to, call_id

-- name: held_columns
{{run_columns}}, seq, format, lease_until, lease_boot, mark, park_for

-- name: run_by_id
SELECT {{run_columns}}, seq, format FROM run WHERE id = ?

-- name: hold_by_id
SELECT {{held_columns}} FROM run WHERE id = ?

-- name: hold_by_seq
SELECT {{held_columns}} FROM run WHERE seq = ?

-- name: save_run
UPDATE run SET
    state = ?, updated_at = ?, epoch = ?, attempt_id = ?, owner = ?, crashes = ?, wake_seq = ?, event_seq = ?,
    journal_seq = ?, working = ?, stage = ?, progress = ?, next_at = ?, reason = ?, cancel = ?, accept_drift = ?,
    merged_into = ?, outcome = ?, delivery = ?, format = ?, lease_until = ?, lease_boot = ?, mark = ?, park_for = ?
WHERE seq = ?

-- name: insert_run
INSERT INTO run (
    id, tool, version, lane, state, call, call_key, scope, salt, release, created_at, updated_at, rival, given_to,
    call_id, kind, principal, format, epoch, attempt_id, owner, lease_until, lease_boot, mark
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
RETURNING seq

-- name: rivals
SELECT {{run_columns}}, seq FROM run
WHERE call_key = :call_key AND scope = :scope AND merged_into IS NULL
    AND (delivery IS NULL OR delivery <> 'confirmed')
    AND (delivery IS NULL OR delivery <> 'sent' OR sent_at >= :sent_since)
ORDER BY seq

-- name: same_call_id
-- However it stands with that run and its result.
SELECT {{run_columns}}, seq FROM run WHERE call_id = :call_id

-- name: append
-- The guard and the counters in one statement: no row means fenced.
UPDATE run SET
    event_seq = event_seq + :events,
    journal_seq = journal_seq + :entries,
    lease_until = max(lease_until, :boot + :lease),
    working = working + max(0.0, :boot - mark),
    mark = :boot,
    crashes = CASE WHEN :progressed THEN 0 ELSE crashes END,
    stage = CASE WHEN :stage IS NULL THEN stage ELSE nullif(:stage, '') END,
    progress = max(progress, :progress),
    format = max(format, :format),
    updated_at = :wall
WHERE id = :run AND attempt_id = :attempt AND state = 'running'
RETURNING seq, event_seq, journal_seq, working, wake_seq, cancel, epoch

-- name: insert_entry
INSERT INTO entry (run, n, kind, name, digest, key, occurrence, value, size, at, epoch, format)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: insert_question
INSERT INTO question (run, id, method, params, digest, key, occurrence, stage, asked_at, expires_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: insert_event
INSERT INTO event (run, n, kind, body, at, format) VALUES (?, ?, ?, ?, ?, ?)

-- name: extend
UPDATE run SET lease_until = max(lease_until, :boot + :lease)
WHERE id = :run AND attempt_id = :attempt AND state = 'running'
RETURNING event_seq, working + max(0.0, :boot - mark), wake_seq, cancel

-- name: next_kind
SELECT min(kind) FROM run WHERE state IN ('ready', 'cancelling') AND kind > ?

-- name: due
SELECT coalesce(next_at, 0.0), seq FROM run
WHERE state IN ('ready', 'cancelling') AND kind = :kind AND coalesce(next_at, 0.0) <= :wall AND format <= :format
ORDER BY coalesce(next_at, 0.0), seq LIMIT :limit

-- name: need_of_kind
SELECT tool, version, given_to FROM run WHERE state IN ('ready', 'cancelling') AND kind = ? LIMIT 1

-- name: need_of_run
SELECT tool, version, given_to FROM run WHERE seq = ?

-- name: lease_over
SELECT seq, kind FROM run WHERE state = 'running' AND lease_until < :boot AND format <= :format ORDER BY lease_until

-- name: running_of
SELECT seq, kind FROM run WHERE state = 'running' AND owner = :owner AND format <= :format ORDER BY lease_until

-- name: open_questions
SELECT id, expires_at FROM question WHERE run = ? AND state = 'open' ORDER BY id

-- name: question_fate
SELECT state, expires_at, reply, by FROM question WHERE run = ? AND id = ?

-- name: answer_question
UPDATE question SET state = 'answered', reply = ?, by = ?, via = ?, answered_at = ? WHERE run = ? AND id = ?

-- name: close_question
UPDATE question SET state = ?, answered_at = ? WHERE run = ? AND id = ?

-- name: expired_questions
SELECT run, id FROM question
WHERE state = 'open' AND expires_at IS NOT NULL AND expires_at <= :wall ORDER BY expires_at LIMIT :limit

-- name: timers_due
SELECT seq FROM run WHERE next_at IS NOT NULL AND next_at <= :wall AND state IN ('waiting', 'parked')
ORDER BY next_at LIMIT :limit

-- name: next_timer
SELECT min(
    coalesce((SELECT min(next_at) FROM run WHERE next_at IS NOT NULL AND next_at > :wall), 1e300),
    coalesce((SELECT min(expires_at) FROM question WHERE state = 'open' AND expires_at IS NOT NULL), 1e300)
)

-- name: outdated_runs
SELECT seq FROM run WHERE (outcome IS NOT NULL OR delivery IS NOT NULL) AND updated_at < :before
ORDER BY updated_at LIMIT :limit

-- name: delete_run
DELETE FROM run WHERE seq = ?

-- name: delete_entries
DELETE FROM entry WHERE run = ?

-- name: delete_questions
DELETE FROM question WHERE run = ?

-- name: delete_events
DELETE FROM event WHERE run = ?

-- name: delete_streams
DELETE FROM stream WHERE run = ?

-- name: question_columns
run.id, q.id, q.method, q.params, q.digest, q.key, q.occurrence, q.state, q.stage, q.asked_at, q.expires_at, q.reply,
q.by, q.via, q.answered_at

-- name: questions
SELECT {{question_columns}} FROM question q JOIN run ON run.seq = q.run WHERE q.run = ? ORDER BY q.id

-- name: entries
SELECT n, kind, name, digest, key, occurrence, CASE WHEN size <= :inline THEN value END, size, at, epoch
FROM entry WHERE run = :run ORDER BY n

-- name: same_entries
SELECT count(*) FROM entry WHERE run = ? AND n = ? AND kind = ? AND name = ? AND digest = ? AND key = ?
    AND occurrence = ? AND epoch = ?

-- name: value
SELECT value FROM entry WHERE run = (SELECT seq FROM run WHERE id = ?) AND n = ?

-- name: events
SELECT e.n, e.kind, coalesce(e.body, run.outcome), e.at FROM event e JOIN run ON run.seq = e.run
WHERE run.id = :run AND e.n > :after ORDER BY e.n LIMIT :limit

-- name: find
SELECT {{run_columns}} FROM run
WHERE (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
    AND (:tool IS NULL OR tool = :tool)
    AND (:principal IS NULL OR principal = :principal)
    AND (:older_than IS NULL OR seq < (SELECT seq FROM run WHERE id = :older_than))
ORDER BY seq DESC LIMIT :limit

-- name: settle_earlier_boots
-- Leases of an earlier boot are over; the work done under them is kept.
UPDATE run SET working = working + max(0.0, lease_until - mark), mark = :boot, lease_until = -1.0, lease_boot = :boot_id
WHERE state = 'running' AND lease_boot <> :boot_id

-- name: end_leases
UPDATE run SET lease_until = min(lease_until, :boot - 0.001) WHERE state = 'running' AND owner = :owner
