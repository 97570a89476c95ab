-- What the verbs are made of. `verbs.` stands for the schema of this build's functions, `milepost.` for the tables'.
-- Each build of Milepost brings its own set of functions in a schema of its own (named by their digest), so that two
-- builds can work on one store at the same time, each by its own rules.
--
-- The rules (HAZARDS B3): a verb locks the run row first, and all it must see is in that row or read by a later
-- statement, which sees what was committed before the lock was had. `p_now` is NULL but in tests: the database's clock.

CREATE FUNCTION verbs.clock(p_now double precision) RETURNS double precision LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(p_now, extract(epoch FROM clock_timestamp())::double precision)
$$;

-- The state table of core/states.py, put in as JSON: {"ready: claim": "running", ...}.
CREATE FUNCTION verbs.follow(p_state text, p_cause text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT '{{transitions}}'::jsonb ->> (p_state || ': ' || p_cause)
$$;

CREATE FUNCTION verbs.fenced(p_run text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'run % is held by another attempt', p_run USING ERRCODE = 'MP001';
END $$;

CREATE FUNCTION verbs.say(
    p_run text, p_n integer, p_kind text, p_body text, p_at double precision, p_format integer
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO milepost.event (run, n, kind, body, at, format) VALUES (p_run, p_n, p_kind, p_body, p_at, p_format)
$$;

-- Follow the state table; watchers are told where that matters to people.
CREATE FUNCTION verbs.moved(
    r milepost.run, p_cause text, p_at double precision, p_format integer
) RETURNS milepost.run LANGUAGE plpgsql AS $$
DECLARE
    next_state text := verbs.follow(r.state, p_cause);
    told text;
BEGIN
    IF next_state IS NULL THEN
        RAISE EXCEPTION 'run % is %, where "%" leads nowhere', r.id, r.state, p_cause USING ERRCODE = 'MP003';
    END IF;
    r.state := next_state;
    IF next_state <> 'running' THEN
        r.attempt_id := NULL;
        r.owner := NULL;
    END IF;
    IF next_state = ANY ('{{shown}}'::text[]) THEN
        told := nullif(CASE WHEN next_state = 'cancelling' THEN r.cancel ELSE r.reason END, '');
        r.event_seq := r.event_seq + 1;
        PERFORM verbs.say(
            r.id, r.event_seq, 'state',
            json_strip_nulls(json_build_object('state', next_state, 'reason', told))::text, p_at, p_format
        );
    END IF;
    RETURN r;
END $$;

-- Close an open question without an answer.
CREATE FUNCTION verbs.closed(
    r milepost.run, p_question integer, p_state text, p_at double precision, p_format integer
) RETURNS milepost.run LANGUAGE plpgsql AS $$
BEGIN
    UPDATE milepost.question SET state = p_state, answered_at = p_at WHERE run = r.id AND id = p_question;
    r.event_seq := r.event_seq + 1;
    PERFORM verbs.say(
        r.id, r.event_seq, 'closed', json_build_object('question', p_question, 'state', p_state)::text, p_at, p_format
    );
    RETURN r;
END $$;

-- Add the work done since the last account; of an attempt that is gone, up to the end of its lease.
CREATE FUNCTION verbs.accounted(r milepost.run, p_at double precision) RETURNS milepost.run LANGUAGE plpgsql AS $$
BEGIN
    IF r.attempt_id IS NOT NULL THEN
        r.working := r.working + greatest(0, least(p_at, r.lease_until) - r.mark);
    END IF;
    r.mark := p_at;
    RETURN r;
END $$;

-- Write a run row that is locked and was changed.
CREATE FUNCTION verbs.saved(r milepost.run, p_at double precision) RETURNS milepost.run LANGUAGE plpgsql AS $$
BEGIN
    r.updated_at := p_at;
    UPDATE milepost.run SET
        state = r.state, updated_at = r.updated_at, epoch = r.epoch, attempt_id = r.attempt_id, owner = r.owner,
        crashes = r.crashes, wake_seq = r.wake_seq, event_seq = r.event_seq, journal_seq = r.journal_seq,
        working = r.working, stage = r.stage, progress = r.progress, next_at = r.next_at, reason = r.reason,
        cancel = r.cancel, accept_drift = r.accept_drift, merged_into = r.merged_into, outcome = r.outcome,
        delivery = r.delivery, format = r.format, lease_until = r.lease_until, mark = r.mark, park_for = r.park_for,
        final_at = r.final_at, settled = r.settled
    WHERE id = r.id;
    RETURN r;
END $$;

-- Put a run under a claimant's lease and a new fence.
CREATE FUNCTION verbs.started(
    r milepost.run, p_owner text, p_attempt text, p_lease double precision, p_at double precision, p_format integer
) RETURNS milepost.run LANGUAGE plpgsql AS $$
BEGIN
    r := verbs.moved(
        r, CASE WHEN r.state = 'cancelling' THEN 'claim for clean-up' ELSE 'claim' END, p_at, p_format
    );
    r := verbs.accounted(r, p_at);
    r.epoch := r.epoch + 1;
    r.attempt_id := p_attempt;
    r.owner := p_owner;
    r.next_at := NULL;
    r.lease_until := p_at + p_lease;
    RETURN verbs.saved(r, p_at);
END $$;

-- The rows of a batch: entries [n, kind, name, digest, key, occurrence, value, size],
-- questions [id, method, params, digest, key, occurrence, stage, expires_in], events [kind, body].
CREATE FUNCTION verbs.recorded(
    p_run text, p_epoch integer, p_event_seq integer, p_entries jsonb, p_questions jsonb, p_events jsonb,
    p_at double precision, p_format integer
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_entries IS NOT NULL THEN
        INSERT INTO milepost.entry (run, n, kind, name, digest, key, occurrence, value, size, at, epoch, format)
        SELECT p_run, (e ->> 0)::integer, e ->> 1, e ->> 2, e ->> 3, e ->> 4, (e ->> 5)::integer, e ->> 6,
            (e ->> 7)::integer, p_at, p_epoch, p_format
        FROM jsonb_array_elements(p_entries) e;
    END IF;
    IF p_questions IS NOT NULL THEN
        INSERT INTO milepost.question (
            run, id, method, params, digest, key, occurrence, stage, asked_at, expires_at
        )
        SELECT p_run, (q ->> 0)::integer, q ->> 1, q ->> 2, q ->> 3, q ->> 4, (q ->> 5)::integer, q ->> 6, p_at,
            p_at + (q ->> 7)::double precision
        FROM jsonb_array_elements(p_questions) q;
    END IF;
    IF p_events IS NOT NULL THEN
        INSERT INTO milepost.event (run, n, kind, body, at, format)
        SELECT p_run, p_event_seq + e.n::integer, e.event ->> 0, e.event ->> 1, p_at, p_format
        FROM jsonb_array_elements(p_events) WITH ORDINALITY e (event, n);
    END IF;
END $$;

-- The lock that a replica holds for as long as its connection lives, as a number.
CREATE FUNCTION verbs.lock_of(p_replica text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT hashtextextended('{{tables}} replica ' || p_replica, 0)
$$;

-- The server process that has it; NULL if it is free.
CREATE FUNCTION verbs.holder(p_replica text) RETURNS integer LANGUAGE sql VOLATILE AS $$
    SELECT pid FROM pg_catalog.pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
        AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
        AND classid = ((verbs.lock_of(p_replica) >> 32) & 4294967295)::oid
        AND objid = (verbs.lock_of(p_replica) & 4294967295)::oid
$$;

CREATE FUNCTION verbs.is_held(p_replica text) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT verbs.holder(p_replica) IS NOT NULL
$$;

-- How alive a run's connections are, by its streams; `p_since` counts where it never had one. A replica lives while
-- it holds its lock and beats; one that does only one of these is in doubt until it is known to be gone.
CREATE FUNCTION verbs.liveness(
    p_run text, p_since double precision, p_at double precision, p_here text[], p_gone_after double precision,
    OUT live boolean, OUT doubtful boolean, OUT orphaned_for double precision
) LANGUAGE plpgsql AS $$
DECLARE
    s record;
    last double precision := p_since;
BEGIN
    live := false;
    doubtful := false;
    FOR s IN
        SELECT stream.replica, stream.detached_at, p.id IS NOT NULL AS known, p.beat_at,
            p.beat_until >= p_at AS fresh, p.gone_at
        FROM milepost.stream LEFT JOIN milepost.replica p ON p.id = stream.replica
        WHERE stream.run = p_run
    LOOP
        IF s.replica IS NULL THEN
            last := greatest(last, s.detached_at);
        ELSIF s.replica = ANY (p_here) THEN
            live := true;
        ELSIF NOT s.known OR s.gone_at <= p_at - p_gone_after THEN
            last := greatest(last, s.beat_at);
        ELSIF s.fresh AND verbs.is_held(s.replica) THEN
            live := true;
        ELSE
            doubtful := true;
        END IF;
    END LOOP;
    orphaned_for := CASE WHEN live OR doubtful THEN 0 ELSE greatest(0, p_at - last) END;
END $$;

-- What a rival's caller is told of it: [run, live, doubtful, orphaned_for, sent_for].
CREATE FUNCTION verbs.rival(
    r milepost.run, p_at double precision, p_here text[], p_gone_after double precision
) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_array(r.id, l.live, l.doubtful, l.orphaned_for, greatest(0, coalesce(p_at - r.sent_at, 0)))
    FROM verbs.liveness(r.id, r.created_at, p_at, p_here, p_gone_after) l
$$;
