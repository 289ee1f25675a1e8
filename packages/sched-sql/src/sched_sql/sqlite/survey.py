"""What is going on in a SQLite file: claims, workers, and how much there is."""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sched_core import ClaimQuery, CountQuery, Counts, Hold, Job, Page, WorkerState, codec
from sched_core.ports import FORGOTTEN
from sched_sql._shared.history import can_be_stored
from sched_sql._shared.holds import RECORD_COLUMNS
from sched_sql._shared.moments import EARLIEST, LATEST, Row, micros, quoted
from sched_sql._shared.survey import (
    BUILT_IN,
    DISORDER,
    HOUR,
    MOST_DUE,
    MOST_EXECUTIONS,
    NEAR,
    OWN,
    Counting,
    read_workers,
    search,
    window,
    worker_values,
)
from sched_sql.sqlite.database import Database
from sched_sql.sqlite.records import Record, read_record
from sched_sql.sqlite.renewals import Renewals

_HELD = f"SELECT {RECORD_COLUMNS} FROM sched_job INDEXED BY sched_job_held"
_REPORT = """
INSERT INTO sched_worker (worker, started_at, seen_at, details) VALUES (?, ?, ?, ?)
ON CONFLICT (worker) DO UPDATE
SET started_at = excluded.started_at, seen_at = excluded.seen_at, details = excluded.details
"""

_STRANGE = f"(format <> 2 OR tag NOT IN ({quoted(BUILT_IN)}))"
_KINDS = f"""
SELECT 'paused', format, tag, count(*) FROM sched_job INDEXED BY sched_job_paused
WHERE paused_at IS NOT NULL AND removed = 0 GROUP BY format, tag
UNION ALL
SELECT 'finished', format, tag, count(*) FROM sched_job INDEXED BY sched_job_finished
WHERE number IS NULL AND requests IS NULL AND paused_at IS NULL AND removed = 0 GROUP BY format, tag
UNION ALL
SELECT 'strange', format, tag, count(*) FROM sched_job INDEXED BY sched_job_strange
WHERE {_STRANGE} AND removed = 0 GROUP BY format, tag
UNION ALL
SELECT 'finished', format, tag, -count(*) FROM sched_job WHERE {OWN} GROUP BY format, tag
"""
_TOTAL = f"""
SELECT (SELECT count(*) FROM sched_job) - (SELECT count(*) FROM sched_job INDEXED BY sched_job_held
    WHERE lease_until IS NOT NULL AND removed <> 0) - (SELECT count(*) FROM sched_job WHERE {OWN})
"""
_QUEUES = """
WITH RECURSIVE queues(its) AS (
    SELECT min(queue) FROM sched_job INDEXED BY sched_job_due WHERE due_at IS NOT NULL
    UNION ALL
    SELECT (SELECT min(queue) FROM sched_job INDEXED BY sched_job_due
        WHERE due_at IS NOT NULL AND queue > its)
    FROM queues WHERE its IS NOT NULL)
SELECT its FROM queues WHERE its IS NOT NULL
"""
_DUE = f"""
SELECT ?1, count(*), min(due_at), coalesce(sum(due_at < ?2), 0) FROM (
    SELECT due_at FROM sched_job INDEXED BY sched_job_due
    WHERE queue = ?1 AND due_at <= ?3 AND lease_until IS NULL AND removed = 0 AND {{readable}}
    ORDER BY due_at LIMIT {MOST_DUE})
"""
_IS_AGE = f"typeof(finished_at) = 'integer' AND finished_at BETWEEN {EARLIEST} AND {LATEST}"
_FROM = (
    f"SELECT seq, finished_at FROM sched_execution WHERE seq >= ? AND {_IS_AGE} "
    "ORDER BY seq LIMIT 1"
)
_NEWEST = f"SELECT seq, finished_at FROM sched_execution WHERE {_IS_AGE} ORDER BY seq DESC LIMIT 1"
_GROUPS = {
    None: "NULL",
    "hour": f"finished_at - ((finished_at % {HOUR}) + {HOUR}) % {HOUR}",
    "job": "job_id",
    "error": "CASE WHEN status = 'failed' THEN substr(CASE WHEN instr(reason, ':') THEN "
    "substr(reason, 1, instr(reason, ':') - 1) ELSE coalesce(reason, '') END, 1, 100) END",
}
_COUNT = """
SELECT kind, status, {group}, count(*) FROM sched_execution
WHERE seq BETWEEN ?1 AND ?2 AND finished_at >= ?3 AND finished_at < ?4
GROUP BY {by}
"""
_OLDEST_COUNTED = f"""
SELECT seq FROM sched_execution WHERE seq BETWEEN ? AND ? ORDER BY seq DESC
LIMIT 1 OFFSET {MOST_EXECUTIONS}
"""


