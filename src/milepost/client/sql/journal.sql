-- name: save_call
-- A call that has ended stays ended, and only its owner writes.
INSERT INTO call (call_id, server, owner, ending, begun, changed, body)
VALUES (:call_id, :server, :owner, :ending, :begun, :changed, :body)
ON CONFLICT (call_id) DO UPDATE SET ending = excluded.ending, changed = excluded.changed, body = excluded.body
WHERE call.ending = 'open' AND call.owner = excluded.owner

-- name: open_calls
SELECT call_id, server, owner, begun, body FROM call
WHERE ending = 'open' AND (:server IS NULL OR server = :server)
ORDER BY begun, call_id

-- name: take_call
UPDATE call SET owner = :owner, changed = :changed WHERE call_id = :call_id AND owner = :from AND ending = 'open'

-- name: forget_calls
DELETE FROM call WHERE ending <> 'open' AND changed < :before

-- name: forget_sessions
-- A call that is open may need its session, however old it is.
DELETE FROM session WHERE changed < :before AND id NOT IN (
    SELECT coalesce(json_extract(body, '$.session_id'), '') FROM call WHERE ending = 'open' AND json_valid(body)
)

-- name: forget_eras
DELETE FROM era WHERE until < :before

-- name: save_session
INSERT INTO session (server, id, changed, body) VALUES (:server, :id, :changed, :body)
ON CONFLICT (server, id) DO UPDATE SET changed = excluded.changed, body = excluded.body

-- name: session
SELECT body FROM session WHERE server = :server AND id = :id

-- name: drop_session
DELETE FROM session WHERE server = :server AND id = :id

-- name: save_era
INSERT INTO era (server, era, until) VALUES (:server, :era, :until)
ON CONFLICT (server) DO UPDATE SET era = excluded.era, until = excluded.until

-- name: era
SELECT era, until FROM era WHERE server = :server AND until > :now
