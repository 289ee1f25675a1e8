"""Faults that only concurrency or crashes reveal, planted for the simulation and the torture.

Most are wrappers around any backend, or schedulers that end badly; those that need the inside of a
store are rows (for the simulation).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, cast

import anyio
from attrs import evolve
from tests.torture.harnesses import Sqlite
from tests.wrappers import HandsOn

from sched_core import (
    Backend,
    Claim,
    Claimed,
    Clock,
    Execution,
    Job,
    Renewal,
    Room,
    Scheduler,
    Settled,
    Settlement,
    Status,
    Undecodable,
)
from sched_core._runtime import shutdown
from sched_core.memory import MemoryBackend, MemoryStore, _Row
from sched_core.row import CLAIM_LOST, WRITTEN, History, is_held_by
from sched_testkit.simulation import Setup
from sched_testkit.torture import Fault

WRITTEN_ALL = Settled("written")


class Wrapper(HandsOn):
    """A backend that knows its clock; what is planted is a subclass."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.clock: Clock | None = None

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        self.clock = await self.backend.open(clock, worker=worker)
        return self.clock

    def now(self) -> datetime:
        assert self.clock is not None
        return self.clock.now()

    def prolonged(self, claims: Sequence[Claim]) -> list[Claim]:
        until = self.now() + self.backend.capabilities.lease
        return [evolve(claim, expires_at=until) for claim in claims]


class RenewalNeverFires(Wrapper):
    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        return self.prolonged([each.claim for each in renewals])


class RenewalEveryThirdTime(Wrapper):
    calls = 0

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        self.calls += 1
        if self.calls % 3 == 0:
            return await self.backend.renew(renewals)
        return self.prolonged([each.claim for each in renewals])


class AckBeforeCommit(Wrapper):
    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.waiting: list[Settlement] = []

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        before, self.waiting = self.waiting, list(settlements)
        if before:
            await self.backend.settle(before)
        return [WRITTEN_ALL] * len(settlements)


class StopDropsClaims(Wrapper):
    """What is handed back at a stop, begun or not, never reaches the store."""

    async def release(self, claims: Sequence[Claim]) -> None:
        return

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        kept = [one for one in settlements if not is_interrupted(one)]
        written = iter(await self.backend.settle(kept) if kept else ())
        return [WRITTEN_ALL if is_interrupted(one) else next(written) for one in settlements]


def is_interrupted(settlement: Settlement) -> bool:
    return any(execution.status is Status.INTERRUPTED for execution in settlement.executions)


class SlowToSettle(Wrapper):
    """No fault: the store is far away."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        await anyio.sleep(0.3)
        return await self.backend.settle(settlements)


class LeaseByAnotherClock(Wrapper):
    """Every second process has a clock that is a lease ahead."""

    count = 0

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        ahead = self.backend.capabilities.lease if int(worker[-1], 16) % 2 else timedelta(0)
        self.clock = clock
        await self.backend.open(cast("Clock", Ahead(clock, ahead)), worker=worker)
        return clock


class Ahead:
    def __init__(self, clock: Clock, by: timedelta) -> None:
        self.clock, self.by = clock, by

    def now(self) -> datetime:
        return self.clock.now() + self.by

    async def sleep_until(self, moment: datetime) -> None:
        await self.clock.sleep_until(moment - self.by)


class WakeUpLost(Wrapper):
    async def wait_due(self, room: Room) -> None:
        assert self.clock is not None
        await self.clock.sleep_until(self.now() + timedelta(seconds=30))


class EditWithoutComparison(Wrapper):
    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        stored = await self.backend.get(job.id)
        current = as_read(job, stored) if isinstance(stored, Job) else job
        return await self.backend.replace(current, executions)


class EditsOverlookClaims(Wrapper):
    """What is held is not compared, so an edit takes what runs for what has not begun."""

    async def get(self, job_id: str) -> Job | Undecodable | None:
        job = await self.backend.get(job_id)
        return evolve(job, held=None, held_at=None) if isinstance(job, Job) else job

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        stored = await self.backend.get(job.id)
        if isinstance(stored, Job):
            job = evolve(job, held=stored.held, held_at=stored.held_at)
        return await self.backend.replace(job, executions)


def as_read(job: Job, stored: Job) -> Job:
    """Return an edited job as if it had been made of what is stored."""
    return evolve(
        job,
        uid=stored.uid,
        revision=stored.revision,
        held=stored.held,
        held_at=stored.held_at,
    )


class EditOfWhatWasRead(EditWithoutComparison):
    """And between reading and writing goes a while."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        await anyio.sleep(0.3)
        return await super().replace(job, executions)


class SettleResurrects(Wrapper):
    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        outcomes = await self.backend.settle(settlements)
        for settlement, settled in zip(settlements, outcomes, strict=True):
            if settled.outcome == "conflict" and settled.job is None and settlement.standing:
                job = evolve(settlement.claim.job, standing=settlement.standing)
                await self.backend.add([job])
        return outcomes


