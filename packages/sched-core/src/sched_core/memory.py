"""The backend to read before writing your own: everything in dictionaries, nothing durable.

Each method is one step without an ``await`` in it: what a database does with a transaction, this
one gets from the event loop. Several backends may share a :class:`MemoryStore`, as several
processes share a database.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from operator import itemgetter

from sched_core.clock import Alarm, Clock
from sched_core.errors import (
    BackendError,
    JobAlreadyExists,
    JobNotFound,
    JobUndecodable,
    RevisionConflict,
)
from sched_core.job import (
    Claim,
    Execution,
    Job,
    LostClaim,
    Settled,
    Settlement,
    abandoned_lines,
    superseded_line,
)
from sched_core.ports import (
    MAX_POLL,
    Capabilities,
    ExecutionQuery,
    JobQuery,
    Page,
    Undecodable,
)

WRITTEN = Settled("written")
CLAIM_LOST = Settled("claim_lost")


class _Row:
    """One id: the job, ``None`` for a tombstone, and what holds it."""

    __slots__ = ("ended", "hold", "job", "released", "wake")

    def __init__(self, job: Job | None) -> None:
        self.job = job
        self.hold: Claim | None = None
        self.ended: Claim | None = None
        """The newest settled claim: by it a repeated settlement is known."""
        self.released: Claim | None = None
        """A claim that took over a lost one and was released: the lost attempts keep counting."""
        self.wake: datetime | None = None
        """When a claim should look at the row again."""


class MemoryStore:
    """The data that backends share."""

    def __init__(self) -> None:
        self.rows: dict[str, _Row] = {}
        self.lines: list[tuple[int, Execution]] = []
        """The ledger in the order of writing, each line with its position in it."""
        self.written: dict[str, Execution] = {}
        self.final: dict[str, set[int]] = {}
        self.due: list[tuple[datetime, str]] = []
        self.serial = 0
        self.alarms: list[Alarm] = []
        self.unreadable: dict[str, Undecodable] = {}
        """For tests: records that stand for what a newer version wrote. No job has the same id."""

    def next_serial(self) -> int:
        """Return a number that never came before: tokens and revisions come from here."""
        self.serial += 1
        return self.serial

    def schedule(self, job_id: str, row: _Row) -> None:
        """Note when a claim should look at the row, and wake those who would sleep past it."""
        hold, job = row.hold, row.job
        if job is None:
            wake = None if hold is None else hold.expires_at
        else:
            wake = job.standing.due_at
            if wake is not None and hold is not None and hold.expires_at > wake:
                wake = hold.expires_at
        if wake == row.wake:
            return
        row.wake = wake
        if wake is None:
            return
        due = self.due
        if not due or wake < due[0][0]:
            for alarm in self.alarms:
                alarm.nudge()
        heapq.heappush(due, (wake, job_id))
        if len(due) > 4 * len(self.rows) + 1000:
            self.due = [(row.wake, key) for key, row in self.rows.items() if row.wake is not None]
            heapq.heapify(self.due)

    def earliest(self) -> datetime | None:
        """Return when the first row should be looked at."""
        due = self.due
        while due:
            wake, job_id = due[0]
            row = self.rows.get(job_id)
            if row is not None and row.wake == wake:
                return wake
            heapq.heappop(due)
        return None

    def write(self, lines: Sequence[Execution], *, held: Claim | None = None) -> None:
        """Append lines that are not there yet and are not about the held occurrence."""
        for line in lines:
            if line.id in self.written or (held is not None and _about(line, held)):
                continue
            if line.final:
                numbers = self.final.setdefault(line.uid, set())
                if line.number in numbers:
                    continue
                numbers.add(line.number)
            self.written[line.id] = line
            self.lines.append((self.next_serial(), line))

    def has_final(self, uid: str, number: int) -> bool:
        """Whether the occurrence has its final line."""
        return number in self.final.get(uid, ())


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
        self._clock: Clock | None = None
        self._worker = ""

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        self._clock, self._worker = clock, worker
        self.store.alarms.append(self._alarm)
        return clock

    async def close(self) -> None:
        if self._clock is not None:
            self._clock = None
            self.store.alarms.remove(self._alarm)
            self._alarm.nudge()

    async def check(self) -> None:
        self._now()

    def _now(self) -> datetime:
        if self._clock is None:
            raise BackendError("this MemoryBackend is not open: use it through a Scheduler")
        return self._clock.now()

    # -- definitions

    async def add(self, jobs: Sequence[Job]) -> Sequence[Job]:
        self._now()
        rows, new = self.store.rows, set()
        for job in jobs:
            row = rows.get(job.id)
            stored = None if row is None else row.job
            taken = stored is not None and stored.uid != job.uid
            if taken or job.id in new or job.id in self.store.unreadable:
                raise JobAlreadyExists(job.id)
            new.add(job.id)
        return [self._add(job) for job in jobs]

    def _add(self, job: Job) -> Job:
        row = self.store.rows.setdefault(job.id, _Row(None))
        if row.job is None:
            row.job = self._revised(job)
            self.store.schedule(job.id, row)
        return row.job

    def _revised(self, job: Job) -> Job:
        serial = self.store.next_serial()
        return Job(job.spec, job.uid, job.declared, job.anchor, job.standing, serial)

    async def get(self, job_id: str) -> Job | Undecodable | None:
        self._now()
        row = self.store.rows.get(job_id)
        return self.store.unreadable.get(job_id) if row is None else row.job

    def _readable(self, job_id: str) -> _Row | None:
        unreadable = self.store.unreadable.get(job_id)
        if unreadable is not None:
            raise JobUndecodable(job_id, unreadable.reason)
        return self.store.rows.get(job_id)

    async def replace(self, job: Job, ledger: Sequence[Execution] = ()) -> Job:
        self._now()
        row = self._readable(job.id)
        if row is None or row.job is None:
            raise JobNotFound(job.id)
        if row.job.revision != job.revision:
            raise RevisionConflict(job.id)
        row.job = self._revised(job)
        self.store.write(ledger, held=row.hold)
        self.store.schedule(job.id, row)
        return row.job

    async def remove(
        self, job_id: str, ledger: Sequence[Execution] = (), *, expected: int | None = None
    ) -> bool:
        self._now()
        row = self._readable(job_id)
        if row is None or row.job is None:
            return False
        if expected is not None and row.job.revision != expected:
            raise RevisionConflict(job_id)
        self.store.write(ledger, held=row.hold)
        if row.hold is None:
            del self.store.rows[job_id]
        else:
            row.job = None
            self.store.schedule(job_id, row)
        return True

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        self._now()
        store = self.store
        ids = [
            job_id
            for job_id, row in store.rows.items()
            if row.job is not None and _matches(row.job, query)
        ]
        ids += [job_id for job_id in store.unreadable if job_id.startswith(query.id_prefix)]
        ids.sort()
        start = 0 if after is None else bisect_right(ids, after)
        chosen = ids[start : start + limit]
        items: list[Job | Undecodable] = []
        for job_id in chosen:
            job = store.rows[job_id].job if job_id in store.rows else store.unreadable[job_id]
            if job is not None:
                items.append(job)
        more = start + limit < len(ids)
        return Page(items, chosen[-1] if more and chosen else None)

    # -- claims

    async def wait_due(self, limit: int) -> None:
        now = self._now()
        seen, clock = self._alarm.count, self._clock
        until, earliest = now + MAX_POLL, self.store.earliest()
        if earliest is not None and earliest < until:
            until = earliest
        if clock is not None and until > now:
            await self._alarm.sleep(clock, until, seen)

    async def claim_due(self, limit: int) -> Sequence[Claim]:
        now, store = self._now(), self.store
        claims: list[Claim] = []
        expires_at = now + self._lease
        while len(claims) < limit:
            wake = store.earliest()
            if wake is None or wake > now:
                break
            _, job_id = heapq.heappop(store.due)
            row = store.rows[job_id]
            row.wake = None
            lost = None if row.hold is None else self._lose(row, row.hold, now)
            if row.job is None:
                del store.rows[job_id]
                continue
            if row.released is not None:
                if lost is None and _stands_at(row.job, row.released):
                    lost = row.released.lost
                row.released = None
            claim = Claim(row.job, store.next_serial(), self._worker, now, expires_at, lost)
            row.hold = claim
            store.schedule(job_id, row)
            claims.append(claim)
        return claims

    def _lose(self, row: _Row, hold: Claim, now: datetime) -> LostClaim | None:
        moved_on = not _stands_at(row.job, hold)
        self.store.write(abandoned_lines(hold, now, moved_on=moved_on))
        row.hold = None
        if moved_on:
            return None
        earlier = 0 if hold.lost is None else hold.lost.count
        return LostClaim(earlier + 1, hold.worker, hold.claimed_at)

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        expires_at = self._now() + self._lease
        renewed: list[Claim] = []
        for claim in claims:
            row = self.store.rows.get(claim.job.id)
            if row is None or row.hold is None or not _same(row.hold, claim):
                continue
            hold = row.hold
            row.hold = Claim(
                hold.job, hold.token, hold.worker, hold.claimed_at, expires_at, hold.lost
            )
            self.store.schedule(claim.job.id, row)
            renewed.append(row.hold)
        return renewed

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settled]:
        self._now()
        return [self._settle(settlement) for settlement in settlements]

    def _settle(self, settlement: Settlement) -> Settled:
        claim, store = settlement.claim, self.store
        job_id = claim.job.spec.id
        row = store.rows.get(job_id)
        hold = None if row is None else row.hold
        if row is None or hold is None or not _same(hold, claim):
            ended = None if row is None else row.ended
            repeated = ended is not None and _same(ended, claim)
            return WRITTEN if repeated or self._in_ledger(settlement) else CLAIM_LOST

        job = row.job
        if settlement.standing is not None and (job is None or job.revision != settlement.expected):
            return Settled("conflict", job)
        if not _allowed(settlement, hold, job, store):
            return Settled("conflict", job)

        store.write(settlement.ledger)
        row.hold, row.ended = None, hold
        if job is None:
            del store.rows[job_id]
            return WRITTEN
        if settlement.standing is not None:
            row.job = Job(
                job.spec,
                job.uid,
                job.declared,
                job.anchor,
                settlement.standing,
                store.next_serial(),
            )
        store.schedule(job_id, row)
        return WRITTEN

    def _in_ledger(self, settlement: Settlement) -> bool:
        """Whether an earlier try of the same settlement wrote its lines."""
        claim = settlement.claim
        for line in settlement.ledger:
            stored = self.store.written.get(line.id)
            if stored is None or (stored.status, stored.token, stored.worker) != (
                line.status,
                claim.token,
                claim.worker,
            ):
                return False
        return bool(settlement.ledger)

    async def release(self, claims: Sequence[Claim]) -> None:
        now = self._now()
        for claim in claims:
            job_id = claim.job.id
            row = self.store.rows.get(job_id)
            if row is None or row.hold is None or not _same(row.hold, claim):
                continue
            hold, row.hold = row.hold, None
            if not _stands_at(row.job, hold):
                self.store.write([superseded_line(hold, now)])
            elif hold.lost is not None:
                row.released = hold
            if row.job is None:
                del self.store.rows[job_id]
            else:
                self.store.schedule(job_id, row)

    # -- the ledger

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution]:
        self._now()
        store = self.store
        index = len(store.lines)
        if after is not None:
            index = bisect_left(store.lines, int(after), key=itemgetter(0))
        found: list[tuple[int, Execution]] = []
        while index > 0:
            index -= 1
            entry = store.lines[index]
            if _selected(entry[1], query):
                if len(found) == limit:
                    return Page([line for _, line in found], str(found[-1][0]))
                found.append(entry)
        return Page([line for _, line in found], None)

    async def prune(self, before: datetime) -> int:
        now, store = self._now(), self.store
        kept = [
            (position, line)
            for position, line in store.lines
            if line.finished_at >= before and (line.expires_at is None or line.expires_at > now)
        ]
        expired = [
            job_id
            for job_id, row in store.rows.items()
            if row.hold is None
            and row.job is not None
            and row.job.standing.expires_at is not None
            and row.job.standing.expires_at <= now
        ]
        for job_id in expired:
            del store.rows[job_id]
        deleted = len(store.lines) - len(kept)
        if deleted:
            store.lines = kept
            store.written = {line.id: line for _, line in kept}
            store.final = {}
            for _, line in kept:
                if line.final:
                    store.final.setdefault(line.uid, set()).add(line.number)
        return deleted + len(expired)


def _same(hold: Claim, claim: Claim) -> bool:
    return hold.token == claim.token and hold.worker == claim.worker


def _stands_at(job: Job | None, hold: Claim) -> bool:
    """Whether the stored job still stands at the occurrence that is held."""
    return (
        job is not None
        and job.uid == hold.job.uid
        and job.standing.number == hold.job.standing.number
    )


def _about(line: Execution, hold: Claim) -> bool:
    return line.uid == hold.job.uid and line.number == hold.job.standing.number


def _allowed(settlement: Settlement, hold: Claim, job: Job | None, store: MemoryStore) -> bool:
    """Whether every final line is the first of its occurrence, and leaves it behind."""
    leaves_pending = settlement.standing is None and _stands_at(job, hold)
    for line in settlement.ledger:
        if line.final:
            if leaves_pending and _about(line, hold):
                return False
            if line.id not in store.written and store.has_final(line.uid, line.number):
                return False
    return True


def _matches(job: Job, query: JobQuery) -> bool:
    spec = job.spec
    return (
        spec.id.startswith(query.id_prefix)
        and (query.state is None or job.standing.state is query.state)
        and (query.group is None or spec.group == query.group)
        and all(spec.metadata.get(key) == value for key, value in query.metadata.items())
    )


def _selected(line: Execution, query: ExecutionQuery) -> bool:
    return (
        (query.job_id is None or line.job_id == query.job_id)
        and (not query.statuses or line.status in query.statuses)
        and (query.final is None or line.final is query.final)
        and (query.since is None or line.finished_at >= query.since)
        and (query.until is None or line.finished_at < query.until)
    )
