-- From an older version to 3, after its schema was made: what was set aside is taken over.

SET LOCAL jit = off;

-- What may be done to the older tables may be done to the new ones.
DO $grants$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT new.name, privilege_type AS privilege, is_grantable, grantee
        FROM (VALUES
            ('@literal@.job_before_3', '@literal@.job'),
            ('@literal@.job_before_3', '@literal@.renewal'),
            ('@literal@.job_before_3', '@literal@.worker'),
            ('@literal@.ledger', '@literal@.execution'),
            ('@literal@.jobs_before_3', '@literal@.jobs'),
            ('@literal@.executions_before_3', '@literal@.executions')) AS new(before, name)
        JOIN pg_class c ON c.oid = new.before::regclass, aclexplode(c.relacl) acl
        WHERE grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON %s TO %s%s', one.privilege, one.name,
            CASE one.grantee WHEN 0 THEN 'PUBLIC' ELSE one.grantee::regrole::text END,
            CASE WHEN one.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END
$grants$;

-- Only for this migration: a moment as sched_core.codec writes it.
CREATE FUNCTION @schema@.iso(micros bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT to_char(timestamp '1970-01-01' + micros * interval '1 microsecond', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') $$;

-- One number served a scheduled and a manual occurrence: whichever was next had it, the other one the next.
-- Claims that were lost were counted apart from attempts. What makes no sense is kept as it is, in its older
-- format: it is listed as what cannot be read. Each step is computed once.
WITH before AS MATERIALIZED (
    SELECT j.*, greatest(j.lease_until, r.lease_until) AS leased_until
    FROM @schema@.job_before_3 j LEFT JOIN @schema@.renewal_before_3 r
        ON r.token = j.token AND r.worker = j.worker AND NOT r.ended AND j.lease_until IS NOT NULL
), told AS MATERIALIZED (
    SELECT *,
        triggered_at IS NOT NULL AS asked,
        triggered_at IS NOT NULL AND (manual OR next_run IS NULL) AS asked_first,
        held_number IS NULL OR (held_uid = uid AND held_number = number
            AND held_manual = (triggered_at IS NOT NULL AND (manual OR next_run IS NULL))) AS held_is_next,
        -- Two occurrences may have had the number: what is held keeps it.
        CASE WHEN lease_until IS NOT NULL AND held_uid = uid AND held_number = number
            AND held_manual <> (triggered_at IS NOT NULL AND (manual OR next_run IS NULL)) THEN 1 ELSE 0 END AS shift,
        format = 1 AND state IN ('active', 'paused', 'finished')
            AND (state = 'paused' OR (next_run IS NULL AND triggered_at IS NULL) = (state = 'finished'))
            AND (state <> 'active' OR due_at IS NOT NULL)
            AND (last_status IS NULL OR last_status IN ('succeeded', 'failed', 'missed', 'skipped', 'superseded',
                'interrupted', 'abandoned'))
            AND (backlog IS NULL OR backlog ~ '^\[[0-9]{1,6}(, (null|-?[0-9]{1,18})){3}\]$')
            AND (lease_until IS NULL OR (worker IS NOT NULL AND claimed_at IS NOT NULL))
            AND NOT EXISTS (SELECT FROM unnest(ARRAY[number, attempts, failures, lost, token,
                coalesce(held_number, 0), coalesce(held_attempt, 0)]) count
                WHERE count NOT BETWEEN 0 AND 576460752303423488)
            AND NOT EXISTS (SELECT FROM unnest(ARRAY[anchor, next_run, due_at, triggered_at, skipped_run, paused_at,
                paused_until, last_scheduled_at, last_finished_at, expires_at, claimed_at, leased_until, held_at,
                lost_claimed_at]) moment WHERE moment NOT BETWEEN -62135596800000000 AND 253402300799999999
            ) AS makes_sense
    FROM before
), named AS MATERIALIZED (
    SELECT *,
        CASE WHEN next_run IS NULL OR NOT makes_sense THEN NULL WHEN asked_first THEN number + shift + 1
            ELSE number + shift END AS scheduled_number,
        CASE WHEN NOT asked OR NOT makes_sense THEN NULL WHEN asked_first THEN number + shift
            ELSE number + shift + 1 END AS asked_number,
        -- Triggered while a manual occurrence ran: its moment was moved, and one more was to run.
        asked_first AND lease_until IS NOT NULL AND held_number = number AND held_uid = uid AND held_manual
            AND held_at <> triggered_at AS asked_again,
        CASE WHEN NOT makes_sense THEN 0 WHEN lease_until IS NULL OR held_is_next THEN attempts + lost
            ELSE attempts END AS all_attempts,
        CASE WHEN lease_until IS NULL OR held_is_next THEN lost ELSE 0 END AS own_lost,
        state = 'paused' AS is_paused,
        CASE WHEN makes_sense AND next_run IS NOT NULL THEN (backlog::json ->> 1)::bigint END AS gap_end,
        CASE WHEN makes_sense AND next_run IS NOT NULL THEN coalesce((backlog::json ->> 3)::bigint, next_run)
            END AS gap_since
    FROM told
), timed AS MATERIALIZED (
    SELECT *,
        CASE WHEN next_run IS NULL THEN NULL WHEN asked_first OR is_paused THEN next_run ELSE due_at
            END AS scheduled_own,
        CASE WHEN NOT asked THEN NULL WHEN asked_first THEN coalesce(due_at, triggered_at) ELSE triggered_at
            END AS asked_own,
        CASE WHEN all_attempts > 0 THEN coalesce(
            (SELECT min(l.claimed_at) FROM @schema@.ledger l
                WHERE l.uid = named.uid AND l.number = named.number AND l.attempt > 0),
            lost_claimed_at, claimed_at, due_at, next_run, triggered_at) END AS first_began
    FROM named
), placed AS MATERIALIZED (
    SELECT *,
        CASE WHEN removed OR NOT makes_sense THEN NULL
            WHEN is_paused THEN least(asked_own, paused_until)
            ELSE least(scheduled_own, asked_own) END AS new_due,
        greatest(scheduled_number, asked_number, CASE WHEN asked_again THEN asked_number + 1
            + (next_run IS NOT NULL)::integer END, CASE WHEN makes_sense AND next_run IS NULL AND NOT asked
            THEN number - 1 END, 0) AS newest_number
    FROM timed
)
INSERT INTO @schema@.job (id, revision, removed, format, tag, schedule, policy, metadata, name, group_name, uid,
    declared, anchor, number, next_run, due_at, scheduled_due, attempts, failures, lost, began_at, last_number,
    last_scheduled_at, last_finished_at, last_status, expires_at, paused_at, paused_until, pause_reason,
    pause_number, requests, marks, token, worker, claimed_at, lease_until, held, ended_token, ended_worker)
SELECT id, revision, removed, CASE WHEN makes_sense THEN 2 ELSE format END, tag, schedule, policy, metadata, name,
    group_name, uid, declared, anchor,
    scheduled_number, next_run, CASE WHEN makes_sense THEN new_due ELSE due_at END,
    CASE WHEN scheduled_own <> new_due OR new_due IS NULL THEN scheduled_own END,
    CASE WHEN asked_first OR next_run IS NULL OR NOT makes_sense THEN 0 ELSE all_attempts END,
    CASE WHEN asked_first OR next_run IS NULL THEN 0 ELSE failures END,
    CASE WHEN asked_first OR next_run IS NULL THEN 0 ELSE own_lost END,
    CASE WHEN asked_first OR next_run IS NULL THEN NULL ELSE first_began END,
    CASE WHEN newest_number = scheduled_number THEN NULL ELSE newest_number END,
    last_scheduled_at, last_finished_at, last_status, expires_at,
    CASE WHEN is_paused THEN coalesce(paused_at, anchor) END,
    CASE WHEN is_paused THEN paused_until END,
    CASE WHEN is_paused THEN pause_reason END,
    -- A trigger ran inside a pause, whichever came first.
    CASE WHEN is_paused THEN greatest(least(asked_number - 1, newest_number), 0) END,
    CASE WHEN asked AND makes_sense THEN (
        SELECT json_agg(json_strip_nulls(one) ORDER BY place)::text FROM (
            SELECT 1 AS place, json_build_object(
                'number', asked_number,
                'scheduled_at', @schema@.iso(CASE WHEN asked_again THEN held_at ELSE triggered_at END),
                'due_at', @schema@.iso(CASE WHEN asked_again THEN held_at ELSE asked_own END), 'kind', 'triggered',
                'attempts', CASE WHEN asked_first THEN all_attempts ELSE 0 END,
                'failures', CASE WHEN asked_first THEN failures ELSE 0 END,
                'lost', CASE WHEN asked_first THEN own_lost ELSE 0 END,
                'began_at', @schema@.iso(CASE WHEN asked_first THEN first_began END),
                'origin', asked_number) AS one
            UNION ALL
            SELECT 2, json_build_object(
                'number', newest_number, 'scheduled_at', @schema@.iso(triggered_at),
                'due_at', @schema@.iso(triggered_at), 'kind', 'triggered', 'origin', newest_number)
            WHERE asked_again
        ) asked) END,
    CASE WHEN makes_sense AND (gap_since < gap_end OR skipped_run IS NOT NULL) THEN json_strip_nulls(json_build_object(
        'gaps', CASE WHEN gap_since < gap_end THEN json_build_array(json_build_object(
            'since', @schema@.iso(gap_since), 'end', @schema@.iso(gap_end))) END,
        'skip', @schema@.iso(skipped_run)))::text END,
    token, worker, claimed_at, leased_until,
    CASE WHEN lease_until IS NOT NULL AND makes_sense AND (removed OR held_number IS NOT NULL OR asked) THEN
        json_build_object(
            'job_id', id, 'uid', coalesce(held_uid, uid), 'token', token, 'worker', worker,
            'claimed_at', @schema@.iso(claimed_at), 'renewed_at', @schema@.iso(claimed_at),
            'expires_at', @schema@.iso(leased_until),
            'pending', json_strip_nulls(json_build_object(
                'number', coalesce(held_number, number),
                'scheduled_at', @schema@.iso(coalesce(held_at, CASE WHEN asked_first THEN triggered_at
                    ELSE next_run END, claimed_at)),
                'due_at', @schema@.iso(coalesce(held_at, CASE WHEN asked_first THEN triggered_at
                    ELSE next_run END, claimed_at)),
                'kind', CASE WHEN coalesce(held_manual, asked_first) THEN 'triggered' ELSE 'scheduled' END,
                'attempts', greatest(coalesce(held_attempt - 1, all_attempts), 0),
                'failures', CASE WHEN held_is_next THEN failures ELSE 0 END,
                'lost', lost,
                'began_at', @schema@.iso(CASE WHEN lost > 0 THEN lost_claimed_at WHEN held_is_next THEN first_began END),
                'origin', CASE WHEN coalesce(held_manual, asked_first) THEN coalesce(held_number, number) ELSE 0 END)),
            'keep', CASE
                WHEN held_number IS NOT NULL THEN held_keep::numeric / 1000000
                WHEN strpos(policy, '"keep_executions":null') > 0 THEN NULL
                ELSE coalesce(substring(policy FROM '"keep_executions":"?([0-9]+[.]?[0-9]*)')::numeric, 2592000) END
        )::text END,
    ended_token, ended_worker
FROM placed;

DROP FUNCTION @schema@.iso(bigint);

-- Which partition an execution belongs to, as partitions.py says it.
CREATE VIEW @schema@.ledger_before_3 AS
SELECT ledger.*, CASE
    WHEN width IS NULL THEN 9223372036854775807
    WHEN expires_at > 0 THEN ((expires_at - 1) / width + 1) * width ELSE expires_at / width * width END AS drop_at
FROM @schema@.ledger, LATERAL (SELECT CASE
    WHEN expires_at BETWEEN -62135596800000000 AND 253402300799999999
        AND finished_at BETWEEN -62135596800000000 AND 253402300799999999
    THEN 86400000000 << length(ltrim((greatest(expires_at - finished_at, 0) / 86400000000 / 16)::integer::bit(32)::text,
        '0')) END AS width) days;

SELECT @schema@.make_partitions(array_agg(DISTINCT drop_at)) FROM @schema@.ledger_before_3 HAVING count(*) > 0;

-- Indexes are made faster of all at once than row by row.
ALTER TABLE @schema@.execution DROP CONSTRAINT execution_occurrence;
DROP INDEX @schema@.execution_seq, @schema@.execution_job, @schema@.execution_expires;

INSERT INTO @schema@.execution (seq, job_id, uid, number, attempt, kind, scheduled_at, status, final, token, worker,
    claimed_at, started_at, finished_at, reason, coalesced, coalesced_until, expires_at, drop_at)
SELECT seq, job_id, uid, number, attempt, CASE WHEN manual THEN 'triggered' ELSE 'scheduled' END, scheduled_at,
    status, final, token, worker, claimed_at, started_at, finished_at, reason, folded, folded_until, expires_at, drop_at
FROM @schema@.ledger_before_3;

ALTER TABLE @schema@.execution ADD CONSTRAINT execution_occurrence PRIMARY KEY (uid, number, attempt, drop_at);
CREATE INDEX execution_seq ON @schema@.execution (seq);
CREATE INDEX execution_job ON @schema@.execution (job_id, seq);
CREATE INDEX execution_expires ON @schema@.execution (expires_at) WHERE expires_at IS NOT NULL;

DROP VIEW @schema@.ledger_before_3;
DROP VIEW @schema@.jobs_before_3, @schema@.executions_before_3;
DROP FUNCTION @schema@.moment_before_3(bigint);
DROP TABLE @schema@.job_before_3, @schema@.renewal_before_3, @schema@.ledger;
