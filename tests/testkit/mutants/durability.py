"""Backends that declare durable and shared data, and keep a part of it in their own process.

They are made of a sound one whose data lies in a file. What others write is read in every call, so
a part that is kept in the process is seen by no other process.
"""

from __future__ import annotations

import fcntl
import pickle
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import anyio
from attrs import evolve
from tests.testkit.mutants.base import (
    MutantHarness,
    Sound,
    Store,
    breaks,
    examined_by,
)

from sched_core import (
    Claim,
    Clock,
    Execution,
    ExecutionQuery,
    Hold,
    Job,
    JobQuery,
    Page,
    Room,
    Settled,
    Settlement,
    Undecodable,
    UndecodableExecution,
)
from sched_core.affinity import Affinity
from sched_core.clock import pause
from sched_core.ports import MAX_POLL
from sched_core.row import is_to_be_cancelled


class FileHarness(MutantHarness):
    """Examines one whose place is a file, in two processes, and does nothing else to it."""

    can_fork = True
    can_cut = can_spoil = can_lock = can_spoil_execution = can_refuse_writes = can_make_newer = (
        False
    )

    @contextmanager
    def place(self) -> Iterator[Any]:
        with TemporaryDirectory() as folder:
            yield Path(folder) / "jobs"


OWN = {"alarms", "cancel_alarms", "choosy"}
"""What of a store's data is of one process."""


