"""Claims in PostgreSQL: how a worker gets them, loses them and gives them back.

A claim is one statement. No lock outlives it, so a process that freezes at any moment blocks no
row. The statement also tells of claims whose leases have ended. Ending those writes executions and
is rare, so it is a transaction of its own.

Every statement passes over rows that other transactions have locked. So nothing that locks many
rows ever waits, and what never waits cannot deadlock. A release comes back for the rows that it
passed over, and waits a moment for each with nothing else locked: the claim would keep the job
until its lease ends.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import timedelta
from typing import Any

from sched_core import Claim, Execution, Hold, Undecodable, codec
from sched_core import row as core
from sched_core._model.execution import DEFAULT_QUEUE
from sched_sql._shared.holds import RECORD_COLUMNS, read_record
from sched_sql._shared.lanes import Lanes
from sched_sql._shared.moments import Row, moment
from sched_sql._shared.rows import JOB_COLUMNS, read_job, read_job_or_undecodable
from sched_sql.postgres.executions import CHUNK, Executions, Found
from sched_sql.postgres.parts import BEGINNING, ENDED, ClaimRequest, ClaimResult, DueProbe, Parts
from sched_sql.postgres.queues import Chooser, Chosen, QueueStatements, lanes_values
from sched_sql.postgres.records import Freed, Records
from sched_sql.postgres.renewals import Fence, Renewals, RowLocations, arrays
from sched_sql.postgres.sql import (
    Announce,
    Names,
    Query,
    Steps,
    qualified,
    texts,
)

MOMENT = "250ms"
"""The time for which a release waits for a row that another call writes."""


class Claims:
    """Claims jobs of a schema for one worker.

    Args:
        names: The schema's names.
        executions: The history in the schema.
        records: The stored jobs in the schema.
        announce: Wakes other workers if one of the moments is near.
    """

    def __init__(
        self, names: Names, executions: Executions, records: Records, announce: Announce
    ) -> None:
        self.locations = RowLocations()
        self._executions = executions
        self._records = records
        self._announce = announce
        self.renewals = Renewals(names, self.locations)
        self.worker = ""
        self._malformed: set[str] = set()
        """``id:revision`` of rows whose header was fine and whose body was not."""
        parts, job = Parts(names), names.job
        self._queues = QueueStatements(names, parts)
        self._chooser = Chooser(self._queues, self.readable)
        clk_async, clk_sync, readable = parts.clk_async, parts.clk_sync, parts.readable
        nothing, ended, until, reached = parts.nothing, parts.ended, parts.until, parts.reached
        # A store with further queues is left to another statement, and this one claims nothing.
        counted = f"alone AS MATERIALIZED (SELECT NOT {parts.has_others} AS alone)"
        reached = f"{reached} AND (SELECT alone FROM alone)"
        # Of the claims whose leases have ended, those are told, too, that come after what is
        # claimed here: ``due`` has as many rows as there is room. Only a sweep looks for them.
        self._claim = f"""
            WITH {clk_sync}, {counted}, due AS MATERIALIZED (
                SELECT ctid AS place, id, due_at, lease_until IS NULL AS free
                FROM {job}
                WHERE queue = %(queue)s AND due_at >= %(floor)s AND {reached}
                    AND (lease_until IS NULL OR {ended}) AND {readable}
                ORDER BY due_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
            ), taken AS (
                {parts.taken}
            )
            SELECT clk.t, taken.due_at AS due_at, taken.* FROM clk, taken
            UNION ALL
            SELECT clk.t, due.due_at, due.id, {nothing} FROM clk, due WHERE NOT due.free
            UNION ALL
            SELECT clk.t, {BEGINNING}, edited.id, {nothing} FROM clk, (
                SELECT id FROM {job} WHERE held IS NOT NULL AND {ended} AND {readable}
                ORDER BY id LIMIT {ENDED}) edited
            UNION ALL
            SELECT clk.t, {BEGINNING}, later.id, {nothing} FROM clk, (
                SELECT id FROM {job}
                WHERE %(floor)s = {BEGINNING} AND %(limit)s <= (SELECT count(*) FROM due)
                    AND queue = %(queue)s AND {reached} AND {ended} AND {readable}
                ORDER BY due_at LIMIT {ENDED}) later
            UNION ALL
            SELECT clk.t, NULL, CASE WHEN NOT alone THEN '' END, {nothing} FROM clk, alone
            ORDER BY 2 NULLS FIRST
        """
        self._ended = f"""
            WITH {clk_sync}
            SELECT clk.t, {qualified("j", RECORD_COLUMNS)} FROM clk, {job} j
            WHERE j.id = ANY(%(ids)s::text[]) AND j.lease_until <= clk.t
            ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
        """
        one = f"queue = %(queue)s AND lease_until IS NULL AND {readable}"
        self._probe = f"""
            WITH {clk_async}
            SELECT clk.t, free.due_at, passed.id IS NOT NULL,
                least((SELECT min({until}) FROM {job} WHERE %(sweep)s AND queue = %(queue)s
                        AND due_at <= %(horizon)s AND lease_until IS NOT NULL AND {readable}),
                    (SELECT min({until}) FROM {job} WHERE %(sweep)s AND held IS NOT NULL
                        AND {readable})),
                free.id, passed.id, {parts.has_others}
            FROM clk LEFT JOIN (SELECT due_at, id FROM {job} WHERE due_at > %(above)s AND {one}
                    ORDER BY due_at LIMIT 1) free ON true
                LEFT JOIN (SELECT id FROM {job} WHERE due_at BETWEEN %(floor)s AND %(above)s
                    AND {one} LIMIT 1) passed ON true
        """
        self.due_since = f"""
            WITH RECURSIVE {clk_async}, {parts.found}
            SELECT min(each.due_at) FROM found CROSS JOIN LATERAL (
                SELECT due_at FROM {job}
                WHERE queue = found.queue AND due_at <= (SELECT t FROM clk)
                    AND (lease_until IS NULL OR lease_until <= (SELECT t FROM clk))
                ORDER BY due_at LIMIT 1) each
        """
        """A query for the moment since which a job is due that no living claim holds."""
        mine = f"""
            unnest(%(ids)s::text[], %(tokens)s::bigint[], %(workers)s::text[])
                AS i(id, token, worker)
            JOIN {job} j ON j.id = i.id
            WHERE j.token = i.token AND j.worker = i.worker AND j.lease_until IS NOT NULL
        """
        self._lock_mine = f"""
            WITH {clk_sync}
            SELECT clk.t, {qualified("j", RECORD_COLUMNS)}
            FROM clk, {mine} ORDER BY j.id FOR NO KEY UPDATE OF j
        """
        self._still_mine = f"SELECT j.id, j.token, j.worker FROM {mine}"
        self._expired_jobs = f"""
            WITH {clk_async}, old AS MATERIALIZED (
                SELECT {JOB_COLUMNS} FROM {job}
                WHERE expires_at <= (SELECT t FROM clk) AND lease_until IS NULL AND NOT removed
                    AND {readable}
                ORDER BY expires_at LIMIT {CHUNK} FOR UPDATE SKIP LOCKED
            )
            SELECT * FROM old
        """

    # -- what can be read

    def readable(self) -> dict[str, Any]:
        """Return the values of the condition on rows that this process can read."""
        return {
            "format": codec.FORMAT,
            "tags": texts(codec.known_tags()),
            "malformed": texts(sorted(self._malformed)) if self._malformed else None,
        }

    # -- what is due

    def probe(
        self,
        now: int | None,
        horizon: int,
        *,
        floor: int,
        above: int,
        sweep: bool,
        lanes: Lanes | None = None,
    ) -> Steps[DueProbe]:
        """Return what is due next.

        Args:
            now: The moment, where the store's clock does not decide.
            horizon: The moment after which nothing is of interest.
            floor: The moment before which nothing is looked at.
            above: The moment up to which nothing was left to claim.
            sweep: Whether claims whose leases end are looked for.
            lanes: What fits, where the queues are not alike; ``None`` for the default queue alone.
        """
        values = {"now": now, "horizon": horizon, "floor": floor, "above": above, "sweep": sweep}
        queues = {"queue": DEFAULT_QUEUE} if lanes is None else lanes_values(lanes)
        statement = self._probe if lanes is None else self._queues.probe
        ((at, free, passed, held, *ids, others),) = yield Query(
            statement, values | queues | self.readable()
        )
        told = tuple(job_id for job_id in ids if job_id is not None)
        return DueProbe(at, free, passed, held, told, others)

    def first(
        self, lanes: Lanes, now: int | None, horizon: int, above: int, probe: DueProbe
    ) -> Steps[DueProbe]:
        """Return a probe as it is without what the worker refuses."""
        return (yield from self._chooser.first(lanes, now, horizon, above, probe))

    # -- claiming

    def claim(
        self, claims: list[Claim], request: ClaimRequest, lanes: Lanes | None = None
    ) -> Steps[ClaimResult]:
        """Append claims to the list.

        Args:
            claims: The list.
            request: The bounds of the claim.
            lanes: What fits, where the queues are not alike; ``None`` for the default queue alone.
        """
        queues = {"queue": DEFAULT_QUEUE} if lanes is None else lanes_values(lanes)
        statement = self._claim if lanes is None else self._queues.claim
        values = {"floor": request.floor, "ends": request.ends, "limit": request.limit}
        rows = yield Query(statement, self._values(request) | queues | values)
        return self._claimed(claims, request, rows)

    def choose(self, lanes: Lanes, request: ClaimRequest, without: Container[str]) -> Steps[Chosen]:
        """Return what is due and fits, where the worker refuses ids."""
        return (yield from self._chooser.due(lanes, request, without))

    def claim_chosen(
        self, claims: list[Claim], request: ClaimRequest, chosen: Sequence[tuple[str, str]]
    ) -> Steps[ClaimResult]:
        """Append claims of chosen jobs to the list, if they are still free."""
        ids, queues = zip(*chosen, strict=True)
        values = {"ids": texts(ids), "queues": texts(set(queues))}
        rows = yield Query(self._queues.claim_chosen, self._values(request) | values)
        return self._claimed(claims, request, rows)

    def _values(self, request: ClaimRequest) -> dict[str, Any]:
        least, most = request.within
        about = {"worker": self.worker, "lease": request.lease}
        return {"now": request.now, "least": least, "most": most, **about, **self.readable()}

    def _claimed(
        self, claims: list[Claim], request: ClaimRequest, rows: Sequence[Row]
    ) -> ClaimResult:
        at: int = rows[0][0]
        claimed_at, expires_at = moment(at), moment(at + request.lease)
        ended: dict[str, None] = {}
        others = 0
        undecodable: list[Fence] = []
        for row in rows[1:]:
            if row[3] is None:
                others += row[1] == BEGINNING
                ended[row[2]] = None
                continue
            try:
                job = read_job(row[2:])
            except codec.Malformed:
                self._malformed.add(f"{row[2]}:{row[3]}")
                undecodable.append((row[2], row[-1], self.worker))
                continue
            claims.append(Claim(job, row[-1], self.worker, claimed_at, expires_at))
            self.locations[row[-1]] = row[-2]
        full = len(rows) - 1 - others >= request.limit
        last = rows[-1][1] if full else None
        return ClaimResult(at, list(ended), undecodable, last, rows[0][2] is not None)

    def lapse(self, ids: Sequence[str], now: int | None) -> Steps[tuple[list[Execution], int]]:
        """End claims whose leases have ended.

        Returns:
            The executions that were written, and how many claims were ended; the rows of the
            others are locked, or their owners have renewed them.
        """
        rows = yield Query(self._ended, {"now": now, "ids": texts(ids)})
        if not rows:
            return [], 0
        at = rows[0][0]
        known: list[tuple[core.Row, Hold]] = []
        history, freed = Found(), list[Freed]()
        for row in rows:
            record = read_record(row[1:])
            if isinstance(record.job, Undecodable):
                self._malformed.add(f"{row[1]}:{row[2]}")
            elif record.hold is not None:
                known.append((record, record.hold))
        ended = yield from self.renewals.end([hold for _, hold in known], at)
        for record, hold in known:
            record.hold = ended.get((hold.token, hold.worker))
            if record.hold is not None:
                before = record.job
                record.lapse(moment(at), 0, history)
                freed.append(Freed(hold.job_id, before, record))
        yield from self._executions.write(history.written)
        yield from self._records.write(freed)
        return history.written, len(freed)

    def prune(self, now: int | None) -> Steps[tuple[int, bool]]:
        """Delete a chunk of the expired jobs; what turns out to be unreadable stays.

        Returns:
            How many were deleted, and whether there may be more.
        """
        rows = yield Query(self._expired_jobs, {"now": now, **self.readable()})
        gone: list[str] = []
        for row in rows:
            if isinstance(read_job_or_undecodable(row), Undecodable):
                self._malformed.add(f"{row[0]}:{row[1]}")
            else:
                gone.append(row[0])
        yield from self._records.delete(gone)
        yield from self.renewals.prune(now)
        return len(gone), len(rows) == CHUNK

    # -- giving back

    def release(
        self, fences: Sequence[Fence], now: int | None, *, wait: bool = False
    ) -> Steps[list[Fence]]:
        """Release claims whose handlers were never called; return those whose rows are locked.

        Args:
            fences: The claims.
            now: The moment, where the store's clock does not decide.
            wait: Whether to wait a moment for locked rows.
        """
        if wait:
            yield Query("SELECT set_config('lock_timeout', %s, true)", (MOMENT,))
        statement = self._lock_mine if wait else f"{self._lock_mine} SKIP LOCKED"
        rows = yield Query(statement, {"now": now, **arrays(fences)})
        history, freed = Found(), list[Freed]()
        for row in rows:
            record = read_record(row[1:])
            hold, before = record.hold, record.job
            if hold is not None:
                job = None if isinstance(before, Undecodable) else before
                history.written += core.freed(job, hold, now=moment(row[0]))
                record.hold = None
                freed.append(Freed(row[1], before, record))
        yield from self._executions.write(history.written)
        due = yield from self._records.write(freed)
        yield from self._announce(due)
        if len(rows) == len(fences):
            return []
        left = yield Query(self._still_mine, arrays(fences))
        return [(job_id, token, worker) for job_id, token, worker in left]


def micros_of(duration: timedelta) -> int:
    """Return a duration in whole microseconds."""
    return duration // timedelta(microseconds=1)
