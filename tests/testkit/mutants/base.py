"""The sound backend that all mutants are made of, and the harness that examines them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from anyio.lowlevel import checkpoint
from attrs import evolve, frozen
from tests.conformance.harnesses.memory import spoil_newest

from sched_core import (
    BackendUnavailable,
    Capabilities,
    Claim,
    Claimed,
    Clock,
    Execution,
    Hold,
    Job,
    MemoryBackend,
    MemoryStore,
    Renewal,
    Room,
    SchemaTooNew,
    Undecodable,
    UndecodableExecution,
    WorkerState,
)
from sched_core.row import Row
from sched_testkit import Harness

LEASE = timedelta(seconds=30)
TICK = timedelta(microseconds=1)
NOTHING = timedelta(0)
AFTER = datetime.max.replace(tzinfo=UTC)


class Store(MemoryStore):
    """Data that stays when its backend crashes, and that can be put out of reach."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = self.refuses = self.newer = False
        self.outages = 0
        self.locked = set[str]()

    def next_serial(self) -> int:
        self.expect_writable()
        return super().next_serial()

    def take(self, queue: list[tuple[datetime, str]], now: datetime) -> str | None:
        """Refuse before the id is taken from its queue: a claim that is refused stays due."""
        self.expect_writable()
        return super().take(queue, now)

    def expect_writable(self) -> None:
        if self.refuses:
            raise BackendUnavailable("read-only")

    def unlock(self, job_id: str) -> None:
        """Called when others let a record go that they had locked; locks hold up nothing here."""
        self.locked.discard(job_id)

    def write(self, executions: Sequence[Execution]) -> None:
        """Write executions, whatever they are about."""
        for execution in executions:
            self.append(execution)

    def readable(self) -> list[Execution]:
        """Return the history but for what cannot be read."""
        return [execution for _, execution in self.history if isinstance(execution, Execution)]

    def unreadable(self) -> list[str]:
        """Return the ids whose records cannot be read."""
        return [job_id for job_id, row in self.rows.items() if isinstance(row.job, Undecodable)]


class WritesOtherwise(Store):
    """Base: the history is written in another way."""

    def change(self, execution: Execution) -> Execution | None:
        raise NotImplementedError

    def append(self, execution: Execution | UndecodableExecution) -> None:
        changed = (
            execution if isinstance(execution, UndecodableExecution) else self.change(execution)
        )
        if changed is not None:
            super().append(changed)


class Sound(MemoryBackend):
    """The one that is right: nothing changed but that it can crash and be cut off."""

    makes: ClassVar[type[Store]] = Store
    store: Any

    def __init__(self, store: Store) -> None:
        super().__init__(store, lease=LEASE)
        self.lapsed: list[Execution] = []
        self.room = Room(0)
        self.renewing: dict[int, Renewal] = {}
        self._capabilities = Capabilities(
            durable=True, shared=True, time="clock", granularity=TICK, lease=LEASE
        )

    def _now(self) -> datetime:
        if self.store.cut:
            raise BackendUnavailable("cut off")
        return super()._now()

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        if self.store.newer:
            raise SchemaTooNew("a newer version wrote this")
        if self.store.cut:
            raise BackendUnavailable("cut off")
        return await super().open(clock, worker=worker)

    async def check(self) -> None:
        await super().check()
        self.store.next_serial()

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        self.store.next_serial()
        await super().remove(job, executions)

    async def claim_due(self, room: Room) -> Claimed:
        self.lapsed = lapsed = list[Execution]()
        self.room = room
        return Claimed(await self.hand_out(room.limit), lapsed)

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        """Claim, and note what was said of lost claims."""
        claimed = await super().claim_due(evolve(self.room, limit=limit))
        self.lapsed += claimed.lapsed
        return claimed.claims

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        self.renewing |= {each.claim.token: each for each in renewals}
        return await self.extend([each.claim for each in renewals])

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        """Renew claims, with what was said of each."""
        said = self.renewing
        return await super().renew([evolve(said[each.token], claim=each) for each in claims])

    async def release(self, claims: Sequence[Claim]) -> None:
        self.store.next_serial()
        await super().release(claims)

    async def report(self, state: WorkerState) -> None:
        self._now()
        self.store.expect_writable()
        await super().report(state)

    async def wait_due(self, room: Room) -> None:
        await checkpoint()
        await super().wait_due(room)

    async def due_since(self) -> datetime | None:
        now = self._now()
        rows = [row for row in self.store.rows.values() if isinstance(row.job, Job)]
        waits = [
            row.hold.expires_at if row.hold is not None else row.job.standing.due_at
            for row in rows
            if (row.due() or AFTER) <= now
        ]
        return min(waits, default=None)

    async def live_workers(self) -> Sequence[str] | None:
        return None

    def died(self) -> None:
        """Called in place of close when the process is killed."""


