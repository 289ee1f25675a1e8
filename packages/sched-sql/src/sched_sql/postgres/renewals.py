"""Leases that are extended in PostgreSQL, also while another transaction has the row locked.

A renewal does not wait for a locked row. It is *unlocked* instead: it goes into a table of its own,
which only such renewals write, and the workers that end claims with ended leases. A lease lasts
until the later of the two moments, so a row that was locked past its lease is no reason to end the
claim. A worker that ends it ends its renewals first, in the same transaction: where the owner
renews at the same moment, the key of that table lets one of them win.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from attrs import evolve

from sched_core import Claim, Hold, Job, Renewal
from sched_core.row import is_held_by, is_to_be_cancelled
from sched_sql._shared.holds import (
    RECORD_COLUMNS,
    progress_text,
    read_progress,
    read_record,
)
from sched_sql._shared.moments import moment
from sched_sql.postgres.sql import ASYNC_COMMIT, NOW, Names, Query, Steps, numbers, texts

REMEMBERED = 3_600_000_000
"""Microseconds for which an unlocked renewal stays after its end."""

Fence = tuple[str, int, str]
"""Id, token and worker of a claim."""


class RowLocations(dict[int, str]):
    """The places of claims' rows in the table, by token: a settle need not look them up.

    While an old snapshot is open, an index leads to every version of a row that there was since.
    A row that has moved since is found by its id all the same, only slower.
    """

    def find(self, token: int) -> str:
        """Return where a claim's row was last seen, or where no row is."""
        return self.get(token, "(0,0)")

    def forget(self, claims: Sequence[Claim]) -> None:
        """Forget claims that have ended."""
        for claim in claims:
            self.pop(claim.token, None)


class Renewed(NamedTuple):
    """The claims that a renewal found to be held.

    Attributes:
        at: The moment, if anything is held.
        claims: The claims, with their new leases.
    """

    at: int | None
    claims: list[Claim]


