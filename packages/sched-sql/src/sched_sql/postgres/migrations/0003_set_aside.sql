-- From an older version to 3, before its schema is made: what is there is set aside.

-- Version 1 did not have it.
CREATE TABLE IF NOT EXISTS @schema@.renewal (
    token bigint NOT NULL,
    worker text NOT NULL,
    lease_until bigint NOT NULL,
    ended boolean NOT NULL DEFAULT false,
    PRIMARY KEY (token, worker)
);

-- Whatever was written after this would be lost: who writes is waited for, and who wants to waits.
LOCK TABLE @schema@.job, @schema@.ledger, @schema@.renewal IN ACCESS EXCLUSIVE MODE;

-- A worker of an older version could neither renew nor settle what it holds.
DO $check$
DECLARE
    at bigint := coalesce(nullif(current_setting('sched.now', true), '')::bigint,
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
    busy text := (
        SELECT string_agg(format('worker %s holds %s until %s', worker, jobs, ends), '; ' ORDER BY worker)
        FROM (
            SELECT j.worker, left(string_agg(format('%L', j.id), ', ' ORDER BY j.id), 200) AS jobs,
                to_timestamp(max(greatest(j.lease_until, r.lease_until)) / 1000000) AS ends
            FROM @schema@.job j
            LEFT JOIN @schema@.renewal r ON r.token = j.token AND r.worker = j.worker AND NOT r.ended
            WHERE j.lease_until IS NOT NULL AND greatest(j.lease_until, r.lease_until) > at
            GROUP BY j.worker ORDER BY j.worker LIMIT 10
        ) workers);
BEGIN
    IF busy IS NOT NULL THEN
        RAISE EXCEPTION '%', busy USING ERRCODE = 'object_in_use',
            HINT = 'Stop the workers of the older version. What they hold is free when they have stopped, '
                'or when its lease has ended.';
    END IF;
END
$check$;

ALTER VIEW @schema@.jobs RENAME TO jobs_before_3;
ALTER VIEW @schema@.executions RENAME TO executions_before_3;
ALTER FUNCTION @schema@.moment(bigint) RENAME TO moment_before_3;
ALTER TABLE @schema@.renewal RENAME TO renewal_before_3;
ALTER INDEX @schema@.renewal_pkey RENAME TO renewal_before_3_pkey;
ALTER TABLE @schema@.job RENAME TO job_before_3;
ALTER INDEX @schema@.job_pkey RENAME TO job_before_3_pkey;
DROP INDEX @schema@.job_due, @schema@.job_expires;
