"""Parts that several statements on claims have in common, and what claims ask for and find."""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from typing import NamedTuple

from sched_sql._shared.rows import JOB_COLUMNS
from sched_sql.postgres.renewals import Fence
from sched_sql.postgres.sql import ASYNC_COMMIT, JOBS, NOW, SYNC_COMMIT, Names, qualified, type_of

BEGINNING = -(2**62)
"""A number of microseconds before all moments."""

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
        others: Whether nothing was claimed because there are further queues.
    """

    at: int
    ended: list[str]
    undecodable: list[Fence]
    last: int | None
    others: bool = False


class DueProbe(NamedTuple):
    """A look at what is due next.

    Attributes:
        at: The moment of the probe.
        free: The moment at which the next free job is due, of those after ``above``.
        passed_over: Whether there are free jobs at or before ``above``.
        held: The moment at which the first lease ends.
        ids: The ids of the jobs that ``free`` and ``passed_over`` tell of.
        others: Whether there are further queues, which were not looked at.
    """

    at: int
    free: int | None
    passed_over: bool
    held: int | None
    ids: tuple[str, ...] = ()
    others: bool = False


class Parts:
    """Parts of statements on one schema.

    Args:
        names: The schema's names.
    """

    def __init__(self, names: Names) -> None:
        job, renewal, now = names.job, names.renewal, f"coalesce(%(now)s::bigint, {NOW})"
        self.clk_async = f"clk AS MATERIALIZED (SELECT {now} AS t, {ASYNC_COMMIT})"
        # What a handler begins with must not be taken back by a crash of the server: the same
        # attempt would run again, perhaps with a token that was handed out before.
        self.clk_sync = f"clk AS MATERIALIZED (SELECT {now} AS t, {SYNC_COMMIT})"
        self.readable = (
            "format = %(format)s AND tag = ANY(%(tags)s::text[]) "
            "AND (%(malformed)s::text[] IS NULL "
            "OR NOT id || ':' || revision = ANY(%(malformed)s::text[]))"
        )
        self.nothing = ", ".join(
            f"NULL::{type_of(name)}" for name in [*JOBS.names[1:], "place", "token"]
        )
        self.ended = f"""
            (%(ends)s AND lease_until <= (SELECT t FROM clk)
                AND NOT EXISTS (SELECT FROM {renewal} r WHERE r.token = job.token
                    AND r.worker = job.worker AND r.lease_until > (SELECT t FROM clk)))
        """
        self.until = f"""
            CASE WHEN lease_until > clk.t THEN lease_until
                ELSE greatest(lease_until, (SELECT r.lease_until FROM {renewal} r
                    WHERE r.token = job.token AND r.worker = job.worker)) END
        """
        self.has_others = f"""
            (EXISTS (SELECT FROM {job} WHERE due_at IS NOT NULL AND queue < %(queue)s)
                OR EXISTS (SELECT FROM {job} WHERE due_at IS NOT NULL AND queue > %(queue)s))
        """
        self.reached = "due_at <= (SELECT t FROM clk WHERE t BETWEEN %(least)s AND %(most)s)"
        self.taken = f"""
            UPDATE {job} j SET token = {names.next}, worker = %(worker)s, claimed_at = clk.t,
                lease_until = clk.t + %(lease)s, renewed_at = NULL, alone_at = NULL,
                progress = NULL,
                ended_token = CASE WHEN worker IS NULL THEN ended_token ELSE token END,
                ended_worker = coalesce(worker, ended_worker)
            FROM due, clk WHERE j.ctid = due.place AND due.free
            RETURNING {qualified("j", JOB_COLUMNS)}, j.ctid::text AS place, j.token
        """
        # From one queue to the next one, whatever lies between.
        self.found = f"""
            found(queue) AS (
                (SELECT queue FROM {job} WHERE due_at IS NOT NULL ORDER BY queue LIMIT 1)
                UNION ALL
                SELECT (SELECT queue FROM {job} WHERE due_at IS NOT NULL AND queue > found.queue
                    ORDER BY queue LIMIT 1)
                FROM found WHERE found.queue IS NOT NULL
            )
        """
        self.queues = f"""
            {self.found}, q AS MATERIALIZED (
                SELECT found.queue, a.queue IS NULL AS is_rest,
                    coalesce(a.most, %(rest)s::bigint) AS most
                FROM found
                LEFT JOIN unnest(%(named)s::text[], %(mosts)s::bigint[]) AS a(queue, most)
                    ON a.queue = found.queue
                WHERE found.queue IS NOT NULL
            )
        """
        self.free = f"lease_until IS NULL AND {self.readable}"
