-- Moments are whole microseconds since 1970 in UTC. Flags are 0 and 1.

CREATE TABLE sched_meta (
    key TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- serial: revisions and tokens come from it, and it never restarts.
INSERT INTO sched_meta (key, value) VALUES ('schema', 0), ('serial', 0), ('checks', 0), ('indexed', 0);

-- One row per id holds everything that is fenced: what comes next, and what is held.
CREATE TABLE sched_job (
    id TEXT NOT NULL UNIQUE,
    revision INTEGER NOT NULL,
    removed INTEGER NOT NULL DEFAULT 0,   -- a tombstone: invisible, it carries a hold to its end

    -- The header: who cannot read this format or this kind of schedule leaves the row alone.
    format INTEGER NOT NULL DEFAULT 1,
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

    -- The standing. A claim looks at due_at only.
    state TEXT NOT NULL,
    number INTEGER NOT NULL,
    next_run INTEGER,
    due_at INTEGER,
    triggered_at INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    skipped_run INTEGER,
    paused_until INTEGER,
    pause_reason TEXT,
    last_scheduled_at INTEGER,
    last_finished_at INTEGER,
    last_status TEXT,
    expires_at INTEGER,
    manual INTEGER NOT NULL DEFAULT 0,
    paused_at INTEGER,
    backlog TEXT,                         -- of a pause: [folded, until, folded from, folded until]

    -- The hold. Claimed is: lease_until is not null. A settle keeps token and worker, a release
    -- clears the worker.
    token INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    claimed_at INTEGER,
    lease_until INTEGER,
    lost INTEGER NOT NULL DEFAULT 0,      -- claims of the occurrence lost in a row
    lost_worker TEXT,
    lost_claimed_at INTEGER,

    -- What is held, copied when an edit changes the row under the claim; else it is the row's.
    held_uid TEXT,
    held_number INTEGER,
    held_attempt INTEGER,
    held_at INTEGER,
    held_manual INTEGER,
    held_keep INTEGER,                    -- how long its ledger lines stay

    -- The newest settled claim that left no line: by it a repeat is known.
    ended_token INTEGER,
    ended_worker TEXT,

    -- A final line for the pending occurrence, or for a later one, may be stored already.
    doubtful INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX sched_job_due ON sched_job (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX sched_job_expires ON sched_job (expires_at) WHERE expires_at IS NOT NULL;

-- One line per attempt, or per fate of an occurrence that never ran (attempt 0). A run appends here
-- and touches no index: that would cost a page per index and line. Lines are indexed in bulk; all
-- whose seq is not above the value of 'indexed' in sched_meta are.
CREATE TABLE sched_ledger (
    seq INTEGER PRIMARY KEY,              -- the order of writing; from the serial
    indexed INTEGER NOT NULL,
    job_id TEXT NOT NULL,
    uid TEXT NOT NULL,
    number INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    scheduled_at INTEGER NOT NULL,
    manual INTEGER NOT NULL,
    status TEXT NOT NULL,
    final INTEGER NOT NULL,
    token INTEGER NOT NULL,
    worker TEXT NOT NULL,
    claimed_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER NOT NULL,
    reason TEXT,
    folded INTEGER NOT NULL DEFAULT 0,
    folded_until INTEGER,
    expires_at INTEGER
);

CREATE INDEX sched_ledger_occurrence ON sched_ledger (uid, number) WHERE indexed = 1;
CREATE INDEX sched_ledger_job ON sched_ledger (job_id) WHERE indexed = 1;
CREATE INDEX sched_ledger_expires ON sched_ledger (expires_at)
    WHERE indexed = 1 AND expires_at IS NOT NULL;
