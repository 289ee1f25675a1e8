-- Moments are whole microseconds since 1970 in UTC, so that they mean the same in every session's time
-- zone and to every version of this package; the views at the end show them as timestamps.

CREATE TABLE IF NOT EXISTS @schema@.meta (
    key text PRIMARY KEY,
    value bigint NOT NULL
);

-- schema: what was applied. oldest: the oldest version of this package's schema that can work with it.
INSERT INTO @schema@.meta (key, value) VALUES ('schema', 0), ('oldest', 3), ('checks', 0)
ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE meta.key = 'oldest';

-- Revisions, tokens and the order of the history come from it, and it never restarts.
CREATE SEQUENCE IF NOT EXISTS @schema@.serial AS bigint;

-- One row per id holds everything that is fenced: what comes next, and what is held.
CREATE TABLE @schema@.job (
    id text COLLATE "C" PRIMARY KEY,
    revision bigint NOT NULL,
    removed boolean NOT NULL DEFAULT false,   -- a tombstone: invisible, it carries a hold to its end

    -- The header: who cannot read this format or this kind of schedule leaves the row alone.
    format integer NOT NULL DEFAULT 2,
    tag text NOT NULL,

    -- The definition, as sched_core.codec writes it. Empty: the default policy, no metadata.
    schedule text NOT NULL,
    policy text NOT NULL DEFAULT '',
    metadata text NOT NULL DEFAULT '',
    name text,
    group_name text,
    uid text NOT NULL,
    declared boolean NOT NULL,
    anchor bigint NOT NULL,

    -- The schedule's occurrence that is next or under way; number is NULL where there is none. Of what may
    -- run, the earliest is due at due_at, and a claim looks at nothing else.
    number bigint,
    next_run bigint,
    due_at bigint,
    scheduled_due bigint,                     -- NULL: due_at
    attempts bigint NOT NULL DEFAULT 0,
    failures bigint NOT NULL DEFAULT 0,
    lost bigint NOT NULL DEFAULT 0,
    snoozes bigint NOT NULL DEFAULT 0,
    began_at bigint,
    derived_from text,                        -- what its moment was derived from besides the schedule
    last_number bigint,                       -- NULL: number
    failing bigint NOT NULL DEFAULT 0,
    last_scheduled_at bigint,
    last_finished_at bigint,
    last_status text,
    expires_at bigint,

    -- What few jobs have: a pause, requests (triggers, reruns, backfills), gaps and marks.
    paused_at bigint,
    paused_until bigint,
    pause_reason text,
    pause_number bigint,
    requests text,
    marks text,

    -- The hold. Claimed is: lease_until is not null. A settle keeps token and worker; what else frees a
    -- claim clears the worker.
    token bigint NOT NULL DEFAULT 0,
    worker text,
    claimed_at bigint,
    renewed_at bigint,                        -- NULL: claimed_at
    lease_until bigint,
    alone_at bigint,                          -- since when its worker has run nothing beside it
    held text,                                -- what is held, where an edit has changed the row under the claim

    -- The newest settled claim before the present one: by it a repeat is known.
    ended_token bigint,
    ended_worker text,

    -- Nothing writes these yet.
    queue text NOT NULL DEFAULT 'default',
    task text,
    args text,
    actor text,
    moved text                                -- where the job is now, if it was moved to another store
) WITH (
    fillfactor = 70,                          -- so that claims and renewals stay on their page
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);

