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

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sched_core import Claim, Execution, Hold, Undecodable, codec
from sched_core import row as core
from sched_core._model.execution import DEFAULT_QUEUE as QUEUE
from sched_sql._shared.holds import RECORD_COLUMNS, read_record
from sched_sql._shared.moments import moment
from sched_sql._shared.rows import JOB_COLUMNS, read_job, read_job_or_undecodable
from sched_sql.postgres.executions import CHUNK, Executions, Found
from sched_sql.postgres.records import Freed, Records
from sched_sql.postgres.renewals import Fence, Renewals, RowLocations, arrays
from sched_sql.postgres.sql import (
    ASYNC_COMMIT,
    JOBS,
    NOW,
    SYNC_COMMIT,
    Announce,
    Names,
    Query,
    Steps,
    qualified,
    texts,
    type_of,
)

BEGINNING = -(2**62)
"""A number of microseconds before all moments."""

MOMENT = "250ms"
"""The time for which a release waits for a row that another call writes."""

ENDED = 500
"""The most claims with ended leases that one statement tells of."""


class ClaimRequest(NamedTuple):
    """The bounds of one claim.

    Attributes:
        limit: The most jobs to claim.
        lease: The lease in microseconds.
        now: The moment, where the clock decides; ``None`` where the server's does.
        within: The moments between which the server's clock must lie, or nothing is claimed.
        floor: The moment before which the claim looks at nothing.
        ends: Whether claims whose leases have ended are ended.
    """

    limit: int
    lease: int
    now: int | None
    within: tuple[int, int]
    floor: int
    ends: bool


class ClaimResult(NamedTuple):
    """What a claim found apart from the jobs that it claimed.

    Attributes:
        at: The moment of the claim.
        ended: Ids of jobs whose claims' leases have ended.
        undecodable: Claims of rows that this process cannot read; the caller releases them.
        last: The moment at which the last row is due, if the claim found as many as it asked for.
    """

    at: int
    ended: list[str]
    undecodable: list[Fence]
    last: int | None


class DueProbe(NamedTuple):
    """A look at what is due next.

    Attributes:
        at: The moment of the probe.
        free: The moment at which the next free job is due, of those after ``above``.
        passed_over: Whether there are free jobs at or before ``above``.
        held: The moment at which the first lease ends.
    """

    at: int
    free: int | None
    passed_over: bool
    held: int | None


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
        job, renewal, now = names.job, names.renewal, f"coalesce(%(now)s::bigint, {NOW})"
        clk_async = f"clk AS MATERIALIZED (SELECT {now} AS t, {ASYNC_COMMIT})"
        # What a handler begins with must not be taken back by a crash of the server: the same
        # attempt would run again, perhaps with a token that was handed out before.
        clk_sync = f"clk AS MATERIALIZED (SELECT {now} AS t, {SYNC_COMMIT})"
        readable = (
            "format = %(format)s AND tag = ANY(%(tags)s::text[]) "
            "AND (%(malformed)s::text[] IS NULL "
            "OR NOT id || ':' || revision = ANY(%(malformed)s::text[]))"
        )
        nothing = ", ".join(
            f"NULL::{type_of(name)}" for name in [*JOBS.names[1:], "place", "token"]
        )
        ended = f"""
            (%(ends)s AND lease_until <= (SELECT t FROM clk)
                AND NOT EXISTS (SELECT FROM {renewal} r WHERE r.token = job.token
                    AND r.worker = job.worker AND r.lease_until > (SELECT t FROM clk)))
        """
        reached = "due_at <= (SELECT t FROM clk WHERE t BETWEEN %(least)s AND %(most)s)"
        # Of the claims whose leases have ended, those are told, too, that come after what is
        # claimed here: ``due`` has as many rows as there is room. Only a sweep looks for them.
        self._claim = f"""
            WITH {clk_sync}, due AS MATERIALIZED (
                SELECT ctid AS place, id, due_at, lease_until IS NULL AS free
                FROM {job}
                WHERE queue = '{QUEUE}' AND due_at >= %(floor)s AND {reached}
                    AND (lease_until IS NULL OR {ended}) AND {readable}
                ORDER BY due_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
            ), taken AS (
                UPDATE {job} j SET token = {names.next}, worker = %(worker)s, claimed_at = clk.t,
                    lease_until = clk.t + %(lease)s, renewed_at = NULL, alone_at = NULL,
                    progress = NULL,
                    ended_token = CASE WHEN worker IS NULL THEN ended_token ELSE token END,
                    ended_worker = coalesce(worker, ended_worker)
                FROM due, clk WHERE j.ctid = due.place AND due.free
                RETURNING {qualified("j", JOB_COLUMNS)}, j.ctid::text AS place, j.token
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
                    AND queue = '{QUEUE}' AND {reached} AND {ended} AND {readable}
                ORDER BY due_at LIMIT {ENDED}) later
            UNION ALL
            SELECT clk.t, NULL, NULL, {nothing} FROM clk
            ORDER BY 2 NULLS FIRST
        """
        self._ended = f"""
            WITH {clk_sync}
            SELECT clk.t, {qualified("j", RECORD_COLUMNS)} FROM clk, {job} j
            WHERE j.id = ANY(%(ids)s::text[]) AND j.lease_until <= clk.t
            ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
        """
        until = f"""
            CASE WHEN lease_until > clk.t THEN lease_until
                ELSE greatest(lease_until, (SELECT r.lease_until FROM {renewal} r
                    WHERE r.token = job.token AND r.worker = job.worker)) END
        """
        self._probe = f"""
            WITH {clk_async}
            SELECT clk.t,
                (SELECT due_at FROM {job} WHERE queue = '{QUEUE}' AND due_at > %(above)s
                    AND lease_until IS NULL AND {readable} ORDER BY due_at LIMIT 1),
                EXISTS (SELECT FROM {job} WHERE queue = '{QUEUE}'
                    AND due_at BETWEEN %(floor)s AND %(above)s
                    AND lease_until IS NULL AND {readable}),
                least((SELECT min({until}) FROM {job} WHERE %(sweep)s AND queue = '{QUEUE}'
                        AND due_at <= %(horizon)s AND lease_until IS NOT NULL AND {readable}),
                    (SELECT min({until}) FROM {job} WHERE %(sweep)s AND held IS NOT NULL
                        AND {readable}))
            FROM clk
        """
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
        self, now: int | None, horizon: int, *, floor: int, above: int, sweep: bool
    ) -> Steps[DueProbe]:
        """Return what is due next."""
        values = {"now": now, "horizon": horizon, "floor": floor, "above": above, "sweep": sweep}
        ((at, free, passed_over, held),) = yield Query(self._probe, values | self.readable())
        return DueProbe(at, free, passed_over, held)

    # -- claiming

    def claim(self, claims: list[Claim], request: ClaimRequest) -> Steps[ClaimResult]:
        """Append claims to the list."""
        locations = self.locations
        least, most = request.within
        values = {
            "now": request.now,
            "least": least,
            "most": most,
            "floor": request.floor,
            "ends": request.ends,
            "limit": request.limit,
            "worker": self.worker,
            "lease": request.lease,
        }
        rows = yield Query(self._claim, values | self.readable())
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
            locations[row[-1]] = row[-2]
        full = len(rows) - 1 - others >= request.limit
        return ClaimResult(at, list(ended), undecodable, rows[-1][1] if full else None)

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
