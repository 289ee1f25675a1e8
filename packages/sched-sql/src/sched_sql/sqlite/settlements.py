"""Settlements in SQLite: in the common case two statements for a whole batch.

The common case is that every claim still holds its job, no job was edited, and each occurrence got
its one execution. It is tried for the whole batch, with all conditions in the statement; where a
row does not meet them, the batch is taken back and settled one by one.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from sched_core import Settled, Settlement
from sched_core.row import WRITTEN
from sched_sql._shared.history import execution_values
from sched_sql._shared.moments import Row
from sched_sql._shared.rules import is_plain_run
from sched_sql._shared.standings import RUN_COLUMNS, STEADY_COLUMNS, run_values, steady_values
from sched_sql.sqlite import nulls
from sched_sql.sqlite.database import Serial
from sched_sql.sqlite.history import History
from sched_sql.sqlite.records import Records


def _settle(columns: str) -> str:
    return f"""
    UPDATE sched_job
    SET ({columns}) = ({", ".join("?" * (columns.count(",") + 1))}), revision = ?,
        lease_until = NULL
    WHERE id = ? AND token = ? AND worker = ? AND revision = ? AND lease_until IS NOT NULL
        AND removed = 0 AND (doubt IS NULL OR doubt < ?)
    """


_DOUBT = "UPDATE sched_job SET doubt = max(coalesce(doubt, 0), ?) WHERE id = ?"
_SETTLE_STEADY, _SETTLE_RUN = _settle(STEADY_COLUMNS), _settle(RUN_COLUMNS)


class Settler:
    """Settles inside a transaction."""

    def __init__(
        self, connection: sqlite3.Connection, records: Records, history: History, serial: Serial
    ) -> None:
        self._connection = connection
        self._records = records
        self._history = history
        self._serial = serial

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> list[Settled]:
        """Write settlements; return one answer for each."""
        plain = [one for one in settlements if is_plain_run(one)]
        if plain and not self._settle_as_one(plain):
            # Nothing else was written yet, and the lock is held. A savepoint would cost a copy of
            # each page for every batch.
            self._connection.execute("ROLLBACK")
            self._connection.execute("BEGIN IMMEDIATE")
            plain.clear()
        if len(plain) == len(settlements):
            return [WRITTEN] * len(settlements)
        done = set(map(id, plain))
        return [WRITTEN if id(one) in done else self._settle(one, now) for one in settlements]

    def _settle_as_one(self, settlements: Sequence[Settlement]) -> bool:
        steady: list[Row] = []
        others: list[Row] = []
        executions: list[Row] = []
        for settlement in settlements:
            claim, standing = settlement.claim, settlement.standing
            if standing is not None:
                job = claim.job
                fence = (
                    self._serial.next(),
                    job.spec.id,
                    claim.token,
                    claim.worker,
                    settlement.expected,
                    settlement.executions[0].number,
                )
                values = steady_values(job.standing, standing)
                if values is None:
                    others.append((*run_values(standing), *fence))
                else:
                    steady.append((*values, *fence))
            executions.append(execution_values(settlement.executions[0]))
        connection, written = self._connection, 0
        if steady:
            written += connection.executemany(_SETTLE_STEADY, steady).rowcount
        if others:
            written += nulls.execute_many(connection, _SETTLE_RUN, others)
        if written != len(executions):
            return False
        self._history.extend(executions, self._serial)
        return True

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        job_id = settlement.claim.job.spec.id
        record = self._records.load(job_id)
        history = self._history.within(self._serial)
        settled = record.settle(settlement, now, self._serial.next(), history)
        if record.hold is not record.was_held:
            self._records.save(job_id, record)
            if settlement.standing is None and record.job is not None:
                # These leave no trace in the standing by which the next one with their id is known.
                for execution in settlement.executions:
                    self._connection.execute(_DOUBT, (execution.number, job_id))
        return settled