def job_of(row: Row) -> Job:
    """Return the job of a row that is known to have one."""
    assert isinstance(row.job, Job), row
    return row.job


def hold_of(row: Row) -> Hold:
    """Return the claim of a row that is known to be held."""
    assert row.hold is not None, row
    return row.hold


def as_free(job: Job) -> Job:
    """Return a job as it is read where no claim holds it."""
    return evolve(job, held=None, held_at=None)


def holds(row: Row, claim: Claim) -> bool:
    """Whether a claim holds a row."""
    return row.hold is not None and (row.hold.token, row.hold.worker) == (claim.token, claim.worker)


def holding(hold: Hold, claim: Claim) -> Hold:
    """Return the stored claim as another one says it."""
    return evolve(
        hold,
        token=claim.token,
        worker=claim.worker,
        claimed_at=claim.claimed_at,
        expires_at=claim.expires_at,
    )


@frozen
class Mutant:
    """A wrong backend, and the law that it breaks."""

    name: str
    backend: type[Sound]
    law: str

    @property
    def text(self) -> str:
        """What is wrong with it."""
        return " ".join((self.backend.__doc__ or "").split())


class MutantHarness(Harness):
    """Examines one; with little patience, as mutants hang on purpose."""

    can_cut = can_spoil = can_lock = can_spoil_execution = can_refuse_writes = can_make_newer = True
    can_fork = False  # what is in memory is shared between backends, not between processes

    def __init__(self, backend: type[Sound]) -> None:
        self.name = backend.__name__
        self.patience = 0.5 if any(mutant.backend is backend for mutant in MUTANTS) else 20
        self._make = backend

    @contextmanager
    def place(self) -> Iterator[Store]:
        yield self._make.makes()

    def backend(self, place: Any) -> Sound:
        return self._make(place)

    async def crash(self, backend: Any) -> None:
        backend.died()

    async def cut(self, place: Any) -> None:
        place.cut = True
        place.outages += 1

    async def heal(self, place: Any) -> None:
        place.cut = False

    async def spoil(self, place: Any, job_id: str) -> None:
        row = place.row(job_id)
        row.job = Undecodable(job_id, "format 99 is not known", 99, b"{}")
        place.save(job_id, row)

    @contextmanager
    def lock(self, place: Any, job_id: str) -> Iterator[None]:
        place.locked.add(job_id)
        try:
            yield
        finally:
            place.unlock(job_id)

    async def spoil_execution(self, place: Any, job_id: str) -> None:
        spoil_newest(place, job_id)

    @contextmanager
    def refuse_writes(self, place: Any) -> Iterator[None]:
        place.refuses = True
        yield
        place.refuses = False

    @contextmanager
    def make_newer(self, place: Any) -> Iterator[None]:
        place.newer = True
        yield
        assert place.newer, "the version was changed"
        place.newer = False


MUTANTS: list[Mutant] = []
_HARNESSES: dict[type[Sound], type[MutantHarness]] = {}


def examined_by(harness: type[MutantHarness]) -> Callable[[type[Sound]], type[Sound]]:
    """Say which harness examines a backend and those made of it."""

    def register(backend: type[Sound]) -> type[Sound]:
        _HARNESSES[backend] = harness
        return backend

    return register


def harness_of(backend: type[Sound]) -> MutantHarness:
    """Return the harness that examines a backend."""
    kinds = (_HARNESSES[kind] for kind in backend.__mro__ if kind in _HARNESSES)
    return next(kinds, MutantHarness)(backend)


def breaks(law: str) -> Callable[[type[Sound]], type[Sound]]:
    """Register a mutant with the law that must kill it."""

    def register(backend: type[Sound]) -> type[Sound]:
        MUTANTS.append(Mutant(backend.__name__, backend, law))
        return backend

    return register
