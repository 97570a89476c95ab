-- The verbs of the seam, one function each: one round trip, one transaction.

-- --- the life of an attempt -----------------------------------------------------------------------

-- Returns one row: what = 'made' (at: when), 'again' (run, stream: what there is), or 'rivals' (as JSON).
CREATE FUNCTION verbs.create(
    p_now double precision, p_format integer, p_here text[], p_gone_after double precision,
    p_redeliver double precision, p_known text[],
    p_run text[], p_version integer, p_salt bytea,
    p_stream text[], p_attached boolean, p_opened_at double precision,
    p_owner text, p_attempt text, p_lease double precision, p_full boolean,
    OUT what text, OUT run text, OUT stream text, OUT at double precision, OUT rivals jsonb
) LANGUAGE plpgsql AS $$
DECLARE
    -- p_run: id, tool, lane, call, call_key, scope, release, rival, given_to, kind, principal, call_id
    -- p_stream: id, request_id, session, progress_token, owner, replica
    other milepost.run;
BEGIN
    -- Two equal calls at once: the second waits here for the first, and then sees it. Before anything is looked at: the
    -- first may be this very call, whose outcome was not told, and which is no rival of itself. By its call id first, for
    -- with that it may come on two sessions, whose calls are not equal by scope.
    IF p_run[12] IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('{{tables}} call id ' || p_run[12], 0));
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('{{tables}} call ' || p_run[6] || ' ' || p_run[5], 0));
    SELECT r.id INTO run FROM milepost.run r WHERE r.id = p_run[1];
    IF FOUND THEN
        what := 'again';
        stream := (verbs.open_stream(p_now, p_stream, p_run[1], p_attached, p_opened_at)).id;
        RETURN;
    END IF;
    IF p_stream[3] IS NOT NULL THEN
        SELECT s.run, s.id INTO run, stream FROM milepost.stream s WHERE s.session = p_stream[3] AND s.request_id = p_stream[2];
        IF FOUND THEN
            what := 'again';
            RETURN;
        END IF;
    END IF;
    at := verbs.clock(p_now);
    IF p_run[12] IS NOT NULL THEN
        -- However it stands with that run and its result, and known or not: a call id never has a second one.
        SELECT jsonb_agg(verbs.rival(f, at, p_here, p_gone_after)) INTO rivals
        FROM milepost.run f WHERE f.call_id = p_run[12];
    END IF;
    IF rivals IS NULL THEN
        SELECT jsonb_agg(verbs.rival(f, at, p_here, p_gone_after) ORDER BY f.created_at, f.id) INTO rivals
        FROM milepost.run f
        WHERE f.call_key = p_run[5] AND f.scope = p_run[6] AND f.merged_into IS NULL
            AND (f.delivery IS NULL OR f.delivery <> 'confirmed')
            AND (f.delivery IS NULL OR f.delivery <> 'sent' OR f.sent_at >= at - p_redeliver)
            AND f.id <> ALL (p_known);
    END IF;
    IF rivals IS NOT NULL OR p_full THEN
        what := 'rivals';
        RETURN;
    END IF;
    INSERT INTO milepost.stream (id, run, request_id, session, progress_token, owner, replica, attached, opened_at)
    VALUES (
        p_stream[1], p_run[1], p_stream[2], p_stream[3], p_stream[4], p_stream[5], p_stream[6], p_attached,
        coalesce(p_opened_at, at)
    );
    INSERT INTO milepost.run (
        id, tool, version, lane, state, call, call_key, scope, salt, release, created_at, updated_at, rival, given_to,
        call_id, kind, principal, format, epoch, attempt_id, owner, lease_until, mark
    ) VALUES (
        p_run[1], p_run[2], p_version, p_run[3], CASE WHEN p_owner IS NULL THEN 'ready' ELSE 'running' END, p_run[4],
        p_run[5], p_run[6], p_salt, p_run[7], at, at, p_run[8], p_run[9], p_run[12], p_run[10], p_run[11],
        1,
        CASE WHEN p_owner IS NULL THEN 0 ELSE 1 END, p_attempt, p_owner, coalesce(at + p_lease, 0), coalesce(at, 0)
    );
    what := 'made';
END $$;

-- Claims: (run, takeover) for each. `p_attempts`: a random fence for each run that may be claimed.
CREATE FUNCTION verbs.claim(
    p_now double precision, p_format integer, p_owner text, p_lease double precision, p_kinds text[],
    p_attempts text[], p_takeovers integer, p_gone_after double precision,
    p_suspect_after integer, p_stuck_after integer, p_suspect_pause double precision
) RETURNS TABLE (claimed milepost.run, takeover boolean) LANGUAGE plpgsql AS $$
DECLARE
    now_ double precision := verbs.clock(p_now);
    used integer := 0;
    room integer := cardinality(p_attempts);
    gone text[];
    due text[];
    r milepost.run;
