"""Everything of a backend that lives from open to close, and how a record is changed."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from attrs import define

from sched_core import Claim, Execution, Hold
from sched_core._support.logger import Logger
from sched_core.clock import Alarm, Clock, boot_seconds, monotonic_seconds, pause
from sched_core.codec import decode_moment
from sched_core.errors import BackendError, BackendUnavailable
from sched_core.row import is_held_by
from sched_jetstream._model import layout
from sched_jetstream._model.layout import AtomicWrite
from sched_jetstream._model.protocol import StoredRecord, Write
from sched_jetstream._model.record import Record, with_revision
from sched_jetstream._runtime.clock import StoreClock
from sched_jetstream._runtime.due_queue import Hint
from sched_jetstream._runtime.hints import NEAR, Hints
from sched_jetstream._runtime.reconciler import Reconciler
from sched_jetstream._store.history import History
from sched_jetstream._store.queries import Listing
from sched_jetstream._store.reader import Reader
from sched_jetstream._store.wire import Wire
from sched_jetstream._store.writer import GroupCommitWriter, RevisionMismatch
from sched_jetstream.errors import OutcomeUnknown, PermissionDenied, StreamLost
from sched_jetstream.options import Options

logger = Logger("sched_jetstream")

T = TypeVar("T")

MEASURE = 5.0
"""Seconds between two looks at the server's clock."""
SAMPLES = 5
"""Most looks at it before anything is decided by it: the first answers may come late."""


@define(eq=False)
class Mine:
    """A claim that this process made and has not ended.

    Attributes:
        claim: As handed out.
        found: The record as last written here.
        reply: The hint's message: acknowledged when the claim ends.
    """

    claim: Claim
    found: StoredRecord
    reply: str


