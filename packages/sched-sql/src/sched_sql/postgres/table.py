"""Jobs and their history in one schema of a PostgreSQL database."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Literal, TypeVar

import psycopg
from psycopg.errors import CheckViolation, LockNotAvailable, UniqueViolation

from sched_core import (
    Claim,
    Execution,
    ExecutionQuery,
    Job,
    JobQuery,
    JobStore,
    Page,
    Renewal,
    Settled,
    Settlement,
    Undecodable,
    UndecodableExecution,
)
from sched_core._support.logger import Logger
from sched_core.clock import FIRST, Clock, StoreClock, boot_seconds
from sched_core.errors import BackendError, BackendUnavailable, StoreNotFound
from sched_core.ports import MAX_POLL, Transaction
from sched_core.row import WRITTEN
from sched_sql.moments import micros, micros_or_none, moment, nearest_moment
from sched_sql.postgres import migration, queries
from sched_sql.postgres.claims import BEGINNING, ENDED, Claims, micros_of
from sched_sql.postgres.definitions import Definitions
from sched_sql.postgres.due_index import DueIndex
from sched_sql.postgres.executions import CHUNK, Executions
from sched_sql.postgres.failures import MORE_SLOTS, first_line, is_full, translate
from sched_sql.postgres.heartbeat import Heartbeat
from sched_sql.postgres.notifications import Listener
from sched_sql.postgres.partitions import drop_at
from sched_sql.postgres.pool import Connections
from sched_sql.postgres.pooler import shares_sessions
from sched_sql.postgres.records import Records
from sched_sql.postgres.renewals import Fence, fence_of
from sched_sql.postgres.session import BUSY, SETTINGS, Address, Epoch, LaneConnection
from sched_sql.postgres.settlements import Settler, is_common_run
from sched_sql.postgres.sql import NOW, SYNC_COMMIT, Names, Query, Steps
from sched_sql.postgres.transactions import CallerStore, HandlerTransaction
from sched_sql.rows import QUEUE
from sched_sql.table import ClaimBatch, Now

logger = Logger("sched_sql")
T = TypeVar("T")

ANNOUNCE_EVERY = 0.1
"""Seconds between announcements of what has been settled, at least."""


class PostgresTable:
    """Jobs and their history in one schema; see :class:`sched_sql.table.Table`.

    Args:
        where: The address, as libpq understands it.
        schema: Its name.
        time: Who decides what is due: the server's clock, or the one given to ``open``.
        lease: How long a claim lives.
        timeout: Seconds to wait for an answer, and for a lock.
        migrate: Whether to make the schema, and bring it up to date.
        pooled: Whether a pooler may give each transaction another session.
        create: Whether the schema may be missing.
        handler_connections: Most connections for handlers.
    """

    def __init__(
        self,
        where: str,
        *,
        schema: str,
        time: Literal["store", "clock"],
        lease: timedelta,
        timeout: float,
        migrate: bool,
        pooled: bool,
        handler_connections: int,
        create: bool = True,
    ) -> None:
        settings = {
            **SETTINGS,
            "lock_timeout": f"{max(1, round(timeout * 900))}ms",
            "statement_timeout": f"{max(1, round(timeout * 1000))}ms",
        }
        self._address = Address(where, timeout=timeout, settings=settings)
        self._schema, self._migrate, self._pooled = schema, migrate, pooled
        self._create = create
        self._time, self._lease = time, lease
        self._timeout = timeout
        names = self._names = Names(schema)
        executions = self._executions = Executions(names)
        records = Records(names)
        self._definitions = Definitions(names, executions)
        announce = self._definitions.announce
        self._claims = Claims(names, executions, records, announce)
        self._settler = Settler(names, executions, records, announce)
        epoch = Epoch(self._leave_old)
        # A renewal needs time left to be made unlocked, where it gets no lock.
        patient = max(1, min(round(timeout * 900), micros_of(lease) // 4000))
        renewing = {**settings, "lock_timeout": f"{patient}ms"}
        # And to be made again on another connection, where this one gets no answer.
        patience = max(1.0, min(timeout, lease.total_seconds() / 6))
        renew = LaneConnection(
            Address(where, timeout=patience, settings=renewing), epoch, pooled=pooled
        )
        self._renewal_takes = patience
        # Without the first of them, what is claimed would be lost: it is made first, and again.
        self._lanes = {"renew": renew} | {
            name: LaneConnection(self._address, epoch, pooled=pooled, first=renew)
            for name in ("settle", "claim", "edit")
        }
        listening = LaneConnection(self._address, epoch, pooled=pooled, first=renew)
        self._all = [*self._lanes.values(), *([] if pooled else [listening])]
        self._listening = Listener(listening, names, enabled=not pooled)
        self._connections = Connections(
            self._address, epoch, size=handler_connections, first=renew, pooled=pooled
        )
        self._handler_connections = handler_connections
        self._renewing_failed: Exception | None = None
        self._heartbeat = Heartbeat(self._beat)
        self._due_index = DueIndex(lease)
        self._clock: StoreClock | None = None
        self._announced_at = 0.0
        self._unannounced: int | None = None
        """The moment at which the first job is due that was settled and not announced."""

    def __str__(self) -> str:
        return f"{self._address}, schema {self._schema}"

    def failure(self, error: Exception) -> Exception:
        return translate(error, str(self._address), self._schema)

    def clock(self, clock: Clock) -> Clock:
        """Return the clock that decides: the given one, or the server's."""
        if self._time == "clock":
            return clock
        self._clock = StoreClock(clock)
        return self._clock

    # -- opening

    def open(self, worker: str, now: Now) -> None:
        self._claims.worker = self._listening.worker = worker
        self._definitions.fixed = lambda: self._fixed(now)
        self._due_index = DueIndex(self._lease)
        self._renewing_failed = None
        self._connect()
        edit = self._lanes["edit"]
        for _ in range(2):  # the first one also waits for the connection
            self._observe(self._told)
        found = edit.run(lambda: migration.version(self._names, self._schema))
        if not self._create and not found[0]:
            raise StoreNotFound(f"{self._address}: there is no schema {self._schema} in it")
        if migration.check(self._schema, found, migrate=self._migrate, create=self._create):
            migration.bring_up_to_date(edit, self._names, self._schema, lambda: self._fixed(now))
        if edit.run(lambda: migration.is_behind(self._names), transaction=False):
            edit.run(lambda: migration.set_forward(self._names, self._schema))
        if self._create:
            seen = micros(now())
            edit.run(lambda: self._executions.partitions.make_usual(seen))
        if self._time == "store":
            self._heartbeat.start(self._lease)

    def _connect(self) -> None:
        """Make all connections that a claim depends on: it could not be renewed or settled else."""
        self._connections.open()
        for lane in self._all:
            lane.open()
        processes: list[tuple[int, int]] = []
        for lane in self._all:
            try:
                processes.append(lane.processes())
            except psycopg.OperationalError as error:
                if not processes and not is_full(error):
                    raise
                raise BackendUnavailable(
                    f"{self._address}: this backend needs {len(self._all)} connections at all "
                    f"times, and up to {self._handler_connections} more for event.transaction() "
                    f"(handler_connections); it got {len(processes)}: {first_line(error)}: "
                    f"{MORE_SLOTS}"
                ) from error
        if not self._pooled and shares_sessions(self._all, processes):
            raise BackendError(
                f"{self._address}: this is a pooler that gives each transaction another session: "
                "pass pooled=True (`pooled = true` in a configuration file), or the address of "
                "the server itself"
            )

    def _told(self) -> int:
        def steps() -> Steps[int]:
            ((encoding, at),) = yield Query(f"SELECT current_setting('server_encoding'), {NOW}")
            if encoding != "UTF8":
                raise BackendError(
                    f"{self._address}: the database has the encoding {encoding}: make one with "
                    "ENCODING 'UTF8'"
                )
            return int(at)

        return self._lanes["edit"].run(steps)

    def _observe(self, ask: Callable[[], int | None]) -> None:
        """Ask something that tells the server's time, and keep the clock's estimate by it."""
        sent = boot_seconds()
        at = ask()
        received = boot_seconds()
        if at is not None and self._clock is not None:
            self._due_index.clock_stepped(self._clock.observe(moment(at), sent, received))

    def _leave_old(self) -> None:
        """Drop all idle connections, because one has led to the wrong server."""
        logger.info("all connections to the database are made again")
        for lane in self._all:
            lane.leave_old()
        self._connections.leave_old()

    def cut_off(self) -> None:
        for lane in self._all:
            lane.cut_off()
        self._connections.close()

    def close(self) -> None:
        self._heartbeat.stop(BUSY)
        self._listening.close()
        for lane in self._lanes.values():
            lane.close()

    def leave_loop(self) -> None:
        """Close what belongs to the event loop, before :meth:`close`."""
        self._connections.close()

    def forked(self) -> None:
        self._heartbeat.forget()
        self._listening.forget()
        for lane in self._lanes.values():
            lane.forget()

    def check(self) -> None:
        def steps() -> Steps[None]:
            yield Query(
                f"UPDATE {self._names.meta} SET value = value + 1 WHERE key = 'checks' "  # noqa: S608
                "RETURNING value"
            )

        self._lanes["edit"].run(steps)

    def due_since(self, now: Now) -> datetime | None:
        at = self._fixed(now)

        def steps() -> Steps[int | None]:
            ((found,),) = yield Query(
                f"SELECT min(due_at) FROM {self._names.job}, (SELECT coalesce(%s, {NOW}) AS at) n "  # noqa: S608 -- quoted
                f"WHERE queue = '{QUEUE}' AND due_at <= n.at "
                "AND (lease_until IS NULL OR lease_until <= n.at)",
                (at,),
            )
            return None if found is None else int(found)

        found = self._lanes["edit"].run(steps)
        return None if found is None else moment(found)

    # -- definitions

    def _edit(self, steps: Callable[[], Steps[T]]) -> T:
        def durable() -> Steps[T]:
            yield Query(f"SELECT {SYNC_COMMIT}")
            return (yield from steps())

        return self._writing(lambda: self._lanes["edit"].run(durable))

    def _writing(self, write: Callable[[], T]) -> T:
        """Write executions maybe: again where a partition was gone that had been there."""
        try:
            return write()
        except CheckViolation:
            self._executions.partitions.forget()
            return write()

    def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        added = self._added_alone(jobs[0]) if len(jobs) == 1 else None
        stored = self._edit(lambda: self._definitions.add(jobs)) if added is None else [added]
        self._due_index.invalidate()
        return stored

    def _added_alone(self, job: Job) -> Job | None:
        # Nearly every add is of one new job: one exchange with the server instead of five.
        add_one = self._definitions.add_one
        return self._lanes["edit"].run(lambda: add_one(job), transaction=False)

    def get(self, job_id: str) -> Job | Undecodable | None:
        return self._lanes["edit"].run(lambda: self._definitions.get(job_id), transaction=False)

    def replace(self, job: Job, executions: Sequence[Execution]) -> Job:
        replaced = self._edit(lambda: self._definitions.replace(job, executions))
        self._due_index.invalidate()
        return replaced

    def remove(self, job: Job, executions: Sequence[Execution]) -> None:
        self._edit(lambda: self._definitions.remove(job, executions))
        self._due_index.invalidate()  # the end of a hold that is left is to be looked for

    def jobs(self, query: JobQuery, after: str | None, limit: int) -> Page[Job | Undecodable]:
        return self._lanes["edit"].run(lambda: queries.jobs(self._names, query, after, limit))

    # -- transactions of others

    def within(self, connection: object) -> JobStore:
        """Return definitions inside a transaction of the caller's."""
        return CallerStore(connection, self._definitions, self._make_room, self.failure)

    def _make_room(self, executions: Sequence[Execution], *, again: bool) -> None:
        """Make the partitions for executions, before others' transactions write them.

        Made inside one, they would be missing for everybody else until it ends.
        """
        partitions = self._executions.partitions
        if again:
            partitions.forget()
        written = [(micros(one.finished_at), micros_or_none(one.expires_at)) for one in executions]
        if not partitions.has(drop_at(*each) for each in written):
            self._lanes["edit"].run(lambda: partitions.make(written))

    def transaction(
        self,
        claim: Claim,
        decide: Callable[[Job | None], Settlement],
        committed: Callable[[Settlement], None],
    ) -> Transaction:
        """Return a transaction that ends with a settlement."""

        def done(settlement: Settlement) -> None:
            self._drop([claim])
            committed(settlement)
            self._due_index.settled([settlement])

        lease = max(1, micros_of(self._lease) // 1000)
        return HandlerTransaction(
            self._connections,
            self._settler,
            claim,
            decide,
            done,
            self._definitions.fixed,
            self.failure,
            lease,
            self._timeout,
        )

    # -- what is due

    @property
    def descriptor(self) -> int | None:
        """What becomes readable when another process has written; ``None``: none listens."""
        return self._listening.descriptor

    def silence(self) -> float:
        """Seconds for which the descriptor may stay silent before :meth:`changed` is called."""
        return self._listening.silence()

    def may_listen(self) -> bool:
        """Whether :meth:`listen` is worth a call now."""
        return self._listening.may_start()

    def listen(self) -> None:
        """Listen to other processes, where the server lets it."""
        if self._listening.start():
            self._due_index.invalidate()

    def changed(self) -> bool:
        changed = self._listening.descriptor is None or self._listening.heard()
        if changed:
            self._due_index.invalidate()
        return changed

    def _fixed(self, now: Now) -> int | None:
        """Return the moment where the clock decides, ``None`` where the server's does."""
        return micros(now()) if self._time == "clock" else None

    def earliest(self, now: Now, horizon: datetime) -> datetime | None:
        self._announce("claim")
        index, at = self._due_index, self._fixed(now)
        sweep = at is not None or index.looks_everywhere(micros(now()))
        floor = BEGINNING if sweep else index.floor
        above = index.empty_at if at is None else BEGINNING
        until = micros(horizon)
        probes = []

        def ask() -> int:
            probes.append(
                self._lanes["claim"].run(
                    lambda: self._claims.probe(
                        at, until, floor=floor, above=max(above, floor), sweep=sweep
                    ),
                    transaction=False,
                )
            )
            return probes[0].at

        if at is not None:
            ask()
            moments = [found for found in (probes[0].free, probes[0].held) if found is not None]
        else:
            began = boot_seconds()
            self._observe(ask)
            moments = index.probed(probes[0], sweep=sweep, cost=boot_seconds() - began)
        return nearest_moment(min(moments)) if moments else None

    # -- claims

    def claim(self, batch: ClaimBatch, lease: timedelta, now: Now) -> None:
        if now() - batch.at > lease / 10:
            # The loop was blocked or the clock set: the caller renews first, or what it holds
            # itself would be ended.
            return
        self._assure_renewals(now)
        while self._claim(batch, micros_of(lease), self._fixed(now), micros(now())):
            # As many rows as were asked for, and some of them were only cleared away.
            pass

    def _assure_renewals(self, now: Now) -> None:
        """Refuse to claim while nothing can be renewed.

        Raises:
            BackendUnavailable: The connection for it is missing, or does not answer.
        """
        failed, renew = self._renewing_failed, self._lanes["renew"]
        if not renew.connect(self._renewal_takes):
            raise BackendUnavailable(
                f"{self._address}: a renewal gets no answer, so nothing is claimed"
            )
        if failed is not None:
            held = self._heartbeat.held()
            if held:
                self._renew(held, self._fixed(now), named=False)
            else:
                renew.processes()
                self._renewing_failed = None

    def _claim(self, batch: ClaimBatch, lease: int, at: int | None, believed: int) -> bool:
        """Append claims; return whether there may be more, and something has moved."""
        index, lane, claims = self._due_index, self._lanes["claim"], batch.claims
        begun, limit = len(claims), batch.limit - len(claims)
        request = index.ask(limit, lease, at, believed)
        if request is None:
            self._observe(self._told)
            return False
        sent = boot_seconds()
        claimed = lane.run(lambda: self._claims.claim(claims, request), transaction=False)
        received = boot_seconds()
        self._heartbeat.hold(claims[begun:], sent, named=True)
        if self._clock is not None:
            index.clock_stepped(self._clock.observe(moment(claimed.at), sent, received))
        index.claimed(request, claimed, received - sent)
        if claimed.undecodable:
            self._free(claimed.undecodable, at)
        moved = len(claimed.undecodable)
        if claimed.ended:
            moved += self._lapse(batch, claimed.ended, at)
        more = len(claims) < batch.limit or len(claimed.ended) >= ENDED
        if 0 < begun < len(claims):
            claims.sort(key=lambda claim: claim.job.standing.due_at or FIRST)
        if not index.is_conclusive(request):
            return more
        return more and moved > 0

    def _lapse(self, batch: ClaimBatch, ids: list[str], at: int | None) -> int:
        """End claims whose leases have ended; return how many."""
        lane, claims = self._lanes["claim"], self._claims
        try:
            executions, ended = self._writing(lambda: lane.run(lambda: claims.lapse(ids, at)))
        except Exception as error:
            if not batch.claims:
                raise
            # What is claimed already must not be lost with it; this is tried again.
            logger.warning("lost claims could not be ended: %s", self.failure(error))
            return 0
        batch.lapsed.extend(executions)
        return ended

    def renew(self, renewals: Sequence[Renewal], lease: timedelta, now: Now) -> Sequence[Claim]:
        return self._renew(renewals, self._fixed(now), named=True)

    def _beat(self, renewals: Sequence[Renewal]) -> None:
        self._renew(renewals, None, named=False)

    def _renew(self, renewals: Sequence[Renewal], at: int | None, *, named: bool) -> list[Claim]:
        if not renewals:
            return []
        renewed: list[Claim] = []
        lane, extending, lease = self._lanes["renew"], self._claims.renewals, micros_of(self._lease)

        def ask() -> int | None:
            try:
                found = lane.run(lambda: extending.renew(renewals, lease, at), transaction=False)
            except LockNotAvailable:
                # The table as a whole is locked: for CREATE INDEX, say.
                found = lane.run(
                    lambda: extending.renew_unlocked(renewals, lease, at), transaction=False
                )
            renewed.extend(found.claims)
            return found.at

        sent = boot_seconds()
        try:
            self._observe(ask)
        except Exception as error:
            self._renewing_failed = error
            raise
        self._renewing_failed = None
        alone = {each.claim.token for each in renewals if each.alone}
        self._heartbeat.hold(renewed, sent, named=named, alone=alone)
        held = {claim.token for claim in renewed}
        self._drop([each.claim for each in renewals if each.claim.token not in held])
        return renewed

    def _drop(self, claims: Sequence[Claim]) -> None:
        """Forget claims that have ended."""
        self._heartbeat.drop(claims)
        self._claims.locations.forget(claims)

    def release(self, claims: Sequence[Claim], now: Now) -> None:
        if claims:
            self._drop(claims)
            fences = [fence_of(claim) for claim in claims]
            self._free(fences, self._fixed(now))
            self._due_index.invalidate()

    def _free(self, fences: Sequence[Fence], at: int | None) -> None:
        lane = self._lanes["claim"]
        left = self._writing(lambda: lane.run(lambda: self._claims.release(fences, at)))
        # Another call writes there, and is done in a moment. A row that is locked for longer stays
        # claimed until its lease ends.
        with suppress(LockNotAvailable):
            for fence in left:
                lane.run(functools.partial(self._claims.release, [fence], at, wait=True))

    def settle(self, settlements: Sequence[Settlement], now: Now) -> Sequence[Settled]:
        lane, settler, at = self._lanes["settle"], self._settler, self._fixed(now)
        answers: dict[int, Settled] = {}
        for runs in _by_worker(settlements).values():
            written = self._settle_runs([settlements[index] for index in runs])
            answers |= {runs[index]: WRITTEN for index in written}
            self._announce("settle", (settlements[runs[index]] for index in written))
        rest = [index for index in range(len(settlements)) if index not in answers]
        if rest:
            batch = [settlements[index] for index in rest]
            settled = self._writing(lambda: lane.run(lambda: settler.settle(batch, at)))
            answers |= dict(zip(rest, settled, strict=True))
        ended = [
            one.claim
            for index, one in enumerate(settlements)
            if answers[index].outcome in {"written", "claim_lost"}
        ]
        self._drop(ended)
        self._due_index.settled(settlements)
        return [answers[index] for index in range(len(settlements))]

    def _announce(self, lane: str, runs: Iterable[Settlement] = ()) -> None:
        """Wake others where a run is due again before they look; not each time.

        What is left out here goes with the next one, or before this worker waits.
        """
        due = [self._unannounced, *(micros_or_none(_due_again(run)) for run in runs)]
        self._unannounced = min((moment for moment in due if moment is not None), default=None)
        seconds, soonest = boot_seconds(), self._unannounced
        if soonest is None or seconds - self._announced_at < ANNOUNCE_EVERY:
            return
        self._unannounced, self._announced_at = None, seconds
        if self._clock is None or moment(soonest) <= self._clock.now() + MAX_POLL:
            by = self._claims.worker
            self._lanes[lane].run(
                lambda: self._definitions.announce([soonest], by), transaction=False
            )

    def _settle_runs(self, batch: Sequence[Settlement]) -> set[int]:
        settler, locations = self._settler, self._claims.locations.find
        try:
            return self._lanes["settle"].run(
                lambda: settler.settle_runs(batch, locations), transaction=False
            )
        except UniqueViolation:
            # One of the executions was written or copied by hand: the rules decide about that one,
            # and about the others.
            return set()
        except CheckViolation:
            # A partition is gone: the rules make it again.
            self._executions.partitions.forget()
            return set()

    # -- the history

    def executions(
        self, query: ExecutionQuery, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        return self._lanes["edit"].run(lambda: queries.executions(self._names, query, after, limit))

    def prune(self, before: datetime, now: Now, cursor: int) -> tuple[int, int | None]:
        edit, executions, at = self._lanes["edit"], self._executions, self._fixed(now)
        if cursor >= 0:
            deleted, following = 0, None
            if before > FIRST:
                deleted, following = edit.run(lambda: executions.prune_old(micros(before), cursor))
            return deleted, _DROP if following is None else following
        if cursor == _DROP:
            seen = micros(now())
            edit.run(lambda: executions.partitions.make_next(seen))
            return edit.run(lambda: executions.partitions.drop(at)), _EXPIRED
        deleted = edit.run(lambda: executions.prune_expired(at))
        if deleted == CHUNK:
            return deleted, _EXPIRED
        jobs, more = edit.run(lambda: self._claims.prune(at))
        return deleted + jobs, _EXPIRED if more else None


_DROP, _EXPIRED = -1, -2
"""What a prune does once all that finished before is deleted."""


def _due_again(run: Settlement) -> datetime | None:
    return None if run.standing is None else run.standing.due_at


def _by_worker(settlements: Sequence[Settlement]) -> dict[str, list[int]]:
    """Return where the common cases are, by worker; there is hardly ever more than one."""
    found: dict[str, list[int]] = {}
    for index, settlement in enumerate(settlements):
        if is_common_run(settlement):
            found.setdefault(settlement.claim.worker, []).append(index)
    return found
