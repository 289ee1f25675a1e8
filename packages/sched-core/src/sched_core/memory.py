"""The backend to read before you write your own: everything in dictionaries, nothing durable.

No method has an ``await`` between its reads and its writes, so the event loop gives it what a
database gives with a transaction. Several backends may share a :class:`MemoryStore`, as several
processes share a database.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from operator import itemgetter

from attrs import define

from sched_core._model.claim import (
    Claim,
    Claimed,
    Filling,
    Hold,
    Renewal,
    Room,
    Settled,
    Settlement,
)
from sched_core._model.execution import DEFAULT_QUEUE, Execution
from sched_core._model.job import Job
from sched_core._model.survey import CountQuery, Counts, Tally, WorkerState
from sched_core.affinity import Affinity
from sched_core.clock import Alarm, Clock
from sched_core.errors import BackendError, CursorExpired, JobAlreadyExists
from sched_core.ports import (
    FORGOTTEN,
    MAX_POLL,
    Capabilities,
    ClaimQuery,
    ExecutionQuery,
    Followed,
    JobQuery,
    Page,
    Undecodable,
    UndecodableExecution,
    position_of,
)
from sched_core.row import Row, is_to_be_cancelled


@define
class _Row(Row):
    wake: datetime | None = None
    """Its place in the queue that it waits in, ``None`` if it waits in none."""
    queue: list[tuple[datetime, str]] | None = None

    def job_queue(self) -> str:
        return self.job.spec.queue if isinstance(self.job, Job) else DEFAULT_QUEUE


class MemoryStore:
    """The data that backends share."""

    def __init__(self) -> None:
        self.rows: dict[str, _Row] = {}
        self.history: list[tuple[int, Execution | UndecodableExecution]] = []
        """The executions in the order of writing, each with its position."""
        self.written: dict[str, Execution | UndecodableExecution] = {}
        self.due: list[tuple[datetime, str]] = []
        """The rows that no claim holds, by their ``due_at``."""
        self.held: list[tuple[datetime, str]] = []
        """The rows that a claim holds, by the end of its lease."""
        self.serial = 0
        self.deleted = 0
        """The newest position of an execution that was deleted."""
        self.alarms: list[Alarm] = []
        self.cancel_alarms: list[Alarm] = []
        self.choosy: list[tuple[Alarm, Room, datetime]] = []
        """The waits for a room that does not take every job, and until when each sleeps."""
        self.workers: dict[str, WorkerState] = {}

    def next_serial(self) -> int:
        """Return a number that was never given before, for tokens and revisions."""
        self.serial += 1
        return self.serial

    # -- rows, and when they are due

    def row(self, job_id: str) -> _Row:
        """Return what is stored under the id, or an empty row."""
        return self.rows.get(job_id) or _Row()

    def save(self, job_id: str, row: _Row) -> None:
        """Store a row that was changed, and wake the calls that would sleep past it."""
        wake = row.due()
        if wake is None and row.is_empty():
            self.rows.pop(job_id, None)
            return
        self.rows[job_id] = row
        due, held = self.due, self.held
        queue = due if row.hold is None else held
        if wake is not None and self.choosy:
            self._wake_choosy(job_id, row, wake)
        if wake == row.wake and queue is row.queue:
            return
        row.wake, row.queue = wake, queue
        if wake is None:
            return
        if (not due or wake < due[0][0]) and (not held or wake < held[0][0]):
            for alarm in self.alarms:
                alarm.nudge()
        heapq.heappush(queue, (wake, job_id))
        if len(queue) > 4 * len(self.rows) + 1000:
            rows = self.rows
            queue[:] = {
                (other.wake, each)
                for _, each in queue
                if (other := rows.get(each)) and other.queue is queue and other.wake is not None
            }
            heapq.heapify(queue)

    def _wake_choosy(self, job_id: str, row: _Row, wake: datetime) -> None:
        """Wake the waits that would sleep past a row, whatever else is due before it."""
        for alarm, room, until in self.choosy:
            fits = row.hold is not None or Filling(room).fits(job_id, row.job_queue())
            if wake < until and fits:
                alarm.nudge()

    def _waits_in(self, queue: list[tuple[datetime, str]], entry: tuple[datetime, str]) -> bool:
        wake, job_id = entry
        row = self.rows.get(job_id)
        return row is not None and row.wake == wake and row.queue is queue

    def first(self, queue: list[tuple[datetime, str]]) -> tuple[datetime, str] | None:
        """Return the first entry of a queue that still holds."""
        while queue and not self._waits_in(queue, queue[0]):
            heapq.heappop(queue)
        return queue[0] if queue else None

    def earliest(self, room: Room | None = None) -> datetime | None:
        """Return when the first row is due that fits into the room, or one loses its lease."""
        held = self.first(self.held)
        due = self.first(self.due) if room is None or room.takes_any else self.first_of(room)
        if due is None or (held is not None and held < due):
            due = held
        return None if due is None else due[0]

    def first_of(self, room: Room) -> tuple[datetime, str] | None:
        """Return the first entry of :attr:`due` that fits into the room."""
        passed: list[tuple[datetime, str]] = []
        filling = Filling(room)
        try:
            while (entry := self.first(self.due)) is not None:
                if filling.fits(entry[1], self.rows[entry[1]].job_queue()):
                    break
                passed.append(heapq.heappop(self.due))
        finally:  # what accepts raises loses nothing
            for each in passed:
                heapq.heappush(self.due, each)
        return entry

    def take(self, queue: list[tuple[datetime, str]], now: datetime) -> str | None:
        """Take the first row out of a queue, if its moment has come; return its id.

        Once it was looked at, :meth:`save` puts it in its next place.
        """
        rows = self.rows
        while queue and queue[0][0] <= now:
            wake, job_id = heapq.heappop(queue)
            row = rows.get(job_id)
            if row is not None and row.wake == wake and row.queue is queue:
                row.wake = row.queue = None
                return job_id
        return None

    def take_due(self, room: Room, now: datetime) -> list[str]:
        """Take the due rows that fit into the room, oldest first; return their ids.

        What it passes over is put back without a nudge: nothing has been written.
        """
        filling, taken, passed = Filling(room), list[str](), list[str]()
        try:
            while not filling.is_full and (job_id := self.take(self.due, now)) is not None:
                passed.append(job_id)
                queue = self.rows[job_id].job_queue()
                if filling.fits(job_id, queue):
                    filling.add(queue)
                    taken.append(passed.pop())
        except BaseException:  # what room.accepts raises: nothing is claimed
            passed += taken
            raise
        finally:
            for each in passed:
                row = self.rows[each]
                wake = row.due()
                if wake is not None:
                    row.wake, row.queue = wake, self.due
                    heapq.heappush(self.due, (wake, each))
        return taken

    # -- the history

    def stored(self, execution_id: str) -> Execution | UndecodableExecution | None:
        """Return the execution with the id."""
        return self.written.get(execution_id)

    def append(self, execution: Execution | UndecodableExecution) -> None:
        """Add an execution, unless one with its id is there."""
        if execution.id not in self.written:
            self.history.append((self.next_serial(), execution))
            self.written[execution.id] = execution

    def keep(self, history: list[tuple[int, Execution | UndecodableExecution]]) -> None:
        """Delete all other executions."""
        kept = {position for position, _ in history}
        gone = (position for position, _ in self.history if position not in kept)
        self.deleted = max((self.deleted, *gone))
        self.history = history
        self.written = {execution.id: execution for _, execution in history}


class MemoryBackend:
    """The scheduler port in memory: for tests, and for services whose jobs need not survive them.

    Args:
        store: Data to share with other backends of this process; a new one unless given.
        lease: How long a claim lives unless it is renewed.
    """

    def __init__(
        self, store: MemoryStore | None = None, *, lease: timedelta = timedelta(seconds=30)
    ) -> None:
        self.store = MemoryStore() if store is None else store
        self._capabilities = Capabilities(
            durable=False,
            shared=False,
            time="clock",
            granularity=timedelta(microseconds=1),
            lease=lease,
        )
        self._lease = lease
        self._alarm = Alarm()
        self._cancels = Alarm()
        self._cancels_seen = 0
        self._clock: Clock | None = None
        self._opened_in: Affinity | None = None
        self._worker = ""

    def __str__(self) -> str:
        """Return where the jobs are stored, for people."""
        return "memory"

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        if self._clock is not None and self._opened_in is not None:
            self._opened_in.check_process()
            raise BackendError("this MemoryBackend is open already: use one for each Scheduler")
        self._clock, self._worker = clock, worker
        self._opened_in = Affinity("this MemoryBackend")
        self.store.alarms.append(self._alarm)
        self.store.cancel_alarms.append(self._cancels)
        return clock

    async def close(self) -> None:
        if self._clock is not None:
            self._clock = None
            self.store.workers.pop(self._worker, None)
            self.store.alarms.remove(self._alarm)
            self.store.cancel_alarms.remove(self._cancels)
            self._alarm.nudge()
            self._cancels.nudge()

    async def check(self) -> None:
        self._now()

    def _now(self) -> datetime:
        if self._clock is None or self._opened_in is None:
            raise BackendError("this MemoryBackend is not open: use it through a Scheduler")
        self._opened_in.check()
        return self._clock.now()

    # -- definitions

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        self._now()
        store, ids = self.store, set()
        for job in jobs:
            if job.id in ids or store.row(job.id).refuses(job):
                raise JobAlreadyExists(job.id)
            ids.add(job.id)
        return [self._add(job) for job in jobs]

    def _add(self, job: Job) -> Job:
        row = self.store.row(job.id)
        stored = row.add(job, self.store.next_serial())
        self.store.save(job.id, row)
        return stored

    async def get(self, job_id: str) -> Job | Undecodable | None:
        self._now()
        return self.store.row(job_id).read()

    async def replace(self, job: Job, executions: Sequence[Execution] = ()) -> Job:
        self._now()
        store, row = self.store, self.store.row(job.id)
        stored = row.replace(job, executions, store.next_serial(), store)
        store.save(job.id, row)
        self._tell_of_marks(row)
        return stored

    async def remove(self, job: Job, executions: Sequence[Execution] = ()) -> None:
        self._now()
        row = self.store.row(job.id)
        row.remove(job, executions, self.store)
        self.store.save(job.id, row)
        self._tell_of_marks(row)

    def _tell_of_marks(self, row: Row) -> None:
        job = row.job if isinstance(row.job, Job) else None
        if row.hold is not None and is_to_be_cancelled(job, row.hold):
            for alarm in self.store.cancel_alarms:
                alarm.nudge()

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        self._now()
        rows = self.store.rows.values()
        jobs = [job for row in rows if (job := row.read()) is not None and query.matches(job)]
        jobs.sort(key=lambda job: job.id)
        start = 0 if after is None else bisect_right(jobs, after, key=lambda job: job.id)
        page = jobs[start : start + limit]
        return Page(page, page[-1].id if page and start + limit < len(jobs) else None)

    # -- claims

    async def wait_due(self, room: Room) -> None:
        now = self._now()
        seen, clock = self._alarm.count, self._clock
        until, earliest = now + MAX_POLL, self.store.earliest(room)
        if earliest is not None and earliest < until:
            until = earliest
        if clock is None or until <= now:
            return
        if room.takes_any:
            await self._alarm.sleep(clock, until, seen)
            return
        wait = (self._alarm, room, until)
        self.store.choosy.append(wait)
        try:
            await self._alarm.sleep(clock, until, seen)
        finally:
            self.store.choosy.remove(wait)

    async def wait_cancelled(self) -> bool:
        until, clock = self._now() + MAX_POLL, self._clock
        if clock is not None:
            await self._cancels.sleep(clock, until, self._cancels_seen)
        seen, self._cancels_seen = self._cancels_seen, self._cancels.count
        return seen != self._cancels_seen

    async def claim_due(self, room: Room) -> Claimed:
        now, store = self._now(), self.store
        lapsed: list[Execution] = []
        while (job_id := store.take(store.held, now)) is not None:
            row = store.rows[job_id]
            lapsed += row.lapse(now, store.next_serial(), store)
            store.save(job_id, row)
        claims: list[Claim] = []
        for job_id in store.take_due(room, now):
            row = store.rows[job_id]
            claim = row.claim(store.next_serial(), self._worker, now, self._lease)
            if claim is not None:
                claims.append(claim)
            store.save(job_id, row)
        return Claimed(claims, lapsed)

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        now = self._now()
        renewed: list[Claim] = []
        for renewal in renewals:
            job_id = renewal.claim.job.id
            row = self.store.row(job_id)
            claim = row.renew(renewal, now, self._lease)
            if claim is not None:
                self.store.save(job_id, row)
                renewed.append(claim)
        return renewed

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        now = self._now()
        return [self._settle(settlement, now) for settlement in settlements]

    def _settle(self, settlement: Settlement, now: datetime) -> Settled:
        job_id, store = settlement.claim.job.spec.id, self.store
        row = store.row(job_id)
        settled = row.settle(settlement, now, store.next_serial(), store)
        store.save(job_id, row)
        return settled

    async def release(self, claims: Sequence[Claim]) -> None:
        now = self._now()
        for claim in claims:
            row = self.store.row(claim.job.id)
            row.release(claim, now, self.store)
            self.store.save(claim.job.id, row)

    # -- the history

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        self._now()
        history = self.store.history
        index = len(history)
        if after is not None:
            index = bisect_left(history, int(after), key=itemgetter(0))
        found: list[tuple[int, Execution | UndecodableExecution]] = []
        while index > 0:
            index -= 1
            if query.matches(history[index][1]):
                if len(found) == limit:
                    return Page([one for _, one in found], str(found[-1][0]))
                found.append(history[index])
        return Page([one for _, one in found], None)

    async def execution(self, execution_id: str) -> Execution | UndecodableExecution | None:
        self._now()
        return self.store.written.get(execution_id)

    async def recent(
        self, job_ids: Sequence[str], *, limit: int
    ) -> Mapping[str, Sequence[Execution | UndecodableExecution]]:
        self._now()
        found: dict[str, list[Execution | UndecodableExecution]] = {}
        wanted = set(job_ids)
        for _, each in reversed(self.store.history):
            if each.job_id in wanted and len(found.setdefault(each.job_id, [])) < limit:
                found[each.job_id].append(each)
        return found

    async def follow(self, after: str | None, *, limit: int) -> Followed:
        self._now()
        store = self.store
        if after is None:
            return Followed((), str(store.serial))
        position = position_of(after)
        if after and position < store.deleted:
            raise CursorExpired(after)
        index = bisect_right(store.history, position, key=itemgetter(0))
        found = store.history[index : index + limit]
        cursor = found[-1][0] if found else max(position, store.deleted)
        return Followed([one for _, one in found], str(cursor))

    # -- what is going on

    async def claims(self, query: ClaimQuery, *, after: str | None, limit: int) -> Page[Hold]:
        self._now()
        holds = [
            row.hold
            for row in self.store.rows.values()
            if row.hold is not None and not isinstance(row.job, Undecodable)
        ]
        found = sorted(
            (hold for hold in holds if query.matches(hold)), key=lambda hold: hold.job_id
        )
        start = 0 if after is None else bisect_right(found, after, key=lambda hold: hold.job_id)
        page = found[start : start + limit]
        return Page(page, page[-1].job_id if page and start + limit < len(found) else None)

    async def report(self, state: WorkerState) -> None:
        self._now()
        self.store.workers[state.name] = state

    async def workers(self) -> Sequence[WorkerState]:
        self._now()
        return [self.store.workers[name] for name in sorted(self.store.workers)]

    async def counts(self, query: CountQuery) -> Counts:
        tally = Tally(query, self._now())
        for row in self.store.rows.values():
            if isinstance(row.job, Undecodable):
                tally.add_undecodable()
            else:
                tally.add_row(row.job, row.hold)
        for _, each in self.store.history:
            if isinstance(each, Execution):
                tally.add_execution(each)
        return tally.counts()

    async def prune(self, before: datetime) -> int:
        now, store = self._now(), self.store
        for state in list(store.workers.values()):
            if state.seen_at < now - FORGOTTEN:
                del store.workers[state.name]
        kept = [
            (position, one)
            for position, one in store.history
            if (one.finished_at is None or one.finished_at >= before)
            and (one.expires_at is None or one.expires_at > now)
        ]
        expired = [job_id for job_id, row in store.rows.items() if row.has_expired(now)]
        for job_id in expired:
            del store.rows[job_id]
        deleted = len(store.history) - len(kept)
        if deleted:
            store.keep(kept)
        return deleted + len(expired)
