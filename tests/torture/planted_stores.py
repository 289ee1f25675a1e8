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
from tests.torture.planted import Only, harness_name

from sched_core import Backend, Claim, Execution, Hold, Job, Settled, Settlement
from sched_core import row as core_row
from sched_core._rules import hold as hold_rules
from sched_core.row import History, is_held_by
from sched_sql import DatabaseBackend, SqlBackend
from sched_sql._shared.lanes import Lanes
from sched_sql._shared.moments import micros
from sched_sql._shared.table import ClaimBatch, Now
from sched_sql.postgres import claims as postgres_claims
from sched_sql.postgres.renewals import Renewals, Renewed
from sched_sql.postgres.sql import ASYNC_COMMIT, Steps
from sched_sql.sqlite import records, table
from sched_sql.sqlite.database import Serial
from sched_sql.sqlite.records import Record
from sched_sql.sqlite.settlements import Settler
from sched_sql.sqlite.table import SqliteTable
from sched_testkit.torture import Fault

GAP = 0.03
"""Seconds between two steps that should be one."""


def settle_in_two_transactions(inside: SqliteTable) -> None:
    def settle(settlements: Sequence[Settlement], now: Now) -> Sequence[Settled]:
        database, records, history = inside._database, inside._records, inside._history
        with database.write() as serial:
            written = history.within(serial)
            held = {one.claim.token for one in settlements if holds(inside, one.claim)}
            for one in settlements:
                for execution in one.executions if one.claim.token in held else ():
                    written.append(execution)
        time.sleep(GAP)
        rest = [
            evolve(one, executions=()) if one.claim.token in held else one for one in settlements
        ]
        with database.write() as serial:
            return Settler(database.connection, records, history, serial).settle(rest, now())

    inside.settle = settle  # type: ignore[method-assign]


def holds(inside: SqliteTable, claim: Claim) -> bool:
    return is_held_by(inside._records.load(claim.job.id).hold, claim)


def token_not_checked(inside: SqliteTable) -> None:
    """The worker that settles first is believed, whichever holds the job."""
    before = Record.settle

    def settle(
        row: Record, settlement: Settlement, now: datetime, revision: int, to: History
    ) -> Settled:
        if row.hold is not None:
            mine = evolve(settlement.claim, token=row.hold.token, worker=row.hold.worker)
            settlement = evolve(settlement, claim=mine)
        return before(row, settlement, now, revision, to)

    Record.settle = settle  # type: ignore[assignment,method-assign]


def no_tombstone(inside: SqliteTable) -> None:
    def remove(job: Job, executions: Sequence[Execution]) -> None:
        with inside._database.write() as serial:
            record = inside._loaded(job.id)
            record.remove(job, executions, inside._history.within(serial))
            record.hold = None
            inside._records.save(job.id, record)

    inside.remove = remove  # type: ignore[method-assign]


def nothing_of_the_lost(inside: SqliteTable) -> None:
    """A lost claim is taken away; its attempt is neither counted nor written."""

    def lapse(row: Record, now: datetime, revision: int, to: History) -> tuple[Execution, ...]:
        if row.hold is not None and row.hold.expires_at <= now:
            row.hold = None
        return ()

    Record.lapse = lapse  # type: ignore[assignment,method-assign]


def losses_counted_only(inside: SqliteTable) -> None:
    """The attempt of a lost claim is counted, and has no execution."""
    before = Record.lapse

    def lapse(row: Record, now: datetime, revision: int, to: History) -> tuple[Execution, ...]:
        before(row, now, revision, cast("History", Only(to, set())))
        return ()

    Record.lapse = lapse  # type: ignore[assignment,method-assign]


def freed_without_an_end(inside: SqliteTable) -> None:
    """What was edited or removed away while it was held has no end when its claim is freed."""

    def freed(
        job: Job | None, hold: Hold, executions: tuple[Execution, ...] = (), *, now: datetime
    ) -> tuple[Execution, ...]:
        return executions

    for module in (core_row, hold_rules):
        vars(module)["freed"] = freed