BEGIN
    -- The same claim again, whose outcome was not told. A run that has crashed counts as taken over: it may have been.
    FOR r IN
        SELECT * FROM milepost.run f
        WHERE f.state = 'running' AND f.owner = p_owner AND f.attempt_id = ANY (p_attempts)
        ORDER BY array_position(p_attempts, f.attempt_id)
    LOOP
        RETURN QUERY SELECT r, r.crashes > 0;
    END LOOP;
    IF FOUND THEN
        RETURN;
    END IF;
    IF p_takeovers > 0 THEN
        gone := ARRAY(SELECT f.id FROM milepost.replica f WHERE f.gone_at <= now_ - p_gone_after);
        FOR r IN
            SELECT * FROM milepost.run f
            WHERE f.state = 'running' AND f.kind = ANY (p_kinds) AND f.format <= p_format
                AND (f.lease_until < now_ OR f.owner = ANY (gone))
            ORDER BY f.lease_until LIMIT least(p_takeovers, room) FOR UPDATE SKIP LOCKED
        LOOP
            r.crashes := r.crashes + 1;
            IF r.crashes >= p_suspect_after AND r.crashes < p_stuck_after THEN
                -- A suspect is set aside for a while instead (HAZARDS C5).
                r := verbs.accounted(r, now_);
                r := verbs.moved(
                    r, CASE WHEN r.cancel IS NULL THEN 'release (drain)' ELSE 'release during clean-up' END,
                    now_, p_format
                );
                r.next_at := now_ + least(p_suspect_pause * 2 ^ (r.crashes - p_suspect_after), 60);
                PERFORM verbs.saved(r, now_);
            ELSE
                used := used + 1;
                r := verbs.started(r, p_owner, p_attempts[used], p_lease, now_, p_format);
                RETURN QUERY SELECT r, true;
            END IF;
        END LOOP;
    END IF;
    -- Locked where they are found, so that claimers at the same time find others. An array is made once, whatever the
    -- plan (HAZARDS B3: a sub-query with LIMIT and SKIP LOCKED may be run once per row).
    due := ARRAY(
        SELECT d.id FROM unnest(p_kinds) k (kind), LATERAL (
            SELECT f.id, coalesce(f.next_at, 0) AS at FROM milepost.run f
            WHERE f.state IN ('ready', 'cancelling') AND f.kind = k.kind AND coalesce(f.next_at, 0) <= now_
                AND f.format <= p_format
            ORDER BY coalesce(f.next_at, 0), f.id LIMIT room - used FOR UPDATE SKIP LOCKED
        ) d ORDER BY d.at, d.id LIMIT room - used
    );
    IF cardinality(due) > 0 THEN
        FOR r IN SELECT * FROM milepost.run f WHERE f.id = ANY (due) ORDER BY coalesce(f.next_at, 0), f.id LOOP
            used := used + 1;
            r := verbs.started(r, p_owner, p_attempts[used], p_lease, now_, p_format);
            RETURN QUERY SELECT r, false;
        END LOOP;
    END IF;
END $$;

-- The guard, the counters and the rows of an append. `p_first` is the number of its first entry.
-- Only a running run has an attempt id. `state = 'running'` is not asked for: the planner would take the small index of
-- running runs for it, and look at all of them.
CREATE FUNCTION verbs.append(
    p_now double precision, p_format integer, p_run text, p_attempt text, p_token text, p_lease double precision,
    p_first integer, p_entries jsonb, p_questions jsonb, p_events jsonb, p_stage text, p_progress double precision,
    p_progressed boolean,
    OUT event_seq integer, OUT working double precision, OUT wake_seq integer, OUT cancel text
) LANGUAGE plpgsql AS $$
DECLARE
    now_ double precision := verbs.clock(p_now);
    entries integer := coalesce(jsonb_array_length(p_entries), 0);
    events integer := coalesce(jsonb_array_length(p_events), 0);
    its_epoch integer;
    r milepost.run;
