"""One stored id: all that a backend has to do, without a store."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Protocol

from attrs import define, evolve

from sched_core._model.claim import Claim, Hold, Settled, Settlement
from sched_core._model.execution import Execution
from sched_core._model.occurrence import Job
from sched_core._rules import hold as holds
from sched_core._rules.standing import current

WRITTEN, CLAIM_LOST = Settled("written"), Settled("claim_lost")


class Taken(Exception):
    """The id is taken."""


class Conflict(Exception):
    """Another revision is stored."""


class History(Protocol):
    """The executions of all jobs, as far as one id must know them."""

    def stored(self, execution_id: str) -> Execution | None: ...

    def append(self, execution: Execution) -> None: ...


@define
class Stored:
    """The job, and apart from it who holds it; no job and a hold is a tombstone."""

    job: Job | None = None
    hold: Hold | None = None
    ended: tuple[int, str] | None = None

    def due(self) -> datetime | None:
        """Return from when on :meth:`claim` should be called, ``None`` for never."""
        if self.hold is not None:
            return self.hold.expires_at
        return None if self.job is None else self.job.standing.due_at

    def read(self) -> Job | None:
        """Return the job, and what is held of it."""
        job, hold = self.job, self.hold
        if job is None or hold is None or hold.pending is None or hold.uid != job.uid:
            return None if job is None else evolve(job, held=None, held_at=None)
        return evolve(job, held=hold.pending.number, held_at=hold.claimed_at)

    # -- definitions

    def add(self, job: Job, revision: int) -> None:
        if self.job is not None and self.job.uid != job.uid:
            raise Taken(job.spec.id)
        if self.job is None:
            self.job = evolve(job, revision=revision)

    def replace(self, job: Job, found: Iterable[Execution], revision: int, to: History) -> None:
        self.check(job)
        self.job = evolve(job, revision=revision)
        self._write(found, to)

    def remove(self, job: Job, found: Iterable[Execution], to: History) -> None:
        self.check(job)
        self.job = None
        self._write(found, to)

    def check(self, job: Job) -> None:
        """Refuse an edit of what is not stored any more, or was claimed or freed since it was read.

        What an edit makes of an occurrence depends on whether it has begun.
        """
        there = self.read()
        if there is None or (there.revision, there.held, there.held_at) != (
            job.revision,
            job.held,
            job.held_at,
        ):
            raise Conflict(job.spec.id)

    def _write(self, found: Iterable[Execution], to: History) -> None:
        for each in found:
            if not holds.is_left_to_claim(self.hold, each):
                to.append(each)

    # -- claims

    def claim(
        self, token: int, worker: str, now: datetime, lease: timedelta, revision: int, to: History
    ) -> Claim | None:
        """Hand the job out, which is :meth:`due`; a hold that is there was lost."""
        if self.hold is not None:
            job, found = holds.lapse(self.job, self.hold, now=now)
            if job is not None and job is not self.job:
                self.job = evolve(job, revision=revision)
            self.hold = None
            for each in found:
                to.append(each)
        job = self.job
        if job is None or job.standing.due_at is None or job.standing.due_at > now:
            return None
        self.hold = holds.held(job, current(job.standing), token, worker, now, lease)
        return Claim(job, token, worker, now, self.hold.expires_at)

    def renew(
        self, claim: Claim, now: datetime, lease: timedelta, *, alone: bool = False
    ) -> Claim | None:
        """Extend the lease; tell the holder where the run is to end."""
        hold = self.hold
        if hold is None or not holds.is_held_by(hold, claim):
            return None
        self.hold = holds.renewed(hold, now, lease, alone=alone)
        cancel = holds.is_to_be_cancelled(self.job, hold)
        return evolve(claim, expires_at=self.hold.expires_at, cancel=cancel)

    def release(self, claim: Claim, now: datetime, to: History) -> None:
        """Free a claim whose handler was not called; what was edited away meanwhile ends."""
        hold = self.hold
        if hold is None or not holds.is_held_by(hold, claim):
            return
        self.hold = None
        for each in holds.freed(self.job, hold, now=now):
            to.append(each)

    def settle(self, settlement: Settlement, now: datetime, revision: int, to: History) -> Settled:
        """End a claim with its standing and its executions, or say why not."""
        claim, job, standing, hold = settlement.claim, self.job, settlement.standing, self.hold
        fence = claim.token, claim.worker
        if hold is None or not holds.is_held_by(hold, claim):
            found = tuple(to.stored(each.id) for each in settlement.executions)
            repeat = self.ended == fence or holds.is_repeat(settlement, found)
            return WRITTEN if repeat else CLAIM_LOST
        if standing is not None and (job is None or job.revision != settlement.expected):
            return Settled("conflict", self.read())
        for each in holds.freed(job, hold, settlement.executions, now=now):
            to.append(each)
        self.hold, self.ended = None, fence
        if job is not None and standing is not None:
            self.job = evolve(job, standing=standing, revision=revision)
        return WRITTEN
