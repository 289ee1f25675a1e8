-- Occurrences that keep their number, each with attempts of its own. The rows of sched_job_old are copied by
-- sched_sql._shared.upgrade, in the same transaction, and the table is dropped then.

DROP INDEX sched_job_due;
DROP INDEX sched_job_expires;
ALTER TABLE sched_job RENAME TO sched_job_old;

-- One row per id holds everything that is fenced: what comes next, and what is held.
CREATE TABLE sched_job (
    id TEXT NOT NULL UNIQUE,
    revision INTEGER NOT NULL,
    removed INTEGER NOT NULL DEFAULT 0,   -- a tombstone: invisible, it carries a hold to its end

    -- The header: who cannot read this format or this kind of schedule leaves the row alone.
    format INTEGER NOT NULL,
    tag TEXT NOT NULL,

    -- The definition, as sched_core.codec writes it. Empty: the default policy, no metadata.
    schedule TEXT NOT NULL,
    policy TEXT NOT NULL DEFAULT '',
    metadata TEXT NOT NULL DEFAULT '',
    name TEXT,
    group_name TEXT,
    uid TEXT NOT NULL,
    declared INTEGER NOT NULL,
    anchor INTEGER NOT NULL,

    -- The schedule's occurrence that is next, or under way; number is NULL where there is none.
    number INTEGER,
    next_run INTEGER,                     -- its nominal moment
    due_at INTEGER,                       -- of the row: the one moment that a claim compares
    scheduled_due INTEGER,                -- of the occurrence; NULL: due_at
    attempts INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    lost INTEGER NOT NULL DEFAULT 0,
    snoozes INTEGER NOT NULL DEFAULT 0,
    began_at INTEGER,
    derived_from TEXT,                    -- what its moment was derived from besides the schedule

    -- What else the standing of every job has.
    last_number INTEGER,                  -- NULL: number
    failing INTEGER NOT NULL DEFAULT 0,
    last_scheduled_at INTEGER,
    last_finished_at INTEGER,
    last_status TEXT,
    expires_at INTEGER,

    -- What few have.
    paused_at INTEGER,                    -- NULL: not paused
    paused_until INTEGER,
    pause_reason TEXT,
    pause_number INTEGER,                 -- requests up to it are held back
    requests TEXT,                        -- JSON; NULL for none
    marks TEXT,                           -- JSON of gaps, spare, skip, cancels, and of scheduled what has no column

    -- The hold. Claimed is: lease_until is not NULL. A settle keeps token and worker; what else frees
    -- a claim clears the worker.
    token INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    claimed_at INTEGER,
    renewed_at INTEGER,                   -- NULL: claimed_at
    lease_until INTEGER,
    alone_at INTEGER,                     -- since when its worker has run nothing else beside it
    held TEXT,                            -- JSON of what is held, once an edit has changed the row; NULL: what is due first

    -- The newest settled claim before the one of token and worker: by it a repeat is known.
    ended_token INTEGER,
    ended_worker TEXT,
    doubt INTEGER,                        -- the newest number with executions that the standing does not tell of

    -- Not in use yet.
    queue TEXT NOT NULL DEFAULT 'default',
    task TEXT,
    args TEXT,                            -- JSON
    actor TEXT,                           -- who wrote the definition
    moved TEXT                            -- to which store
);

-- A claim leaves the row where it is in the first; what is held is passed over there, and is little.
CREATE INDEX sched_job_due ON sched_job (queue, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX sched_job_held ON sched_job (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX sched_job_expires ON sched_job (expires_at) WHERE expires_at IS NOT NULL;

-- One row per attempt, or per occurrence that ended without one (attempt 0). A run appends here and touches no
-- index: that would cost a page per index and row. Rows are indexed in bulk; all whose seq is not above the value
-- of 'indexed' in sched_meta are.
CREATE TABLE sched_execution (
    seq INTEGER PRIMARY KEY,              -- the order of writing, which is that of commits; from the serial
    indexed INTEGER NOT NULL,
    job_id TEXT NOT NULL,
    uid TEXT NOT NULL,
    number INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    kind TEXT NOT NULL,
    scheduled_at INTEGER NOT NULL,
    status TEXT NOT NULL,
    final INTEGER NOT NULL,
    token INTEGER NOT NULL,
    worker TEXT NOT NULL,
    claimed_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER NOT NULL,
    reason TEXT,
    coalesced INTEGER NOT NULL DEFAULT 0,
    coalesced_until INTEGER,
    snoozes INTEGER NOT NULL DEFAULT 0,
    expires_at INTEGER,

    -- Not in use yet.
    queue TEXT,
    actor TEXT,
    result TEXT,
    traceback TEXT,
    log TEXT,
    progress TEXT
);

INSERT INTO sched_execution (seq, indexed, job_id, uid, number, attempt, kind, scheduled_at, status, final, token, worker,
    claimed_at, started_at, finished_at, reason, coalesced, coalesced_until, expires_at)
SELECT seq, indexed, job_id, uid, number, attempt,
    CASE manual WHEN 0 THEN 'scheduled' WHEN 1 THEN 'triggered' ELSE manual END, scheduled_at, status, final, token,
    worker, claimed_at, started_at, finished_at, reason, folded, folded_until, expires_at
FROM sched_ledger ORDER BY seq;

DROP TABLE sched_ledger;

CREATE INDEX sched_execution_occurrence ON sched_execution (uid, number) WHERE indexed = 1;
CREATE INDEX sched_execution_job ON sched_execution (job_id) WHERE indexed = 1;
CREATE INDEX sched_execution_expires ON sched_execution (expires_at)
    WHERE indexed = 1 AND expires_at IS NOT NULL;

-- Not in use yet: who works on this store.
CREATE TABLE sched_worker (
    worker TEXT PRIMARY KEY,
    started_at INTEGER,
    seen_at INTEGER,
    details TEXT                          -- JSON
) WITHOUT ROWID;