BEGIN
    UPDATE milepost.run u SET
        event_seq = u.event_seq + events,
        journal_seq = u.journal_seq + entries,
        lease_until = greatest(u.lease_until, now_ + p_lease),
        working = u.working + greatest(0, now_ - u.mark),
        mark = now_,
        crashes = CASE WHEN p_progressed THEN 0 ELSE u.crashes END,
        stage = CASE WHEN p_stage IS NULL THEN u.stage ELSE nullif(p_stage, '') END,
        progress = greatest(u.progress, p_progress),
        format = greatest(u.format, p_format),
        updated_at = now_,
        appended = p_token
    WHERE u.id = p_run AND u.attempt_id = p_attempt
        AND (entries = 0 OR u.journal_seq + 1 = p_first) AND u.appended IS DISTINCT FROM p_token
    RETURNING u.event_seq, u.working, u.wake_seq, u.cancel, u.epoch
    INTO append.event_seq, append.working, append.wake_seq, append.cancel, its_epoch;
    IF FOUND THEN
        PERFORM verbs.recorded(
            p_run, its_epoch, append.event_seq - events, p_entries, p_questions, p_events, now_, p_format
        );
        RETURN;
    END IF;
    -- Locked, so that this commit too waits for a standby where commits do: the one that is found may not have waited.
    SELECT * INTO r FROM milepost.run f WHERE f.id = p_run AND f.attempt_id = p_attempt FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM verbs.fenced(p_run);
    END IF;
    -- It is here already (its outcome was not told, or it is made again), or it does not follow the journal.
    IF r.appended IS DISTINCT FROM p_token AND EXISTS (
        SELECT 1 FROM jsonb_array_elements(p_entries) e
        WHERE NOT EXISTS (
            SELECT 1 FROM milepost.entry f
            WHERE f.run = p_run AND f.n = (e ->> 0)::integer AND f.kind = e ->> 1 AND f.name = e ->> 2
                AND f.digest = e ->> 3 AND f.key = e ->> 4 AND f.occurrence = (e ->> 5)::integer AND f.epoch = r.epoch
        )
    ) THEN
        RAISE EXCEPTION 'run %: its journal goes on with entry %, but entry % was given', p_run, r.journal_seq + 1, p_first
            USING ERRCODE = 'MP002';
    END IF;
    event_seq := r.event_seq;
    working := r.working + greatest(0, now_ - r.mark);
    wake_seq := r.wake_seq;
    cancel := r.cancel;
END $$;

-- End the attempt (`core.attempts.End`); returns the run as it now is. `p_cause`: where its kind alone decides.
CREATE FUNCTION verbs.settle(
    p_now double precision, p_format integer, p_here text[], p_gone_after double precision,
    p_run text, p_attempt text, p_kind text, p_cause text, p_seen integer, p_asked integer[],
    p_timer_in double precision, p_park boolean, p_park_for double precision, p_outcome text, p_merged_into text,
    p_reason text, p_first integer, p_entries jsonb, p_questions jsonb, p_events jsonb, p_stage text,
    p_progress double precision, p_progressed boolean
) RETURNS SETOF milepost.run LANGUAGE plpgsql AS $$
DECLARE
    r milepost.run;
    now_ double precision;
    q record;
    expiry double precision;
    taken_up boolean := false;
