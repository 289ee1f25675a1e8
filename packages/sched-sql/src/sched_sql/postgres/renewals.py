"""How leases are extended in PostgreSQL, also where somebody else has locked the row.

A row that others have locked is not waited for: what cannot be renewed in its row is renewed
*beside* it, in a table that only such renewals and takeovers write. A lease lasts until the later
of the two moments, so a row that was locked past its lease is no reason for a takeover. A takeover
ends the renewals of a claim before it takes the row, in the same transaction: where an owner and a
successor come at the same moment, the key of that table lets one of them win.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sched_core.job import Claim
from sched_sql.postgres.names import HASTY, NOW, Names, Query, Steps, numbers, texts
from sched_sql.rows import Row, moment

REMEMBERED = 3_600_000_000
"""Microseconds for which a renewal beside its row stays after its end."""

Fence = tuple[str, int, str]
"""Id, token and worker of a claim."""


class Places(dict[int, str]):
    """Where the rows of claims are, by token: what a settle need not look up.

    While an old snapshot is open, an index leads to every version of a row that there was since.
    A row that has moved meanwhile is found by its id all the same, only slower.
    """

    def of(self, token: int) -> str:
        """Return where a claim's row was last seen, or where no row is."""
        return self.get(token, "(0,0)")

    def forget(self, claims: Sequence[Claim]) -> None:
        """Forget claims that have ended."""
        for claim in claims:
            self.pop(claim.token, None)


class Renewed(NamedTuple):
    """What is held still.

    Attributes:
        at: The moment, if anything is held.
        claims: With their new leases.
    """

    at: int | None
    claims: list[Claim]


class Renewals:
    """Extends leases in one schema, and ends what was extended.

    Args:
        names: Of the schema.
        places: Where rows are; what is renewed has moved.
    """

    def __init__(self, names: Names, places: Places) -> None:
        self._places = places
        job, renewal, now = names.job, names.renewal, f"coalesce(%(now)s::bigint, {NOW})"
        hasty = f"clk AS MATERIALIZED (SELECT {now} AS t, {HASTY})"
        self._renew = f"""
            WITH {hasty},
            i AS MATERIALIZED (SELECT * FROM unnest(%(ids)s::text[], %(tokens)s::bigint[],
                %(workers)s::text[]) WITH ORDINALITY AS i(id, token, worker, n)),
            mine AS MATERIALIZED (
                SELECT i.n, j.id FROM i JOIN {job} j ON j.id = i.id
                WHERE j.token = i.token AND j.worker = i.worker AND j.lease_until IS NOT NULL
                ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
            ), renewed AS (
                UPDATE {job} j SET lease_until = clk.t + %(lease)s FROM mine, clk
                WHERE j.id = mine.id RETURNING mine.n, j.ctid::text AS place
            )
            SELECT clk.t, renewed.n, renewed.place FROM clk, renewed
            UNION ALL
            SELECT clk.t, i.n, NULL FROM clk, i JOIN {job} j ON j.id = i.id
            WHERE j.token = i.token AND j.worker = i.worker AND j.lease_until IS NOT NULL
        """
        self._renew_beside = f"""
            WITH {hasty}, renewed AS (
                INSERT INTO {renewal} AS r (token, worker, lease_until)
                SELECT i.token, i.worker, clk.t + %(lease)s
                FROM unnest(%(tokens)s::bigint[], %(workers)s::text[]) AS i(token, worker), clk
                ORDER BY i.token, i.worker
                ON CONFLICT (token, worker) DO UPDATE SET lease_until = excluded.lease_until
                    WHERE NOT r.ended
                RETURNING r.token, r.worker
            )
            SELECT clk.t, renewed.token, renewed.worker FROM clk, renewed
        """
        self._end = f"""
            INSERT INTO {renewal} AS r (token, worker, lease_until, ended)
            SELECT i.token, i.worker, %(at)s::bigint, true
            FROM unnest(%(tokens)s::bigint[], %(workers)s::text[]) AS i(token, worker)
            ORDER BY i.token, i.worker
            ON CONFLICT (token, worker) DO UPDATE SET ended = true WHERE r.lease_until <= %(at)s
            RETURNING r.token, r.worker
        """
        self._prune = f"""
            DELETE FROM {renewal} WHERE lease_until < {now} - {REMEMBERED}
        """

    def renew(self, claims: Sequence[Claim], lease: int, now: int | None) -> Steps[Renewed]:
        """Extend leases: in their rows, or beside those that others have locked."""
        fences = [fence_of(claim) for claim in claims]
        rows = yield Query(self._renew, {"now": now, "lease": lease, **arrays(fences)})
        if not rows:
            return Renewed(None, [])
        at: int = rows[0][0]
        extended = {number: place for _, number, place in rows if place is not None}
        for number, place in extended.items():
            self._places[claims[number - 1].token] = place
        held = {number for _, number, _ in rows}
        beside = yield from self.renew_beside(
            [claims[n - 1] for n in sorted(held - extended.keys())], lease, now
        )
        until = moment(at + lease)
        in_rows = [_renewed(claims[n - 1], until) for n in sorted(extended)]
        return Renewed(at, in_rows + beside.claims)

    def renew_beside(self, claims: Sequence[Claim], lease: int, now: int | None) -> Steps[Renewed]:
        """Extend leases without looking at the rows; what was taken over is left out."""
        if not claims:
            return Renewed(None, [])
        values = {"now": now, "lease": lease, **arrays([fence_of(claim) for claim in claims])}
        rows = yield Query(self._renew_beside, values)
        if not rows:
            return Renewed(None, [])
        at: int = rows[0][0]
        extended, until = {(token, worker) for _, token, worker in rows}, moment(at + lease)
        return Renewed(
            at,
            [_renewed(claim, until) for claim in claims if (claim.token, claim.worker) in extended],
        )

    def end(self, rows: list[Row]) -> Steps[list[Row]]:
        """End renewals beside locked rows of expired claims; return the rows that may be taken.

        Args:
            rows: The moment, and ``HOLD_COLUMNS``; locked here.
        """
        # A hold without a worker is nobody's; a row that was copied by hand has another's hold.
        held = {(row[1], row[2]) for row in rows if None not in (row[2], row[4])}
        if not held:
            return rows
        tokens, workers = zip(*sorted(held), strict=True)
        values = {"at": rows[0][0], "tokens": numbers(tokens), "workers": texts(workers)}
        ended = {(token, worker) for token, worker in (yield Query(self._end, values))}
        return [row for row in rows if None in (row[2], row[4]) or (row[1], row[2]) in ended]

    def prune(self, now: int | None) -> Steps[None]:
        """Delete what ended long ago."""
        yield Query(self._prune, {"now": now})


def fence_of(claim: Claim) -> Fence:
    """Return what tells a claim from all others."""
    return claim.job.spec.id, claim.token, claim.worker


def arrays(fences: Sequence[Fence]) -> dict[str, str]:
    """Return the values of ``ids``, ``tokens`` and ``workers`` in a statement."""
    ids, tokens, workers = zip(*fences, strict=True)
    return {"ids": texts(ids), "tokens": numbers(tokens), "workers": texts(workers)}


def _renewed(claim: Claim, expires_at: datetime) -> Claim:
    return Claim(claim.job, claim.token, claim.worker, claim.claimed_at, expires_at, claim.lost)
