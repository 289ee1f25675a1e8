"""Settlements in PostgreSQL: in the common case one statement for a whole batch.

The common case is that a claim still holds its job, the job was not edited, and the occurrence got
its one execution. All conditions are in the statement, row by row: those that meet them are
written. The others are loaded under locks and given to the rules.

No execution needs to be looked up in the common case: an occurrence that is pending with so many
attempts has no execution of a later one, because whatever writes that writes the standing, too.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter

from sched_core import Claim, Job, Kind, Settled, Settlement, Undecodable
from sched_core import row as core
from sched_core._model.execution import DEFAULT_QUEUE
from sched_sql._shared.history import RARE, RARE_NAMES, execution_values
from sched_sql._shared.holds import RECORD_COLUMNS, read_record
from sched_sql._shared.moments import EPOCH, micros, micros_or_none, moment
from sched_sql._shared.rules import is_plain_run
from sched_sql._shared.standings import RUN_COLUMNS, run_values
from sched_sql.postgres.executions import Executions
from sched_sql.postgres.partitions import drop_at
from sched_sql.postgres.records import Freed, Records
from sched_sql.postgres.sql import (
    NOW,
    SYNC_COMMIT,
    Announce,
    Columns,
    Names,
    Query,
    Steps,
    qualified,
    texts,
)

BUSY = Settled("busy")

_RUN = RUN_COLUMNS.split(", ")
_STARTING = {
    **dict.fromkeys(("scheduled_due", "began_at"), "NULL"),
    **dict.fromkeys(("attempts", "failures", "lost", "snoozes", "failing"), "0"),
}
"""What nearly every run leaves: the next occurrence, or none, as it is before anything happens."""
_STARTED = tuple(None if _STARTING[name] == "NULL" else 0 for name in _RUN if name in _STARTING)
_CHANGED = [place for place, name in enumerate(_RUN) if name not in _STARTING]
_OTHERS = [place for place, name in enumerate(_RUN) if name in _STARTING]
_others, _changed = itemgetter(*_OTHERS), itemgetter(*_CHANGED)
_ITS = (
    "attempt, scheduled_at, status, final, started_at, finished_at, reason, coalesced, "
    "coalesced_until, expires_at, drop_at"
)
"""What the claim and its row do not tell of a common execution."""


_RARE = [name for name in RARE_NAMES if name != "queue"]
"""What few executions have; their queue is in the row of the job, too."""
_NOTHING = (None,) * len(_RARE)


def _sent(standing: Iterable[str], rare: Iterable[str] = ()) -> Columns:
    """Return what the common case sends: the claim, of the standing these, and the execution."""
    its = (f"its_{name}" for name in [*_ITS.split(", "), *rare])
    return Columns(", ".join(["id", "place", "token", "expected", *standing, *its]))


_SHORT = [_RUN[place] for place in _CHANGED]
FORMS = {
    (is_short, is_rare): _sent(_SHORT if is_short else _RUN, _RARE if is_rare else ())
    for is_short in (True, False)
    for is_rare in (True, False)
}
"""What is sent, by whether all standings are ``_STARTED``, and whether any execution is rare."""


class Settler:
    """Ends claims in one schema.

    Args:
        names: The schema's names.
        executions: The history in the schema.
        records: The stored jobs in the schema.
        announce: Wakes others, if one of the moments is near. What :meth:`settle_runs` has written
            is left to its caller: to announce each batch would cost more than to write it.
    """

    def __init__(
        self, names: Names, executions: Executions, records: Records, announce: Announce
    ) -> None:
        self._announce = announce
        self._executions = executions
        self._records = records
        job = names.job
        self._runs = {form: self._runs_statement(names, sent) for form, sent in FORMS.items()}
        row = f"""
            SELECT clk.t, {qualified("j", RECORD_COLUMNS)}
            FROM {job} j, (SELECT coalesce(%s::bigint, {NOW}) AS t, {SYNC_COMMIT}) clk
            WHERE j.id = ANY(%s::text[]) ORDER BY j.id FOR NO KEY UPDATE OF j
        """
        self._rows_waiting = row
        self._rows = f"{row} SKIP LOCKED"
        self._present = f"SELECT id FROM {job} WHERE id = ANY(%s::text[])"

    @staticmethod
    def _runs_statement(names: Names, sent: Columns) -> str:
        job, all_sent = names.job, ", ".join(f"i.{name}" for name in sent.names)
        its = [name for name in sent.names if name.startswith("its_")]
        written = ", ".join(name.removeprefix("its_") for name in its)
        changes = ", ".join(
            f"{name} = " + (f"i.{name}" if name in sent.names else _STARTING[name]) for name in _RUN
        )
        # Every row goes through as it is: to join what was split would cost its square.
        return f"""
            WITH mine AS MATERIALIZED (
                SELECT i.n, {all_sent}, j.ctid AS seen, j.uid, j.number AS held,
                    j.snoozes AS held_snoozes, j.worker, j.claimed_at,
                    nullif(j.queue, '{DEFAULT_QUEUE}') AS held_queue
                FROM {sent.unnest} JOIN {job} j ON j.ctid = i.place::tid
                WHERE j.id = i.id AND j.token = i.token AND j.worker = %s
                    AND j.revision = i.expected AND j.lease_until IS NOT NULL AND NOT j.removed
                ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
            ), ended AS (
                UPDATE {job} j SET {changes}, revision = {names.next}, lease_until = NULL,
                    progress = NULL
                FROM mine i WHERE j.ctid = i.seen RETURNING i.*
            ), written AS (
                INSERT INTO {names.execution} (seq, job_id, uid, number, token, worker, claimed_at,
                    snoozes, queue, {written})
                SELECT {names.next}, id, uid, held, token, worker, claimed_at, held_snoozes,
                    held_queue, {", ".join(its)}
                FROM (SELECT * FROM ended ORDER BY n) ended
            )
            SELECT ended.n FROM ended, (SELECT {SYNC_COMMIT}) durable
        """

    def settle_runs(
        self, settlements: Sequence[Settlement], locations: Callable[[int], str]
    ) -> Steps[set[int]]:
        """Write those that are the common case and of one worker; return which, by position."""
        rows, runs, rare = [], [], []
        for settlement in settlements:
            claim, standing = settlement.claim, settlement.standing
            if standing is None:
                raise AssertionError("no common case")
            runs.append(run_values(standing))
            its = execution_values(settlement.executions[0])
            about = (claim.job.spec.id, locations(claim.token), claim.token, settlement.expected)
            written = (its[3], *its[5:8], *its[11:16], its[17], drop_at(its[12], its[17]))
            rows.append((about, written))
            rare.append(its[RARE + 1 :])
        partitions = self._executions.partitions
        if not partitions.has(written[-1] for _, written in rows):
            yield from partitions.make(
                (micros(its.finished_at), micros_or_none(its.expires_at))
                for one in settlements
                for its in one.executions
            )
        is_short = all(_others(run) == _STARTED for run in runs)
        if is_short:
            runs = [_changed(run) for run in runs]
        whole = [(*about, *run, *written) for (about, written), run in zip(rows, runs, strict=True)]
        is_rare = any(each != _NOTHING for each in rare)
        if is_rare:
            whole = [(*row, *each) for row, each in zip(whole, rare, strict=True)]
        sent = FORMS[is_short, is_rare]
        values = (*sent.values(whole), settlements[0].claim.worker)
        return {row[0] - 1 for row in (yield Query(self._runs[is_short, is_rare], values))}

    def settle(
        self, settlements: Sequence[Settlement], now: int | None, *, wait: bool = False
    ) -> Steps[list[Settled]]:
        """Write settlements by the rules; return one answer for each.

        Args:
            settlements: The settlements, of any kind.
            now: The moment, where the clock decides; ``None`` where the server's does.
            wait: Whether to wait for locked rows; else their settlements are answered as busy.
        """
        ids = sorted({one.claim.job.spec.id for one in settlements})
        statement = self._rows_waiting if wait else self._rows
        rows = yield Query(statement, (now, texts(ids)))
        at = moment(rows[0][0]) if rows else EPOCH  # of no use where there is no row
        found = {row[1]: read_record(row[1:]) for row in rows}
        missing = [job_id for job_id in ids if job_id not in found]
        locked = set[str]()
        if missing:
            locked = {row[0] for row in (yield Query(self._present, (texts(missing),)))}
        history = yield from self._executions.find(
            each for one in settlements for each in one.executions
        )
        before = {job_id: (record.job, record.hold) for job_id, record in found.items()}
        answers = []
        for one in settlements:
            job_id = one.claim.job.spec.id
            record = found.get(job_id) or core.Row()
            answers.append(BUSY if job_id in locked else record.settle(one, at, 0, history))
        yield from self._executions.write(history.written)
        due = yield from self._records.write(
            Freed(job_id, job, found[job_id], settled=True)
            for job_id, (job, hold) in before.items()
            if hold is not None and found[job_id].hold is None
        )
        yield from self._announce(due)
        return answers

    def lock(self, claim: Claim, now: int | None) -> Steps[tuple[bool, Job | None]]:
        """Lock the row of a claim; return whether it holds, and the job, ``None`` if removed."""
        rows = yield Query(self._rows_waiting, (now, texts([claim.job.spec.id])))
        record = read_record(rows[0][1:]) if rows else core.Row()
        job = record.read()
        if record.hold is None or not core.is_held_by(record.hold, claim):
            return False, None
        return (False, None) if isinstance(job, Undecodable) else (True, job)


def is_common_run(settlement: Settlement) -> bool:
    """Whether it is the common case, and its execution says of the claim what the row says."""
    if not is_plain_run(settlement):
        return False
    claim, its = settlement.claim, settlement.executions[0]
    one = claim.job.standing.scheduled
    return (
        its.kind is Kind.SCHEDULED
        and its.token == claim.token
        and its.worker == claim.worker
        and its.claimed_at == claim.claimed_at
        and its.job_id == claim.job.spec.id
        and one is not None
        and its.snoozes == one.snoozes
        and its.queue == claim.job.spec.queue
    )
