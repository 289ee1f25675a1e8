"""How claims end in PostgreSQL: in the common case one statement for a whole batch.

The common case is that a claim still holds its job, the job was not edited, and the occurrence got
its one line. All conditions are in the statement, row by row: those that meet them are written,
the others are settled rule by rule as in ``sched_core.memory``, under locks.

No line needs to be looked up in the common case: a row that is not ``doubtful`` has no final line
at or after its pending occurrence, and none of its next attempt, because each of these
settlements moves the row past its line, and every other write that might break the rule looks, and
marks the row.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sched_core.job import Claim, Execution, Job, Settled, Settlement
from sched_core.ports import Undecodable
from sched_sql.postgres.ledger import Found, Ledger
from sched_sql.postgres.names import DURABLE, Columns, Names, Query, Steps, numbers, texts
from sched_sql.rows import (
    JOB_COLUMNS,
    RUN_COLUMNS,
    STANDING_COLUMNS,
    Row,
    line_values,
    micros_or_none,
    read_job_or_undecodable,
    run_values,
    standing_values,
)
from sched_sql.rules import CLAIM_LOST, WRITTEN, is_common, is_in_ledger, refusal

BUSY = Settled("busy")

Announce = Callable[[Iterable[int | None]], Steps[None]]

_RUN_SET = ", ".join(f"{name.strip()} = i.{name.strip()}" for name in RUN_COLUMNS.split(","))
_STANDING_SET = ", ".join(
    f"{name.strip()} = i.{name.strip()}" for name in STANDING_COLUMNS.split(",")
)
_LINE = (
    "attempt, scheduled_at, manual, status, final, started_at, finished_at, reason, folded, "
    "folded_until"
)
"""Those of a common line that its claim does not tell already; and when it expires."""


class _Runs(Columns):
    """What the common case sends: the claim, the standing, and the line."""

    def __init__(self) -> None:
        line = ", ".join(f"line_{name.strip()}" for name in f"{_LINE}, expires_at".split(","))
        super().__init__(f"id, place, token, expected, {RUN_COLUMNS}, {line}")


RUNS = _Runs()
_STANDINGS = Columns(f"id, {STANDING_COLUMNS}, ended_token, ended_worker")


class Settling:
    """Ends claims in one schema.

    Args:
        names: Of the schema.
        ledger: In it.
        announce: Wakes others, if one of the moments is near. What :meth:`settle_runs` has written
            is left to its caller: to announce each batch would cost more than to write it.
    """

    def __init__(self, names: Names, ledger: Ledger, announce: Announce) -> None:
        self._announce = announce
        job = names.job
        self._ledger = ledger
        sent = ", ".join(f"i.{name}" for name in RUNS.names)
        line = ", ".join(name for name in RUNS.names if name.startswith("line_"))
        # Every row goes through as it is: to join what was split would cost its square.
        self._runs = f"""
            WITH mine AS MATERIALIZED (
                SELECT i.n, {sent}, j.ctid AS seen, j.uid, j.number AS held, j.worker, j.claimed_at
                FROM {RUNS.unnest} JOIN {job} j ON j.ctid = i.place::tid
                WHERE j.id = i.id AND j.token = i.token AND j.worker = %s
                    AND j.revision = i.expected AND j.lease_until IS NOT NULL
                    AND NOT j.removed AND NOT j.doubtful
                ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
            ), ended AS (
                UPDATE {job} j SET {_RUN_SET}, revision = {names.next}, lease_until = NULL,
                    ended_token = NULL, ended_worker = NULL
                FROM mine i WHERE j.ctid = i.seen RETURNING i.*
            ), lines AS (
                INSERT INTO {names.ledger} (seq, job_id, uid, number, token, worker, claimed_at,
                    {_LINE}, expires_at)
                SELECT {names.next}, id, uid, held, token, worker, claimed_at, {line}
                FROM (SELECT * FROM ended ORDER BY n) ended
            )
            SELECT ended.n FROM ended, (SELECT {DURABLE}) durable
        """
        row = f"""
            SELECT j.id, j.token, j.worker, j.lease_until, coalesce(j.held_uid, j.uid),
                coalesce(j.held_number, j.number), j.ended_token, j.ended_worker, j.removed,
                {", ".join(f"j.{name.strip()}" for name in JOB_COLUMNS.split(","))}
            FROM {job} j, (SELECT {DURABLE}) durable
            WHERE j.id = ANY(%s::text[]) ORDER BY j.id FOR NO KEY UPDATE OF j
        """
        self._rows_waiting = row
        self._rows = f"{row} SKIP LOCKED"
        self._present = f"SELECT id FROM {job} WHERE id = ANY(%s::text[])"
        end = "lease_until = NULL, lost = 0, held_uid = NULL, held_number = NULL"
        self._end = f"""
            UPDATE {job} j SET {_STANDING_SET}, revision = {names.next}, {end},
                ended_token = i.ended_token, ended_worker = i.ended_worker,
                doubtful = EXISTS (SELECT FROM {names.ledger} l
                    WHERE l.uid = j.uid AND l.number >= i.number
                        AND (l.final OR (l.number = i.number AND l.attempt > i.attempts)))
            FROM {_STANDINGS.unnest} WHERE j.id = i.id
        """
        self._free = f"""
            UPDATE {job} j SET doubtful = j.doubtful OR j.lost > 0, {end},
                ended_token = i.ended_token, ended_worker = i.ended_worker
            FROM unnest(%s::text[], %s::bigint[], %s::text[]) AS i(id, ended_token, ended_worker)
            WHERE j.id = i.id
        """
        self._delete = f"DELETE FROM {job} WHERE id = ANY(%s::text[])"

    def settle_runs(
        self, settlements: Sequence[Settlement], places: Callable[[int], str]
    ) -> Steps[set[int]]:
        """Write those that are the common case and of one worker; return which, by position."""
        rows = []
        for settlement in settlements:
            claim, standing = settlement.claim, settlement.standing
            if standing is None:
                raise AssertionError("no common case")
            line = line_values(settlement.ledger[0])
            rows.append(
                (
                    claim.job.spec.id,
                    places(claim.token),
                    claim.token,
                    settlement.expected,
                    *run_values(standing),
                    *line[3:8],
                    *line[11:],
                )
            )
        values = (*RUNS.values(rows), settlements[0].claim.worker)
        written = yield Query(self._runs, values)
        return {row[0] - 1 for row in written}

    def settle(
        self, settlements: Sequence[Settlement], *, wait: bool = False
    ) -> Steps[list[Settled]]:
        """Write settlements rule by rule; return one answer for each.

        Args:
            settlements: Of whatever kind.
            wait: For locked rows; else these are answered as busy.
        """
        ids = sorted({one.claim.job.spec.id for one in settlements})
        statement = self._rows_waiting if wait else self._rows
        rows = {row[0]: row[1:] for row in (yield Query(statement, (texts(ids),)))}
        missing = [job_id for job_id in ids if job_id not in rows]
        locked = set[str]()
        if missing:
            locked = {row[0] for row in (yield Query(self._present, (texts(missing),)))}
        found = yield from self._ledger.find([line for one in settlements for line in one.ledger])

        work = _Work()
        answers = [
            BUSY
            if one.claim.job.spec.id in locked
            else _judge(one, rows.get(one.claim.job.spec.id), found, work)
            for one in settlements
        ]
        yield from self._ledger.write(work.lines)
        if work.gone:
            yield Query(self._delete, (texts(work.gone),))
        if work.freed:
            freed, tokens, workers = zip(*work.freed, strict=True)
            yield Query(self._free, (texts(freed), numbers(tokens), texts(workers)))
        if work.ended:
            yield Query(self._end, _STANDINGS.values(work.ended))
        yield from self._announce(work.due)
        return answers

    def lock(self, claim: Claim) -> Steps[tuple[bool, Job | None]]:
        """Lock the row of a claim; return whether it holds, and the job, ``None`` if removed."""
        rows = yield Query(self._rows_waiting, (texts([claim.job.spec.id]),))
        row = rows[0][1:] if rows else None
        if row is None or row[2] is None or row[:2] != (claim.token, claim.worker):
            return False, None
        job = None if row[7] else read_job_or_undecodable(row[8:])
        return (False, None) if isinstance(job, Undecodable) else (True, job)


class _Work:
    """What is to be written."""

    def __init__(self) -> None:
        self.lines: list[Execution] = []
        self.gone: list[str] = []
        self.freed: list[tuple[str, int | None, str | None]] = []
        self.ended: list[Row] = []
        self.settled: set[tuple[int, str]] = set()
        self.due: list[int | None] = []


def _judge(settlement: Settlement, row: Row | None, found: Found, work: _Work) -> Settled:
    claim, standing = settlement.claim, settlement.standing
    job_id, fence = claim.job.spec.id, (claim.token, claim.worker)
    if fence in work.settled:
        return WRITTEN
    if row is None or row[2] is None or row[:2] != fence:
        repeated = row is not None and fence in {row[:2], row[5:7]}
        return WRITTEN if repeated or is_in_ledger(settlement, found) else CLAIM_LOST

    job: Job | Undecodable | None = None if row[7] else read_job_or_undecodable(row[8:])
    if isinstance(job, Undecodable):
        # A newer version edited it meanwhile. Whoever can read it takes the claim over.
        return CLAIM_LOST
    refused = refusal(settlement, row[3:5], job, found)
    if refused is not None:
        return refused

    work.settled.add(fence)
    work.lines += settlement.ledger
    # A line proves that the claim was settled; where there is none, the row must.
    ended = (None, None) if settlement.ledger else fence
    if job is None:
        work.gone.append(job_id)
    elif standing is None:
        work.due.append(micros_or_none(job.standing.due_at))
        work.freed.append((job_id, *ended))
    else:
        work.due.append(micros_or_none(standing.due_at))
        work.ended.append((job_id, *standing_values(standing), *ended))
    return WRITTEN


def is_run(settlement: Settlement) -> bool:
    """Whether it is the common case, and its line says of the claim what the row says."""
    claim = settlement.claim
    return (
        is_common(settlement)
        and (line := settlement.ledger[0]).token == claim.token
        and line.worker == claim.worker
        and line.claimed_at == claim.claimed_at
        and line.job_id == claim.job.spec.id
    )
