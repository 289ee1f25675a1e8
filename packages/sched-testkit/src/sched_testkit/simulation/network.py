"""A backend that is far away: calls take time, overtake each other, fail, and lose their answers.

The inner backend's calls are single steps. Around each of them lies the way there and back, and
everything that can happen on it. The oracle learns what the store did, at the moment it did it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from random import Random
from typing import Any, Protocol, TypeVar, cast

import anyio
import anyio.abc
from attrs import define, frozen

from sched_core import (
    Backend,
    BackendError,
    BackendUnavailable,
    Capabilities,
    Claim,
    Claimed,
    ClaimQuery,
    Clock,
    CountQuery,
    Counts,
    Execution,
    ExecutionQuery,
    Followed,
    Hold,
    Job,
    JobQuery,
    Renewal,
    Room,
    Settled,
    Settlement,
    Undecodable,
    UndecodableExecution,
    WorkerState,
)
from sched_core.ports import Page
from sched_testkit.simulation.clock import SimulatedClock, SimulatedProcess

T = TypeVar("T")


@frozen
class Weather:
    """What the way to the store is like.

    Attributes:
        latency: Typical seconds of one way.
        spikes: Share of ways that take much longer.
        spike: Seconds of the longest.
        refused: Share of calls that do not arrive.
        lost: Share of calls whose answer does not arrive.
        late: Share of calls that fail for the caller and arrive all the same, later.
    """

    latency: float = 0.001
    spikes: float = 0.0
    spike: float = 0.0
    refused: float = 0.0
    lost: float = 0.0
    late: float = 0.0


CALM = Weather()


class StoreObserver(Protocol):
    """Learns what the store did, in the step in which the store did it."""

    def noted(self, process: SimulatedProcess, what: str, detail: object) -> None:
        """Something happened that belongs into the story."""
        ...

    def added(self, jobs: Sequence[Job], decided: datetime) -> None:
        """These jobs were added."""
        ...

    def replaced(self, before: Job, job: Job, decided: datetime) -> None:
        """This job was stored in the place of its earlier revision."""
        ...

    def removed(self, before: Job, decided: datetime) -> None:
        """This job was removed."""
        ...

    def claimed(self, claimed: Claimed) -> None:
        """These claims were made, and others were lost."""
        ...

    def renewed(self, renewals: Sequence[Renewal], claims: Sequence[Claim]) -> None:
        """These claims were prolonged."""
        ...

    def unclaimed(self, claim: Claim, executions: Sequence[Execution], *, written: bool) -> None:
        """This claim has ended, or (not written) was found to be lost."""
        ...

    def pruned(self) -> None:
        """Something may have been deleted."""
        ...

    def wrote(self) -> None:
        """Executions may have been written."""
        ...


@define
class Network:
    """What all processes share on their way to the store."""

    clock: SimulatedClock
    chance: Random
    observer: StoreObserver
    tasks: anyio.abc.TaskGroup
    weather: Weather = CALM

    def delay(self) -> float:
        """Return how long a way takes this time."""
        weather, chance = self.weather, self.chance
        if weather.spikes and chance.random() < weather.spikes:
            return chance.random() * weather.spike
        return chance.random() * 2 * weather.latency


class RemoteBackend:
    """The scheduler port over a network; it implements the ``Backend`` port.

    Args:
        inner: What is far away; none of its calls may wait, but for ``wait_due``.
        process: The process that owns the connection.
        network: The way there and back.
    """

    def __init__(self, inner: Backend, process: SimulatedProcess, network: Network) -> None:
        self._inner, self._process, self._network = inner, process, network

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    async def _call(
        self,
        name: str,
        act: Callable[[], Awaitable[T]],
        done: Callable[[T], None] = lambda _: None,
        undo: Callable[[T], Awaitable[None]] | None = None,
        *,
        at_once: bool = False,
    ) -> T:
        """Go there, act, and come back.

        Args:
            name: The name of the call.
            act: The step of the store.
            done: A callback that gives the observer the result.
            undo: Takes it back where the caller is cancelled before the answer has come.
            at_once: The way there takes no time: what was decided on is what is stored.
        """
        process, network = self._process, self._network
        weather, chance = network.weather, network.chance
        await process.runs()
        self._alive()
        luck = chance.random()

        async def step() -> T:
            result = await act()
            done(result)
            network.observer.wrote()
            return result

        if luck < weather.refused or process.cut:
            await anyio.sleep(network.delay())
            raise BackendUnavailable(f"{name}: the store cannot be reached")
        luck -= weather.refused
        if luck < weather.late and not at_once:
            network.observer.noted(process, f"{name} comes late", "")
            network.tasks.start_soon(self._late, step, network.delay() * 3 + 0.05)
            await anyio.sleep(network.delay())
            raise BackendUnavailable(f"{name}: no answer")
        luck -= weather.late
        way = 0.0 if at_once else network.delay()
        if way > weather.latency or chance.random() < 0.5:
            await anyio.sleep(way)
        if process.dead and chance.random() < 0.5:
            self._alive()  # otherwise the call was on its way already
        result = await step()
        try:
            await anyio.sleep(network.delay())
            await process.runs()
        except BaseException:
            if undo is not None and not process.dead:
                with anyio.CancelScope(shield=True):
                    await undo(result)
            raise
        self._alive()
        if luck < weather.lost:
            network.observer.noted(process, f"the answer to {name} is lost", "")
            raise BackendUnavailable(f"{name}: the answer was lost")
        return result

    async def _late(self, step: Callable[[], Awaitable[Any]], delay: float) -> None:
        await anyio.sleep(delay)
        with suppress(BackendError):
            await step()

    def _alive(self) -> None:
        if self._process.dead:
            raise BackendError("the process is dead")

    def _now(self) -> datetime:
        return self._network.clock.now()

    # -- opening

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        self._process.worker = worker
        return await self._inner.open(clock, worker=worker)

    async def close(self) -> None:
        if not self._process.dead:  # or what is on its way would not arrive
            await self._inner.close()

    async def check(self) -> None:
        await self._call("check", self._inner.check)

    # -- definitions: what is decided at one moment is stored at it, or not at all

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        decided, observer = self._now(), self._network.observer

        async def act() -> tuple[Sequence[Job], list[Job]]:
            known = [await self._inner.get(job.id) for job in jobs]
            stored = await self._inner.add(jobs)
            return stored, [job for job, was in zip(stored, known, strict=True) if was is None]

        stored, _ = await self._call(
            "add", act, lambda both: observer.added(both[1], decided), at_once=True
        )
        return stored

    async def get(self, job_id: str) -> Job | Undecodable | None:
        return await self._call("get", lambda: self._inner.get(job_id))

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        decided, observer = self._now(), self._network.observer

        async def act() -> tuple[Job | Undecodable | None, Job]:
            before = await self._inner.get(job.id)
            observer.wrote()  # what was written before the edit comes before it
            return before, await self._inner.replace(job, executions)

        def done(both: tuple[Job | Undecodable | None, Job]) -> None:
            before, stored = both
            if isinstance(before, Job):
                observer.replaced(before, stored, decided)

        _, stored = await self._call("replace", act, done, at_once=True)
        return stored

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        decided, observer = self._now(), self._network.observer

        async def act() -> Job | Undecodable | None:
            before = await self._inner.get(job.id)
            observer.wrote()
            await self._inner.remove(job, executions)
            return before

        def done(before: Job | Undecodable | None) -> None:
            if isinstance(before, Job):
                observer.removed(before, decided)

        await self._call("remove", act, done, at_once=True)

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        return await self._inner.jobs(query, after=after, limit=limit)

    # -- claims

    async def wait_due(self, room: Room) -> None:
        await self._process.runs()
        self._alive()
        await self._inner.wait_due(room)
        await self._process.runs()
        self._alive()

    async def wait_cancelled(self) -> bool:
        await self._process.runs()
        self._alive()
        marked = await self._inner.wait_cancelled()
        await self._process.runs()
        self._alive()
        return marked

    async def claim_due(self, room: Room) -> Claimed:
        return await self._call(
            "claim_due",
            lambda: self._inner.claim_due(room),
            self._network.observer.claimed,
            lambda claimed: self._release(claimed.claims),
        )

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        return await self._call(
            "renew",
            lambda: self._inner.renew(renewals),
            lambda claims: self._network.observer.renewed(renewals, claims),
        )

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        observer = self._network.observer

        def done(outcomes: Sequence[Settled]) -> None:
            for settlement, settled in zip(settlements, outcomes, strict=True):
                if settled.outcome in {"written", "claim_lost"}:
                    written = settled.outcome == "written"
                    observer.unclaimed(settlement.claim, settlement.executions, written=written)

        return await self._call("settle", lambda: self._inner.settle(settlements), done)

    async def release(self, claims: Sequence[Claim]) -> None:
        await self._call("release", lambda: self._release(claims))

    async def _release(self, claims: Sequence[Claim]) -> None:
        await self._inner.release(claims)
        for claim in claims:
            self._network.observer.unclaimed(claim, (), written=True)

    # -- the history

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        return await self._inner.executions(query, after=after, limit=limit)

    async def execution(self, execution_id: str) -> Execution | UndecodableExecution | None:
        return await self._inner.execution(execution_id)

    async def recent(
        self, job_ids: Sequence[str], *, limit: int
    ) -> Mapping[str, Sequence[Execution | UndecodableExecution]]:
        return await self._inner.recent(job_ids, limit=limit)

    async def follow(self, after: str | None, *, limit: int) -> Followed:
        return await self._call("follow", lambda: self._inner.follow(after, limit=limit))

    # -- what is going on

    async def claims(self, query: ClaimQuery, *, after: str | None, limit: int) -> Page[Hold]:
        return await self._inner.claims(query, after=after, limit=limit)

    async def report(self, state: WorkerState) -> None:
        await self._call("report", lambda: self._inner.report(state))

    async def workers(self) -> Sequence[WorkerState]:
        return await self._inner.workers()

    async def counts(self, query: CountQuery) -> Counts:
        return await self._inner.counts(query)

    async def prune(self, before: datetime) -> int:
        return await self._call(
            "prune",
            lambda: self._inner.prune(before),
            lambda _: self._network.observer.pruned(),
        )


def remote(inner: Backend, process: SimulatedProcess, network: Network) -> Backend:
    """Return the backend at the end of a network."""
    return cast("Backend", RemoteBackend(inner, process, network))
