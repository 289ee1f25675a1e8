-- What an execution was asked with, and what a run says of itself. Older rows have none of it. Workers of
-- version 3 go on: they name the columns that they read and write, and leave these empty.

-- In the order in which workers lock them.
LOCK TABLE @schema@.job, @schema@.renewal, @schema@.execution IN ACCESS EXCLUSIVE MODE;

ALTER TABLE @schema@.execution
    ADD COLUMN args text,                     -- JSON: the arguments of the request
    ADD COLUMN metadata text;                 -- JSON: the job's, as they were at the run
ALTER TABLE @schema@.job ADD COLUMN progress text;    -- JSON: the note of the run in flight
ALTER TABLE @schema@.renewal ADD COLUMN progress text;