class Renewals:
    """Extends leases in one schema, and ends what was extended.

    Args:
        names: The schema's names.
        locations: The places of rows; a renewed row has moved.
    """

    def __init__(self, names: Names, locations: RowLocations) -> None:
        self._locations = locations
        job, renewal, now = names.job, names.renewal, f"coalesce(%(now)s::bigint, {NOW})"
        clk_async = f"clk AS MATERIALIZED (SELECT {now} AS t, {ASYNC_COMMIT})"
        self._renew = f"""
            WITH {clk_async},
            i AS MATERIALIZED (SELECT * FROM unnest(%(ids)s::text[], %(tokens)s::bigint[],
                %(workers)s::text[], %(alone)s::boolean[], %(progress)s::text[])
                WITH ORDINALITY AS i(id, token, worker, alone, progress, n)),
            mine AS MATERIALIZED (
                SELECT i.n, i.alone, i.progress, j.id FROM i JOIN {job} j ON j.id = i.id
                WHERE j.token = i.token AND j.worker = i.worker AND j.lease_until IS NOT NULL
                ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
            ), renewed AS (
                UPDATE {job} j SET lease_until = greatest(j.lease_until, clk.t + %(lease)s),
                    renewed_at = clk.t,
                    alone_at = CASE WHEN mine.alone THEN coalesce(j.alone_at, clk.t) END,
                    progress = coalesce(mine.progress, j.progress)
                FROM mine, clk WHERE j.id = mine.id
                RETURNING mine.n, j.ctid::text AS place, j.lease_until,
                    j.marks IS NOT NULL OR j.held IS NOT NULL AS marked
            )
            SELECT clk.t, renewed.n, renewed.place, renewed.lease_until, renewed.marked
            FROM clk, renewed
            UNION ALL
            SELECT clk.t, i.n, NULL, NULL, j.marks IS NOT NULL OR j.held IS NOT NULL
            FROM clk, i JOIN {job} j ON j.id = i.id
            WHERE j.token = i.token AND j.worker = i.worker AND j.lease_until IS NOT NULL
        """
        self._renew_unlocked = f"""
            WITH {clk_async}, renewed AS (
                INSERT INTO {renewal} AS r (token, worker, renewed_at, lease_until, alone_at,
                    progress)
                SELECT i.token, i.worker, clk.t, clk.t + %(lease)s,
                    CASE WHEN i.alone THEN clk.t END, i.progress
                FROM unnest(%(tokens)s::bigint[], %(workers)s::text[], %(alone)s::boolean[],
                    %(progress)s::text[]) AS i(token, worker, alone, progress), clk
                ORDER BY i.token, i.worker
                ON CONFLICT (token, worker) DO UPDATE SET renewed_at = excluded.renewed_at,
                        lease_until = greatest(r.lease_until, excluded.lease_until),
                        alone_at = CASE WHEN excluded.alone_at IS NOT NULL
                            THEN coalesce(r.alone_at, excluded.alone_at) END,
                        progress = coalesce(excluded.progress, r.progress)
                    WHERE NOT r.ended
                RETURNING r.token, r.worker, r.lease_until
            )
            SELECT clk.t, renewed.token, renewed.worker, renewed.lease_until FROM clk, renewed
        """
        self._marked = f"""
            SELECT {RECORD_COLUMNS} FROM {job} WHERE id = ANY(%s::text[])
                AND (marks IS NOT NULL OR held IS NOT NULL)
        """
        self._end = f"""
            INSERT INTO {renewal} AS r (token, worker, lease_until, ended)
            SELECT i.token, i.worker, %(at)s::bigint, true
            FROM unnest(%(tokens)s::bigint[], %(workers)s::text[]) AS i(token, worker)
            ORDER BY i.token, i.worker
            ON CONFLICT (token, worker) DO UPDATE SET ended = true WHERE r.lease_until <= %(at)s
            RETURNING r.token, r.worker, r.renewed_at, r.lease_until, r.alone_at,
                r.progress
        """
        self._prune = f"""
            DELETE FROM {renewal} WHERE lease_until < {now} - {REMEMBERED}
        """

    def renew(self, renewals: Sequence[Renewal], lease: int, now: int | None) -> Steps[Renewed]:
        """Extend leases: in their rows, or unlocked where others have locked the row."""
        rows = yield Query(self._renew, {"now": now, "lease": lease, **_values(renewals)})
        if not rows:
            return Renewed(None, [])
        at: int = rows[0][0]
        until = {n: (place, ends) for _, n, place, ends, _ in rows if place is not None}
        for n, (place, _) in until.items():
            self._locations[renewals[n - 1].claim.token] = place
        held = {row[1] for row in rows}
        marked = {renewals[row[1] - 1].claim.job.spec.id for row in rows if row[4]}
        cancelled = (yield from self._cancelled(renewals, marked)) if marked else set()
        unlocked = yield from self.renew_unlocked(
            [renewals[n - 1] for n in sorted(held - until.keys())], lease, now, cancelled
        )
        in_rows = [
            _renewed(renewals[n - 1].claim, moment(until[n][1]), cancelled) for n in sorted(until)
        ]
        return Renewed(at, in_rows + unlocked.claims)

    def renew_unlocked(
        self,
        renewals: Sequence[Renewal],
        lease: int,
        now: int | None,
        cancelled: set[Fence] | None = None,
    ) -> Steps[Renewed]:
        """Extend leases without looking at the rows; claims that were ended are left out.

        Args:
            renewals: What is to be extended.
            lease: The lease in microseconds.
            now: The moment, where the clock decides; ``None`` where the server's does.
            cancelled: The claims whose runs are to be cancelled, where that is known.
        """
        if not renewals:
            return Renewed(None, [])
        values = {"now": now, "lease": lease, **_values(renewals)}
        rows = yield Query(self._renew_unlocked, values)
        if not rows:
            return Renewed(None, [])
        at: int = rows[0][0]
        until = {(token, worker): ends for _, token, worker, ends in rows}
        claims = [each.claim for each in renewals]
        return Renewed(
            at,
            [
                _renewed(claim, moment(until[claim.token, claim.worker]), cancelled)
                for claim in claims
                if (claim.token, claim.worker) in until
            ],
        )

    def has_marked(self, renewals: Sequence[Renewal]) -> Steps[bool]:
        """Whether a run of these claims is to be cancelled."""
        ids = {each.claim.job.spec.id for each in renewals}
        return bool((yield from self._cancelled(renewals, ids)))

    def _cancelled(self, renewals: Sequence[Renewal], ids: set[str]) -> Steps[set[Fence]]:
        """Return of which claims the runs are to be cancelled."""
        claims = {each.claim.job.spec.id: each.claim for each in renewals}
        found = set[Fence]()
        for row in (yield Query(self._marked, (texts(ids),))):
            record, claim = read_record(row), claims[row[0]]
            job, hold = record.job, record.hold
            if hold is None or not is_held_by(hold, claim):
                continue
            if is_to_be_cancelled(job if isinstance(job, Job) else None, hold):
                found.add(fence_of(claim))
        return found

    def end(self, holds: Sequence[Hold], at: int) -> Steps[dict[tuple[int, str], Hold]]:
        """End the unlocked renewals of ended leases; return the claims that may be ended, by fence.

        Args:
            holds: The holds of rows that this transaction has locked.
            at: The moment.

        Returns:
            The holds, with their unlocked renewals.
        """
        mine = {(hold.token, hold.worker): hold for hold in holds}
        if not mine:
            return {}
        tokens, workers = zip(*sorted(mine), strict=True)
        values = {"at": at, "tokens": numbers(tokens), "workers": texts(workers)}
        ended: dict[tuple[int, str], Hold] = {}
        for token, worker, *renewal in (yield Query(self._end, values)):
            hold = mine[token, worker]
            ended[token, worker] = (
                hold
                if renewal[0] is None or moment(renewal[0]) < hold.renewed_at
                else as_renewed(hold, *renewal)
            )
        return ended

    def prune(self, now: int | None) -> Steps[None]:
        """Delete what ended long ago."""
        yield Query(self._prune, {"now": now})