BEGIN
    SELECT * INTO r FROM milepost.run f WHERE f.id = p_run FOR UPDATE;
    IF NOT FOUND OR r.attempt_id IS DISTINCT FROM p_attempt OR r.state <> 'running' THEN
        IF r.settled = p_attempt THEN
            RETURN NEXT r;
            RETURN;
        END IF;
        PERFORM verbs.fenced(p_run);
    END IF;
    now_ := verbs.clock(p_now);
    r := verbs.accounted(r, now_);
    r.settled := p_attempt;
    IF p_entries IS NOT NULL AND p_first <> r.journal_seq + 1 THEN
        RAISE EXCEPTION 'run %: its journal goes on with entry %, but entry % was given', p_run, r.journal_seq + 1, p_first
            USING ERRCODE = 'MP002';
    END IF;
    PERFORM verbs.recorded(r.id, r.epoch, r.event_seq, p_entries, p_questions, p_events, now_, p_format);
    r.journal_seq := r.journal_seq + coalesce(jsonb_array_length(p_entries), 0);
    r.event_seq := r.event_seq + coalesce(jsonb_array_length(p_events), 0);
    r.progress := greatest(r.progress, p_progress);
    IF p_stage IS NOT NULL THEN
        r.stage := nullif(p_stage, '');
    END IF;
    IF p_entries IS NOT NULL OR p_events IS NOT NULL THEN
        r.format := greatest(r.format, p_format);
    END IF;
    IF p_progressed THEN
        r.crashes := 0;
    END IF;

    IF p_kind = 'give up' THEN
        r.reason := p_reason;
        r.next_at := NULL;
        r := verbs.moved(r, p_cause, now_, p_format);
    ELSIF p_kind = 'release' THEN
        r.next_at := NULL;
        r := verbs.moved(
            r, CASE WHEN r.cancel IS NULL THEN 'release (drain)' ELSE 'release during clean-up' END, now_, p_format
        );
    ELSE
        FOR q IN SELECT f.id, f.expires_at FROM milepost.question f WHERE f.run = r.id AND f.state = 'open' ORDER BY f.id
        LOOP
            IF p_kind = 'suspend' AND q.id = ANY (p_asked) THEN
                expiry := least(expiry, q.expires_at);
            ELSE
                r := verbs.closed(r, q.id, 'withdrawn', now_, p_format);
            END IF;
        END LOOP;
        r.crashes := 0;
        r.next_at := NULL;
        IF p_kind <> 'suspend' THEN
            r := verbs.finished(r, p_cause, p_outcome, p_merged_into, p_reason, now_, p_format);
        ELSIF r.cancel IS NOT NULL THEN
            r := verbs.moved(r, 'suspend, cancel asked', now_, p_format);
        ELSE
            IF r.wake_seq <= p_seen AND r.park_for IS NOT NULL THEN
                -- A park was asked for while it ran: is somebody back since? Nothing else would wake it.
                SELECT l.live OR l.doubtful INTO taken_up
                FROM verbs.liveness(r.id, now_, now_, p_here, p_gone_after) l;
                IF taken_up THEN
                    r.park_for := NULL;
                END IF;
            END IF;
            IF r.wake_seq > p_seen OR taken_up THEN
                r := verbs.moved(r, 'suspend, already answered', now_, p_format);
            ELSIF p_park OR r.park_for IS NOT NULL THEN
                r.next_at := now_ + coalesce(r.park_for, p_park_for);
                r.reason := coalesce(nullif(p_reason, ''), 'the client closed its request');
                r.park_for := NULL;
                r := verbs.moved(r, 'suspend, client closed its request', now_, p_format);
            ELSE
                r.next_at := least(expiry, now_ + p_timer_in);
                r := verbs.moved(r, 'suspend', now_, p_format);
            END IF;
        END IF;
    END IF;
    RETURN NEXT verbs.saved(r, now_);
END $$;

-- Store the outcome and say it last; a merged run says which one to go on with instead.
CREATE FUNCTION verbs.finished(
    r milepost.run, p_cause text, p_outcome text, p_merged_into text, p_reason text, p_at double precision,
    p_format integer
) RETURNS milepost.run LANGUAGE plpgsql AS $$
BEGIN
    r.park_for := NULL;
    r.reason := coalesce(nullif(p_reason, ''), r.reason);
    r.final_at := p_at;
    r.outcome := p_outcome;
    r.event_seq := r.event_seq + 1;
    IF p_merged_into IS NULL THEN
        r.delivery := 'unsent';
        PERFORM verbs.say(r.id, r.event_seq, 'result', NULL, p_at, p_format);
    ELSE
        IF p_merged_into = r.id THEN
            RAISE EXCEPTION 'run % can''t be merged into itself', r.id USING ERRCODE = 'MP003';
        END IF;
        r.merged_into := p_merged_into;
        r.delivery := 'confirmed';
        PERFORM verbs.say(r.id, r.event_seq, 'merged', json_build_object('into', p_merged_into)::text, p_at, p_format);
    END IF;
    RETURN verbs.moved(r, p_cause, p_at, p_format);
END $$;

-- One heartbeat: the replica's own, and the leases of all its attempts. Returns the attempts that still hold.
CREATE FUNCTION verbs.extend(
    p_now double precision, p_replica text, p_release text, p_accepts text, p_runs text[], p_attempts text[],
    p_lease double precision
) RETURNS TABLE (attempt_id text, event_seq integer, working double precision, wake_seq integer, cancel text)
LANGUAGE plpgsql AS $$
DECLARE
    now_ double precision := verbs.clock(p_now);
BEGIN
    INSERT INTO milepost.replica AS f (id, release, accepts, beat_at, beat_until)
    VALUES (p_replica, p_release, p_accepts, now_, now_ + p_lease)
    ON CONFLICT (id) DO UPDATE SET
        release = excluded.release, accepts = excluded.accepts, beat_at = excluded.beat_at,
        beat_until = greatest(f.beat_until, excluded.beat_until), gone_at = NULL;
    IF cardinality(p_runs) = 0 THEN
        RETURN;
    END IF;
    RETURN QUERY
        UPDATE milepost.run u SET lease_until = greatest(u.lease_until, now_ + p_lease)
        FROM unnest(p_runs, p_attempts) a (run, attempt)
        WHERE u.id = a.run AND u.attempt_id = a.attempt
        RETURNING u.attempt_id, u.event_seq, u.working + greatest(0, now_ - u.mark), u.wake_seq, u.cancel;
