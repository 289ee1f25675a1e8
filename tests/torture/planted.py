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

from sched_core import (
    Backend,
    Claim,
    Clock,
    Execution,
    Job,
    Scheduler,
    Settled,
    Settlement,
    Status,
    engine,
)
from sched_core.memory import MemoryBackend, MemoryStore, _Row
from sched_core.row import CLAIM_LOST, WRITTEN, Ledger
from sched_testkit.simulation import Setup
from sched_testkit.torture import Fault

WRITTEN_ALL = Settled("written")


class Wrapper:
    """Hands everything on."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.clock: Clock | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        self.clock = await self.inner.open(clock, worker=worker)
        return self.clock

    def now(self) -> datetime:
        assert self.clock is not None
        return self.clock.now()

    def prolonged(self, claims: Sequence[Claim]) -> list[Claim]:
        until = self.now() + self.inner.capabilities.lease
        return [evolve(claim, expires_at=until) for claim in claims]


class RenewalNeverFires(Wrapper):
    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        return self.prolonged(claims)


class RenewalEveryThirdTime(Wrapper):
    calls = 0

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        self.calls += 1
        return await self.inner.renew(claims) if self.calls % 3 == 0 else self.prolonged(claims)


class RenewalKeepsWhatIsLost(Wrapper):
    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        held = {claim.token for claim in await self.inner.renew(claims)}
        await self.inner.settle(())
        kept = self.prolonged(claims)
        for claim in kept:
            if claim.token not in held:
                # Somebody else has it: it is taken back.
                stored = await self.inner.get(claim.job.id)
                if isinstance(stored, Job):
                    await self.inner.replace(stored)
        return kept


class AckBeforeCommit(Wrapper):
    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.waiting: list[Settlement] = []

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        before, self.waiting = self.waiting, list(settlements)
        if before:
            await self.inner.settle(before)
        return [WRITTEN_ALL] * len(settlements)


class StopDropsClaims(Wrapper):
    """What is handed back at a stop, begun or not, never reaches the store."""

    async def release(self, claims: Sequence[Claim]) -> None:
        return

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        kept = [one for one in settlements if not is_interrupted(one)]
        written = iter(await self.inner.settle(kept) if kept else ())
        return [WRITTEN_ALL if is_interrupted(one) else next(written) for one in settlements]


def is_interrupted(settlement: Settlement) -> bool:
    return any(line.status is Status.INTERRUPTED for line in settlement.ledger)


class SlowToSettle(Wrapper):
    """No fault: the store is far away."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        await anyio.sleep(0.3)
        return await self.inner.settle(settlements)


class LeaseByAnotherClock(Wrapper):
    """Every second process has a clock that is a lease ahead."""

    count = 0

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        ahead = self.inner.capabilities.lease if int(worker[-1], 16) % 2 else timedelta(0)
        self.clock = clock
        await self.inner.open(cast("Clock", Ahead(clock, ahead)), worker=worker)
        return clock


class Ahead:
    def __init__(self, clock: Clock, by: timedelta) -> None:
        self.clock, self.by = clock, by

    def now(self) -> datetime:
        return self.clock.now() + self.by

    async def sleep_until(self, moment: datetime) -> None:
        await self.clock.sleep_until(moment - self.by)


class WakeUpLost(Wrapper):
    async def wait_due(self, limit: int) -> None:
        assert self.clock is not None
        await self.clock.sleep_until(self.now() + timedelta(seconds=30))


class EditWithoutComparison(Wrapper):
    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        stored = await self.inner.get(job.id)
        current = job if not isinstance(stored, Job) else evolve(job, revision=stored.revision)
        return await self.inner.replace(current, ledger)


class EditOfWhatWasRead(EditWithoutComparison):
    """And between reading and writing goes a while."""

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        await anyio.sleep(0.3)
        return await super().replace(job, ledger)


class SettleResurrects(Wrapper):
    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        outcomes = await self.inner.settle(settlements)
        for settlement, settled in zip(settlements, outcomes, strict=True):
            if settled.outcome == "conflict" and settled.job is None and settlement.standing:
                job = evolve(settlement.claim.job, standing=settlement.standing)
                await self.inner.add([job])
        return outcomes


