"""Stores that are silent or read-only for a while, or that a newer version wrote."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import anyio
from attrs import evolve
from tests.testkit.mutants.base import MutantHarness, Sound, Store, breaks, examined_by

from sched_core import (
    BackendUnavailable,
    Claim,
    Claimed,
    Clock,
    Execution,
    Job,
    Room,
    SchemaTooNew,
    Settled,
    Settlement,
    Undecodable,
)
from sched_testkit._suite.port import METHODS


class SilentStore(Store):
    """Can be silent."""

    def __init__(self) -> None:
        super().__init__()
        self.spoken: anyio.Event | None = None
        """Set when it speaks again; ``None`` as long as it does."""


class SilentHarness(MutantHarness):
    """Examines one whose store can be silent."""

    can_stall = True
    can_cut = can_spoil = can_lock = can_spoil_execution = can_refuse_writes = can_make_newer = (
        False
    )

    @contextmanager
    def stall(self, place: Any) -> Iterator[None]:
        place.spoken = anyio.Event()
        yield
        place.spoken.set()
        place.spoken = None


@examined_by(SilentHarness)
class Silent(Sound):
    """The sound one: every call waits until the store speaks."""

    makes = SilentStore

    async def answered(self, name: str) -> None:
        """Wait for the store."""
        if self.store.spoken is not None:
            await self.store.spoken.wait()


def _waits(name: str) -> Callable[..., Awaitable[Any]]:
    async def call(self: Silent, *arguments: Any, **named: Any) -> Any:
        await self.answered(name)
        return await getattr(Sound, name)(self, *arguments, **named)

    return call


for _name in set(METHODS) - {"open", "close"}:
    setattr(Silent, _name, _waits(_name))


# -- silent


@breaks("a_silent_store_loses_nothing_and_does_nothing_twice")
class SilenceIsAnEmptyAnswer(Silent):
    """What is not answered in time is not there."""

    async def get(self, job_id: str) -> Job | Undecodable | None:
        if self.store.spoken is not None:
            return None
        return await Sound.get(self, job_id)


@breaks("a_silent_store_loses_nothing_and_does_nothing_twice")
class SilenceIsADriversError(Silent):
    """The timeout of the driver goes to the caller as it is."""

    async def answered(self, name: str) -> None:
        if self.store.spoken is not None:
            raise TimeoutError


@breaks("a_silent_store_loses_nothing_and_does_nothing_twice")
class WhatWasSentIsTakenToBeWritten(Silent):
    """A settlement whose answer does not come is taken to have arrived."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        if self.store.spoken is not None:
            return [Settled("written") for _ in settlements]
        return await Sound.settle(self, settlements)