def the_held_is_derived_again(inside: SqliteTable) -> None:
    """What is held is what a claim of the stored job would be for, also after an edit."""
    vars(records)["_LEAVE"] = (
        "UPDATE sched_job SET held = NULL WHERE ? IS NOT NULL AND id = ? AND removed = 0"
    )


def takeover_before_the_end(inside: SqliteTable) -> None:
    """A lease is taken for over when half of it is left."""
    before, half = inside._claims._lapse, timedelta(seconds=1)

    def lapse(lapsed: list[Execution], at: datetime, serial: Serial) -> None:
        soon = micros(at), micros(at), micros(at + half)
        inside._database.connection.execute(
            "UPDATE sched_job SET lease_until = ? WHERE lease_until BETWEEN ? AND ?", soon
        )
        before(lapsed, at, serial)

    inside._claims._lapse = lapse  # type: ignore[method-assign]


def the_living_taken_for_dead(inside: SqliteTable) -> None:
    """Who has not been seen for a moment is dead."""

    def locked(path: Any) -> bool:
        return int(time.monotonic()) % 5 > 0

    vars(table)["is_locked"] = locked


def claim_by_what_was_read(inside: SqliteTable) -> None:
    """What is due is looked up first, and then written without a further look."""
    real = inside._claims

    def claim(batch: ClaimBatch, lease: timedelta, now: Now) -> None:
        at = now()
        lanes = Lanes(batch.room)
        rows = real._due.rows(lanes, micros(at))
        time.sleep(GAP)
        with inside._database.write(durable=False) as serial:
            real._lapse(batch.lapsed, at, serial)
            real._take(rows, lanes, batch.claims, at, at + lease, serial)

    inside._claims.claim = claim  # type: ignore[method-assign]


def tokens_of_each_process(inside: SqliteTable) -> None:
    """They grow in each process, and no process asks the store for them."""
    counter, take = Serial(time.monotonic_ns() % 1000), inside._claims._take

    def own(rows: Any, lanes: Any, claims: Any, at: Any, until: Any, serial: Serial) -> bool:
        return take(rows, lanes, claims, at, until, counter)

    inside._claims._take = own  # type: ignore[assignment,method-assign]


SPOILED: dict[str, Callable[[SqliteTable], None]] = {
    "settle in two transactions": settle_in_two_transactions,
    "token not checked": token_not_checked,
    "no tombstone": no_tombstone,
    "nothing of the lost": nothing_of_the_lost,
    "losses counted only": losses_counted_only,
    "freed without an end": freed_without_an_end,
    "the held is derived again": the_held_is_derived_again,
    "takeover before the end": takeover_before_the_end,
    "the living taken for dead": the_living_taken_for_dead,
    "claim by what was read": claim_by_what_was_read,
    "tokens of each process": tokens_of_each_process,
}


class Spoiled(Sqlite):
    spoil: Callable[[SqliteTable], None]

    def backend(self, address: str) -> Backend:
        backend = cast("DatabaseBackend", super().backend(address))
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
        with mock.patch.object(postgres_claims, "SYNC_COMMIT", ASYNC_COMMIT):
            return super().backend(address)

    def faults(self, address: str) -> Mapping[str, Fault]:
        made = super().faults(address)
        return {name: made[name] for name in ("server restarted", "server crashed")}


class RenewalsInRowsOnly(Postgres):
    """A lease whose row is locked by others past its end is not extended, and is taken over."""

    name = "renewals in rows only"

    def backend(self, address: str) -> Backend:
        def renew_unlocked(self: Renewals, *_: object) -> Steps[Renewed]:
            yield from ()
            return Renewed(None, [])

        Renewals.renew_unlocked = renew_unlocked  # type: ignore[assignment,method-assign]
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
