-- What an execution was asked with, and what a run says of itself. Older rows have none of it.

ALTER TABLE sched_execution ADD COLUMN args TEXT;        -- JSON: the arguments of the request
ALTER TABLE sched_execution ADD COLUMN metadata TEXT;    -- JSON: the job's, as they were at the run
ALTER TABLE sched_job ADD COLUMN progress TEXT;          -- JSON: the note of the run in flight
