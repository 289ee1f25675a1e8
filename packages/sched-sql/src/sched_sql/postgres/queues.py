"""Claims in PostgreSQL by queue and by id, where the jobs of a store are not all alike to a worker.

The index of due moments has one range for each queue. Of each queue that has room, the oldest are
looked at without locks, to see how many of the oldest of all are in it; so many are claimed then.
Where a worker refuses ids, what it takes is chosen here, and claimed by id.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable
from operator import itemgetter
from typing import Any, NamedTuple

from sched_sql._shared.lanes import Lanes
from sched_sql._shared.moments import Row
from sched_sql.postgres.parts import BEGINNING, ENDED, ClaimRequest, DueProbe, Parts
from sched_sql.postgres.sql import Names, Query, Steps, numbers, texts

STEP = 1_000
"""The free jobs of all queues that are looked at first, where some are refused."""
LEAST = 100
"""The free jobs of each queue that are looked at first, where there are many queues."""
GROWTH = 16
"""The factor by which more is looked at next."""


class Chosen(NamedTuple):
    """What a worker may claim.

    Attributes:
        at: The moment of the look.
        ended: Ids of jobs whose claims' leases have ended.
        jobs: Ids and queues of due jobs that fit, oldest first.
        refused: Whether there are jobs that the worker refuses.
    """

    at: int
    ended: list[str]
    jobs: list[tuple[str, str]]
    refused: bool


class QueueStatements:
    """Statements on the queues of one schema.

    Args:
        names: The schema's names.
        parts: Parts of them.
    """

    def __init__(self, names: Names, parts: Parts) -> None:
        job = names.job
        due = f"due_at >= %(floor)s AND {parts.reached} AND {parts.free}"
        ended = f"""
            SELECT id FROM q CROSS JOIN LATERAL (
                SELECT id FROM {job} WHERE %(floor)s = {BEGINNING} AND queue = q.queue
                    AND {parts.reached} AND {parts.ended} AND {parts.readable}
                ORDER BY due_at LIMIT {ENDED}) each
            UNION ALL
            (SELECT id FROM {job} WHERE held IS NOT NULL AND {parts.ended} AND {parts.readable}
                ORDER BY id LIMIT {ENDED})
        """
        self.claim = f"""
            WITH RECURSIVE {parts.clk_sync}, {parts.queues}, oldest AS (
                SELECT q.queue, each.due_at,
                    CASE WHEN q.is_rest
                        THEN row_number() OVER (PARTITION BY q.is_rest ORDER BY each.due_at)
                        ELSE 0 END AS place
                FROM q CROSS JOIN LATERAL (
                    SELECT due_at FROM {job} WHERE queue = q.queue AND {due}
                    ORDER BY due_at LIMIT least(q.most, %(limit)s)) each
                WHERE q.most > 0
            ), wanted AS MATERIALIZED (
                SELECT queue, count(*) AS most FROM (
                    SELECT queue FROM oldest WHERE place <= %(rest)s
                    ORDER BY due_at LIMIT %(limit)s) first
                GROUP BY queue
            ), due AS MATERIALIZED (
                SELECT each.* FROM wanted CROSS JOIN LATERAL (
                    SELECT ctid AS place, id, due_at, true AS free FROM {job}
                    WHERE queue = wanted.queue AND {due}
                    ORDER BY due_at LIMIT wanted.most FOR NO KEY UPDATE SKIP LOCKED) each
            ), taken AS ({parts.taken})
            SELECT clk.t, taken.due_at AS due_at, taken.* FROM clk, taken
            UNION ALL
            SELECT clk.t, {BEGINNING}, ended.id, {parts.nothing} FROM clk, ({ended}) ended
            UNION ALL
            SELECT clk.t, NULL, NULL, {parts.nothing} FROM clk
            ORDER BY 2 NULLS FIRST
        """
        self.claim_chosen = f"""
            WITH {parts.clk_sync}, due AS MATERIALIZED (
                SELECT ctid AS place, id, due_at, true AS free FROM {job}
                WHERE id = ANY(%(ids)s::text[]) AND queue = ANY(%(queues)s::text[])
                    AND {parts.reached} AND {parts.free}
                ORDER BY due_at FOR NO KEY UPDATE SKIP LOCKED
            ), taken AS ({parts.taken})
            SELECT clk.t, taken.due_at AS due_at, taken.* FROM clk, taken
            UNION ALL
            SELECT clk.t, NULL, NULL, {parts.nothing} FROM clk
            ORDER BY 2 NULLS FIRST
        """
        depth = f"""
            depth AS MATERIALIZED (
                SELECT greatest({LEAST}, %(depth)s / greatest(1, count(*))) AS depth FROM q
                WHERE most > 0)
        """
        self.look = f"""
            WITH RECURSIVE {parts.clk_async}, {parts.queues}, {depth}
            SELECT clk.t, each.due_at, each.id, q.queue FROM clk, q CROSS JOIN LATERAL (
                SELECT due_at, id FROM {job}
                WHERE queue = q.queue AND {parts.reached} AND {parts.free}
                ORDER BY due_at LIMIT (SELECT depth FROM depth)) each
            WHERE q.most > 0
            UNION ALL
            SELECT clk.t, NULL, ended.id, NULL FROM clk, ({ended}) ended
            UNION ALL
            SELECT clk.t, depth.depth, NULL, NULL FROM clk, depth
        """
        free = f"""
            SELECT each.due_at, each.id, q.queue FROM q CROSS JOIN LATERAL (
                SELECT due_at, id FROM {job}
                WHERE queue = q.queue AND {{bounds}} AND {parts.free}
                ORDER BY due_at LIMIT {{most}}) each
            WHERE q.most > 0
        """
        first = free.format(bounds="due_at > %(above)s", most=1)
        passed = free.format(bounds="due_at BETWEEN %(floor)s AND %(above)s", most=1)
        held = f"""
            least((SELECT min(each.until) FROM q CROSS JOIN LATERAL (
                    SELECT min({parts.until}) AS until FROM {job}
                    WHERE %(sweep)s AND queue = q.queue AND due_at <= %(horizon)s
                        AND lease_until IS NOT NULL AND {parts.readable}) each),
                (SELECT min({parts.until}) FROM {job} WHERE %(sweep)s AND held IS NOT NULL
                    AND {parts.readable}))
        """
        self.probe = f"""
            WITH RECURSIVE {parts.clk_async}, {parts.queues}
            SELECT clk.t, free.due_at, passed.id IS NOT NULL, {held}, free.id, passed.id, false
            FROM clk LEFT JOIN ({first} ORDER BY 1 LIMIT 1) free ON true
                LEFT JOIN ({passed} LIMIT 1) passed ON true
        """
        walk = free.format(bounds="due_at <= %(horizon)s", most="(SELECT depth FROM depth)")
        self.walk = f"""
            WITH RECURSIVE {parts.clk_async}, {parts.queues}, {depth}
            {walk} UNION ALL SELECT depth, NULL, NULL FROM depth
        """


def lanes_values(lanes: Lanes) -> dict[str, Any]:
    """Return the values that tell a statement of a room."""
    named = lanes.all_named
    return {
        "named": texts(named),
        "mosts": numbers(lanes.left_of(queue) for queue in named),
        "rest": lanes.left_of_rest,
    }


class Chooser:
    """Chooses jobs for a worker that refuses some.

    Args:
        statements: The statements.
        readable: Returns the values of the condition on rows that this process can read.
    """

    def __init__(self, statements: QueueStatements, readable: Callable[[], dict[str, Any]]) -> None:
        self._statements = statements
        self._readable = readable

    def due(self, lanes: Lanes, request: ClaimRequest, without: Container[str]) -> Steps[Chosen]:
        """Return what is due and fits.

        Args:
            lanes: What fits.
            request: The bounds of the claim.
            without: Ids that others have locked, or have claimed just now.
        """
        least, most = request.within
        values = {
            "now": request.now,
            "least": least,
            "most": most,
            "floor": BEGINNING,
            "ends": request.ends,
            **lanes_values(lanes),
            **self._readable(),
        }
        depth = STEP
        while True:
            rows = yield Query(self._statements.look, values | {"depth": depth})
            at, each_depth, _, _ = rows[-1]
            ended = [job_id for _, _, job_id, queue in rows[:-1] if queue is None]
            due = [row[1:] for row in rows[:-1] if row[3] is not None]
            account, chosen, refused = Lanes.of(lanes), list[tuple[str, str]](), False
            for _, job_id, queue in sorted(due, key=itemgetter(0)):
                if account.left < 1:
                    break
                if account.left_of(queue) > 0 and job_id not in without:
                    if lanes.room.accepts is None or lanes.room.accepts(job_id):
                        account.take(queue)
                        chosen.append((job_id, queue))
                    else:
                        refused = True
            if not any(account.left_of(queue) > 0 for queue in _cut_off(due, each_depth)):
                return Chosen(at, ended, chosen, refused)
            depth *= GROWTH

    def first(
        self, lanes: Lanes, now: int | None, horizon: int, above: int, probe: DueProbe
    ) -> Steps[DueProbe]:
        """Return a probe as it is without what the worker refuses."""
        accepts = lanes.room.accepts
        values = {"now": now, "horizon": horizon, **lanes_values(lanes), **self._readable()}
        depth = STEP
        while True:
            rows = yield Query(self._statements.walk, values | {"depth": depth})
            due, each_depth = rows[:-1], rows[-1][0]
            fits = [row for row in due if accepts is None or accepts(row[1])]
            free = min((row[0] for row in fits if row[0] > above), default=None)
            known = {row[2] for row in fits}
            if all(queue in known for queue in _cut_off(due, each_depth)):
                passed_over = any(row[0] <= above for row in fits)
                return probe._replace(free=free, passed_over=passed_over)
            depth *= GROWTH


def _cut_off(due: Iterable[Row], depth: int) -> list[str]:
    """Return the queues of which there may be more than was looked at."""
    counts = Counter(queue for _, _, queue in due)
    return [queue for queue, count in counts.items() if count >= depth]