class SettleRevertsEdits(Wrapper):
    """What was edited meanwhile gets back the definition that the run was claimed with."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        outcomes = await self.inner.settle(settlements)
        for settlement, settled in zip(settlements, outcomes, strict=True):
            if settled.outcome == "conflict" and settled.job is not None:
                await self.inner.replace(evolve(settled.job, spec=settlement.claim.job.spec))
        return outcomes


class SettleWithoutRevision(Wrapper):
    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        outcomes = list(await self.inner.settle(settlements))
        for index, (settlement, settled) in enumerate(zip(settlements, outcomes, strict=True)):
            if settled.outcome == "conflict" and settled.job is not None and settlement.standing:
                forced = evolve(settlement, expected=settled.job.revision)
                outcomes[index] = (await self.inner.settle([forced]))[0]
        return outcomes


class ClaimWithoutHold(Wrapper):
    async def claim_due(self, limit: int) -> Sequence[Claim]:
        claims = await self.inner.claim_due(limit)
        await self.inner.release(claims)
        return claims


class LossForgotten(Wrapper):
    async def claim_due(self, limit: int) -> Sequence[Claim]:
        return [evolve(claim, lost=None) for claim in await self.inner.claim_due(limit)]


class SettleAfterTheLease(Wrapper):
    """Settlements are kept for several leases, to save writes: longer than any stop waits."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        assert self.clock is not None
        late = self.now() + self.inner.capabilities.lease * 4
        await self.clock.sleep_until(late)
        return await self.inner.settle(settlements)


class ReleaseOfWhatRuns(Scheduler):
    """Stopped, it hands back also what its handlers still run."""

    def _parts(self, clock: Clock) -> Any:
        parts = super()._parts(clock)
        workers = parts.workers
        queued = workers.take_queued

        def everything() -> list[Claim]:
            return queued() + [run.claim for run in workers.holdings.runs.values()]

        workers.take_queued = everything  # type: ignore[method-assign]
        return parts


class StopBeforeSettling(Scheduler):
    """Stopped, it does not wait until what has ended is written."""

    def _parts(self, clock: Clock) -> Any:
        parts = super()._parts(clock)
        engine, workers = parts.engine, parts.workers

        async def wind_down(stop: Any, over: Any) -> None:
            claims = workers.take_all_unbegun()
            await workers.until_idle()
            workers.close()
            await engine._release(claims)

        engine._wind_down = wind_down  # type: ignore[method-assign]
        return parts


class EndsByItself(Scheduler):
    """After a while it stops, though nobody has told it to."""

    async def run_forever(self, *args: Any, **options: Any) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(super().run_forever, *args, **options))
            await anyio.sleep(5)
            await self.stop()


# -- rows: what a store may do wrong inside, for the simulation


class TokenNotChecked(_Row):
    def is_held_by(self, claim: Claim) -> bool:
        return self.hold is not None


class RepeatTakenForLost(_Row):
    def settle(self, settlement: Settlement, revision: int, to: Ledger) -> Settled:
        settled = super().settle(settlement, revision, to)
        repeated = self.ended == (settlement.claim.token, settlement.claim.worker)
        if settled is WRITTEN and repeated and getattr(self, "seen", None) == self.ended:
            return CLAIM_LOST
        self.seen = self.ended
        return settled


class NoTombstone(_Row):
    def remove(
        self, job_id: str, lines: Sequence[Execution], expected: int | None, to: Ledger
    ) -> bool:
        removed = super().remove(job_id, lines, expected, to)
        self.hold = None
        return removed


class NoLineForTheLost(_Row):
    def _take_over(self, hold: Claim, now: datetime, to: Ledger) -> Any:
        return super()._take_over(hold, now, cast("Ledger", Nowhere(to)))


class Nowhere:
    def __init__(self, ledger: Ledger) -> None:
        self.line, self.has_final = ledger.line, ledger.has_final

    def append(self, line: Execution) -> None:
        return


def with_rows(kind: type[_Row]) -> Setup:
    """Return a setup whose store keeps such rows."""

    class Store(MemoryStore):
        def row(self, job_id: str) -> _Row:
            return self.rows.get(job_id) or kind()

    return Setup(store=Store)


class TwoTransactions(MemoryBackend):
    """The ledger is written in one, the job in another."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        for settlement in settlements:
            if self.store.row(settlement.claim.job.id).is_held_by(settlement.claim):
                for line in settlement.ledger:
                    if self.store.line(line.id) is None:
                        self.store.append(line)
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
    "no line for the lost": NoLineForTheLost,
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
            vars(engine)["DEFAULT_GRACE"] = timedelta(0)
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


for _name, _kind in (SCHEDULERS | {"ends by itself": EndsByItself}).items():
    globals()[harness_name(_name)] = type(
        harness_name(_name), (BadEnd,), {"name": _name, "kind": _kind}
    )


class NothingPlanted(Planted):
    """The control: as slow to settle, and as hasty to stop, as some of those above."""

    name = "nothing planted"
    wrapper = SlowToSettle
    patient = False