class Survey:
    """Looks at a database, and keeps what its workers report.

    Args:
        database: The database.
        renewals: The leases that are extended while others have it locked.
    """

    def __init__(self, database: Database, renewals: Renewals) -> None:
        self._database = database
        self._renewals = renewals

    # -- claims

    def claims(self, query: ClaimQuery, after: str | None, limit: int) -> Page[Hold]:
        """List what is stored of claims, by their jobs' ids."""
        asked = (after, query.job_id, query.worker)
        if not all(value is None or can_be_stored(value) for value in asked):
            return Page([], None)
        where, values = ["lease_until IS NOT NULL", "typeof(id) = 'text'"], list[Any]()
        for condition, value in zip(("id > ?", "id = ?", "worker = ?"), asked, strict=True):
            if value is not None:
                where.append(condition)
                values.append(value)
        found: list[Hold] = []
        wanted = limit + 1
        rows = self._database.read(
            f"{_HELD} WHERE {' AND '.join(where)} ORDER BY id"
            + ("" if query.queue is not None else f" LIMIT {wanted + _UNREADABLE}"),
            values,
        )
        for hold in self._holds(rows):
            if query.matches(hold):
                found.append(hold)
                if len(found) == wanted:
                    return Page(found[:limit], found[limit - 1].job_id if limit else None)
        if query.queue is None and len(rows) == wanted + _UNREADABLE:
            # More of them than expected cannot be read: the page is short, and goes on.
            return Page(found, rows[-1][0])
        return Page(found, None)

    def _holds(self, rows: Sequence[Row]) -> list[Hold]:
        made = self._renewals.made()
        found: list[Hold] = []
        for row in rows:
            hold = _claim_of(read_record(row))
            if hold is not None:
                renewal = made.get((hold.token, hold.worker))
                found.append(hold if renewal is None else renewal.of(hold))
        return found

    # -- workers

    def report(self, state: WorkerState) -> None:
        """Keep what a worker tells of itself."""
        with self._database.write(durable=False):
            self._database.connection.execute(_REPORT, worker_values(state))

    def withdraw(self, worker: str) -> None:
        """Delete what a worker has told of itself."""
        with self._database.write(durable=False):
            self._database.connection.execute(
                "DELETE FROM sched_worker WHERE worker = ?", (worker,)
            )

    def forget(self, at: datetime) -> None:
        """Delete what workers have told that are gone; inside a transaction."""
        self._database.connection.execute(
            "DELETE FROM sched_worker WHERE seen_at < ?", (micros(at - FORGOTTEN),)
        )

    def workers(self) -> list[WorkerState]:
        """Return what workers have told, by name."""
        return read_workers(
            self._database.read("SELECT worker, details FROM sched_worker ORDER BY worker")
        )

    # -- how much there is

    def counts(self, query: CountQuery, now: datetime) -> Counts:
        """Count jobs, claims and executions, all of one moment."""
        counting, read = Counting(query, now), self._database.read
        self._database.look()
        self._database.connection.execute("BEGIN")
        try:
            counting.add_total(read(_TOTAL)[0][0])
            counting.add_kinds(read(_KINDS))
            self._count_due(counting)
            counting.add_running(self._running())
            self._count_executions(counting)
        finally:
            self._database.connection.execute("ROLLBACK")
        return counting.counts()

    def _count_due(self, counting: Counting) -> None:
        tags = json.dumps(codec.known_tags())
        statement = _DUE.format(
            readable=f"format = {codec.FORMAT} AND tag IN (SELECT value FROM json_each(?4))"
        )
        bounds = (counting.overdue_before, micros(counting.now), tags)
        for (queue,) in self._database.read(_QUEUES):
            if type(queue) is str:
                counting.add_due(self._database.read(statement, (queue, *bounds)))

    def _running(self) -> list[Row]:
        # What a plain claim is for needs no look: nearly all are.
        tags = json.dumps(codec.known_tags())
        plain = (
            "held IS NULL AND paused_at IS NULL AND removed = 0 AND typeof(queue) = 'text' "
            f"AND format = {codec.FORMAT} AND tag IN (SELECT value FROM json_each(?))"
        )
        rows = self._database.read(
            "SELECT queue, count(*) FROM sched_job INDEXED BY sched_job_held "
            f"WHERE lease_until IS NOT NULL AND {plain} GROUP BY queue",
            (tags,),
        )
        others = self._database.read(
            f"{_HELD} WHERE lease_until IS NOT NULL AND NOT ({plain})", (tags,)
        )
        holds = (_claim_of(read_record(row)) for row in others)
        return rows + [(hold.queue, 1) for hold in holds if hold is not None and hold.pending]

    def _count_executions(self, counting: Counting) -> None:
        read, query = self._database.read, counting.query
        since, until = window(query)
        oldest, newest = read(_FROM, (0,)), read(_NEWEST)
        if not oldest:
            return
        first, last = oldest[0][0], newest[0][0]
        if last - first > 2 * NEAR:
            slack = DISORDER.total_seconds() * 1_000_000
            begin, _ = self._found(oldest[0], newest[0], since - int(slack))
            first = max(first, min(begin, last - NEAR))
            if until is not None:
                last = self._found(oldest[0], newest[0], until + int(slack))[1]
        beyond: list[Row] = []
        if last - first > 2 * MOST_EXECUTIONS:
            beyond = read(_OLDEST_COUNTED, (first, last))
            first = beyond[0][0] + 1 if beyond else first
        by = "kind, status" if query.by is None else "kind, status, 3"
        statement = _COUNT.format(group=_GROUPS[query.by], by=by)
        ends = LATEST + 1 if until is None else until
        rows = read(statement, (first, last, max(since, EARLIEST), ends))
        counting.add_executions(rows, complete=not beyond)

    def _found(self, oldest: Row, newest: Row, at: int) -> tuple[int, int]:
        searching = search((oldest[0], oldest[1]), (newest[0], newest[1]), at)
        try:
            middle = next(searching)
            while True:
                row = self._database.read(_FROM, (middle,))[0]
                middle = searching.send((row[0], row[1]))
        except StopIteration as end:
            found: tuple[int, int] = end.value
            return found


_UNREADABLE = 20
"""Claims of a page that may turn out to be unreadable, without a second look."""


def _claim_of(record: Record) -> Hold | None:
    """Return the hold of a row; ``None`` where nothing, or nothing readable, is held."""
    return record.hold if record.job is None or isinstance(record.job, Job) else None