class SettleRevertsEdits(Wrapper):
    """What was edited meanwhile gets back the definition that the run was claimed with."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        outcomes = await self.backend.settle(settlements)
        for settlement, settled in zip(settlements, outcomes, strict=True):
            if settled.outcome == "conflict" and settled.job is not None:
                await self.backend.replace(evolve(settled.job, spec=settlement.claim.job.spec))
        return outcomes


class SettleWithoutRevision(Wrapper):
    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        outcomes = list(await self.backend.settle(settlements))
        for index, (settlement, settled) in enumerate(zip(settlements, outcomes, strict=True)):
            if settled.outcome == "conflict" and settled.job is not None and settlement.standing:
                forced = evolve(settlement, expected=settled.job.revision)
                outcomes[index] = (await self.backend.settle([forced]))[0]
        return outcomes


class ClaimWithoutHold(Wrapper):
    async def claim_due(self, room: Room) -> Claimed:
        claimed = await self.backend.claim_due(room)
        await self.backend.release(claimed.claims)
        return claimed


class LossForgotten(Wrapper):
    """What was lost is handed out as if it had not been attempted."""

    async def claim_due(self, room: Room) -> Claimed:
        claimed = await self.backend.claim_due(room)
        return evolve(claimed, claims=[self._forgetful(claim) for claim in claimed.claims])

    def _forgetful(self, claim: Claim) -> Claim:
        one = claim.job.standing.scheduled
        if one is None or not one.lost:
            return claim
        fresh = evolve(one, lost=0, attempts=one.attempts - 1)
        standing = evolve(claim.job.standing, scheduled=fresh)
        return evolve(claim, job=evolve(claim.job, standing=standing))


class SettleAfterTheLease(Wrapper):
    """Settlements are kept for several leases, to save writes: longer than any stop waits."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        assert self.clock is not None
        late = self.now() + self.backend.capabilities.lease * 4
        await self.clock.sleep_until(late)
        return await self.backend.settle(settlements)


class ReleaseOfWhatRuns(Scheduler):
    """Stopped, it hands back also what its handlers still run."""

    def _parts(self, clock: Clock, worker: str) -> Any:
        parts = super()._parts(clock, worker)
        workers = parts.workers
        queued = workers.take_queued

        def everything() -> list[Claim]:
            return queued() + [run.claim for run in workers.in_flight.runs.values()]

        workers.take_queued = everything  # type: ignore[method-assign]
        return parts


class StopBeforeSettling(Scheduler):
    """Stopped, it does not wait until what has ended is written."""

    def _parts(self, clock: Clock, worker: str) -> Any:
        parts = super()._parts(clock, worker)
        loop, workers = parts.loop, parts.workers

        async def wind_down(shutdown: Any, over: Any) -> None:
            claims = workers.take_all_unbegun()
            await workers.until_idle()
            workers.close()
            await loop._release(claims)

        loop._wind_down = wind_down  # type: ignore[method-assign]
        return parts


class EndsUnasked(Scheduler):
    """After a while it stops, though it was not told to."""

    async def run_forever(self, *args: Any, **options: Any) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(super().run_forever, *args, **options))
            await anyio.sleep(5)
            await self.stop()


# -- rows: what a store may do wrong inside, for the simulation


class TokenNotChecked(_Row):
    def settle(self, settlement: Settlement, now: datetime, revision: int, to: History) -> Settled:
        if self.hold is not None:
            mine = evolve(settlement.claim, token=self.hold.token, worker=self.hold.worker)
            settlement = evolve(settlement, claim=mine)
        return super().settle(settlement, now, revision, to)


class RepeatTakenForLost(_Row):
    def settle(self, settlement: Settlement, now: datetime, revision: int, to: History) -> Settled:
        settled = super().settle(settlement, now, revision, to)
        repeated = self.ended == (settlement.claim.token, settlement.claim.worker)
        if settled is WRITTEN and repeated and getattr(self, "seen", None) == self.ended:
            return CLAIM_LOST
        self.seen = self.ended
        return settled


class NoTombstone(_Row):
    def remove(self, job: Job, executions: Sequence[Execution], to: History) -> None:
        super().remove(job, executions, to)
        self.hold = None


class NothingOfTheLost(_Row):
    """A lost claim is taken away, and its attempt not counted."""

    def lapse(self, now: datetime, revision: int, to: History) -> tuple[Execution, ...]:
        if self.hold is not None and self.hold.expires_at <= now:
            self.hold = None
        return ()


class FreedWithoutAnEnd(_Row):
    """What was edited or removed away has no end when its claim is freed."""

    def settle(self, settlement: Settlement, now: datetime, revision: int, to: History) -> Settled:
        ended = {each.id for each in settlement.executions}
        return super().settle(settlement, now, revision, cast("History", Only(to, ended)))

    def release(self, claim: Claim, now: datetime, to: History) -> bool:
        return super().release(claim, now, cast("History", Only(to, set())))

    def lapse(self, now: datetime, revision: int, to: History) -> tuple[Execution, ...]:
        hold = self.hold
        if hold is None or hold.pending is None:
            return super().lapse(now, revision, to)
        lost = f"{hold.uid}:{hold.pending.number}:{hold.pending.attempts + 1}"
        lapsed = super().lapse(now, revision, cast("History", Only(to, {lost})))
        return tuple(each for each in lapsed if each.id == lost)