END $$;

-- --- from outside ---------------------------------------------------------------------------------

-- All replies in one transaction, with one wake. Returns a verdict for each.
CREATE FUNCTION verbs.answer(
    p_now double precision, p_format integer, p_run text, p_questions integer[], p_replies text[], p_digests text[],
    p_by text, p_by_owner text, p_via text
) RETURNS TABLE (question integer, verdict text) LANGUAGE plpgsql AS $$
DECLARE
    r milepost.run;
    q milepost.question;
    now_ double precision;
    accepted boolean := false;
BEGIN
    SELECT * INTO r FROM milepost.run f WHERE f.id = p_run FOR UPDATE;
    now_ := verbs.clock(p_now);
    FOR i IN 1 .. cardinality(p_questions) LOOP
        question := p_questions[i];
        SELECT * INTO q FROM milepost.question f WHERE f.run = p_run AND f.id = p_questions[i];
        IF r.id IS NULL OR NOT FOUND THEN
            verdict := 'unknown';
        ELSIF q.state = 'answered' AND q.by_owner = p_by_owner AND q.reply_digest = p_digests[i] THEN
            verdict := 'repeated';
        ELSIF q.state <> 'open' OR q.expires_at <= now_ OR r.state <> ALL ('{{answerable}}'::text[]) THEN
            verdict := 'closed';
        ELSE
            verdict := 'accepted';
            accepted := true;
            UPDATE milepost.question f SET
                state = 'answered', reply = p_replies[i], reply_digest = p_digests[i], by = p_by,
                by_owner = p_by_owner, via = p_via, answered_at = now_
            WHERE f.run = p_run AND f.id = q.id;
            r.event_seq := r.event_seq + 1;
            PERFORM verbs.say(
                r.id, r.event_seq, 'closed',
                json_build_object('question', q.id, 'state', 'answered', 'via', p_via)::text, now_, p_format
            );
        END IF;
        RETURN NEXT;
    END LOOP;
    IF accepted THEN
        r.wake_seq := r.wake_seq + 1;
        IF verbs.follow(r.state, 'answer') IS NOT NULL THEN
            r.next_at := NULL;
            r.reason := NULL;
            r := verbs.moved(r, 'answer', now_, p_format);
        END IF;
        PERFORM verbs.saved(r, now_);
    END IF;
END $$;

-- Do an action (`core.outside.ActionKind`); one that no longer fits changes nothing. Returns the run as it now is.
CREATE FUNCTION verbs.steer(
    p_now double precision, p_format integer, p_here text[], p_gone_after double precision, p_run text, p_kind text,
    p_reason text, p_accept_drift boolean, p_question integer, p_note text, p_park_for double precision
) RETURNS SETOF milepost.run LANGUAGE plpgsql AS $$
DECLARE
    r milepost.run;
    now_ double precision;
    is_live boolean;
    body text;
