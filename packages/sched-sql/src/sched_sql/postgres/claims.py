"""How claims begin in PostgreSQL, are renewed, lost and released.

A claim is one statement: no lock outlives it, so a process that freezes at any moment keeps nobody
from a row. What a claim takes over (an expired lease, a tombstone) needs lines to be written and
is rare: that is a transaction of its own.

Rows that others have locked are passed over everywhere, so nothing that locks many rows ever
waits, and what never waits cannot deadlock. A release that passed over a row comes back for it, and
waits for a moment with nothing else locked: its claim would keep the job until the lease ends.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sched_core import codec
from sched_core.job import Claim, Execution, Job, LostClaim, abandoned_lines, superseded_line
from sched_core.ports import Undecodable
from sched_sql.postgres.definitions import Definitions
from sched_sql.postgres.ledger import CHUNK, Ledger
from sched_sql.postgres.names import (
    DURABLE,
    HASTY,
    JOBS,
    NOW,
    Names,
    Query,
    Steps,
    numbers,
    of,
    texts,
    type_of,
)
from sched_sql.postgres.renewals import Fence, Places, Renewals, arrays
from sched_sql.rows import (
    HOLD_COLUMNS,
    JOB_COLUMNS,
    Row,
    held_claim,
    lost_of,
    micros,
    micros_or_none,
    moment,
    read_job,
    read_job_or_undecodable,
)
from sched_sql.rules import at_same_occurrence

EVER = -(2**62)
"""Before all moments."""

MOMENT = "250ms"
"""How long a release waits for a row that another call writes."""

_HOLD_WIDTH = HOLD_COLUMNS.count(",") + 1


class Asked(NamedTuple):
    """What a claim asks for.

    Attributes:
        limit: Most jobs.
        lease: In microseconds.
        now: The moment, where the clock decides; ``None`` where the server's does.
        within: The server's clock must lie between these, or nothing is claimed.
        floor: Nothing that is due before is looked at.
        takeovers: Whether expired leases are taken over.
    """

    limit: int
    lease: int
    now: int | None
    within: tuple[int, int]
    floor: int
    takeovers: bool


class Claimed(NamedTuple):
    """What a claim found besides what it claimed.

    Attributes:
        at: The moment.
        odd: Ids of what has to be taken over.
        broken: What was claimed and cannot be read; to be given back.
        last: When the newest row is due, if there were as many as were asked for.
    """

    at: int
    odd: list[str]
    broken: list[Fence]
    last: int | None


class Look(NamedTuple):
    """What is due next.

    Attributes:
        at: The moment of the look.
        free: When the next job is due that nobody holds, of those after ``above``.
        passed_over: Whether there are any at or before it.
        held: When the first lease ends of what is due.
    """

    at: int
    free: int | None
    passed_over: bool
    held: int | None


class Claims:
    """The claims on the jobs of a schema, and on behalf of one worker."""

    def __init__(self, names: Names, ledger: Ledger, definitions: Definitions) -> None:
        self.places = Places()
        self._ledger = ledger
        self._definitions = definitions
        self.renewals = Renewals(names, self.places)
        self.worker = ""
        self._malformed: set[str] = set()
        """``id:revision`` of rows whose header was fine and whose body was not."""
        job, renewal, now = names.job, names.renewal, f"coalesce(%(now)s::bigint, {NOW})"
        hasty = f"clk AS MATERIALIZED (SELECT {now} AS t, {HASTY})"
        # What a handler begins with must not be taken back by a crash of the server: the same
        # attempt would run again, perhaps with a token that was handed out before.
        durable = f"clk AS MATERIALIZED (SELECT {now} AS t, {DURABLE})"
        readable = (
            "format <= %(format)s AND tag = ANY(%(tags)s::text[]) "
            "AND (%(malformed)s::text[] IS NULL "
            "OR NOT id || ':' || revision = ANY(%(malformed)s::text[]))"
        )
        nothing = ", ".join(
            f"NULL::{type_of(name)}" for name in [*JOBS.names[1:], "place", "token"]
        )
        self._claim = f"""
            WITH {durable}, due AS MATERIALIZED (
                SELECT ctid AS place, id, due_at,
                    lease_until IS NULL AND lost = 0 AND NOT removed AS plain
                FROM {job}
                WHERE due_at >= %(floor)s
                    AND due_at <= (SELECT t FROM clk WHERE t BETWEEN %(least)s AND %(most)s)
                    AND (lease_until IS NULL
                        OR (%(takeovers)s AND lease_until <= (SELECT t FROM clk)
                            AND NOT EXISTS (SELECT FROM {renewal} r WHERE r.token = job.token
                                AND r.worker = job.worker AND r.lease_until > (SELECT t FROM clk))))
                    AND {readable}
                ORDER BY due_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
            ), taken AS (
                UPDATE {job} j SET token = {names.next}, worker = %(worker)s, claimed_at = clk.t,
                    lease_until = clk.t + %(lease)s
                FROM due, clk WHERE j.ctid = due.place AND due.plain
                RETURNING {of("j", JOB_COLUMNS)}, j.ctid::text AS place, j.token
            )
            SELECT clk.t, taken.due_at AS due_at, taken.* FROM clk, taken
            UNION ALL
            SELECT clk.t, due.due_at, due.id, {nothing} FROM clk, due WHERE NOT due.plain
            UNION ALL
            SELECT clk.t, NULL, NULL, {nothing} FROM clk
            ORDER BY 2 NULLS FIRST
        """
        self._expired = f"""
            WITH {durable}
            SELECT clk.t, {of("j", HOLD_COLUMNS)}, j.removed, {of("j", JOB_COLUMNS)}
            FROM clk, {job} j
            WHERE j.id = ANY(%(ids)s::text[]) AND j.due_at <= clk.t
                AND (j.lease_until IS NULL OR j.lease_until <= clk.t)
            ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
        """
        self._take = f"""
            UPDATE {job} j SET token = {names.next}, worker = %s, claimed_at = %s,
                lease_until = %s, lost = i.lost, lost_worker = i.lost_worker,
                lost_claimed_at = i.lost_claimed_at, held_uid = NULL, held_number = NULL
            FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::bigint[])
                AS i(id, lost, lost_worker, lost_claimed_at)
            WHERE j.id = i.id RETURNING j.id, j.token
        """
        self._delete = f"DELETE FROM {job} WHERE id = ANY(%s::text[])"
        self._look = f"""
            WITH {hasty}
            SELECT clk.t,
                (SELECT due_at FROM {job} WHERE due_at > %(above)s AND lease_until IS NULL
                    AND {readable} ORDER BY due_at LIMIT 1),
                EXISTS (SELECT FROM {job} WHERE due_at BETWEEN %(floor)s AND %(above)s
                    AND lease_until IS NULL AND {readable}),
                (SELECT min(greatest(due_at, CASE WHEN lease_until > clk.t THEN lease_until
                        ELSE greatest(lease_until, (SELECT r.lease_until FROM {renewal} r
                            WHERE r.token = job.token AND r.worker = job.worker)) END)) FROM {job}
                    WHERE %(sweep)s AND due_at <= %(horizon)s AND lease_until IS NOT NULL
                        AND {readable})
            FROM clk
        """
        mine = f"""
            unnest(%(ids)s::text[], %(tokens)s::bigint[], %(workers)s::text[])
                AS i(id, token, worker)
            JOIN {job} j ON j.id = i.id
            WHERE j.token = i.token AND j.worker = i.worker AND j.lease_until IS NOT NULL
        """
        self._lock_mine = f"""
            WITH {durable}
            SELECT clk.t, {of("j", HOLD_COLUMNS)}, j.removed, {of("j", JOB_COLUMNS)}
            FROM clk, {mine} ORDER BY j.id FOR NO KEY UPDATE OF j
        """
        self._still_mine = f"SELECT j.id, j.token, j.worker FROM {mine}"
        self._release = f"""
            UPDATE {job} j SET lease_until = NULL, worker = NULL,
                lost = CASE WHEN i.stands THEN lost ELSE 0 END, held_uid = NULL, held_number = NULL
            FROM unnest(%s::text[], %s::boolean[]) AS i(id, stands) WHERE j.id = i.id
        """

        self._expired_jobs = f"""
            WITH {hasty}, old AS MATERIALIZED (
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

    def look(
        self, now: int | None, horizon: int, *, floor: int, above: int, sweep: bool
    ) -> Steps[Look]:
        """Return what is due next."""
        values = {"now": now, "horizon": horizon, "floor": floor, "above": above, "sweep": sweep}
        ((at, free, passed_over, held),) = yield Query(self._look, values | self.readable())
        return Look(at, free, passed_over, held)

    # -- claiming

    def claim(self, claims: list[Claim], asked: Asked) -> Steps[Claimed]:
        """Append claims to the list."""
        places = self.places
        least, most = asked.within
        values = {
            "now": asked.now,
            "least": least,
            "most": most,
            "floor": asked.floor,
            "takeovers": asked.takeovers,
            "limit": asked.limit,
            "worker": self.worker,
            "lease": asked.lease,
        }
        rows = yield Query(self._claim, values | self.readable())
        at: int = rows[0][0]
        claimed_at, expires_at = moment(at), moment(at + asked.lease)
        odd: list[str] = []
        broken: list[Fence] = []
        for row in rows[1:]:
            if row[3] is None:
                odd.append(row[2])
                continue
            try:
                job = read_job(row[2:])
            except codec.Malformed:
                self._malformed.add(f"{row[2]}:{row[3]}")
                broken.append((row[2], row[-1], self.worker))
                continue
            claims.append(Claim(job, row[-1], self.worker, claimed_at, expires_at))
            places[row[-1]] = row[-2]
        return Claimed(at, odd, broken, rows[-1][1] if len(rows) > asked.limit else None)

    def take_over(
        self, claims: list[Claim], ids: Sequence[str], lease: int, now: int | None
    ) -> Steps[int]:
        """Append claims of jobs whose earlier claims were lost, and write the lines of these.

        Returns:
            How many rows were claimed or cleared away; the others were locked.
        """
        rows = yield from self.renewals.end(
            (yield Query(self._expired, {"now": now, "ids": texts(ids)}))
        )
        taken: list[tuple[Job, LostClaim | None]] = []
        gone: list[str] = []
        lines: list[Execution] = []
        for row in rows:
            at = moment(row[0])
            hold, removed = row[1 : 1 + _HOLD_WIDTH], row[1 + _HOLD_WIDTH]
            found = row[2 + _HOLD_WIDTH :]
            try:
                job = None if removed else read_job(found)
            except codec.Malformed:
                self._malformed.add(f"{found[0]}:{found[1]}")
                continue
            lost = _lost(found[0], hold, job, at, lines)
            if job is None:
                gone.append(found[0])
            else:
                taken.append((job, lost))
        yield from self._ledger.write(lines)
        if gone:
            yield Query(self._delete, (texts(gone),))
        if taken:
            at_micros: int = rows[0][0]
            lost_claims = [lost or LostClaim(0, None, None) for _, lost in taken]
            values = (
                self.worker,
                at_micros,
                at_micros + lease,
                texts(job.spec.id for job, _ in taken),
                numbers(lost.count for lost in lost_claims),
                texts(lost.worker for lost in lost_claims),
                numbers(micros_or_none(lost.claimed_at) for lost in lost_claims),
            )
            tokens: dict[str, int] = dict((yield Query(self._take, values)))
            since, until = moment(at_micros), moment(at_micros + lease)
            claims += [
                Claim(job, tokens[job.spec.id], self.worker, since, until, lost)
                for job, lost in taken
            ]
        return len(gone) + len(taken)

    def prune(self, now: int | None) -> Steps[tuple[int, bool]]:
        """Delete a chunk of the jobs that have expired, but for what turns out to be unreadable.

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
        if gone:
            yield Query(self._delete, (texts(gone),))
        yield from self.renewals.prune(now)
        return len(gone), len(rows) == CHUNK

    # -- keeping and giving back

    def release(
        self, fences: Sequence[Fence], now: int | None, *, wait: bool = False
    ) -> Steps[list[Fence]]:
        """Free claims whose handlers were never called; return those that others have locked.

        Args:
            fences: Of the claims.
            now: The moment, where the store's clock does not decide.
            wait: For locked rows, for a moment.
        """
        if wait:
            yield Query("SELECT set_config('lock_timeout', %s, true)", (MOMENT,))
        statement = self._lock_mine if wait else f"{self._lock_mine} SKIP LOCKED"
        rows = yield Query(statement, {"now": now, **arrays(fences)})
        free: list[tuple[str, bool]] = []
        gone: list[str] = []
        lines: list[Execution] = []
        due: list[int | None] = []
        for row in rows:
            hold, removed = row[1 : 1 + _HOLD_WIDTH], row[1 + _HOLD_WIDTH]
            found = row[2 + _HOLD_WIDTH :]
            whole = read_job_or_undecodable(found)
            job = None if removed else whole
            held = held_claim(found[0], hold, None if isinstance(whole, Undecodable) else whole)
            stands = isinstance(job, Undecodable) or (
                job is not None and at_same_occurrence(held.job, job)
            )
            if not stands:
                lines.append(superseded_line(held, moment(row[0])))
            if job is None:
                gone.append(found[0])
            else:
                free.append((found[0], stands))
            if isinstance(job, Job) and job.standing.due_at is not None:
                due.append(micros(job.standing.due_at))
        yield from self._ledger.write(lines)
        if gone:
            yield Query(self._delete, (texts(gone),))
        if free:
            freed, standing = zip(*free, strict=True)
            yield Query(self._release, (texts(freed), numbers(standing)))
        yield from self._definitions.announce(due)
        if len(rows) == len(fences):
            return []
        left = yield Query(self._still_mine, arrays(fences))
        return [(job_id, token, worker) for job_id, token, worker in left]


def _lost(
    job_id: str, hold: Row, job: Job | None, at: datetime, lines: list[Execution]
) -> LostClaim | None:
    """Append the lines of a claim that was lost; return what the next one must know."""
    if hold[3] is None:
        # Released after a takeover: the lost attempts have their lines and keep their numbers.
        return lost_of(hold[4:7])
    claim = held_claim(job_id, hold, job)
    moved_on = job is None or not at_same_occurrence(claim.job, job)
    lines.extend(abandoned_lines(claim, at, moved_on=moved_on))
    if moved_on:
        return None
    earlier = 0 if claim.lost is None else claim.lost.count
    return LostClaim(earlier + 1, claim.worker, claim.claimed_at)


def micros_of(duration: timedelta) -> int:
    """Return a duration in whole microseconds."""
    return duration // timedelta(microseconds=1)
