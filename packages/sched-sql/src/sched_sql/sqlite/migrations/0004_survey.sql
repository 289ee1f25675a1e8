-- What looks at a store needs: jobs that are rare by their state or kind, in indexes that no run touches, or hardly
-- (finished); which store this is, for cursors of the history; and the newest execution that was deleted.

CREATE INDEX sched_job_paused ON sched_job (format, tag) WHERE paused_at IS NOT NULL AND removed = 0;
CREATE INDEX sched_job_finished ON sched_job (format, tag)
    WHERE number IS NULL AND requests IS NULL AND paused_at IS NULL AND removed = 0;
CREATE INDEX sched_job_strange ON sched_job (format, tag)
    WHERE (format <> 2 OR tag NOT IN ('cron', 'interval', 'fixed_delay', 'once', 'any_of', 'between', 'excluding'))
        AND removed = 0;

INSERT INTO sched_meta (key, value) VALUES ('store', 1 + (random() & 0x3fffffffffffffff)), ('deleted', 0);