BEGIN
    SELECT * INTO r FROM milepost.run f WHERE f.id = p_run FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    now_ := verbs.clock(p_now);
    IF p_kind = 'cancel' AND r.state = 'running' AND r.cancel IS NULL THEN
        r.cancel := coalesce(nullif(p_reason, ''), 'client');
        r.wake_seq := r.wake_seq + 1;
        r := verbs.saved(r, now_);
    ELSIF p_kind = 'cancel' AND verbs.follow(r.state, 'cancel') IS NOT NULL THEN
        r.cancel := coalesce(r.cancel, nullif(p_reason, ''), 'client');
        r.next_at := NULL;
        r.wake_seq := r.wake_seq + 1;
        r := verbs.saved(verbs.moved(r, 'cancel', now_, p_format), now_);
    ELSIF p_kind = 'park' AND (r.state = 'running' OR verbs.follow(r.state, 'client closed its request') IS NOT NULL)
    THEN
        SELECT l.live INTO is_live FROM verbs.liveness(r.id, now_, now_, p_here, p_gone_after) l;
        IF NOT is_live AND r.state = 'running' THEN
            r.park_for := p_park_for;
            r := verbs.saved(r, now_);
        ELSIF NOT is_live THEN
            r.next_at := now_ + p_park_for;
            r.reason := coalesce(nullif(p_reason, ''), 'the client closed its request');
            r := verbs.saved(verbs.moved(r, 'client closed its request', now_, p_format), now_);
        END IF;
    ELSIF p_kind = 'attach' AND verbs.follow(r.state, 'attach') IS NOT NULL THEN
        r.park_for := NULL;
        r.next_at := NULL;
        r.reason := NULL;
        r := verbs.saved(verbs.moved(r, 'attach', now_, p_format), now_);
    ELSIF p_kind = 'attach' AND r.park_for IS NOT NULL THEN
        -- Its attempt is told to stop already: it goes on after that, and neither parks nor waits.
        r.park_for := NULL;
        r.wake_seq := r.wake_seq + 1;
        r := verbs.saved(r, now_);
    ELSIF p_kind = 'retry' AND verbs.follow(r.state, 'retry by an operator') IS NOT NULL THEN
        r.accept_drift := p_accept_drift;
        r.crashes := 0;
        r.next_at := NULL;
        r.reason := NULL;
        r := verbs.saved(verbs.moved(r, 'retry by an operator', now_, p_format), now_);
    ELSIF p_kind = 'reask' AND r.final_at IS NULL AND EXISTS (
        SELECT 1 FROM milepost.question f WHERE f.run = r.id AND f.id = p_question AND f.state = 'open'
    ) THEN
        body := json_strip_nulls(json_build_object('question', p_question, 'note', nullif(p_note, '')))::text;
        r.event_seq := r.event_seq + 1;
        PERFORM verbs.say(r.id, r.event_seq, 'question', body, now_, p_format);
        r := verbs.saved(r, now_);
    END IF;
    RETURN NEXT r;
END $$;

-- Fire due timers, delete what is outdated, bury replicas that are gone. What another replica works on is left to it.
CREATE FUNCTION verbs.sweep(
    p_now double precision, p_format integer, p_limit integer, p_gone_after double precision,
    p_keep_runs double precision, p_session_idle double precision, p_session_lifetime double precision,
    p_parked_too_long text,
    OUT runs text[], OUT more boolean, OUT next_in double precision, OUT needs jsonb
) LANGUAGE plpgsql AS $$
DECLARE
    now_ double precision := verbs.clock(p_now);
    q record;
    r milepost.run;
    fired text[] := '{}';
    old_runs text[];
    old_sessions text[];
BEGIN
    FOR q IN
        SELECT f.run, f.id FROM milepost.question f
        WHERE f.state = 'open' AND f.expires_at IS NOT NULL AND f.expires_at <= now_
        ORDER BY f.expires_at LIMIT p_limit
    LOOP
        SELECT * INTO r FROM milepost.run f WHERE f.id = q.run FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND OR NOT EXISTS (
            SELECT 1 FROM milepost.question f WHERE f.run = q.run AND f.id = q.id AND f.state = 'open'
        );
        r := verbs.closed(r, q.id, 'expired', now_, p_format);
        IF r.final_at IS NULL THEN
            r.wake_seq := r.wake_seq + 1;
        END IF;
        IF r.state = 'waiting' THEN
            r.next_at := NULL;
            r := verbs.moved(r, 'timer', now_, p_format);
        END IF;
        PERFORM verbs.saved(r, now_);
        fired := fired || r.id;
    END LOOP;
    FOR r IN
        SELECT * FROM milepost.run f
        WHERE f.next_at IS NOT NULL AND f.next_at <= now_ AND f.state IN ('waiting', 'parked')
        ORDER BY f.next_at LIMIT p_limit - cardinality(fired) FOR UPDATE SKIP LOCKED
    LOOP
        r.next_at := NULL;
        IF r.state = 'parked' THEN
            r.cancel := coalesce(r.cancel, p_parked_too_long);
        END IF;
        r.wake_seq := r.wake_seq + 1;
        PERFORM verbs.saved(verbs.moved(r, 'timer', now_, p_format), now_);
        fired := fired || r.id;
    END LOOP;

    old_runs := ARRAY(
        SELECT f.id FROM milepost.run f WHERE f.final_at IS NOT NULL AND f.final_at < now_ - p_keep_runs
        ORDER BY f.final_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    );
    IF cardinality(old_runs) > 0 THEN
        DELETE FROM milepost.entry f WHERE f.run = ANY (old_runs);
        DELETE FROM milepost.question f WHERE f.run = ANY (old_runs);
        DELETE FROM milepost.event f WHERE f.run = ANY (old_runs);
        DELETE FROM milepost.stream f WHERE f.run = ANY (old_runs);
        DELETE FROM milepost.run f WHERE f.id = ANY (old_runs);
    END IF;

    -- An ended session is kept for a while, so that a replica that remembers it can't bring it back by saving it.
    old_sessions := ARRAY(
        SELECT f.id FROM milepost.session f
        WHERE (f.ended AND f.seen_at < now_ - p_session_idle)
            OR (NOT f.ended AND f.created_at < now_ - p_session_lifetime)
            OR (NOT f.ended AND f.seen_at < now_ - p_session_idle AND NOT verbs.session_asks(f.id))
        LIMIT p_limit FOR UPDATE SKIP LOCKED
    );
    IF cardinality(old_sessions) > 0 THEN
        DELETE FROM milepost.session f WHERE f.id = ANY (old_sessions);
    END IF;

    UPDATE milepost.stream f SET replica = NULL, detached_at = coalesce(f.detached_at, p.beat_at)
    FROM milepost.replica p WHERE f.replica = p.id AND p.gone_at <= now_ - p_gone_after;
    DELETE FROM milepost.replica f
    WHERE f.gone_at <= now_ - p_gone_after
        AND NOT EXISTS (SELECT 1 FROM milepost.run o WHERE o.state = 'running' AND o.owner = f.id);

    runs := ARRAY(SELECT DISTINCT unnest(fired));
    more := p_limit IN (cardinality(fired), cardinality(old_runs), cardinality(old_sessions));
    next_in := least(
        (SELECT min(f.next_at) FROM milepost.run f WHERE f.next_at IS NOT NULL AND f.next_at > now_),
        (SELECT min(f.expires_at) FROM milepost.question f WHERE f.state = 'open' AND f.expires_at IS NOT NULL)
    ) - now_;
    IF next_in < 0 THEN
        next_in := 0;
    END IF;
    needs := verbs.needs(now_, p_gone_after);