class Session:
    """Everything that lives from open to close."""

    def __init__(self, wire: Wire, options: Options, clock: Clock, worker: str) -> None:
        self.wire, self.options, self.worker = wire, options, worker
        self.names = options.names
        self.store_clock = StoreClock(clock, options.lease) if options.time == "store" else None
        self.clock: Clock = clock if self.store_clock is None else self.store_clock
        self.alarm = Alarm()
        self.reader = Reader(wire, self.names, copies=options.replicas)
        self.writer = GroupCommitWriter(
            self.reader,
            budget=options.write_budget.total_seconds(),
            batch_all=options.durability == "machine",
        )
        self.mine: dict[str, Mine] = {}
        self.orphans: set[int] = set()
        """Tokens of claims whose writing has an unknown outcome: nobody was handed them."""
        self.late: list[Claim] = []
        """Claims that were written only after those beside them had been handed out."""
        self.hints = Hints(
            self.reader, options, now=self.clock.now, alarm=self.alarm, adopt=self._adopt
        )
        self.history = History(self.reader, by_time=options.time == "store")
        self.listing = Listing(self.reader)
        self.reconciler = Reconciler(self.reader, self.clock.now)
        self.tasks: list[asyncio.Task[None]] = []
        self.beside: set[asyncio.Task[Any]] = set()
        self.left: set[asyncio.Task[Any]] = set()
        """What calls that were cancelled have left under way."""
        self.closing = False

    def keep_up(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have something done until the end; a fault in it is told, and it begins anew."""

        async def forever() -> None:
            while True:
                try:
                    return await work()
                except Exception as error:  # whatever it is: without these tasks, jobs stand still
                    logger.exception("a task of the backend failed, and is started again")
                    self.hints.fail(BackendError(f"a fault in sched-jetstream: {error!r}"))
                    await pause(1.0)

        self.tasks.append(asyncio.create_task(forever()))

    def do_beside(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Have something done that claims are not to wait for; it is over before the session is."""
        task = asyncio.create_task(work)
        self.beside.add(task)
        task.add_done_callback(self._done_beside)
        return task

    def _done_beside(self, task: asyncio.Task[Any]) -> None:
        self.beside.discard(task)
        self.left.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whoever waited was told; where the call was cancelled, nobody did.
            logger.debug("what was done beside a call failed: %s", error)

    async def undisturbed(self, work: Coroutine[Any, Any, T]) -> T:
        """Have something done to its end; a caller that is cancelled leaves at once."""
        task = self.do_beside(work)
        try:
            await asyncio.wait([task])
        except BaseException:
            if not task.done():
                self.left.add(task)
            raise
        return task.result()

    async def calm(self) -> None:
        """Wait for what cancelled calls have left: whoever calls next finds all of it, or none."""
        if self.left:
            await asyncio.wait(self.left, timeout=self.wire.timeout)

    def is_orphan(self, token: str, hold: Hold | None) -> bool:
        """Whether this worker wrote the hold of a record, and handed nobody the claim."""
        if hold is None or hold.worker != self.worker or hold.token not in self.orphans:
            return False
        mine = self.mine.get(token)
        return mine is None or mine.claim.token != hold.token

    def _adopt(self, found: StoredRecord, reply: str) -> bool:
        mine = self.mine.get(found.token)
        record = found.content
        if not isinstance(record, Record):
            return False
        if self.is_orphan(found.token, record.hold):
            self.hints.put(Hint(found.token, self.clock.now(), found, reply))
            return True
        if mine is None or not is_held_by(record.hold, mine.claim):
            return False
        mine.reply = reply
        self.hints.working(reply)
        return True

    # -- holding

    def ours(self, token: str, claim: Claim) -> Mine | None:
        """Return what is known of a claim that this process made and has not ended."""
        mine = self.mine.get(token)
        if mine is None:
            return None
        same = mine.claim.token == claim.token and mine.claim.worker == claim.worker
        return mine if same else None

    def let_go(self, token: str, mine: Mine) -> None:
        """The claim has ended, and what comes next has a hint or a schedule of its own."""
        if self.mine.get(token) is mine:
            del self.mine[token]
        self.hints.done(mine.reply)

    # -- writing

    def step(
        self,
        found: StoredRecord,
        write: Write,
        executions: Sequence[Execution] | None = None,
    ) -> AtomicWrite:
        """Return the messages that make a write, on what was found.

        Args:
            found: What is replaced.
            write: What was decided.
            executions: Instead of the write's own, where some are known to be stored.
        """
        return layout.step(
            self.names,
            found,
            write,
            self.clock.now(),
            new_generation=_new_generation,
            outbox_ttl=self.options.outbox,
            expire=self.options.time == "store",
            executions=executions,
        )

    async def change(
        self,
        token: str,
        decide: Callable[[StoredRecord, bool], Write | Any],
        budget: timedelta | None = None,
    ) -> tuple[StoredRecord, Any]:
        """Read, decide, and write, until the write was made on what stands.

        Args:
            token: Of the record.
            decide: Takes what was read, and whether an earlier try has an unknown outcome.
            budget: For how long a server that does not answer is tried again.

        Returns:
            What stands now, and what was decided if it was no write.
        """
        until = monotonic_seconds() + (budget or timedelta(0)).total_seconds()
        unsure = False
        while True:
            try:
                found = await self.reader.read_leader(token)
                decided = decide(found, unsure)
                if not isinstance(decided, Write):
                    return found, decided
                step = self.step(found, decided, await self.new_executions(decided))
                (sequence,) = await self.writer.write(step)
                return written(token, sequence, step), None
            except RevisionMismatch:
                continue
            except OutcomeUnknown:
                unsure = True
                if monotonic_seconds() > until:
                    raise
            except PermissionDenied:
                raise
            except BackendUnavailable:
                if monotonic_seconds() > until:
                    raise
                await pause(0.1)

    async def new_executions(self, write: Write) -> Sequence[Execution]:
        """Leave out what is stored already."""
        if not write.may_exist:
            return write.executions
        known = await self.history.stored(write.executions)
        return [each for each in write.executions if each.id not in known]

    # -- looking

    async def scan(self) -> None:
        """On a clock that the server's timers do not know, looking is the only way to find out."""
        there = await self.reconciler.scan(NEAR)
        self.hints.replace([Hint(found.token, at, found) for at, found in there])


def written(token: str, sequence: int, step: AtomicWrite) -> StoredRecord:
    """Return what stands after a step: a revision that was left open is its sequence."""
    record = step.record
    return StoredRecord(
        token, sequence, None if record is None else with_revision(record, sequence)
    )


def _new_generation() -> str:
    return secrets.token_hex(6)


async def measure(session: Session) -> None:
    """Look at the server's clock, if it is the one that decides."""
    clock = session.store_clock
    if clock is None:
        return
    before = boot_seconds()
    info = await session.wire.call(f"STREAM.INFO.{session.names.stream}")
    clock.measured(decode_moment(_to_microseconds(info["ts"])), before, boot_seconds())


def _to_microseconds(text: str) -> str:
    """Cut the nanoseconds that the server tells, which datetime cannot keep."""
    head, dot, rest = text.rstrip("Z").partition(".")
    return f"{head}{dot}{rest[:6]}Z"


async def measure_on(session: Session) -> None:
    """Keep looking at the server's clock."""
    while True:
        await pause(MEASURE)
        try:
            await measure(session)
        except BackendError:
            continue  # whoever writes will say so


async def reconcile_on(session: Session) -> None:
    """Keep making good what hints have missed, in turn with the other replicas."""
    options, clock = session.options, session.clock
    while True:
        share = 0.5 + secrets.randbelow(1000) / 2000
        await clock.sleep_until(clock.now() + options.reconcile_interval * share)
        try:
            if await session.reconciler.my_turn(options.reconcile_interval / 2):
                await session.reconciler.go_through(
                    grace=options.reconcile_grace, rate=options.reconcile_rate
                )
                await session.history.trim()
        except StreamLost as error:
            session.hints.fail(error)
        except BackendError:
            continue
