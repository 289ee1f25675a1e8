"""An open backend: its parts are put together, started and stopped here."""

from __future__ import annotations

import asyncio
import secrets
from datetime import datetime

import anyio

from sched_core._support.logger import Logger
from sched_core.clock import Alarm, Clock
from sched_core.errors import BackendError
from sched_jetstream._model.protocol import StoredRecord
from sched_jetstream._runtime.acknowledgements import Acknowledgements
from sched_jetstream._runtime.background import Background, Work
from sched_jetstream._runtime.cancels import Cancels
from sched_jetstream._runtime.claims import Claims
from sched_jetstream._runtime.definitions import Definitions
from sched_jetstream._runtime.due_queue import Hint
from sched_jetstream._runtime.hints import Hints
from sched_jetstream._runtime.leases import Leases
from sched_jetstream._runtime.live_claims import LiveClaims
from sched_jetstream._runtime.older_workers import wait_for_older_workers
from sched_jetstream._runtime.reconciler import Reconciler
from sched_jetstream._runtime.server_time import ServerTime
from sched_jetstream._runtime.settlements import Settlements
from sched_jetstream._runtime.timing import Timing
from sched_jetstream._runtime.virtual_time import VirtualTime
from sched_jetstream._store.following import Following
from sched_jetstream._store.held import Held
from sched_jetstream._store.history_index import HistoryIndex
from sched_jetstream._store.job_index import JobIndex
from sched_jetstream._store.lookup import Lookup
from sched_jetstream._store.queries import Listing
from sched_jetstream._store.reader import Reader
from sched_jetstream._store.records import Records
from sched_jetstream._store.removals import Removals
from sched_jetstream._store.reports import Reports
from sched_jetstream._store.wire import Wire
from sched_jetstream._store.writer import GroupCommitWriter
from sched_jetstream.errors import NatsRefused, PermissionDenied, StreamLost
from sched_jetstream.options import Options

logger = Logger("sched_jetstream")

FLUSH = 3.0
"""Seconds for which closing waits for writes under way, and hands back claims and hints."""


class Session:
    """Everything that lives from open to close.

    Args:
        wire: The connection to the server.
        options: The options of the backend.
        clock: The scheduler's clock.
        worker: The name of the worker.
    """

    def __init__(self, wire: Wire, options: Options, clock: Clock, worker: str) -> None:
        self.wire, self.options, self.worker = wire, options, worker
        self.names = names = options.names
        self.alarm = Alarm()
        self.background = Background(wire.timeout)
        self.timing: Timing = (
            VirtualTime(clock)
            if options.time == "clock"
            else ServerTime(clock, options.lease, wire, names.stream)
        )
        self.clock = self.timing.clock
        now = self.clock.now

        self.reader = Reader(wire, names, copies=options.replicas)
        self.writer = GroupCommitWriter(
            self.reader,
            budget=options.write_budget.total_seconds(),
            batch_all=options.durability == "machine",
        )
        self.history = self.timing.history(self.reader)
        self.listing = Listing(self.reader)
        removals = Removals(self.reader)
        self.following = Following(self.reader, self.history, removals)
        self.lookup = Lookup(self.reader, self.history, removals)
        self.counting = asyncio.Lock()
        self.held = Held(self.reader)
        self.job_index = JobIndex(self.reader, expire=self.timing.server_expires)
        self.history_index = HistoryIndex(self.history, removals)
        self.reports = Reports(self.reader, worker)
        self.records = Records(
            self.reader,
            self.writer,
            self.history,
            now=now,
            outbox=options.outbox,
            expire=self.timing.server_expires,
        )

        self.live = LiveClaims(worker)
        acks = Acknowledgements(wire, options.wait_for_ack)
        self.hints = Hints(
            self.reader,
            options,
            now=now,
            alarm=self.alarm,
            live=self.live,
            acks=acks,
            supervise=self._supervise,
        )
        self.cancels = Cancels(wire, names, worker)
        self.reconciler = Reconciler(self.reader, now, self._end)
        self.leases = Leases(self.live, acks, self.records, now, options.lease)
        self.claims = Claims(
            self.live,
            self.hints,
            acks,
            self.records,
            timing=self.timing,
            find_due=self.find_due,
            leases=self.leases,
            background=self.background,
            alarm=self.alarm,
            lease=options.lease,
        )
        self.settlements = Settlements(self.live, acks, self.records, self.history, now)
        self.definitions = Definitions(
            self.records, lambda: wire.connected, options, changed=self.cancels.tell
        )

    async def begin(self, *, was_older: bool) -> None:
        """Get the clock ready, and start what runs until the end.

        Args:
            was_older: Whether workers of an older version may be at work in the streams.
        """
        try:
            await self.cancels.begin()
            await self.hints.offers.begin()
        except PermissionDenied as error:
            raise NatsRefused(str(error)) from error
        await self.timing.begin()
        if was_older:
            await wait_for_older_workers(
                self.reader, self.clock, budget=self.options.startup_timeout
            )
        self.hints.begin()
        for work in self.timing.lasting(self._reconcile_on):
            self._supervise(work)

    def _end(self, at: datetime, found: StoredRecord) -> None:
        self.hints.put(Hint(found.token, at, found))
        self.alarm.nudge()

    def _supervise(self, work: Work) -> None:
        self.background.supervise(work, self._fault)

    async def find_due(self) -> bool:
        """Look for what is due where no hint tells; return whether all records were read."""
        return await self.timing.find_due(self.reconciler, self.hints)

    def _fault(self, error: Exception) -> None:
        self.hints.fail(BackendError(f"a fault in sched-jetstream: {error!r}"))

    async def _reconcile_on(self) -> None:
        """Repair what hints have missed, in turn with the other replicas."""
        options, clock = self.options, self.clock
        while True:
            share = 0.5 + secrets.randbelow(1000) / 2000
            await clock.sleep_until(clock.now() + options.reconcile_interval * share)
            try:
                if await self.reconciler.my_turn(options.reconcile_interval / 2):
                    await self.reconciler.go_through(
                        grace=options.reconcile_grace, rate=options.reconcile_rate
                    )
                    await self.history.trim()
            except StreamLost as error:
                self.hints.fail(error)
            except BackendError:
                continue

    async def close(self) -> None:
        """Stop, and hand back what this worker holds and has not handed out."""
        self.background.stop()
        self.alarm.nudge()
        self.cancels.close()
        with anyio.move_on_after(FLUSH):
            await self.background.finish()
            await self.writer.close()
            await self.leases.give_back(self.live.decided_late)
            await self.hints.close()
            if self.wire.connected:
                await self._withdraw()
        self.writer.abandon()
        await self.background.abandon()
        await self.wire.close()

    async def _withdraw(self) -> None:
        try:
            await self.reports.withdraw()
        except BackendError as error:
            logger.debug("the worker's report stays until the server deletes it: %s", error)