@examined_by(FileHarness)
class Filed(Sound):
    """The sound one: every call reads the file, and writes it, under a lock."""

    looks_every: ClassVar[float] = 0.02

    def __init__(self, path: Path) -> None:
        super().__init__(Store())
        self.path = path
        self._capabilities = evolve(self._capabilities, notified=True)  # it looks all the time
        self.told: set[tuple[int, str]] = set()
        """The claims of which a mark was told."""

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        self._clock, self._worker = clock, worker
        self._opened_in = Affinity("this Filed")
        return clock

    async def close(self) -> None:
        if self._clock is not None:
            with self.step():
                self.store.workers.pop(self._worker, None)
        self._clock = None

    @contextmanager
    def step(self) -> Iterator[None]:
        """One call: with what is stored, and stored if it does not raise."""
        with self.locked():
            self.load()
            yield
            self.save()

    @contextmanager
    def locked(self) -> Iterator[None]:
        with Path(f"{self.path}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def load(self) -> None:
        """Take what is stored."""
        if self.path.exists():
            self.take(pickle.loads(self.path.read_bytes()))
        else:
            self.take({})

    def take(self, stored: dict[str, Any]) -> None:
        self.store = Store()
        self.store.__dict__.update(stored)

    def save(self) -> None:
        """Store it."""
        new = self.path.with_suffix(".new")
        new.write_bytes(pickle.dumps(self.kept()))
        new.replace(self.path)

    def kept(self) -> dict[str, Any]:
        """Return what is stored of the data."""
        return {name: value for name, value in vars(self.store).items() if name not in OWN}

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        with self.step():
            return await super().add(jobs)

    async def get(self, job_id: str) -> Job | Undecodable | None:
        with self.step():
            return await super().get(job_id)

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        with self.step():
            return await super().replace(job, executions)

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        with self.step():
            return await super().remove(job, executions)

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        with self.step():
            return await super().jobs(query, after=after, limit=limit)

    async def wait_due(self, room: Room) -> None:
        horizon = self._now() + MAX_POLL
        while True:
            with self.step():
                first = min(filter(None, [self.store.earliest(room), horizon]))
            with anyio.move_on_after(self.looks_every):
                await self._clock.sleep_until(first)  # type: ignore[union-attr]  # it is open
                return

    async def wait_cancelled(self) -> bool:
        horizon = self._now() + MAX_POLL
        while (now := self._now()) < horizon:
            horizon = min(horizon, now + MAX_POLL)
            with self.step():
                new = self.marked() - self.told
            if new:
                self.told |= new
                return True
            await pause(self.looks_every)
        return False

    def marked(self) -> set[tuple[int, str]]:
        """Return the claims of this worker that are marked."""
        return {
            (row.hold.token, row.hold.worker)
            for row in self.store.rows.values()
            if row.hold is not None
            and row.hold.worker == self._worker
            and isinstance(row.job, Job)
            and is_to_be_cancelled(row.job, row.hold)
        }

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        with self.step():
            return await super().hand_out(limit)

    async def extend(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        with self.step():
            return await super().extend(claims)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        with self.step():
            return await super().settle(settlements)

    async def release(self, claims: Sequence[Claim]) -> None:
        with self.step():
            await super().release(claims)

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        with self.step():
            return await super().executions(query, after=after, limit=limit)

    async def prune(self, before: datetime) -> int:
        with self.step():
            return await super().prune(before)


def _stepped(name: str) -> Callable[..., Awaitable[Any]]:
    async def call(self: Filed, *arguments: Any, **named: Any) -> Any:
        with self.step():
            return await getattr(Sound, name)(self, *arguments, **named)

    return call


for _name in ("execution", "recent", "follow", "claims", "report", "workers", "counts"):
    setattr(Filed, _name, _stepped(_name))


class MemoryHarness(MutantHarness):
    """Examines one whose place is an object of this process, and believes that it is shared."""

    can_fork = True


@breaks("what_a_killed_process_wrote_is_there")
@examined_by(MemoryHarness)
class ADictionary(Sound):
    """Declares that it is durable and shared, and is a dictionary."""


STORES: dict[Path, Store] = {}


@breaks("what_a_process_wrote_is_there_after_it_closed")
class ADictionaryOfPlaces(Filed):
    """Keeps the data of each place in a dictionary of the module: a new backend finds it there."""

    def load(self) -> None:
        self.store = STORES.setdefault(self.path, Store())

    def save(self) -> None: ...


@breaks("what_a_killed_process_wrote_is_there")
class WritesOnClose(Filed):
    """Writes the file when it is closed."""

    read = False

    def load(self) -> None:
        if not self.read:
            self.read = True
            super().load()

    def save(self) -> None: ...

    async def close(self) -> None:
        if self._clock is not None and self.read:
            super().save()
        await super().close()


@breaks("what_a_killed_process_wrote_is_there")
class WritesOneCallLater(Filed):
    """Flushes what a call wrote at the beginning of the next one."""

    pending: bytes = b""

    def load(self) -> None:
        if self.pending:
            self.path.write_bytes(self.pending)
        super().load()

    def save(self) -> None:
        self.pending = pickle.dumps(self.kept())


class KeepsApart(Filed):
    """Base: a part of the data stays in the process."""

    part: ClassVar[str]

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.mine: Any = None

    def take(self, stored: dict[str, Any]) -> None:
        super().take(stored)
        if self.mine is not None:
            setattr(self.store, self.part, self.mine)

    def kept(self) -> dict[str, Any]:
        self.mine = getattr(self.store, self.part)
        return {name: value for name, value in super().kept().items() if name != self.part}


@breaks("numbers_of_two_processes_never_meet")
class CountsByItself(KeepsApart):
    """Revisions and tokens come from a counter of the process."""

    part = "serial"


@breaks("numbers_of_two_processes_never_meet")
class CountsOnFromTheNewest(Filed):
    """Reads the highest number when it opens, and counts on from there."""

    serial: int | None = None

    def take(self, stored: dict[str, Any]) -> None:
        super().take(stored)
        self.serial = self.store.serial if self.serial is None else self.serial
        self.store.serial = self.serial

    def kept(self) -> dict[str, Any]:
        self.serial = self.store.serial
        return super().kept()


class HoldsOtherwise(Filed):
    """Base: holds are not stored as they are."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.holds: dict[str, Hold] = {}

    def stored_hold(self, hold: Hold) -> Hold | None:
        raise NotImplementedError

    def load(self) -> None:
        super().load()
        for job_id, hold in self.holds.items():
            row = self.store.row(job_id)
            if row.hold is None or row.hold.token == hold.token:
                row.hold = hold
                self.store.save(job_id, row)

    def save(self) -> None:
        rows = list(self.store.rows.items())
        self.holds = {job_id: row.hold for job_id, row in rows if row.hold is not None}
        for job_id, row in rows:
            if row.hold is not None:
                row.hold = self.stored_hold(row.hold)
                self.store.save(job_id, row)
        super().save()


@breaks("another_process_sees_every_write_at_once")
class HoldsInMemory(HoldsOtherwise):
    """Who holds what is known to the process that holds it."""

    def stored_hold(self, hold: Hold) -> Hold | None:
        return None


@breaks("a_claim_is_fenced_against_other_processes")
class RenewsInMemory(HoldsOtherwise):
    """A renewal is remembered, and not stored."""

    def stored_hold(self, hold: Hold) -> Hold | None:
        return evolve(hold, expires_at=hold.claimed_at + self._lease)


@breaks("what_a_process_wrote_is_there_after_it_closed")
class TombstonesInMemory(Filed):
    """A removed job's hold is known to the process that removed it."""

    def kept(self) -> dict[str, Any]:
        rows = {job_id: row for job_id, row in self.store.rows.items() if row.job is not None}
        return super().kept() | {"rows": rows}


@breaks("what_a_process_wrote_is_there_after_it_closed")
class HistoryInMemory(Filed):
    """The history is stored when there is time for it."""

    def kept(self) -> dict[str, Any]:
        return super().kept() | {"history": [], "written": {}}


@breaks("another_process_sees_every_write_at_once")
class ReadsOnce(Filed):
    """Reads jobs when it first needs them, and again when it writes."""

    seen: Any = None

    async def get(self, job_id: str) -> Job | Undecodable | None:
        if self.seen is None:
            self.seen = await super().get(job_id)
        return self.seen  # type: ignore[no-any-return]  # what it has seen


@breaks("another_process_sees_every_write_at_once")
class ListsFromItsCache(Filed):
    """Lists the jobs that it knows; its own writes are among them."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.known: list[Job | Undecodable] | None = None

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        if self.known is None:
            page = await super().jobs(JobQuery(), after=None, limit=1000)
            self.known = list(page.items)
        return Page([job for job in self.known if query.matches(job)], None)

    def save(self) -> None:
        self.known = None if self.kept_rows() != getattr(self, "rows", {}) else self.known
        self.rows = self.kept_rows()
        super().save()

    def kept_rows(self) -> dict[str, int]:
        return {job_id: id(row.job) for job_id, row in self.store.rows.items() if row.hold is None}

    def take(self, stored: dict[str, Any]) -> None:
        super().take(stored)
        self.rows = self.kept_rows()


@breaks("what_was_deleted_stays_deleted")
class RemovalsAreNotStored(Filed):
    """Stores what was added or changed, and a removal of it not."""

    def kept(self) -> dict[str, Any]:
        before = pickle.loads(self.path.read_bytes())["rows"] if self.path.exists() else {}
        idle = {job_id: row for job_id, row in before.items() if row.hold is None}
        return super().kept() | {"rows": idle | self.store.rows}


@breaks("what_was_deleted_stays_deleted")
class PrunesInMemory(Filed):
    """Prune forgets, and leaves the file as it is."""

    async def prune(self, before: datetime) -> int:
        return await Sound.prune(self, before)


@breaks("a_process_that_closes_takes_nothing_from_others")
class FreesAllWhenItOpens(Filed):
    """Recovers from a crash when it is opened: nothing can be running then."""

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        with self.step():
            for job_id, row in list(self.store.rows.items()):
                row.hold = None
                self.store.save(job_id, row)
        return await super().open(clock, worker=worker)


@breaks("numbers_of_two_processes_never_meet")
class CursorsInMemory(Filed):
    """A page's next is the number of a cursor that the process keeps."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.cursors: list[str] = []

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        known = int(after) if after is not None else None
        place = None if known is None or known >= len(self.cursors) else self.cursors[known]
        page = await super().executions(query, after=place, limit=limit)
        if page.next is None:
            return page
        self.cursors.append(page.next)
        return evolve(page, next=str(len(self.cursors) - 1))


@breaks("another_process_wakes_who_waits")
class LooksOnce(Filed):
    """Looks what is due, sleeps until then, and hears nothing of others."""

    looks_every = 1e9

    async def wait_due(self, room: Room) -> None:
        with self.step():
            earliest = self.store.earliest()
        if earliest is not None:
            await self._clock.sleep_until(earliest)  # type: ignore[union-attr]  # it is open
        else:
            await anyio.sleep_forever()


@breaks("what_is_notified_wakes_at_once")
class PollsAndCallsItNotified(Filed):
    """Declares that it is notified, and looks once in a while."""

    looks_every = 1e9


@breaks("a_claim_of_another_process_is_told")
class TellsItsOwnHoldsOnly(Filed):
    """Get and jobs tell what this process holds: what others have claimed looks free."""

    async def get(self, job_id: str) -> Job | Undecodable | None:
        job, hold = await super().get(job_id), self.store.row(job_id).hold
        if not isinstance(job, Job) or hold is None or hold.worker == self._worker:
            return job
        return evolve(job, held=None, held_at=None)
