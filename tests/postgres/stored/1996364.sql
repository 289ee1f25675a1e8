-- Written by revision 1996364; its clock stood at 2026-01-01T08:12:01+00:00.
CREATE SCHEMA @schema@;
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
DELETE FROM @schema@.meta;
INSERT INTO @schema@.meta (key, value) VALUES
('checks', 0),
('oldest', 1),
('schema', 1);
INSERT INTO @schema@.job (id, revision, removed, format, tag, schedule, policy, metadata, name, group_name, uid, declared, anchor, state, number, next_run, due_at, triggered_at, attempts, failures, skipped_run, paused_until, pause_reason, last_scheduled_at, last_finished_at, last_status, expires_at, manual, paused_at, backlog, token, worker, claimed_at, lease_until, lost, lost_worker, lost_claimed_at, held_uid, held_number, held_attempt, held_at, held_manual, held_keep, ended_token, ended_worker, doubtful) VALUES
('all', 428, false, 1, 'interval', '{"every":600}', '{"misfire":{"kind":"run_all","limit":3}}', '', NULL, NULL, '403db52e5d2ecd2ed1f926b9b2b67d1b', true, 1767225600000000, 'active', 28, 1767255000000000, 1767255000000000, NULL, 0, 0, NULL, NULL, NULL, 1767254400000000, 1767254700000000, 'succeeded', NULL, false, NULL, NULL, 496, NULL, 1767255031000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('all windowed', 429, false, 1, 'interval', '{"every":600}', '{"misfire":{"kind":"run_all","limit":3,"window":3600}}', '', NULL, NULL, '8070bb5cb36586b8af7d5525d629fa0c', true, 1767225600000000, 'active', 28, 1767255000000000, 1767255000000000, NULL, 0, 0, NULL, NULL, NULL, 1767254400000000, 1767254700000000, 'succeeded', NULL, false, NULL, NULL, 497, NULL, 1767255031000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('claimed', 462, false, 1, 'interval', '{"every":18000,"start":"2026-01-01T08:07:00Z"}', '', '', NULL, NULL, 'b7450f50be79ec3f32cd3357862e69d4', true, 1767254700000000, 'active', 1, 1767254820000000, 1767254820000000, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, NULL, 494, 'two', 1767255031000000, 1767255331000000, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('cron', 197, false, 1, 'cron', '{"expression":"0 3 * * *","tz":"Europe/Berlin"}', '', '{"k":"v"}', 'Nightly', NULL, '7d6f75fd098f852509e04a0e9cb81edd', true, 1767225600000000, 'active', 2, 1767319200000000, 1767319200000000, NULL, 0, 0, NULL, NULL, NULL, 1767232800000000, 1767234120000000, 'succeeded', NULL, false, NULL, NULL, 175, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('delay', 394, false, 1, 'fixed_delay', '{"every":2700}', '', '', NULL, NULL, '59d1ade34d9b8fa5e2f25bf8e99224b3', true, 1767225600000000, 'active', 6, 1767257400000000, 1767257400000000, NULL, 0, 0, NULL, NULL, NULL, 1767242310000000, 1767254700000000, 'succeeded', NULL, false, NULL, NULL, 385, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('done', 38, false, 1, 'once', '{"at":"2026-01-01T00:01:00Z"}', '', '', NULL, NULL, '716496acd2a05eb140be13ae57b21a0e', false, 1767225600000000, 'finished', 2, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, 1767225660000000, 1767226800000000, 'succeeded', 1767831600000000, false, NULL, NULL, 28, 'ae7d29c9ce5ae37d557ddf492690405f', 1767226800000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('done, declared', 39, false, 1, 'once', '{"at":"2026-01-01T00:01:00Z"}', '', '', NULL, NULL, 'cc1d60ff2b74896a4eee2cc36a504fba', true, 1767225600000000, 'finished', 2, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, 1767225660000000, 1767226800000000, 'succeeded', NULL, false, NULL, NULL, 29, 'ae7d29c9ce5ae37d557ddf492690405f', 1767226800000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('dropping', 390, false, 1, 'interval', '{"every":600}', '{"misfire":{"kind":"drop","grace":60}}', '', NULL, NULL, 'f0a68ebeb677a70fe0e2d846f4356247', true, 1767225600000000, 'active', 13, 1767255000000000, 1767255000000000, NULL, 0, 0, NULL, NULL, NULL, 1767240000000000, 1767230460000000, 'missed', NULL, false, NULL, NULL, 495, NULL, 1767255031000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('edited', 368, false, 1, 'interval', '{"every":25200}', '', '', NULL, NULL, '7eb6e06351e24a6b237e3f9f7b0abf98', true, 1767240240000000, 'active', 5, 1767265440000000, 1767265440000000, NULL, 0, 0, NULL, NULL, NULL, 1767236400000000, 1767237780000000, 'succeeded', NULL, false, NULL, NULL, 269, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('edited while claimed', 480, false, 1, 'interval', '{"every":32400}', '', '', NULL, NULL, 'f3ac2455a978c7311fa9f17439d41640', true, 1767254761000000, 'active', 2, 1767287161000000, 1767287161000000, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, NULL, 474, 'one', 1767254701000000, 1767255061000000, 0, NULL, NULL, 'f3ac2455a978c7311fa9f17439d41640', 1, 1, 1767254700000000, false, 2592000000000, NULL, NULL, false),
('fails', 66, false, 1, 'once', '{"at":"2026-01-01T00:01:00Z"}', '{"retry":{"attempts":2,"backoff":60}}', '', NULL, NULL, '327ff772ec743406b435705cb0c28e7b', false, 1767225600000000, 'finished', 2, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, 1767225660000000, 1767228630000000, 'failed', 1767833430000000, false, NULL, NULL, 55, 'ae7d29c9ce5ae37d557ddf492690405f', 1767228630000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('group a', 395, false, 1, 'interval', '{"every":10800}', '', '', NULL, 'g', 'e466b93339e5e2a25297718590e798c6', false, 1767225600000000, 'active', 3, 1767258000000000, 1767258000000000, NULL, 0, 0, NULL, NULL, NULL, 1767247200000000, 1767254700000000, 'succeeded', NULL, false, NULL, NULL, 386, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('group b', 396, false, 1, 'interval', '{"every":10800}', '', '', NULL, 'g', '34659dde3214aa02e2717973063cd734', false, 1767225600000000, 'active', 3, 1767258000000000, 1767258000000000, NULL, 0, 0, NULL, NULL, NULL, 1767247200000000, 1767254700000000, 'succeeded', NULL, false, NULL, NULL, 387, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('interrupted', 447, false, 1, 'interval', '{"every":72000,"start":"2026-01-01T08:05:00Z"}', '', '', NULL, NULL, '8d4e2d45d4c604e65ffe2f5c173c7229', true, 1767254700000000, 'active', 1, 1767254700000000, 1767254700000000, NULL, 1, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, NULL, 490, NULL, 1767255031000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('interval', 413, false, 1, 'interval', '{"every":1800}', '', '', NULL, NULL, 'e54ad591bfbbb8874ea912bb95292c50', true, 1767225600000000, 'active', 9, 1767256200000000, 1767256200000000, NULL, 0, 0, NULL, NULL, NULL, 1767240000000000, 1767254700000000, 'succeeded', NULL, false, NULL, NULL, 381, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('jittered', 397, false, 1, 'interval', '{"every":3600}', '{"jitter":300}', '', NULL, NULL, '27165ed866d0473aa7c0d0d17a466b12', true, 1767225600000000, 'active', 5, 1767258000000000, 1767258290347700, NULL, 0, 0, NULL, NULL, NULL, 1767240000000000, 1767254700000000, 'succeeded', NULL, false, NULL, NULL, 384, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('kept', 398, false, 1, 'interval', '{"every":3600}', '{"keep_executions":null}', '', NULL, NULL, 'a1678e09b85d14c3f930aeeaa81aca82', true, 1767225600000000, 'active', 5, 1767258000000000, 1767258000000000, NULL, 0, 0, NULL, NULL, NULL, 1767240000000000, 1767254700000000, 'succeeded', NULL, false, NULL, NULL, 376, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('lost', 454, false, 1, 'interval', '{"every":18000,"start":"2026-01-01T08:05:00Z"}', '', '', NULL, NULL, '4b6a235bcec01a61441cb46a26160492', true, 1767254700000000, 'active', 1, 1767254700000000, 1767254700000000, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, NULL, 501, 'two', 1767255031000000, 1767255331000000, 1, 'one', 1767254701000000, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('lost and released', 456, false, 1, 'interval', '{"every":18000,"start":"2026-01-01T08:05:00Z"}', '', '', NULL, NULL, 'acd183eca2839b08636db7e36d71caf8', true, 1767254700000000, 'active', 1, 1767254700000000, 1767254700000000, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, NULL, 502, NULL, 1767255031000000, NULL, 1, 'one', 1767254701000000, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('lost twice', 455, false, 1, 'interval', '{"every":18000,"start":"2026-01-01T08:05:00Z"}', '', '', NULL, NULL, 'c0b9224d8047f97577afa47b85d9e5ae', true, 1767254700000000, 'active', 1, 1767254700000000, 1767254700000000, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, NULL, 503, 'two', 1767255031000000, 1767255331000000, 1, 'one', 1767254701000000, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('manual claimed', 464, false, 1, 'interval', '{"every":1800000}', '', '', NULL, NULL, 'cbf6ab875d0a8e41261fc642577ccad4', true, 1767254700000000, 'active', 1, 1769054700000000, 1767254700000000, 1767254700000000, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, true, NULL, NULL, 479, 'one', 1767254701000000, 1767255061000000, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('once', 10, false, 1, 'once', '{"at":"2026-01-02T16:00:00Z"}', '', '', NULL, NULL, 'dec92a5fdda9b427264656057a04c535', false, 1767225600000000, 'active', 1, 1767369600000000, 1767369600000000, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, NULL, 0, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('paused', 370, false, 1, 'interval', '{"every":3600}', '', '', NULL, NULL, '86a40669267e59a4da5b61de03845b49', true, 1767225600000000, 'paused', 4, 1767240000000000, NULL, NULL, 0, 0, NULL, NULL, 'holiday', 1767236400000000, 1767237780000000, 'succeeded', NULL, false, 1767243900000000, NULL, 271, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('paused until', 371, false, 1, 'interval', '{"every":3600}', '', '', NULL, NULL, 'b019e0e5f8348e2d9fcdf077c9041a11', true, 1767225600000000, 'paused', 4, 1767240000000000, 1767351900000000, NULL, 0, 0, NULL, 1767351900000000, NULL, 1767236400000000, 1767237780000000, 'succeeded', NULL, false, 1767243900000000, NULL, 272, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('paused while claimed', 486, false, 1, 'interval', '{"every":18000,"start":"2026-01-01T08:05:00Z"}', '', '', NULL, NULL, 'ce41c8f5b8b15c4adab746c6a948d2a1', true, 1767254700000000, 'paused', 1, 1767254700000000, NULL, NULL, 0, 0, NULL, NULL, 'stop', NULL, NULL, NULL, NULL, false, 1767254761000000, NULL, 477, 'one', 1767254701000000, 1767255061000000, 0, NULL, NULL, 'ce41c8f5b8b15c4adab746c6a948d2a1', 1, 1, 1767254700000000, false, 2592000000000, NULL, NULL, false),
('paused, due', 373, false, 1, 'interval', '{"every":3600}', '', '', NULL, NULL, '3b7b1dc8bdef1f3bf09b803f486ba3c7', true, 1767225600000000, 'paused', 4, 1767240000000000, NULL, NULL, 0, 0, NULL, NULL, NULL, 1767236400000000, 1767237780000000, 'succeeded', NULL, false, 1767243900000000, NULL, 278, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('paused, triggered', 451, false, 1, 'interval', '{"every":3600}', '', '', NULL, NULL, '4d9cb5314c5149fca2809ae5b6473019', true, 1767225600000000, 'paused', 4, 1767240000000000, 1767254700000000, 1767254700000000, 0, 0, NULL, NULL, NULL, 1767236400000000, 1767237780000000, 'succeeded', NULL, false, 1767243900000000, NULL, 493, NULL, 1767255031000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('re-added while claimed', 485, false, 1, 'once', '{"at":"2026-01-01T11:06:01Z"}', '', '', NULL, NULL, '746d1c6f3e72ab348aaaa7ea4e95f8e2', false, 1767254761000000, 'active', 1, 1767265561000000, 1767265561000000, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, NULL, 476, 'one', 1767254701000000, 1767255061000000, 0, NULL, NULL, '4dcba951c5615c8ae05193248ce82546', 1, 1, 1767254700000000, false, 2592000000000, NULL, NULL, false),
('removed while claimed', 481, true, 1, 'interval', '{"every":18000,"start":"2026-01-01T08:05:00Z"}', '', '', NULL, NULL, '73376fed74acf52725404d8a82d76de9', true, 1767254700000000, 'active', 1, 1767254700000000, 1767255001000000, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, NULL, 475, 'one', 1767254701000000, 1767255061000000, 0, NULL, NULL, '73376fed74acf52725404d8a82d76de9', 1, 1, 1767254700000000, false, 2592000000000, NULL, NULL, false),
('resumed', 450, false, 1, 'interval', '{"every":3600}', '', '', NULL, NULL, 'fe1885ef6cc2cd6793f8ec3869e4ebbe', true, 1767225600000000, 'active', 4, 1767240000000000, 1767254700000000, NULL, 0, 0, NULL, NULL, NULL, 1767236400000000, 1767237780000000, 'succeeded', NULL, false, NULL, '[1, 1767254700000000, 1767243600000000, 1767243600000000]', 492, NULL, 1767255031000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('retried', 399, false, 1, 'interval', '{"every":7200}', '{"retry":{"attempts":5,"backoff":14400}}', '', NULL, NULL, '79467b763f4520a2ec5265cd0a81dfaa', true, 1767225600000000, 'active', 2, 1767240000000000, 1767258300000000, NULL, 1, 1, NULL, NULL, NULL, 1767232800000000, 1767237780000000, 'succeeded', NULL, false, NULL, NULL, 377, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('retried, triggered', 453, false, 1, 'interval', '{"every":7200}', '{"retry":{"attempts":5,"backoff":14400}}', '', NULL, NULL, '643617699b1c2021c0d4ec5862c15f2b', true, 1767225600000000, 'active', 2, 1767240000000000, 1767254700000000, 1767254700000000, 1, 1, NULL, NULL, NULL, 1767232800000000, 1767237780000000, 'succeeded', NULL, false, NULL, NULL, 489, NULL, 1767255031000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('retrying', 441, false, 1, 'interval', '{"every":72000,"start":"2026-01-01T08:05:00Z"}', '{"retry":{"attempts":9,"backoff":14400,"factor":1}}', '', NULL, NULL, '0c66347eb23f5795f06b80138e1efd94', true, 1767254700000000, 'active', 1, 1767254700000000, 1767258300000000, NULL, 1, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, NULL, 437, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('retrying a trigger', 442, false, 1, 'interval', '{"every":72000}', '{"retry":{"attempts":9,"backoff":14400,"factor":1}}', '', NULL, NULL, '399d365d49640e68ca73ebb6a51c240f', true, 1767254700000000, 'active', 1, 1767326700000000, 1767258300000000, 1767254700000000, 1, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, true, NULL, NULL, 439, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('retrying, then triggered', 449, false, 1, 'interval', '{"every":72000,"start":"2026-01-01T08:05:00Z"}', '{"retry":{"attempts":9,"backoff":14400,"factor":1}}', '', NULL, NULL, '605ae82b5a16e5b3eee318944521508c', true, 1767254700000000, 'active', 1, 1767254700000000, 1767254700000000, 1767254700000000, 1, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, NULL, 491, NULL, 1767255031000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('short', 401, false, 1, 'interval', '{"every":3600}', '{"keep_executions":7200}', '', NULL, NULL, 'ac7e7af22b72f6a9f76a59b444bff0bb', true, 1767225600000000, 'active', 5, 1767258000000000, 1767258000000000, NULL, 0, 0, NULL, NULL, NULL, 1767240000000000, 1767254700000000, 'succeeded', NULL, false, NULL, NULL, 379, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('skips', 402, false, 1, 'interval', '{"every":3600}', '', '', NULL, NULL, 'b14163cd7ddad69520566f0d4e4f066e', true, 1767225600000000, 'active', 5, 1767258000000000, 1767258000000000, NULL, 0, 0, NULL, NULL, NULL, 1767240000000000, 1767254700000000, 'succeeded', NULL, false, NULL, NULL, 375, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('triggered', 452, false, 1, 'interval', '{"every":180000}', '', '', NULL, NULL, '5f06c6d861ad4809d10e08dd52aada23', true, 1767225600000000, 'active', 1, 1767405600000000, 1767254700000000, 1767254700000000, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, true, NULL, NULL, 488, NULL, 1767255031000000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false),
('triggered while claimed', 487, false, 1, 'interval', '{"every":18000,"start":"2026-01-01T08:05:00Z"}', '', '', NULL, NULL, '1399fcc2fdd9406a539365a7997d0857', true, 1767254700000000, 'active', 1, 1767254700000000, 1767254700000000, 1767254761000000, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, NULL, 478, 'one', 1767254701000000, 1767255061000000, 0, NULL, NULL, '1399fcc2fdd9406a539365a7997d0857', 1, 1, 1767254700000000, false, 2592000000000, NULL, NULL, false),
('triggered, retried', 19, false, 1, 'interval', '{"every":180000}', '{"retry":{"attempts":5,"backoff":14400}}', '', NULL, NULL, 'e88f38fdb5556b3364039287060f2101', true, 1767225600000000, 'active', 1, 1767405600000000, 1767405600000000, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, NULL, 0, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false);
INSERT INTO @schema@.ledger (seq, job_id, uid, number, attempt, scheduled_at, manual, status, final, token, worker, claimed_at, started_at, finished_at, reason, folded, folded_until, expires_at) VALUES
(35, 'dropping', 'f0a68ebeb677a70fe0e2d846f4356247', 1, 0, 1767226200000000, false, 'missed', true, 33, 'ae7d29c9ce5ae37d557ddf492690405f', 1767226800000000, NULL, 1767226800000000, 'later than the grace of 0:01:00', 0, NULL, 1769818800000000),
(41, 'done, declared', 'cc1d60ff2b74896a4eee2cc36a504fba', 1, 1, 1767225660000000, false, 'succeeded', true, 29, 'ae7d29c9ce5ae37d557ddf492690405f', 1767226800000000, 1767226800000000, 1767226800000000, NULL, 0, NULL, 1769818800000000),
(42, 'fails', '327ff772ec743406b435705cb0c28e7b', 1, 1, 1767225660000000, false, 'failed', false, 30, 'ae7d29c9ce5ae37d557ddf492690405f', 1767226800000000, 1767226800000000, 1767226800000000, 'RuntimeError: as it was told: ''quoted'' \ and "so"', 0, NULL, 1769818800000000),
(43, 'done', '716496acd2a05eb140be13ae57b21a0e', 1, 1, 1767225660000000, false, 'succeeded', true, 28, 'ae7d29c9ce5ae37d557ddf492690405f', 1767226800000000, 1767226800000000, 1767226800000000, NULL, 0, NULL, 1769818800000000),
(44, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 1, 1, 1767226200000000, false, 'succeeded', true, 31, 'ae7d29c9ce5ae37d557ddf492690405f', 1767226800000000, 1767226800000000, 1767226800000000, NULL, 0, NULL, 1769818800000000),
(45, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 1, 1, 1767226200000000, false, 'succeeded', true, 32, 'ae7d29c9ce5ae37d557ddf492690405f', 1767226800000000, 1767226800000000, 1767226800000000, NULL, 0, NULL, 1769818800000000),
(52, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 2, 1, 1767226800000000, false, 'succeeded', true, 46, 'ae7d29c9ce5ae37d557ddf492690405f', 1767226800000000, 1767226800000000, 1767226800000000, NULL, 0, NULL, 1769818800000000),
(53, 'dropping', 'f0a68ebeb677a70fe0e2d846f4356247', 2, 1, 1767226800000000, false, 'succeeded', true, 47, 'ae7d29c9ce5ae37d557ddf492690405f', 1767226800000000, 1767226800000000, 1767226800000000, NULL, 0, NULL, 1769818800000000),
(54, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 2, 1, 1767226800000000, false, 'succeeded', true, 48, 'ae7d29c9ce5ae37d557ddf492690405f', 1767226800000000, 1767226800000000, 1767226800000000, NULL, 0, NULL, 1769818800000000),
(62, 'dropping', 'f0a68ebeb677a70fe0e2d846f4356247', 3, 0, 1767227400000000, false, 'missed', true, 59, 'ae7d29c9ce5ae37d557ddf492690405f', 1767228630000000, NULL, 1767228630000000, 'later than the grace of 0:01:00', 1, 1767228000000000, 1769820630000000),
(68, 'fails', '327ff772ec743406b435705cb0c28e7b', 1, 2, 1767225660000000, false, 'failed', true, 55, 'ae7d29c9ce5ae37d557ddf492690405f', 1767228630000000, 1767228630000000, 1767228630000000, 'RuntimeError: as it was told: ''quoted'' \ and "so"', 0, NULL, 1769820630000000),
(69, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 3, 1, 1767227400000000, false, 'succeeded', true, 57, 'ae7d29c9ce5ae37d557ddf492690405f', 1767228630000000, 1767228630000000, 1767228630000000, NULL, 0, NULL, 1769820630000000),
(70, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 3, 1, 1767227400000000, false, 'succeeded', true, 58, 'ae7d29c9ce5ae37d557ddf492690405f', 1767228630000000, 1767228630000000, 1767228630000000, NULL, 0, NULL, 1769820630000000),
(71, 'interval', 'e54ad591bfbbb8874ea912bb95292c50', 1, 1, 1767227400000000, false, 'succeeded', true, 56, 'ae7d29c9ce5ae37d557ddf492690405f', 1767228630000000, 1767228630000000, 1767228630000000, NULL, 0, NULL, 1769820630000000),
(72, 'delay', '59d1ade34d9b8fa5e2f25bf8e99224b3', 1, 1, 1767228300000000, false, 'succeeded', true, 60, 'ae7d29c9ce5ae37d557ddf492690405f', 1767228630000000, 1767228630000000, 1767228630000000, NULL, 0, NULL, 1769820630000000),
(79, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 4, 1, 1767228000000000, false, 'succeeded', true, 73, 'ae7d29c9ce5ae37d557ddf492690405f', 1767228630000000, 1767228630000000, 1767228630000000, NULL, 0, NULL, 1769820630000000),
(80, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 4, 1, 1767228000000000, false, 'succeeded', true, 74, 'ae7d29c9ce5ae37d557ddf492690405f', 1767228630000000, 1767228630000000, 1767228630000000, NULL, 0, NULL, 1769820630000000),
(81, 'dropping', 'f0a68ebeb677a70fe0e2d846f4356247', 4, 1, 1767228600000000, false, 'succeeded', true, 75, 'ae7d29c9ce5ae37d557ddf492690405f', 1767228630000000, 1767228630000000, 1767228630000000, NULL, 0, NULL, 1769820630000000),
(86, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 5, 1, 1767228600000000, false, 'succeeded', true, 82, 'ae7d29c9ce5ae37d557ddf492690405f', 1767228630000000, 1767228630000000, 1767228630000000, NULL, 0, NULL, 1769820630000000),
(87, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 5, 1, 1767228600000000, false, 'succeeded', true, 83, 'ae7d29c9ce5ae37d557ddf492690405f', 1767228630000000, 1767228630000000, 1767228630000000, NULL, 0, NULL, 1769820630000000),
(104, 'dropping', 'f0a68ebeb677a70fe0e2d846f4356247', 5, 0, 1767229200000000, false, 'missed', true, 99, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, NULL, 1767230460000000, 'later than the grace of 0:01:00', 1, 1767229800000000, 1769822460000000),
(119, 'short', 'ac7e7af22b72f6a9f76a59b444bff0bb', 1, 1, 1767229200000000, false, 'succeeded', true, 89, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1767237660000000),
(120, 'skips', 'b14163cd7ddad69520566f0d4e4f066e', 1, 1, 1767229200000000, false, 'succeeded', true, 90, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1769822460000000),
(121, 'edited', '7eb6e06351e24a6b237e3f9f7b0abf98', 1, 1, 1767229200000000, false, 'succeeded', true, 91, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1769822460000000),
(122, 'paused', '86a40669267e59a4da5b61de03845b49', 1, 1, 1767229200000000, false, 'succeeded', true, 92, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1769822460000000),
(123, 'paused until', 'b019e0e5f8348e2d9fcdf077c9041a11', 1, 1, 1767229200000000, false, 'succeeded', true, 93, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1769822460000000),
(124, 'paused, triggered', '4d9cb5314c5149fca2809ae5b6473019', 1, 1, 1767229200000000, false, 'succeeded', true, 94, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1769822460000000),
(125, 'paused, due', '3b7b1dc8bdef1f3bf09b803f486ba3c7', 1, 1, 1767229200000000, false, 'succeeded', true, 95, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1769822460000000),
(126, 'kept', 'a1678e09b85d14c3f930aeeaa81aca82', 1, 1, 1767229200000000, false, 'succeeded', true, 88, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, NULL),
(127, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 6, 1, 1767229200000000, false, 'succeeded', true, 97, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1769822460000000),
(128, 'interval', 'e54ad591bfbbb8874ea912bb95292c50', 2, 1, 1767229200000000, false, 'succeeded', true, 98, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1769822460000000),
(129, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 6, 1, 1767229200000000, false, 'succeeded', true, 100, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1769822460000000),
(130, 'removed', '8534c154bf6552dd4ce49a0a075c4c53', 1, 1, 1767229200000000, false, 'succeeded', true, 101, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1769822460000000),
(131, 'resumed', 'fe1885ef6cc2cd6793f8ec3869e4ebbe', 1, 1, 1767229200000000, false, 'succeeded', true, 96, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1769822460000000),
(132, 'jittered', '27165ed866d0473aa7c0d0d17a466b12', 1, 1, 1767229200000000, false, 'succeeded', true, 102, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1769822460000000),
(139, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 7, 1, 1767229800000000, false, 'succeeded', true, 133, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1769822460000000),
(140, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 7, 1, 1767229800000000, false, 'succeeded', true, 134, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1769822460000000),
(141, 'dropping', 'f0a68ebeb677a70fe0e2d846f4356247', 6, 1, 1767230400000000, false, 'succeeded', true, 135, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1769822460000000),
(146, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 8, 1, 1767230400000000, false, 'succeeded', true, 142, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1769822460000000),
(147, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 8, 1, 1767230400000000, false, 'succeeded', true, 143, 'ae7d29c9ce5ae37d557ddf492690405f', 1767230460000000, 1767230460000000, 1767230460000000, NULL, 0, NULL, 1769822460000000),
(154, 'dropping', 'f0a68ebeb677a70fe0e2d846f4356247', 7, 0, 1767231000000000, false, 'missed', true, 151, 'ae7d29c9ce5ae37d557ddf492690405f', 1767232290000000, NULL, 1767232290000000, 'later than the grace of 0:01:00', 2, 1767232200000000, 1769824290000000),
(159, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 9, 1, 1767231000000000, false, 'succeeded', true, 148, 'ae7d29c9ce5ae37d557ddf492690405f', 1767232290000000, 1767232290000000, 1767232290000000, NULL, 0, NULL, 1769824290000000),
(160, 'interval', 'e54ad591bfbbb8874ea912bb95292c50', 3, 1, 1767231000000000, false, 'succeeded', true, 149, 'ae7d29c9ce5ae37d557ddf492690405f', 1767232290000000, 1767232290000000, 1767232290000000, NULL, 0, NULL, 1769824290000000),
(161, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 9, 1, 1767231000000000, false, 'succeeded', true, 150, 'ae7d29c9ce5ae37d557ddf492690405f', 1767232290000000, 1767232290000000, 1767232290000000, NULL, 0, NULL, 1769824290000000),
(162, 'delay', '59d1ade34d9b8fa5e2f25bf8e99224b3', 2, 1, 1767231330000000, false, 'succeeded', true, 152, 'ae7d29c9ce5ae37d557ddf492690405f', 1767232290000000, 1767232290000000, 1767232290000000, NULL, 0, NULL, 1769824290000000),
(167, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 10, 1, 1767231600000000, false, 'succeeded', true, 163, 'ae7d29c9ce5ae37d557ddf492690405f', 1767232290000000, 1767232290000000, 1767232290000000, NULL, 0, NULL, 1769824290000000),
(168, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 10, 1, 1767231600000000, false, 'succeeded', true, 164, 'ae7d29c9ce5ae37d557ddf492690405f', 1767232290000000, 1767232290000000, 1767232290000000, NULL, 0, NULL, 1769824290000000),
(173, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 11, 1, 1767232200000000, false, 'succeeded', true, 169, 'ae7d29c9ce5ae37d557ddf492690405f', 1767232290000000, 1767232290000000, 1767232290000000, NULL, 0, NULL, 1769824290000000),
(174, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 11, 1, 1767232200000000, false, 'succeeded', true, 170, 'ae7d29c9ce5ae37d557ddf492690405f', 1767232290000000, 1767232290000000, 1767232290000000, NULL, 0, NULL, 1769824290000000),
(194, 'dropping', 'f0a68ebeb677a70fe0e2d846f4356247', 8, 0, 1767232800000000, false, 'missed', true, 188, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, NULL, 1767234120000000, 'later than the grace of 0:01:00', 2, 1767234000000000, 1769826120000000),
(212, 'retried', '79467b763f4520a2ec5265cd0a81dfaa', 1, 1, 1767232800000000, false, 'failed', false, 176, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, 'RuntimeError: as it was told: ''quoted'' \ and "so"', 0, NULL, 1769826120000000),
(213, 'retried, triggered', '643617699b1c2021c0d4ec5862c15f2b', 1, 1, 1767232800000000, false, 'failed', false, 177, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, 'RuntimeError: as it was told: ''quoted'' \ and "so"', 0, NULL, 1769826120000000),
(214, 'edited', '7eb6e06351e24a6b237e3f9f7b0abf98', 2, 1, 1767232800000000, false, 'succeeded', true, 178, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1769826120000000),
(215, 'kept', 'a1678e09b85d14c3f930aeeaa81aca82', 2, 1, 1767232800000000, false, 'succeeded', true, 179, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, NULL),
(216, 'paused', '86a40669267e59a4da5b61de03845b49', 2, 1, 1767232800000000, false, 'succeeded', true, 180, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1769826120000000),
(217, 'paused until', 'b019e0e5f8348e2d9fcdf077c9041a11', 2, 1, 1767232800000000, false, 'succeeded', true, 181, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1769826120000000),
(218, 'short', 'ac7e7af22b72f6a9f76a59b444bff0bb', 2, 1, 1767232800000000, false, 'succeeded', true, 182, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1767241320000000),
(219, 'skips', 'b14163cd7ddad69520566f0d4e4f066e', 2, 1, 1767232800000000, false, 'succeeded', true, 183, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1769826120000000),
(220, 'cron', '7d6f75fd098f852509e04a0e9cb81edd', 1, 1, 1767232800000000, false, 'succeeded', true, 175, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1769826120000000),
(221, 'paused, triggered', '4d9cb5314c5149fca2809ae5b6473019', 2, 1, 1767232800000000, false, 'succeeded', true, 185, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1769826120000000),
(222, 'removed', '8534c154bf6552dd4ce49a0a075c4c53', 2, 1, 1767232800000000, false, 'succeeded', true, 186, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1769826120000000),
(223, 'resumed', 'fe1885ef6cc2cd6793f8ec3869e4ebbe', 2, 1, 1767232800000000, false, 'succeeded', true, 187, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1769826120000000),
(224, 'interval', 'e54ad591bfbbb8874ea912bb95292c50', 4, 1, 1767232800000000, false, 'succeeded', true, 189, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1769826120000000),
(225, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 12, 1, 1767232800000000, false, 'succeeded', true, 190, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1769826120000000),
(226, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 12, 1, 1767232800000000, false, 'succeeded', true, 191, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1769826120000000),
(227, 'paused, due', '3b7b1dc8bdef1f3bf09b803f486ba3c7', 2, 1, 1767232800000000, false, 'succeeded', true, 184, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1769826120000000),
(228, 'jittered', '27165ed866d0473aa7c0d0d17a466b12', 2, 1, 1767232800000000, false, 'succeeded', true, 192, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1769826120000000),
(233, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 13, 1, 1767233400000000, false, 'succeeded', true, 229, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1769826120000000),
(234, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 13, 1, 1767233400000000, false, 'succeeded', true, 230, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1769826120000000),
(239, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 14, 1, 1767234000000000, false, 'succeeded', true, 235, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1769826120000000),
(240, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 14, 1, 1767234000000000, false, 'succeeded', true, 236, 'ae7d29c9ce5ae37d557ddf492690405f', 1767234120000000, 1767234120000000, 1767234120000000, NULL, 0, NULL, 1769826120000000),
(248, 'dropping', 'f0a68ebeb677a70fe0e2d846f4356247', 9, 0, 1767234600000000, false, 'missed', true, 244, 'ae7d29c9ce5ae37d557ddf492690405f', 1767235950000000, NULL, 1767235950000000, 'later than the grace of 0:01:00', 2, 1767235800000000, 1769827950000000),
(253, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 15, 1, 1767234600000000, false, 'succeeded', true, 242, 'ae7d29c9ce5ae37d557ddf492690405f', 1767235950000000, 1767235950000000, 1767235950000000, NULL, 0, NULL, 1769827950000000),
(254, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 15, 1, 1767234600000000, false, 'succeeded', true, 243, 'ae7d29c9ce5ae37d557ddf492690405f', 1767235950000000, 1767235950000000, 1767235950000000, NULL, 0, NULL, 1769827950000000),
(255, 'interval', 'e54ad591bfbbb8874ea912bb95292c50', 5, 1, 1767234600000000, false, 'succeeded', true, 245, 'ae7d29c9ce5ae37d557ddf492690405f', 1767235950000000, 1767235950000000, 1767235950000000, NULL, 0, NULL, 1769827950000000),
(256, 'delay', '59d1ade34d9b8fa5e2f25bf8e99224b3', 3, 1, 1767234990000000, false, 'succeeded', true, 246, 'ae7d29c9ce5ae37d557ddf492690405f', 1767235950000000, 1767235950000000, 1767235950000000, NULL, 0, NULL, 1769827950000000),
(261, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 16, 1, 1767235200000000, false, 'succeeded', true, 257, 'ae7d29c9ce5ae37d557ddf492690405f', 1767235950000000, 1767235950000000, 1767235950000000, NULL, 0, NULL, 1769827950000000),
(262, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 16, 1, 1767235200000000, false, 'succeeded', true, 258, 'ae7d29c9ce5ae37d557ddf492690405f', 1767235950000000, 1767235950000000, 1767235950000000, NULL, 0, NULL, 1769827950000000),
(267, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 17, 1, 1767235800000000, false, 'succeeded', true, 263, 'ae7d29c9ce5ae37d557ddf492690405f', 1767235950000000, 1767235950000000, 1767235950000000, NULL, 0, NULL, 1769827950000000),
(268, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 17, 1, 1767235800000000, false, 'succeeded', true, 264, 'ae7d29c9ce5ae37d557ddf492690405f', 1767235950000000, 1767235950000000, 1767235950000000, NULL, 0, NULL, 1769827950000000),
(289, 'dropping', 'f0a68ebeb677a70fe0e2d846f4356247', 10, 0, 1767236400000000, false, 'missed', true, 277, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, NULL, 1767237780000000, 'later than the grace of 0:01:00', 2, 1767237600000000, 1769829780000000),
(290, 'skips', 'b14163cd7ddad69520566f0d4e4f066e', 3, 0, 1767236400000000, false, 'skipped', true, 274, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, NULL, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(309, 'kept', 'a1678e09b85d14c3f930aeeaa81aca82', 3, 1, 1767236400000000, false, 'succeeded', true, 270, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, NULL),
(310, 'paused', '86a40669267e59a4da5b61de03845b49', 3, 1, 1767236400000000, false, 'succeeded', true, 271, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(311, 'paused until', 'b019e0e5f8348e2d9fcdf077c9041a11', 3, 1, 1767236400000000, false, 'succeeded', true, 272, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(312, 'short', 'ac7e7af22b72f6a9f76a59b444bff0bb', 3, 1, 1767236400000000, false, 'succeeded', true, 273, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1767244980000000),
(313, 'group a', 'e466b93339e5e2a25297718590e798c6', 1, 1, 1767236400000000, false, 'succeeded', true, 275, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(314, 'group b', '34659dde3214aa02e2717973063cd734', 1, 1, 1767236400000000, false, 'succeeded', true, 276, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(315, 'paused, due', '3b7b1dc8bdef1f3bf09b803f486ba3c7', 3, 1, 1767236400000000, false, 'succeeded', true, 278, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(316, 'edited', '7eb6e06351e24a6b237e3f9f7b0abf98', 3, 1, 1767236400000000, false, 'succeeded', true, 269, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(317, 'removed', '8534c154bf6552dd4ce49a0a075c4c53', 3, 1, 1767236400000000, false, 'succeeded', true, 280, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(318, 'resumed', 'fe1885ef6cc2cd6793f8ec3869e4ebbe', 3, 1, 1767236400000000, false, 'succeeded', true, 281, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(319, 'interval', 'e54ad591bfbbb8874ea912bb95292c50', 6, 1, 1767236400000000, false, 'succeeded', true, 282, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(320, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 18, 1, 1767236400000000, false, 'succeeded', true, 283, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(321, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 18, 1, 1767236400000000, false, 'succeeded', true, 284, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(322, 'paused, triggered', '4d9cb5314c5149fca2809ae5b6473019', 3, 1, 1767236400000000, false, 'succeeded', true, 279, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(323, 'jittered', '27165ed866d0473aa7c0d0d17a466b12', 3, 1, 1767236400000000, false, 'succeeded', true, 285, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(324, 'retried', '79467b763f4520a2ec5265cd0a81dfaa', 1, 2, 1767232800000000, false, 'succeeded', true, 286, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(325, 'retried, triggered', '643617699b1c2021c0d4ec5862c15f2b', 1, 2, 1767232800000000, false, 'succeeded', true, 287, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(330, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 19, 1, 1767237000000000, false, 'succeeded', true, 326, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(331, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 19, 1, 1767237000000000, false, 'succeeded', true, 327, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(336, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 20, 1, 1767237600000000, false, 'succeeded', true, 332, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(337, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 20, 1, 1767237600000000, false, 'succeeded', true, 333, 'ae7d29c9ce5ae37d557ddf492690405f', 1767237780000000, 1767237780000000, 1767237780000000, NULL, 0, NULL, 1769829780000000),
(344, 'dropping', 'f0a68ebeb677a70fe0e2d846f4356247', 11, 0, 1767238200000000, false, 'missed', true, 340, 'ae7d29c9ce5ae37d557ddf492690405f', 1767239610000000, NULL, 1767239610000000, 'later than the grace of 0:01:00', 2, 1767239400000000, 1769831610000000),
(349, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 21, 1, 1767238200000000, false, 'succeeded', true, 338, 'ae7d29c9ce5ae37d557ddf492690405f', 1767239610000000, 1767239610000000, 1767239610000000, NULL, 0, NULL, 1769831610000000),
(350, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 21, 1, 1767238200000000, false, 'succeeded', true, 339, 'ae7d29c9ce5ae37d557ddf492690405f', 1767239610000000, 1767239610000000, 1767239610000000, NULL, 0, NULL, 1769831610000000),
(351, 'interval', 'e54ad591bfbbb8874ea912bb95292c50', 7, 1, 1767238200000000, false, 'succeeded', true, 341, 'ae7d29c9ce5ae37d557ddf492690405f', 1767239610000000, 1767239610000000, 1767239610000000, NULL, 0, NULL, 1769831610000000),
(352, 'delay', '59d1ade34d9b8fa5e2f25bf8e99224b3', 4, 1, 1767238650000000, false, 'succeeded', true, 342, 'ae7d29c9ce5ae37d557ddf492690405f', 1767239610000000, 1767239610000000, 1767239610000000, NULL, 0, NULL, 1769831610000000),
(357, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 22, 1, 1767238800000000, false, 'succeeded', true, 353, 'ae7d29c9ce5ae37d557ddf492690405f', 1767239610000000, 1767239610000000, 1767239610000000, NULL, 0, NULL, 1769831610000000),
(358, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 22, 1, 1767238800000000, false, 'succeeded', true, 354, 'ae7d29c9ce5ae37d557ddf492690405f', 1767239610000000, 1767239610000000, 1767239610000000, NULL, 0, NULL, 1769831610000000),
(363, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 23, 1, 1767239400000000, false, 'succeeded', true, 359, 'ae7d29c9ce5ae37d557ddf492690405f', 1767239610000000, 1767239610000000, 1767239610000000, NULL, 0, NULL, 1769831610000000),
(364, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 23, 1, 1767239400000000, false, 'succeeded', true, 360, 'ae7d29c9ce5ae37d557ddf492690405f', 1767239610000000, 1767239610000000, 1767239610000000, NULL, 0, NULL, 1769831610000000),
(367, 'edited', '7eb6e06351e24a6b237e3f9f7b0abf98', 4, 0, 1767240000000000, false, 'superseded', true, 0, '', 1767240240000000, NULL, 1767240240000000, 'edited or removed', 0, NULL, 1769832240000000),
(369, 'removed', '8534c154bf6552dd4ce49a0a075c4c53', 4, 0, 1767240000000000, false, 'superseded', true, 0, '', 1767243900000000, NULL, 1767243900000000, 'edited or removed', 1, 1767243600000000, 1769835900000000),
(391, 'dropping', 'f0a68ebeb677a70fe0e2d846f4356247', 12, 0, 1767240000000000, false, 'missed', true, 380, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, NULL, 1767254700000000, 'later than the grace of 0:01:00', 24, 1767254400000000, 1769846700000000),
(392, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 24, 0, 1767240000000000, false, 'missed', true, 383, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, NULL, 1767254700000000, 'beyond the newest 3 within 1:00:00', 21, 1767252600000000, 1769846700000000),
(393, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 24, 0, 1767240000000000, false, 'missed', true, 382, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, NULL, 1767254700000000, 'beyond the newest 3 within 1 day, 0:00:00', 21, 1767252600000000, 1769846700000000),
(403, 'kept', 'a1678e09b85d14c3f930aeeaa81aca82', 4, 1, 1767240000000000, false, 'succeeded', true, 376, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, NULL, 4, 1767254400000000, NULL),
(404, 'retried', '79467b763f4520a2ec5265cd0a81dfaa', 2, 1, 1767240000000000, false, 'failed', false, 377, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, 'RuntimeError: as it was told: ''quoted'' \ and "so"', 0, NULL, 1769846700000000),
(405, 'retried, triggered', '643617699b1c2021c0d4ec5862c15f2b', 2, 1, 1767240000000000, false, 'failed', false, 378, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, 'RuntimeError: as it was told: ''quoted'' \ and "so"', 0, NULL, 1769846700000000),
(406, 'short', 'ac7e7af22b72f6a9f76a59b444bff0bb', 4, 1, 1767240000000000, false, 'succeeded', true, 379, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, NULL, 4, 1767254400000000, 1767261900000000),
(407, 'skips', 'b14163cd7ddad69520566f0d4e4f066e', 4, 1, 1767240000000000, false, 'succeeded', true, 375, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, NULL, 4, 1767254400000000, 1769846700000000),
(408, 'jittered', '27165ed866d0473aa7c0d0d17a466b12', 4, 1, 1767240000000000, false, 'succeeded', true, 384, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, NULL, 4, 1767254400000000, 1769846700000000),
(409, 'delay', '59d1ade34d9b8fa5e2f25bf8e99224b3', 5, 1, 1767242310000000, false, 'succeeded', true, 385, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, NULL, 0, NULL, 1769846700000000),
(410, 'group a', 'e466b93339e5e2a25297718590e798c6', 2, 1, 1767247200000000, false, 'succeeded', true, 386, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, NULL, 0, NULL, 1769846700000000),
(411, 'group b', '34659dde3214aa02e2717973063cd734', 2, 1, 1767247200000000, false, 'succeeded', true, 387, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, NULL, 0, NULL, 1769846700000000),
(412, 'interval', 'e54ad591bfbbb8874ea912bb95292c50', 8, 1, 1767240000000000, false, 'succeeded', true, 381, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, NULL, 8, 1767254400000000, 1769846700000000),
(418, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 25, 1, 1767253200000000, false, 'succeeded', true, 414, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, NULL, 0, NULL, 1769846700000000),
(419, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 25, 1, 1767253200000000, false, 'succeeded', true, 415, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, NULL, 0, NULL, 1769846700000000),
(424, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 26, 1, 1767253800000000, false, 'succeeded', true, 420, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, NULL, 0, NULL, 1769846700000000),
(425, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 26, 1, 1767253800000000, false, 'succeeded', true, 421, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, NULL, 0, NULL, 1769846700000000),
(430, 'all', '403db52e5d2ecd2ed1f926b9b2b67d1b', 27, 1, 1767254400000000, false, 'succeeded', true, 426, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, NULL, 0, NULL, 1769846700000000),
(431, 'all windowed', '8070bb5cb36586b8af7d5525d629fa0c', 27, 1, 1767254400000000, false, 'succeeded', true, 427, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, NULL, 0, NULL, 1769846700000000),
(444, 'retrying', '0c66347eb23f5795f06b80138e1efd94', 1, 1, 1767254700000000, false, 'failed', false, 437, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, 'RuntimeError: as it was told: ''quoted'' \ and "so"', 0, NULL, 1769846700000000),
(445, 'retrying, then triggered', '605ae82b5a16e5b3eee318944521508c', 1, 1, 1767254700000000, false, 'failed', false, 438, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, 'RuntimeError: as it was told: ''quoted'' \ and "so"', 0, NULL, 1769846700000000),
(446, 'retrying a trigger', '399d365d49640e68ca73ebb6a51c240f', 1, 1, 1767254700000000, true, 'failed', false, 439, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, 'RuntimeError: as it was told: ''quoted'' \ and "so"', 0, NULL, 1769846700000000),
(448, 'interrupted', '8d4e2d45d4c604e65ffe2f5c173c7229', 1, 1, 1767254700000000, false, 'interrupted', false, 440, 'ae7d29c9ce5ae37d557ddf492690405f', 1767254700000000, 1767254700000000, 1767254700000000, 'the worker stopped before the handler had ended', 0, NULL, 1769846700000000),
(498, 'lost', '4b6a235bcec01a61441cb46a26160492', 1, 1, 1767254700000000, false, 'abandoned', false, 471, 'one', 1767254701000000, NULL, 1767255031000000, NULL, 0, NULL, 1769847031000000),
(499, 'lost and released', 'acd183eca2839b08636db7e36d71caf8', 1, 1, 1767254700000000, false, 'abandoned', false, 473, 'one', 1767254701000000, NULL, 1767255031000000, NULL, 0, NULL, 1769847031000000),
(500, 'lost twice', 'c0b9224d8047f97577afa47b85d9e5ae', 1, 1, 1767254700000000, false, 'abandoned', false, 472, 'one', 1767254701000000, NULL, 1767255031000000, NULL, 0, NULL, 1769847031000000);
SELECT setval('@schema@.serial', 503);