class Only:
    """Writes some executions, and no others."""

    def __init__(self, history: History, ids: set[str]) -> None:
        self.stored, self._append, self._ids = history.stored, history.append, ids

    def append(self, execution: Execution) -> None:
        if execution.id in self._ids:
            self._append(execution)


def with_rows(kind: type[_Row]) -> Setup:
    """Return a setup whose store keeps such rows."""

    class Store(MemoryStore):
        def row(self, job_id: str) -> _Row:
            return self.rows.get(job_id) or kind()

    return Setup(store=Store)


class TwoTransactions(MemoryBackend):
    """The history is written in one, the job in another."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        for settlement in settlements:
            if is_held_by(self.store.row(settlement.claim.job.id).hold, settlement.claim):
                for each in settlement.executions:
                    self.store.append(each)
        await anyio.sleep(0.01)
        return await super().settle(settlements)


def wrapped(kind: Callable[[Backend], Any]) -> Setup:
    """Return a setup with the wrapper around the backend in memory."""
    return Setup(
        backend=lambda store, lease: cast("Backend", kind(MemoryBackend(store, lease=lease)))
    )


WRAPPERS: dict[str, type[Wrapper]] = {
    "renewal that never fires": RenewalNeverFires,
    "renewal every third time": RenewalEveryThirdTime,
    "ack before commit": AckBeforeCommit,
    "stop that drops claims": StopDropsClaims,
    "lease by another clock": LeaseByAnotherClock,
    "wake-up lost": WakeUpLost,
    "edit without comparison": EditWithoutComparison,
    "edits overlook claims": EditsOverlookClaims,
    "settle resurrects": SettleResurrects,
    "settle without revision": SettleWithoutRevision,
    "claim without hold": ClaimWithoutHold,
    "loss forgotten": LossForgotten,
    "settle after the lease": SettleAfterTheLease,
}
SCHEDULERS: dict[str, type[Scheduler]] = {
    "release of what runs": ReleaseOfWhatRuns,
    "stop before settling": StopBeforeSettling,
}
TORTURED: dict[str, type[Wrapper]] = {
    "settle reverts edits": SettleRevertsEdits,
    "edit of what was read": EditOfWhatWasRead,
}
"""What the simulation's own faults are not like."""
ROWS: dict[str, type[_Row]] = {
    "token not checked": TokenNotChecked,
    "repeat taken for lost": RepeatTakenForLost,
    "no tombstone": NoTombstone,
    "nothing of the lost": NothingOfTheLost,
    "freed without an end": FreedWithoutAnEnd,
}
SIMULATED: dict[str, Setup] = {
    **{name: wrapped(kind) for name, kind in WRAPPERS.items()},
    **{name: evolve(wrapped(SlowToSettle), scheduler=kind) for name, kind in SCHEDULERS.items()},
    **{name: with_rows(kind) for name, kind in ROWS.items()},
    "settle in two transactions": Setup(
        backend=lambda store, lease: TwoTransactions(store, lease=lease)
    ),
}


class Planted(Sqlite):
    """SQLite with a fault: one subclass for each."""

    wrapper: type[Wrapper] | None = None
    kind: type[Scheduler] = Scheduler
    patient = True
    """Whether a stop waits for handlers, or cancels them."""

    def backend(self, address: str) -> Backend:
        backend = super().backend(address)
        return backend if self.wrapper is None else cast("Backend", self.wrapper(backend))

    def scheduler(self, backend: Backend, **options: Any) -> Scheduler:
        if not self.patient:
            vars(shutdown)["DEFAULT_GRACE"] = timedelta(0)
        return self.kind(backend, **options)


def harness_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.replace("-", " ").split())


for _name, _wrapper in (WRAPPERS | TORTURED).items():
    _patient = _wrapper is not StopDropsClaims
    globals()[harness_name(_name)] = type(
        harness_name(_name), (Planted,), {"name": _name, "wrapper": _wrapper, "patient": _patient}
    )


class BadEnd(Planted):
    """Its store is well: that could not be reached would excuse what a stop leaves behind."""

    wrapper = SlowToSettle
    owns_file = False

    def faults(self, address: str) -> Mapping[str, Fault]:
        return {}


for _name, _kind in (SCHEDULERS | {"ends unasked": EndsUnasked}).items():
    globals()[harness_name(_name)] = type(
        harness_name(_name), (BadEnd,), {"name": _name, "kind": _kind}
    )


class NothingPlanted(Planted):
    """The control: as slow to settle, and as hasty to stop, as some of those above."""

    name = "nothing planted"
    wrapper = SlowToSettle
    patient = False