END $$;

-- What the runs need that could be claimed now, each kind once: [[tool, version, given_to], ...]. One look-up a kind.
CREATE FUNCTION verbs.needs(p_at double precision, p_gone_after double precision) RETURNS jsonb LANGUAGE sql STABLE AS $$
    WITH RECURSIVE present (kind) AS (
        SELECT (SELECT min(f.kind) FROM milepost.run f WHERE f.state IN ('ready', 'cancelling'))
        UNION ALL
        SELECT (SELECT min(f.kind) FROM milepost.run f WHERE f.state IN ('ready', 'cancelling') AND f.kind > p.kind)
        FROM present p WHERE p.kind IS NOT NULL
    ), needed AS (
        SELECT one.tool, one.version, one.given_to FROM present p, LATERAL (
            SELECT f.tool, f.version, f.given_to FROM milepost.run f
            WHERE f.state IN ('ready', 'cancelling') AND f.kind = p.kind LIMIT 1
        ) one WHERE p.kind <> '{{hot}}'
        UNION
        SELECT f.tool, f.version, f.given_to FROM milepost.run f LEFT JOIN milepost.replica p ON p.id = f.owner
        WHERE f.state = 'running' AND f.kind <> '{{hot}}'
            AND (f.lease_until < p_at OR p.gone_at <= p_at - p_gone_after)
    )
    SELECT coalesce(jsonb_agg(jsonb_build_array(tool, version, given_to)), '[]') FROM needed
$$;

-- --- sessions and streams -------------------------------------------------------------------------

CREATE FUNCTION verbs.session_asks(p_session text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT 1 FROM milepost.stream s JOIN milepost.question q ON q.run = s.run
        WHERE s.session = p_session AND q.state = 'open'
    )
$$;

