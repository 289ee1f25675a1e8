"""Faults inside of stores, planted for the torture.

SQLite's table with something left out or torn apart, and PostgreSQL with what only its own faults
reveal. Some exchange what belongs to a module, so they are for processes of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast
from unittest import mock

from attrs import evolve
from tests.torture.harnesses import TIMEOUT, Postgres, Sqlite
from tests.torture.planted import harness_name

from sched_core import Backend, Claim, Execution, Settled, Settlement
from sched_core.errors import JobNotFound
from sched_sql import SqlBackend
from sched_sql.postgres import claims as postgres_claims
from sched_sql.postgres.names import HASTY, Steps
from sched_sql.postgres.renewals import Renewals, Renewed
from sched_sql.sqlite import claims, settling, table
from sched_sql.sqlite.database import Serial
from sched_sql.sqlite.settling import Settling
from sched_sql.sqlite.table import SqliteTable
from sched_testkit.torture import Fault

GAP = 0.03
"""Seconds between two steps that should be one."""


def settle_in_two_transactions(inside: SqliteTable) -> None:
    def settle(settlements: Sequence[Settlement]) -> Sequence[Settled]:
        database, history = inside._database, inside._history
        with database.write() as serial:
            held = {one.claim.token for one in settlements if holds(inside, one.claim)}
            executions = [
                execution
                for one in settlements
                if one.claim.token in held
                for execution in one.executions
            ]
            history.write(executions, serial)
        time.sleep(GAP)
        rest = [
            evolve(one, executions=()) if one.claim.token in held else one for one in settlements
        ]
        with database.write() as serial:
            return Settling(database.connection, history, serial).settle(rest)

    inside.settle = settle  # type: ignore[method-assign]


def holds(inside: SqliteTable, claim: Claim) -> bool:
    found = inside._database.connection.execute(
        "SELECT 1 FROM sched_job WHERE id = ? AND token = ? AND worker = ?",
        (claim.job.id, claim.token, claim.worker),
    )
    return found.fetchone() is not None


def token_not_checked(inside: SqliteTable) -> None:
    """Whoever settles first is believed, as long as the job was not edited."""
    settling._SETTLE_RUN = settling._SETTLE_RUN.replace(
        "token = ? AND worker = ?", "? IS NOT NULL AND ? IS NOT NULL"
    )


def no_tombstone(inside: SqliteTable) -> None:
    def remove(job_id: str, executions: Sequence[Execution], expected: int | None) -> bool:
        with inside._database.write() as serial:
            try:
                inside._readable(job_id)
            except JobNotFound:
                return False
            inside._history.write(executions, serial)
            inside._database.connection.execute("DELETE FROM sched_job WHERE id = ?", (job_id,))
        return True

    inside.remove = remove  # type: ignore[method-assign,assignment]


def no_execution_for_the_lost(inside: SqliteTable) -> None:
    def nothing(*_: Any, **__: Any) -> list[Execution]:
        return []

    vars(claims)["abandoned_executions"] = nothing


def takeover_before_the_end(inside: SqliteTable) -> None:
    """A lease is taken for over when half of it is left."""
    before = inside._claims._due

    def due(at: datetime, limit: int) -> Any:
        half = timedelta(seconds=1)
        return [row for row in before(at + half, limit) if row[-2] is not None or is_due(row, at)]

    def is_due(row: Any, at: datetime) -> bool:
        connection = inside._database.connection
        found = connection.execute(
            "SELECT due_at FROM sched_job WHERE rowid = ?", (row[-4],)
        ).fetchone()
        return bool(found[0] <= at.timestamp() * 1e6)

    inside._claims._due = due  # type: ignore[method-assign]


def the_living_taken_for_dead(inside: SqliteTable) -> None:
    """Who has not been seen for a moment is dead."""

    def locked(path: Any) -> bool:
        return int(time.monotonic()) % 5 > 0

    vars(table)["is_locked"] = locked


def claim_by_what_was_read(inside: SqliteTable) -> None:
    """What is due is looked up first, and then written without a further look."""
    real = inside._claims

    def claim(
        found: list[Claim], limit: int, lease: timedelta, now: Callable[[], datetime], asked: Any
    ) -> None:
        at = now()
        rows = real._due(at, limit)
        time.sleep(GAP)
        with inside._database.write(durable=False) as serial:
            real._take(rows, found, at, at + lease, serial)

    inside.claim = claim  # type: ignore[method-assign,assignment]


def tokens_of_each_process(inside: SqliteTable) -> None:
    """They grow in each process, and nobody asks the store where they stand."""
    counter, take = Serial(time.monotonic_ns() % 1000), inside._claims._take

    def own(rows: Any, found: Any, at: Any, until: Any, serial: Serial) -> None:
        take(rows, found, at, until, counter)

    inside._claims._take = own  # type: ignore[method-assign,assignment]


SPOILED: dict[str, Callable[[SqliteTable], None]] = {
    "settle in two transactions": settle_in_two_transactions,
    "token not checked": token_not_checked,
    "no tombstone": no_tombstone,
    "no execution for the lost": no_execution_for_the_lost,
    "takeover before the end": takeover_before_the_end,
    "the living taken for dead": the_living_taken_for_dead,
    "claim by what was read": claim_by_what_was_read,
    "tokens of each process": tokens_of_each_process,
}


class Spoiled(Sqlite):
    spoil: Callable[[SqliteTable], None]

    def backend(self, address: str) -> Backend:
        backend = cast("SqlBackend", super().backend(address))
        inside = backend._table
        assert isinstance(inside, SqliteTable)
        type(self).spoil(inside)
        return backend


for _name, _spoil in SPOILED.items():
    globals()[harness_name(_name)] = type(
        harness_name(_name), (Spoiled,), {"name": _name, "spoil": staticmethod(_spoil)}
    )


class ClaimsThatDoNotWait(Postgres):
    """A claim is committed without waiting, so that a crash of the server takes it back."""

    name = "claims that do not wait"

    def backend(self, address: str) -> Backend:
        with mock.patch.object(postgres_claims, "DURABLE", HASTY):
            return super().backend(address)

    def faults(self, address: str) -> Mapping[str, Fault]:
        made = super().faults(address)
        return {name: made[name] for name in ("server restarted", "server crashed")}


class RenewalsInRowsOnly(Postgres):
    """A lease whose row is locked by others past its end is not extended, and is taken over."""

    name = "renewals in rows only"

    def backend(self, address: str) -> Backend:
        def renew_beside(self: Renewals, *_: object) -> Steps[Renewed]:
            yield from ()
            return Renewed(None, [])

        Renewals.renew_beside = renew_beside  # type: ignore[assignment,method-assign]
        return super().backend(address)

    def faults(self, address: str) -> Mapping[str, Fault]:
        return {}

    def delays(self, address: str) -> Mapping[str, Fault]:
        made = super().delays(address)
        return {name: made[name] for name in ("row locked", "row edited slowly")}


class LeaseByTheLocalClock(Postgres):
    """It says that the server's clock decides, and asks the machine's."""

    name = "lease by the local clock"

    def backend(self, address: str) -> Backend:
        backend = SqlBackend(address, lease=self.lease, timeout=TIMEOUT, time="clock")
        backend._capabilities = evolve(backend.capabilities, time="store")
        return backend
