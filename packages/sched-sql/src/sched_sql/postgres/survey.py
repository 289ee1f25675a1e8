"""What is going on in a schema: claims, workers, and how much there is.

No index has the claims: a claim or a renewal would have to write it. But what is held is due, and
so among the first in the index of what is due; or it was edited or removed under its claim, and
these have an index.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sched_core import ClaimQuery, CountQuery, Counts, Hold, Job, Page, WorkerState, codec
from sched_core.ports import FORGOTTEN
from sched_sql._shared.history import can_be_stored
from sched_sql._shared.holds import RECORD_COLUMNS, read_record
from sched_sql._shared.moments import EARLIEST, LATEST, Row, micros, moment, quoted
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
from sched_sql.postgres.renewals import as_renewed
from sched_sql.postgres.sql import ASYNC_COMMIT, NOW, Names, Query, Steps, qualified, texts

MARGIN = 60_000_000
"""Microseconds by which a claimed job may be due later than now: a clock was set back."""

_GROUPS = {
    None: "NULL::text",
    "hour": f"finished_at - ((finished_at % {HOUR}) + {HOUR}) % {HOUR}".replace("%", "%%"),
    "job": "job_id",
    "error": "CASE WHEN status = 'failed' "
    "THEN left(split_part(coalesce(reason, ''), ':', 1), 100) END",
}
_STRANGE = f"(format <> 2 OR tag NOT IN ({quoted(BUILT_IN)}))"
_MOMENTS = "scheduled_at, claimed_at, started_at, coalesced_until, expires_at"
_SOUND = f"greatest({_MOMENTS}) <= {LATEST} AND least({_MOMENTS}) >= {EARLIEST}"


class Survey:
    """Looks at one schema, and keeps what its workers report.

    Args:
        names: The schema's names.
    """

    def __init__(self, names: Names) -> None:
        self._latest = EARLIEST
        """The latest moment of a claim of this process."""
        job, execution, worker = names.job, names.execution, names.worker
        readable = "format = %(format)s AND tag = ANY(%(tags)s::text[])"
        # One look for each queue: an index that begins with it is not read as a whole.
        queues = f"""
            queues(name) AS (
                (SELECT queue FROM {job} WHERE due_at IS NOT NULL ORDER BY queue LIMIT 1)
                UNION ALL
                SELECT (SELECT j.queue FROM {job} j WHERE j.due_at IS NOT NULL
                    AND j.queue > queues.name ORDER BY j.queue LIMIT 1)
                FROM queues WHERE queues.name IS NOT NULL)
        """
        held = f"""
            held AS MATERIALIZED (
                SELECT j.id, j.queue, j.held IS NULL AND j.paused_at IS NULL AND NOT j.removed
                    AND {readable} AS plain
                FROM queues CROSS JOIN LATERAL (
                    SELECT * FROM {job} WHERE queue = queues.name AND due_at <= greatest(%(until)s,
                        (SELECT max(seen_at) FROM {worker})) + {MARGIN}
                    AND lease_until IS NOT NULL) j
                WHERE queues.name IS NOT NULL AND j.held IS NULL
                UNION ALL
                SELECT id, queue, false FROM {job}
                WHERE held IS NOT NULL AND lease_until IS NOT NULL)
        """
        columns = qualified("j", RECORD_COLUMNS)
        self._claims = f"""
            WITH RECURSIVE {queues}, {held}
            SELECT {columns}, r.renewed_at, r.lease_until, r.alone_at, r.progress
            FROM held JOIN {job} j ON j.id = held.id
            LEFT JOIN {names.renewal} r ON r.token = j.token AND r.worker = j.worker
                AND r.renewed_at IS NOT NULL
            WHERE {{where}} ORDER BY j.id LIMIT %(limit)s
        """
        self._running = f"""
            WITH RECURSIVE {queues}, {held}
            SELECT queue, count(*) FROM held WHERE plain GROUP BY queue
        """
        self._odd = f"""
            WITH RECURSIVE {queues}, {held}
            SELECT {columns} FROM held JOIN {job} j ON j.id = held.id
            WHERE NOT held.plain AND j.lease_until IS NOT NULL
        """
        self._due = f"""
            WITH RECURSIVE {queues}
            SELECT queues.name, j.number, j.earliest, j.overdue
            FROM queues CROSS JOIN LATERAL (
                SELECT count(*) AS number, min(due_at) AS earliest,
                    count(*) FILTER (WHERE due_at < %(overdue)s) AS overdue
                FROM (SELECT due_at FROM {job} WHERE queue = queues.name AND due_at <= %(now)s
                    AND lease_until IS NULL AND {readable} ORDER BY due_at LIMIT {MOST_DUE}) due) j
            WHERE queues.name IS NOT NULL
        """
        kinds = {
            "paused": "paused_at IS NOT NULL",
            "finished": "number IS NULL AND requests IS NULL AND paused_at IS NULL",
            "strange": _STRANGE,
        }
        # One statement, or a job that is paused meanwhile would be counted twice.
        self._kinds = f"""
            SELECT 'total', NULL, NULL, (SELECT count(*) FROM {job})
                - (SELECT count(*) FROM {job} WHERE held IS NOT NULL AND removed)
                - (SELECT count(*) FROM {job} WHERE {OWN})
            UNION ALL SELECT 'finished', format, tag, -count(*) FROM {job}
            WHERE {OWN} GROUP BY format, tag
        """ + "".join(
            f"UNION ALL SELECT '{name}', format, tag, count(*) FROM {job} "
            f"WHERE {condition} AND NOT removed GROUP BY format, tag "
            for name, condition in kinds.items()
        )
        age = f"finished_at BETWEEN {EARLIEST} AND {LATEST}"
        at = f"SELECT seq, finished_at FROM {execution} WHERE"
        self._from = f"{at} seq >= %s AND {age} ORDER BY seq LIMIT 1"
        self._newest = f"{at} {age} ORDER BY seq DESC LIMIT 1"
        self._oldest_counted = f"""
            SELECT seq FROM {execution} WHERE seq BETWEEN %s AND %s ORDER BY seq DESC
            LIMIT 1 OFFSET {MOST_EXECUTIONS}
        """
        self._count = f"""
            SELECT kind, status, {{group}} AS its, count(*) FROM {execution}
            WHERE seq BETWEEN %s AND %s AND finished_at >= %s AND finished_at < %s AND {_SOUND}
            GROUP BY 1, 2, 3
        """
        self._now = f"SELECT {NOW}"
        self._report = f"""
            WITH clk AS MATERIALIZED (SELECT {ASYNC_COMMIT})
            INSERT INTO {worker} (worker, started_at, seen_at, details)
            SELECT %s, %s, %s, %s FROM clk
            ON CONFLICT (worker) DO UPDATE SET started_at = excluded.started_at,
                seen_at = excluded.seen_at, details = excluded.details
        """
        self._delete = f"""
            WITH clk AS MATERIALIZED (SELECT {ASYNC_COMMIT})
            DELETE FROM {worker} USING clk WHERE {{which}}
        """
        self._workers = f"SELECT worker, details FROM {worker} ORDER BY worker"

    # -- claims

    def claimed(self, at: datetime) -> None:
        """Know of a claim: what is held is not due later than the latest one."""
        self._latest = max(self._latest, micros(at))

    def claims(
        self, query: ClaimQuery, after: str | None, limit: int, now: datetime
    ) -> Steps[Page[Hold]]:
        """List what is stored of claims, by their jobs' ids."""
        found: list[Hold] = []
        asked = {"after": after, "job_id": query.job_id, "worker": query.worker}
        if not all(value is None or can_be_stored(value) for value in asked.values()):
            return Page([], None)
        conditions = {"after": "j.id > ", "job_id": "j.id = ", "worker": "j.worker = "}
        while True:
            where = ["j.lease_until IS NOT NULL"]
            where += [f"{conditions[name]}%({name})s" for name in asked if asked[name] is not None]
            wanted = limit + 1 - len(found)
            values = asked | self._values(now) | {"limit": wanted}
            rows = yield Query(self._claims.format(where=" AND ".join(where)), values)
            found += [hold for row in rows if (hold := _claim_of(row)) and query.matches(hold)]
            if len(found) > limit:
                return Page(found[:limit], found[limit - 1].job_id if limit else None)
            if len(rows) < wanted:
                return Page(found, None)
            asked["after"] = rows[-1][0]

    def _values(self, now: datetime) -> dict[str, object]:
        return {
            "until": max(self._latest, micros(now)),
            "format": codec.FORMAT,
            "tags": texts(codec.known_tags()),
        }

    # -- workers

    def report(self, state: WorkerState) -> Steps[None]:
        """Keep what a worker tells of itself."""
        yield Query(self._report, worker_values(state))

    def withdraw(self, worker: str) -> Steps[None]:
        """Delete what a worker has told of itself."""
        yield Query(self._delete.format(which="worker = %s"), (worker,))

    def forget(self, now: datetime) -> Steps[None]:
        """Delete what workers have told that are gone."""
        yield Query(self._delete.format(which="seen_at < %s"), (micros(now - FORGOTTEN),))

    def workers(self) -> Steps[list[WorkerState]]:
        """Return what workers have told, by name."""
        return read_workers((yield Query(self._workers)))

    # -- how much there is

    def counts(self, query: CountQuery, at: int | None) -> Steps[Counts]:
        """Count jobs, claims and executions.

        Args:
            query: What to count.
            at: The moment, where the clock decides; ``None`` where the server's does.
        """
        if at is None:
            ((at,),) = yield Query(self._now)
        counting = Counting(query, moment(at))
        total, *kinds = yield Query(self._kinds)
        counting.add_total(total[3])
        counting.add_kinds(kinds)
        values = self._values(counting.now)
        bounds = {"now": at, "overdue": counting.overdue_before}
        counting.add_due((yield Query(self._due, values | bounds)))
        counting.add_running((yield Query(self._running, values)))
        odd = [
            _claim_of((*row, None, None, None, None)) for row in (yield Query(self._odd, values))
        ]
        counting.add_running((hold.queue, 1) for hold in odd if hold is not None and hold.pending)
        yield from self._count_executions(counting)
        return counting.counts()

    def _count_executions(self, counting: Counting) -> Steps[None]:
        since, until = window(counting.query)
        oldest, newest = (yield Query(self._from, (0,))), (yield Query(self._newest))
        if not oldest:
            return
        first, last = oldest[0][0], newest[0][0]
        if last - first > 2 * NEAR:
            slack = int(DISORDER.total_seconds()) * 1_000_000
            begin, _ = yield from self._found(oldest[0], newest[0], since - slack)
            first = max(first, min(begin, last - NEAR))
            if until is not None:
                _, last = yield from self._found(oldest[0], newest[0], until + slack)
        beyond: Sequence[Row] = []
        if last - first > 2 * MOST_EXECUTIONS:
            beyond = yield Query(self._oldest_counted, (first, last))
            first = beyond[0][0] + 1 if beyond else first
        ends = LATEST + 1 if until is None else until
        rows = yield Query(
            self._count.format(group=_GROUPS[counting.query.by]),
            (first, last, max(since, EARLIEST), ends),
        )
        counting.add_executions(rows, complete=not beyond)

    def _found(self, oldest: Row, newest: Row, at: int) -> Steps[tuple[int, int]]:
        searching = search((oldest[0], oldest[1]), (newest[0], newest[1]), at)
        try:
            middle = next(searching)
            while True:
                ((seq, finished_at),) = yield Query(self._from, (middle,))
                middle = searching.send((seq, finished_at))
        except StopIteration as end:
            found: tuple[int, int] = end.value
            return found


def _claim_of(row: Row) -> Hold | None:
    """Return the hold of a row with its unlocked renewal; ``None`` where it cannot be read."""
    record = read_record(row[:-4])
    hold = record.hold
    if hold is None or not (record.job is None or isinstance(record.job, Job)):
        return None
    renewed_at, lease_until, alone_at, progress = row[-4:]
    if renewed_at is None or moment(renewed_at) < hold.renewed_at:
        return hold
    return as_renewed(hold, renewed_at, lease_until, alone_at, progress)