@breaks("a_silent_store_loses_nothing_and_does_nothing_twice")
class WhatWasSentIsWrittenTwice(Silent):
    """A write that was not answered in time is sent again; both arrive."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        silent = self.store.spoken is not None
        await self.answered("settle")
        answers = await Sound.settle(self, settlements)
        if silent:
            for execution in settlements[0].executions:
                self.store.append(evolve(execution, id=f"{execution.id}:again"))
        return answers


@breaks("a_silent_store_loses_nothing_and_does_nothing_twice")
class ClaimsOfASilentStoreAreForgotten(Silent):
    """The answer of a claim that gave up is thrown away, and its claims are renewed without end."""

    async def claim_due(self, room: Room) -> Claimed:
        silent = self.store.spoken is not None
        claimed = await Sound.claim_due(self, room)
        for claim in claimed.claims if silent else ():
            row = self.store.row(claim.job.id)
            row.hold = evolve(row.hold, expires_at=claim.expires_at.replace(year=9000))
            self.store.save(claim.job.id, row)
        if silent:
            raise BackendUnavailable("no answer")
        return claimed


@breaks("a_wait_outlives_a_silence")
class SilenceEndsListening(Silent):
    """What listens gives up on a silent store, and a call that waits for it waits without end."""

    async def wait_due(self, room: Room) -> None:
        while self.store.spoken is None:
            with anyio.move_on_after(0.02) as looking:
                await Sound.wait_due(self, room)
            if not looking.cancelled_caught:
                return
        await anyio.sleep_forever()


@breaks("a_silent_store_holds_up_no_stop")
class CancelledCallsWaitForTheStore(Silent):
    """A call is finished in a shield, or its connection would be in the midst of something."""

    async def answered(self, name: str) -> None:
        with anyio.CancelScope(shield=True):
            await super().answered(name)


@breaks("a_silent_store_holds_up_no_stop")
class ClosingWaitsForTheStore(Silent):
    """Close says goodbye, and waits for the answer."""

    async def close(self) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(2):
            await self.answered("close")
        await super().close()


# -- read-only


class _LateRefusal(Sound):
    """Base: writes begin before the store refuses them."""

    @contextmanager
    def as_if_taken(self) -> Iterator[bool]:
        """Have the store take writes; yield whether it would not."""
        refuses, self.store.refuses = self.store.refuses, False
        try:
            yield refuses
        finally:
            self.store.refuses = refuses


@breaks("what_a_store_refuses_to_write_is_told")
class ARefusedBulkAddKeepsItsFirst(_LateRefusal):
    """The first job of a batch fits, the second one does not."""

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        with self.as_if_taken() as refuses:
            if not refuses:
                return await super().add(jobs)
            await super().add(jobs[:1])
        raise BackendUnavailable("read-only")


@breaks("what_a_store_refuses_to_write_is_told")
class LinesAreWrittenBeforeTheRefusal(_LateRefusal):
    """The history takes the executions, and the jobs refuse the settlement."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        with self.as_if_taken() as refuses:
            for settlement in settlements if refuses else ():
                self.store.write(settlement.executions)
        return await super().settle(settlements)


@breaks("what_a_store_refuses_to_write_is_told")
class RefusedClaimsAreHeld(_LateRefusal):
    """The rows are claimed in a cache, and stay so when the store refuses it."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        with self.as_if_taken() as refuses:
            claims = await super().hand_out(limit)
        if refuses:
            raise BackendUnavailable("read-only")
        return claims


@breaks("what_a_store_refuses_to_write_is_told")
class RefusalsAreLogged(Sound):
    """A write that the store refuses is logged, and answered as if it had been taken."""

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        if not self.store.refuses:
            await super().remove(job, executions)


@breaks("what_a_store_refuses_to_write_is_told")
class ChecksByReading(Sound):
    """Check reads: a store that takes no writes is said to be in order."""

    async def check(self) -> None:
        await self.get("nothing")


@breaks("what_a_store_refuses_to_write_is_told")
class NoClaimWhereNoneCanBeWritten(Sound):
    """A claim that the store refuses is no claim: nothing is due, day after day."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        return [] if self.store.refuses else await super().hand_out(limit)


@breaks("what_a_store_refuses_to_write_is_told")
class RefusalsAreADriversErrors(Sound):
    """What the driver raises goes to the caller as it is."""

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        if self.store.refuses:
            raise PermissionError("read-only file system")
        return await super().replace(job, executions)


# -- newer


@breaks("a_newer_store_is_refused_and_left_alone")
class OpensWhatIsNewer(Sound):
    """The version of the store is not looked at."""

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        newer, self.store.newer = self.store.newer, False
        try:
            return await super().open(clock, worker=worker)
        finally:
            self.store.newer = newer


@breaks("a_newer_store_is_refused_and_left_alone")
class WritesItsVersionBeforeItLooks(Sound):
    """Open writes what this version is, and then finds that the store was of a newer one."""

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        newer, self.store.newer = self.store.newer, False
        if newer:
            raise SchemaTooNew("a newer version wrote this")
        return await super().open(clock, worker=worker)


@breaks("a_newer_store_is_refused_and_left_alone")
class ARefusedOpenIsOpen(Sound):
    """It is open before the version is looked at, and stays so."""

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        newer, self.store.newer = self.store.newer, False
        try:
            decides = await super().open(clock, worker=worker)
        finally:
            self.store.newer = newer
        if newer:
            raise SchemaTooNew("a newer version wrote this")
        return decides