CREATE INDEX job_due ON @schema@.job (queue, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX job_expires ON @schema@.job (expires_at) WHERE expires_at IS NOT NULL;
-- Claims whose jobs were edited or removed under them: the end of their lease is looked for here, because
-- the job may be due later, or never. What a claim or a renewal changes is in no index.
CREATE INDEX job_held ON @schema@.job (id) WHERE held IS NOT NULL;

-- Renewals of claims whose rows were locked by others when their leases were to be extended. A lease lasts
-- until the later of the two moments. Who ends a claim whose lease has ended ends what stands here first: of
-- an owner that renews and a worker that does so at the same moment, the key lets only one win.
CREATE TABLE @schema@.renewal (
    token bigint NOT NULL,
    worker text NOT NULL,
    renewed_at bigint,                        -- NULL: it was not, and is not any more
    lease_until bigint NOT NULL,
    alone_at bigint,                          -- since when its worker has run nothing beside it
    ended boolean NOT NULL DEFAULT false,     -- no renewal any more
    PRIMARY KEY (token, worker)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- One row per attempt, or per outcome of an occurrence that never ran (attempt 0). No foreign key: the
-- history outlives its job.
--
-- A partition holds what has expired by one moment, drop_at: the end of the day of expires_at, or of 2, 4,
-- 8 … days for what is kept for 16 days or more, 32, 64 … So they can be dropped whole, and there are few.
CREATE TABLE @schema@.execution (
    seq bigint NOT NULL,                      -- the order of writing
    job_id text COLLATE "C" NOT NULL,
    uid text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    attempt bigint NOT NULL,
    kind text NOT NULL DEFAULT 'scheduled',
    scheduled_at bigint NOT NULL,
    status text NOT NULL,
    final boolean NOT NULL,
    token bigint NOT NULL,
    worker text NOT NULL,
    claimed_at bigint NOT NULL,
    started_at bigint,
    finished_at bigint NOT NULL,
    reason text,
    coalesced bigint NOT NULL DEFAULT 0,
    coalesced_until bigint,
    snoozes bigint NOT NULL DEFAULT 0,
    expires_at bigint,
    drop_at bigint NOT NULL,
    -- By it and seq the history is followed in the order of commit: what began before the oldest transaction
    -- that is still running is complete.
    xact xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),

    -- Nothing writes these yet.
    queue text,
    actor text,
    result text,
    traceback text,
    log text,
    progress text,
    CONSTRAINT execution_occurrence PRIMARY KEY (uid, number, attempt, drop_at)
) PARTITION BY LIST (drop_at);

CREATE INDEX execution_seq ON @schema@.execution (seq);
CREATE INDEX execution_job ON @schema@.execution (job_id, seq);
CREATE INDEX execution_expires ON @schema@.execution (expires_at) WHERE expires_at IS NOT NULL;

-- What is kept until prune is called.
CREATE TABLE @schema@.execution_never PARTITION OF @schema@.execution FOR VALUES IN (9223372036854775807)
    WITH (autovacuum_vacuum_scale_factor = 0.05);

-- Makes partitions, for whoever may write the history: that role needs to own nothing. It waits for no
-- transaction that reads or writes, and keeps none of them waiting.
CREATE FUNCTION @schema@.make_partitions(ends bigint[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, @schema@, pg_temp
    AS $make$
    DECLARE
        parent regclass := 'execution';
        home oid := (SELECT relnamespace FROM pg_class WHERE oid = parent);
        schema_name text := (SELECT nspname FROM pg_namespace WHERE oid = home);
        each bigint;
        called text;
    BEGIN
        -- One after the other: who comes second finds what the first one has made.
        PERFORM pg_advisory_xact_lock(hashtextextended(schema_name, 3));
        FOREACH each IN ARRAY ends LOOP
            called := 'execution_' || each / 86400000000;
            CONTINUE WHEN each % 86400000000 <> 0
                OR EXISTS (SELECT FROM pg_class WHERE relnamespace = home AND relname = called);
            EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING ALL) '
                'WITH (autovacuum_vacuum_scale_factor = 0.05)', schema_name, called, parent);
            EXECUTE format('ALTER TABLE %s ATTACH PARTITION %I.%I FOR VALUES IN (%s)',
                parent, schema_name, called, each);
        END LOOP;
    END
    $make$;

-- Drops partitions in which all has expired, for whoever may delete from the history; returns how many
-- executions were in them. One that is in use is left for the next time.
CREATE FUNCTION @schema@.drop_partitions(until bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, @schema@, pg_temp SET lock_timeout = '100ms'
    AS $drop$
    DECLARE
        parent regclass := 'execution';
        home oid := (SELECT relnamespace FROM pg_class WHERE oid = parent);
        schema_name text := (SELECT nspname FROM pg_namespace WHERE oid = home);
        each record;
        found bigint;
        dropped bigint := 0;
    BEGIN
        IF NOT has_table_privilege(session_user, parent, 'DELETE')
                OR NOT pg_try_advisory_xact_lock(hashtextextended(schema_name, 4)) THEN
            RETURN 0;
        END IF;
        FOR each IN SELECT c.relname AS called, c.oid AS id FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = parent AND c.relnamespace = home AND c.relname ~ '^execution_-?[0-9]+$'
                AND substr(c.relname, 11)::numeric * 86400000000 <= until
        LOOP
            BEGIN
                IF pg_relation_size(each.id) < 268435456 THEN
                    EXECUTE format('SELECT count(*) FROM %I.%I', schema_name, each.called) INTO found;
                ELSE  -- to count these takes too long
                    found := (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = each.id);
                END IF;
                EXECUTE format('DROP TABLE %I.%I', schema_name, each.called);
                dropped := dropped + found;
            EXCEPTION WHEN lock_not_available THEN NULL;
            END;
        END LOOP;
        RETURN dropped;
    END
    $drop$;

-- Nothing writes these yet.
CREATE TABLE @schema@.worker (
    worker text COLLATE "C" PRIMARY KEY,
    started_at bigint NOT NULL,
    seen_at bigint NOT NULL,
    details text NOT NULL DEFAULT ''
) WITH (fillfactor = 70);

-- For people and dashboards; nothing in this package reads them.
CREATE FUNCTION @schema@.moment(micros bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$SELECT pg_catalog.timestamptz '1970-01-01 00:00:00+00'
        OPERATOR(pg_catalog.+) (micros OPERATOR(pg_catalog.*) pg_catalog.interval '1 microsecond')$$;

CREATE VIEW @schema@.jobs AS
SELECT
    id, name, group_name AS "group",
    CASE WHEN paused_at IS NOT NULL THEN 'paused' WHEN number IS NULL AND requests IS NULL THEN 'finished'
        ELSE 'active' END AS state,
    tag AS kind, schedule, policy, metadata,
    @schema@.moment(next_run) AS next_run,
    @schema@.moment(due_at) AS due_at,
    attempts, failures, requests,
    @schema@.moment(paused_at) AS paused_at,
    @schema@.moment(paused_until) AS paused_until,
    pause_reason,
    @schema@.moment(last_scheduled_at) AS last_scheduled_at,
    @schema@.moment(last_finished_at) AS last_finished_at,
    last_status,
    CASE WHEN lease_until IS NOT NULL THEN worker END AS claimed_by,
    @schema@.moment(CASE WHEN lease_until IS NOT NULL THEN claimed_at END) AS claimed_at,
    @schema@.moment(lease_until) AS lease_until
FROM @schema@.job
WHERE NOT removed;

CREATE VIEW @schema@.executions AS
SELECT
    seq, job_id, uid, number, attempt, kind, status, final, reason,
    @schema@.moment(scheduled_at) AS scheduled_at,
    @schema@.moment(claimed_at) AS claimed_at,
    @schema@.moment(started_at) AS started_at,
    @schema@.moment(finished_at) AS finished_at,
    coalesced, @schema@.moment(coalesced_until) AS coalesced_until, snoozes,
    worker, token, @schema@.moment(expires_at) AS expires_at
FROM @schema@.execution;