def as_renewed(
    hold: Hold, renewed_at: int, lease_until: int, alone_at: int | None, progress: str | None
) -> Hold:
    """Return a hold as an unlocked renewal leaves it."""
    since = None if alone_at is None else moment(alone_at)
    if since is not None and hold.alone_at is not None:
        since = min(since, hold.alone_at)
    until = max(hold.expires_at, moment(lease_until))
    told = hold.progress if progress is None else read_progress(progress)
    return evolve(
        hold, renewed_at=moment(renewed_at), expires_at=until, alone_at=since, progress=told
    )


def fence_of(claim: Claim) -> Fence:
    """Return what tells a claim from all others."""
    return claim.job.spec.id, claim.token, claim.worker


def arrays(fences: Sequence[Fence]) -> dict[str, str]:
    """Return the values of ``ids``, ``tokens`` and ``workers`` in a statement."""
    ids, tokens, workers = zip(*fences, strict=True)
    return {"ids": texts(ids), "tokens": numbers(tokens), "workers": texts(workers)}


def _values(renewals: Sequence[Renewal]) -> dict[str, str]:
    fences = [fence_of(each.claim) for each in renewals]
    return {
        "alone": numbers(each.alone for each in renewals),
        "progress": texts(progress_text(each.progress) for each in renewals),
        **arrays(fences),
    }


def _renewed(claim: Claim, expires_at: datetime, cancelled: set[Fence] | None) -> Claim:
    cancel = claim.cancel if cancelled is None else fence_of(claim) in cancelled
    return Claim(claim.job, claim.token, claim.worker, claim.claimed_at, expires_at, cancel)
