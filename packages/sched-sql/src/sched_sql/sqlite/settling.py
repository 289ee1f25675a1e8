"""How claims end in SQLite: in the common case two statements for a whole batch.

The common case is that every claim still holds its job, no job was edited, and each occurrence got
its one line. It is tried for the whole batch, with all conditions in the statement; where a row
does not meet them, the batch is taken back and settled one by one, rule by rule as in
``sched_core.memory``.

No line needs to be looked up in the common case: a row that is not ``doubtful`` has no final line
at or after its pending occurrence, and none of its next attempt, because each of these
settlements moves the row past its line, and every other write that might break the rule looks, and
marks the row.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from sched_core.job import Settled, Settlement
from sched_core.ports import Undecodable
from sched_sql.rows import (
    JOB_COLUMNS,
    RUN_COLUMNS,
    STANDING_COLUMNS,
    Row,
    line_values,
    run_values,
    standing_values,
)
from sched_sql.rules import CLAIM_LOST, WRITTEN, is_common, is_in_ledger, refusal
from sched_sql.sqlite.database import Serial
from sched_sql.sqlite.ledger import Ledger
from sched_sql.sqlite.records import read_definition

_MARKS = ", ".join("?" * (STANDING_COLUMNS.count(",") + 1))

_END = "lease_until = NULL, lost = 0, held_uid = NULL, held_number = NULL"

_SETTLE_RUN = f"""
UPDATE sched_job
SET ({RUN_COLUMNS}) = ({", ".join("?" * (RUN_COLUMNS.count(",") + 1))}), revision = ?,
    lease_until = NULL, ended_token = NULL, ended_worker = NULL
WHERE id = ? AND token = ? AND worker = ? AND revision = ? AND lease_until IS NOT NULL
    AND removed = 0 AND doubtful = 0
"""

_SETTLE_ONE = f"""
UPDATE sched_job SET ({STANDING_COLUMNS}) = ({_MARKS}), revision = ?, {_END},
    ended_token = ?, ended_worker = ?, doubtful = ?
WHERE id = ?
"""

_FREE_ONE = f"""
UPDATE sched_job SET doubtful = max(doubtful, lost > 0), {_END}, ended_token = ?, ended_worker = ?
WHERE id = ?
"""

_ROW = f"""
SELECT token, worker, lease_until, coalesce(held_uid, uid), coalesce(held_number, number),
    ended_token, ended_worker, removed, {JOB_COLUMNS}
FROM sched_job WHERE id = ?
"""
_JOB_AT = 8


class Settling:
    """Settles inside a transaction."""

    def __init__(self, connection: sqlite3.Connection, ledger: Ledger, serial: Serial) -> None:
        self._connection = connection
        self._ledger = ledger
        self._serial = serial

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """Write settlements; return one answer for each."""
        common = [one for one in settlements if is_common(one)]
        if common and not self._settle_as_one(common):
            # Nothing else was written yet, and the lock is held. A savepoint would cost a copy of
            # each page for every batch.
            self._connection.execute("ROLLBACK")
            self._connection.execute("BEGIN IMMEDIATE")
            common.clear()
        if len(common) == len(settlements):
            return [WRITTEN] * len(settlements)
        done = set(map(id, common))
        return [WRITTEN if id(one) in done else self._settle(one) for one in settlements]

    def _settle_as_one(self, settlements: Sequence[Settlement]) -> bool:
        updates: list[Row] = []
        lines: list[Row] = []
        for settlement in settlements:
            claim, standing = settlement.claim, settlement.standing
            if standing is not None:
                updates.append(
                    (
                        *run_values(standing),
                        self._serial.next(),
                        claim.job.spec.id,
                        claim.token,
                        claim.worker,
                        settlement.expected,
                    )
                )
            lines.append(line_values(settlement.ledger[0]))
        if self._connection.executemany(_SETTLE_RUN, updates).rowcount != len(lines):
            return False
        self._ledger.append(lines, self._serial)
        return True

    def _settle(self, settlement: Settlement) -> Settled:
        claim, standing = settlement.claim, settlement.standing
        job_id, fence = claim.job.spec.id, (claim.token, claim.worker)
        row = self._connection.execute(_ROW, (job_id,)).fetchone()
        if settlement.ledger:
            self._ledger.index(self._serial)
        if row is None or row[2] is None or row[:2] != fence:
            repeated = row is not None and fence in {row[:2], row[5:7]}
            return WRITTEN if repeated or is_in_ledger(settlement, self._ledger) else CLAIM_LOST

        job = None if row[7] == 1 else read_definition(row[_JOB_AT:])
        if isinstance(job, Undecodable) or row[7] not in {0, 1}:
            # A newer version edited it meanwhile, and takes the claim over; or a hand did.
            return CLAIM_LOST
        refused = refusal(settlement, row[3:5], job, self._ledger)
        if refused is not None:
            return refused

        self._ledger.write(settlement.ledger, self._serial)
        # A line proves that the claim was settled; where there is none, the row must.
        ended = (None, None) if settlement.ledger else fence
        if job is None:
            self._connection.execute("DELETE FROM sched_job WHERE id = ?", (job_id,))
        elif standing is None:
            self._connection.execute(_FREE_ONE, (*ended, job_id))
        else:
            doubtful = self._ledger.is_ahead_of(job.uid, standing, self._serial)
            values = (*standing_values(standing), self._serial.next(), *ended, doubtful, job_id)
            self._connection.execute(_SETTLE_ONE, values)
        return WRITTEN