-- Insert or update; saving is a sign of life. False: new, and there are too many already.
CREATE FUNCTION verbs.save_session(
    p_now double precision, p_id text, p_version text, p_client_params text, p_owner text,
    p_created_at double precision, p_initialized boolean, p_log_level text, p_subscriptions text, p_ended boolean,
    p_cap integer, p_idle double precision
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    now_ double precision := verbs.clock(p_now);
BEGIN
    UPDATE milepost.session f SET
        version = p_version, client_params = p_client_params, owner = p_owner, seen_at = now_,
        initialized = p_initialized, log_level = p_log_level, subscriptions = p_subscriptions, ended = p_ended
    WHERE f.id = p_id AND NOT f.ended;
    IF FOUND OR EXISTS (SELECT 1 FROM milepost.session f WHERE f.id = p_id) THEN
        RETURN true;
    END IF;
    IF (SELECT count(*) FROM (
        SELECT 1 FROM milepost.session f WHERE NOT f.ended AND f.seen_at >= now_ - p_idle LIMIT p_cap
    ) open) >= p_cap THEN
        RETURN false;
    END IF;
    INSERT INTO milepost.session (
        id, version, client_params, owner, created_at, seen_at, initialized, log_level, subscriptions, ended
    ) VALUES (
        p_id, p_version, p_client_params, p_owner, coalesce(p_created_at, now_), now_, p_initialized, p_log_level,
        p_subscriptions, p_ended
    ) ON CONFLICT (id) DO NOTHING;
    RETURN true;
END $$;

-- p_stream: id, request_id, session, progress_token, owner, replica.
CREATE FUNCTION verbs.open_stream(
    p_now double precision, p_stream text[], p_run text, p_attached boolean, p_opened_at double precision
) RETURNS milepost.stream LANGUAGE plpgsql AS $$
DECLARE
    s milepost.stream;
BEGIN
    UPDATE milepost.stream f SET replica = p_stream[6], detached_at = NULL WHERE f.id = p_stream[1] RETURNING * INTO s;
    IF FOUND THEN
        RETURN s;
    END IF;
    IF NOT EXISTS (SELECT 1 FROM milepost.run f WHERE f.id = p_run) THEN
        RAISE EXCEPTION 'there is no run %', p_run USING ERRCODE = 'MP004';
    END IF;
    INSERT INTO milepost.stream (id, run, request_id, session, progress_token, owner, replica, attached, opened_at)
    VALUES (
        p_stream[1], p_run, p_stream[2], p_stream[3], p_stream[4], p_stream[5], p_stream[6], p_attached,
        coalesce(p_opened_at, verbs.clock(p_now))
    ) ON CONFLICT DO NOTHING RETURNING * INTO s;
    IF NOT FOUND THEN
        SELECT * INTO s FROM milepost.stream f WHERE f.session = p_stream[3] AND f.request_id = p_stream[2];
    END IF;
    RETURN s;
END $$;

-- Its connection is gone. Delivery only ever rises: unsent, sent, confirmed.
CREATE FUNCTION verbs.close_stream(p_now double precision, p_id text, p_delivery text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    now_ double precision := verbs.clock(p_now);
    of_run text;
BEGIN
    UPDATE milepost.stream f SET replica = NULL, detached_at = coalesce(f.detached_at, now_) WHERE f.id = p_id
    RETURNING f.run INTO of_run;
    IF of_run IS NOT NULL AND p_delivery IN ('sent', 'confirmed') THEN
        UPDATE milepost.run f SET delivery = p_delivery, sent_at = coalesce(f.sent_at, now_)
        WHERE f.id = of_run AND (f.delivery = 'unsent' OR (f.delivery = 'sent' AND p_delivery = 'confirmed'));
    END IF;
END $$;

-- --- replicas -------------------------------------------------------------------------------------

-- Whoever has the lock anew knows that an earlier process of this name is dead: its runs and streams are free.
CREATE FUNCTION verbs.free_replica(p_now double precision, p_replica text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    now_ double precision := verbs.clock(p_now);
BEGIN
    UPDATE milepost.stream f SET replica = NULL, detached_at = coalesce(f.detached_at, now_) WHERE f.replica = p_replica;
    UPDATE milepost.run f SET lease_until = least(f.lease_until, now_ - 0.001)
    WHERE f.state = 'running' AND f.owner = p_replica;
END $$;

-- Look whose lock is free, and since when. Returns whether runs can be taken over from one that is surely gone.
CREATE FUNCTION verbs.look_around(p_now double precision, p_here text[], p_judges boolean, p_gone_after double precision)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    now_ double precision := verbs.clock(p_now);
    p record;
BEGIN
    FOR p IN SELECT f.id, f.gone_at, verbs.is_held(f.id) AS held FROM milepost.replica f WHERE f.id <> ALL (p_here) LOOP
        IF p.held AND p.gone_at IS NOT NULL THEN
            UPDATE milepost.replica f SET gone_at = NULL WHERE f.id = p.id;
        ELSIF NOT p.held AND p.gone_at IS NULL AND p_judges THEN
            UPDATE milepost.replica f SET gone_at = now_ WHERE f.id = p.id AND f.gone_at IS NULL;
        END IF;
    END LOOP;
    RETURN EXISTS (
        SELECT 1 FROM milepost.replica f
        WHERE f.gone_at <= now_ - p_gone_after
            AND EXISTS (SELECT 1 FROM milepost.run o WHERE o.state = 'running' AND o.owner = f.id)
    );
END $$;
