-- Moments are whole microseconds since 1970 in UTC, so that they mean the same in every session's time
-- zone and to every version of this package; the views at the end show them as timestamps.

CREATE TABLE @schema@.meta (
    key text PRIMARY KEY,
    value bigint NOT NULL
);

-- schema: what was applied. oldest: the oldest version of this package's schema that can work with it.
INSERT INTO @schema@.meta (key, value) VALUES ('schema', 0), ('oldest', 1), ('checks', 0);

-- Revisions, tokens and the order of the ledger come from it, and it never restarts.
CREATE SEQUENCE @schema@.serial AS bigint;

-- One row per id holds everything that is fenced: what comes next, and what is held.
CREATE TABLE @schema@.job (
    id text COLLATE "C" PRIMARY KEY,
    revision bigint NOT NULL,
    removed boolean NOT NULL DEFAULT false,   -- a tombstone: invisible, it carries a hold to its end

    -- The header: who cannot read this format or this kind of schedule leaves the row alone.
    format integer NOT NULL DEFAULT 1,
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

    -- The standing. A claim looks at due_at only.
    state text NOT NULL,
    number bigint NOT NULL,
    next_run bigint,
    due_at bigint,
    triggered_at bigint,
    attempts bigint NOT NULL DEFAULT 0,
    failures bigint NOT NULL DEFAULT 0,
    skipped_run bigint,
    paused_until bigint,
    pause_reason text,
    last_scheduled_at bigint,
    last_finished_at bigint,
    last_status text,
    expires_at bigint,
    manual boolean NOT NULL DEFAULT false,
    paused_at bigint,
    backlog text,                             -- of a pause: [folded, until, folded from, folded until]

    -- The hold. Claimed is: lease_until is not null. A settle keeps token and worker, a release
    -- clears the worker.
    token bigint NOT NULL DEFAULT 0,
    worker text,
    claimed_at bigint,
    lease_until bigint,
    lost bigint NOT NULL DEFAULT 0,           -- claims of the occurrence lost in a row
    lost_worker text,
    lost_claimed_at bigint,

    -- What is held, copied when an edit changes the row under the claim; else it is the row's.
    held_uid text,
    held_number bigint,
    held_attempt bigint,
    held_at bigint,
    held_manual boolean,
    held_keep bigint,                         -- how long its ledger lines stay

    -- The newest settled claim that left no line: by it a repeat is known.
    ended_token bigint,
    ended_worker text,

    -- A final line for the pending occurrence, or for a later one, may be stored already.
    doubtful boolean NOT NULL DEFAULT false
) WITH (
    fillfactor = 70,                          -- so that claims and renewals stay on their page
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);

CREATE INDEX job_due ON @schema@.job (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX job_expires ON @schema@.job (expires_at) WHERE expires_at IS NOT NULL;

-- One line per attempt, or per fate of an occurrence that never ran (attempt 0). No foreign key: a line
-- outlives its job.
CREATE TABLE @schema@.ledger (
    seq bigint PRIMARY KEY,                   -- the order of writing
    job_id text COLLATE "C" NOT NULL,
    uid text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    attempt bigint NOT NULL,
    scheduled_at bigint NOT NULL,
    manual boolean NOT NULL,
    status text NOT NULL,
    final boolean NOT NULL,
    token bigint NOT NULL,
    worker text NOT NULL,
    claimed_at bigint NOT NULL,
    started_at bigint,
    finished_at bigint NOT NULL,
    reason text,
    folded bigint NOT NULL DEFAULT 0,
    folded_until bigint,
    expires_at bigint
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE UNIQUE INDEX ledger_occurrence ON @schema@.ledger (uid, number, attempt);
CREATE INDEX ledger_job ON @schema@.ledger (job_id, seq);
CREATE INDEX ledger_expires ON @schema@.ledger (expires_at) WHERE expires_at IS NOT NULL;

-- For people and dashboards; nothing in this package reads them.
CREATE FUNCTION @schema@.moment(micros bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$SELECT timestamptz '1970-01-01 00:00:00+00' + micros * interval '1 microsecond'$$;

CREATE VIEW @schema@.jobs AS
SELECT
    id, name, group_name AS "group", state, tag AS kind, schedule, policy, metadata,
    @schema@.moment(next_run) AS next_run,
    @schema@.moment(due_at) AS due_at,
    attempts, failures,
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
    seq, job_id, uid, number, attempt, status, final, manual, reason,
    @schema@.moment(scheduled_at) AS scheduled_at,
    @schema@.moment(claimed_at) AS claimed_at,
    @schema@.moment(started_at) AS started_at,
    @schema@.moment(finished_at) AS finished_at,
    folded, @schema@.moment(folded_until) AS folded_until,
    worker, token
FROM @schema@.ledger;
