"""What the port's sentences say, as a small program: the judge of whole sequences of calls.

It is written from ``sched_core.ports`` and the guide for authors alone. It shares no code with the
backends or with ``sched_core.row``, so that a fault there is not believed here. It takes each call
with the backend's answer, says what it expected if they differ, and goes on from what a backend may
choose: numbers of revisions and tokens, and what is called a *freedom* below.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import evolve

from sched_core.errors import JobAlreadyExists, JobNotFound, RevisionConflict
from sched_core.job import (
    Claim,
    Execution,
    Job,
    LostClaim,
    Settled,
    Settlement,
    Status,
)
from sched_testkit.difference import Differs, expect, same
from sched_testkit.entry import Entry, Fence, fence_of, has_expired, owed_execution

UNSEEN = -1
"""The revision of what was written when the backend has not shown it yet."""


class Model:
    """A store of jobs, claims and history.

    Args:
        lease: How long a claim lives.
    """

    def __init__(self, lease: timedelta) -> None:
        self.lease = lease
        self.entries: dict[str, Entry] = {}
        self.history: list[Execution] = []
        """Oldest first."""
        self.owed: dict[str, list[Execution]] = {}
        """Executions of the last call, by job. A freedom: their order across jobs, within one call."""
        self.doubtful: set[str] = set()
        """Removed jobs whose lost claim the last call may have cleared away."""
        self.gone: set[str] = set()
        """Workers that have ended. A freedom: their claims may be lost before the lease ends."""
        self._revisions: dict[str, set[int]] = {}
        self._tokens: dict[str, int] = {}
        self._fences: set[tuple[str, Fence]] = set()

    def entry(self, job_id: str) -> Entry:
        """Return what is stored under the id, maybe nothing."""
        return self.entries.setdefault(job_id, Entry())

    def job(self, job_id: str) -> Job | None:
        """Return the job as the model knows it."""
        return self.entry(job_id).job

    def holder(self, claim: Claim) -> Entry | None:
        """Return the entry that the claim holds: same token and same worker; time plays no part."""
        entry = self.entry(claim.job.id)
        hold = entry.hold
        return entry if hold is not None and fence_of(hold) == fence_of(claim) else None

    # -- definitions

    def add(self, jobs: Sequence[Job], got: Any) -> None:
        """All or none; what is stored already with its uid is a repeat."""
        ids = [job.id for job in jobs]
        stored = [self.job(job.id) for job in jobs]
        taken = any(
            old is not None and old.uid != job.uid for old, job in zip(stored, jobs, strict=True)
        )
        if taken or len(set(ids)) < len(ids):
            self._refused(got, JobAlreadyExists)
            return
        for job in jobs:
            if self.job(job.id) is None:
                self._store(job)
        self._answered(got, list)
        same(ids, [job.id for job in got], "the ids of add's answer")
        for job in got:
            self.shown(job)

    def shown(self, job: Job) -> None:
        """Expect the backend to show the job that is stored, and remember its revision."""
        stored = self.job(job.id)
        if stored is None:
            raise Differs(f"{job.id!r} is not stored, and was shown: {job!r}")
        if stored.revision == UNSEEN:
            had = self._revisions.setdefault(job.id, set())
            expect(job.revision not in had, f"{job.id!r} had the revision {job.revision} before")
            had.add(job.revision)
            self.entry(job.id).job = stored = evolve(stored, revision=job.revision)
        same(stored, job, f"the job {job.id!r}")

    def get(self, job_id: str, got: Any, now: datetime) -> None:
        """Tell the job, or None. A freedom: what has expired may be gone before it is pruned."""
        entry = self.entry(job_id)
        job = None if entry.hold else entry.job
        if got is None and job is not None and has_expired(job.standing, now):
            self.entries[job_id] = Entry()
        if isinstance(got, Job) and self.job(job_id) is not None:
            self.shown(got)
        else:
            same(self.job(job_id), got, f"get({job_id!r})")

    def replace(self, job: Job, executions: Sequence[Execution], got: Any) -> None:
        """Compare the revision, keep the hold, write no execution about what is held."""
        stored = self.job(job.id)
        if stored is None:
            self._refused(got, JobNotFound)
        elif stored.revision != job.revision:
            self._refused(got, RevisionConflict)
        else:
            self._store(job)
            self._write_beside(self.entry(job.id).hold, executions)
            self._answered(got, Job)
            self.shown(got)

    def remove(
        self, job_id: str, executions: Sequence[Execution], expected: int | None, got: Any
    ) -> None:
        """Compare the revision, if one is expected; a hold stays behind."""
        entry = self.entry(job_id)
        if entry.job is None:
            same(False, got, f"remove({job_id!r})")
        elif expected not in {None, entry.job.revision}:
            self._refused(got, RevisionConflict)
        else:
            same(True, got, f"remove({job_id!r})")
            self.entries[job_id] = Entry(hold=entry.hold)
            self._write_beside(entry.hold, executions)

    def _store(self, job: Job) -> None:
        self.entry(job.id).job = evolve(job, revision=UNSEEN)

    # -- claims

    def claim_due(self, limit: int, now: datetime, worker: str, got: Any) -> None:
        """Hand out what is due, oldest first; what was lost is told, and gets its executions."""
        self._answered(got, list)
        must = {job_id for job_id in self.entries if self._is_due(job_id, now)}
        may = must | {job_id for job_id in self.entries if self._is_due(job_id, now, early=True)}
        removed = {job_id for job_id in may if self.job(job_id) is None}
        ids = [claim.job.id for claim in got]
        expect(len(set(ids)) == len(ids), f"a job was handed out twice: {ids}")
        expect(set(ids) <= may - removed, f"expected some of {sorted(may - removed)}, got {ids}")
        rest = must - removed - set(ids)
        expect(len(ids) <= limit, f"expected up to {limit} claims, got {ids}")
        expect(len(ids) == limit or not rest, f"{sorted(rest)} were left out: got {ids}")
        for place, first in enumerate(ids):
            for other in (*ids[place + 1 :], *rest):
                earlier = self._due_at(first) <= self._due_at(other)
                expect(earlier, f"{other!r} was due before {first!r}: got {ids}")
        for claim in got:
            self._hand_out(claim, now, worker)
        for job_id in removed & must if len(ids) < limit else ():
            self._lose(job_id, now)
        # A freedom: a claim that is full may leave the rest of removed jobs to the next.
        self.doubtful = {job_id for job_id in removed if self.entry(job_id).hold is not None}
        self._doubted_at = now

    def _due_at(self, job_id: str) -> datetime:
        """Return by what a job comes before others. A freedom: the order of those due at once."""
        job = self.job(job_id)
        due = None if job is None else job.standing.due_at
        if due is None:
            raise Differs(f"{job_id!r} is never due, and was handed out")
        return due

    def _is_due(self, job_id: str, now: datetime, *, early: bool = False) -> bool:
        """Whether a claim looks at it; early: because its holder has ended."""
        hold = self.entry(job_id).hold
        ages = self._ages(job_id)
        if early and ages and hold is not None and hold.worker in self.gone:
            ages -= {hold.expires_at}
            return all(age <= now for age in ages)
        return bool(ages) and max(ages) <= now

    def _ages(self, job_id: str) -> set[datetime]:
        """Return the due moment, and the end of the lease if it is held; empty for never."""
        entry = self.entry(job_id)
        lease = set() if entry.hold is None else {entry.hold.expires_at}
        if entry.job is None:
            return lease
        due = entry.job.standing.due_at
        return set() if due is None else {due} | lease

    def _hand_out(self, claim: Claim, now: datetime, worker: str) -> None:
        job_id = claim.job.id
        entry = self.entry(job_id)
        lost = self._lose(job_id, now)
        if lost is None and entry.lost is not None and entry.is_at(*entry.lost[1:]):
            lost = entry.lost[0]
        self.shown(claim.job)
        if entry.job is None:
            raise Differs(f"{job_id!r} is not stored, and was handed out")
        newest = self._tokens.get(job_id, 0)
        expect(claim.token > newest, f"the token of {job_id!r} was {newest}, now {claim.token}")
        self._tokens[job_id] = claim.token
        entry.lost = None
        entry.hold = Claim(entry.job, claim.token, worker, now, now + self.lease, lost)
        same(entry.hold, claim, f"the claim of {job_id!r}")

    def _lose(self, job_id: str, now: datetime) -> LostClaim | None:
        """Take a claim away, with its executions; return what the next one is told."""
        entry = self.entry(job_id)
        hold, entry.hold = entry.hold, None
        if hold is None:
            return None
        lost = 0 if hold.lost is None else hold.lost.count
        attempt = hold.job.standing.attempts + lost + 1
        self._write([owed_execution(hold, now, Status.ABANDONED, attempt)])
        if not entry.is_at(hold.job.uid, hold.job.standing.number):
            self._write([owed_execution(hold, now, Status.SUPERSEDED, 0)])
            return None
        return LostClaim(lost + 1, hold.worker, hold.claimed_at)

    def renew(self, claims: Sequence[Claim], now: datetime, got: Any) -> None:
        """Extend what is still held. A freedom: the order of the answer."""
        self._answered(got, list)
        held = {}
        for claim in claims:
            entry = self.holder(claim)
            if entry is not None and entry.hold is not None:
                entry.hold = evolve(entry.hold, expires_at=now + self.lease)
                held[claim.job.id, claim.token] = entry.hold
        answered = {(claim.job.id, claim.token): claim for claim in got}
        expect(len(answered) == len(got), f"a claim was renewed twice: {sorted(answered)}")
        expect(
            answered.keys() == held.keys(),
            f"expected {sorted(held)} to be held, got {sorted(answered)}",
        )
        for key, claim in held.items():
            same(claim, answered[key], f"the renewed claim of {key[0]!r}")

    def release(self, claims: Sequence[Claim], now: datetime, got: Any) -> None:
        """Free what is held, as if it had not been handed out."""
        same(None, got, "release()")
        for claim in claims:
            entry = self.holder(claim)
            if entry is None or entry.hold is None:
                continue
            hold, entry.hold = entry.hold, None
            occurrence = hold.job.uid, hold.job.standing.number
            if not entry.is_at(*occurrence):
                self._write([owed_execution(hold, now, Status.SUPERSEDED, 0)])
            elif hold.lost is not None:
                entry.lost = hold.lost, *occurrence

    def settle(self, settlements: Sequence[Settlement], got: Any) -> None:
        """Judge each by what is stored, in order, whatever becomes of its neighbours."""
        self._answered(got, list)
        expect(len(got) == len(settlements), f"expected {len(settlements)} answers, got {len(got)}")
        for settlement, answer in zip(settlements, got, strict=True):
            allowed = self._settle(settlement)
            if not any(answer == one for one in allowed):
                same(allowed[0], answer, f"settling {settlement.claim.job.id!r}")

    def _settle(self, settlement: Settlement) -> list[Settled]:
        claim = settlement.claim
        entry = self.holder(claim)
        written, lost = Settled("written"), Settled("claim_lost")
        if entry is None:
            if (claim.job.id, fence_of(claim)) not in self._fences:
                return [lost]
            stored = [self._execution(execution.id) for execution in settlement.executions]
            if self.entry(claim.job.id).settled == settlement or (
                stored and all(map(_is_what_it_wrote, stored, settlement.executions))
            ):
                return [written]
            # A freedom: how long a store remembers a settlement whose executions it has not (any more).
            return [written, lost]
        job, standing = entry.job, settlement.standing
        conflict = Settled("conflict", job)
        if standing is not None and (job is None or job.revision != settlement.expected):
            return [conflict]
        finals = [execution for execution in settlement.executions if execution.final]
        if any(
            self._execution(execution.id) is None and self._ended(execution) for execution in finals
        ):
            return [conflict]
        stays = standing is None and entry.is_at(claim.job.uid, claim.job.standing.number)
        if stays and any(entry.is_at(execution.uid, execution.number) for execution in finals):
            return [conflict]
        self._write(settlement.executions)
        entry.hold, entry.settled = None, settlement
        self._fences.add((claim.job.id, fence_of(claim)))
        if job is None:
            self.entries[claim.job.id] = Entry()
        elif standing is not None:
            self._store(evolve(job, standing=standing))
        return [written]

    # -- the history

    def _execution(self, execution_id: str) -> Execution | None:
        return next((execution for execution in self._all() if execution.id == execution_id), None)

    def _ended(self, about: Execution) -> bool:
        occurrence = about.uid, about.number
        return any(
            execution.final and (execution.uid, execution.number) == occurrence
            for execution in self._all()
        )

    def _all(self) -> Iterator[Execution]:
        yield from self.history
        for executions in self.owed.values():
            yield from executions

    def _write_beside(self, hold: Claim | None, executions: Iterable[Execution]) -> None:
        held = None if hold is None else (hold.job.uid, hold.job.standing.number)
        self._write(
            [execution for execution in executions if (execution.uid, execution.number) != held]
        )

    def _write(self, executions: Iterable[Execution]) -> None:
        for execution in executions:
            if self._execution(execution.id) is None and not (
                execution.final and self._ended(execution)
            ):
                self.owed.setdefault(execution.job_id, []).append(execution)

    def listed(self, executions: Sequence[Execution], now: datetime, *, ordered: bool) -> None:
        """Expect the backend to list the whole history, newest first; go on from its order."""
        found = [*executions][::-1]
        for job_id in sorted(self.doubtful):
            hold = self.entry(job_id).hold
            tokens = {
                execution.token for execution in found if execution.status is Status.ABANDONED
            }
            if hold is not None and hold.token in tokens:
                self._lose(job_id, self._doubted_at)
        self.doubtful.clear()
        ids = {execution.id for execution in found}
        # A freedom: from expires_at on an execution may be gone, and before that not.
        kept = [
            execution
            for execution in self.history
            if execution.id in ids or not has_expired(execution, now)
        ]
        both = kept, found
        if not ordered:
            both = sorted(kept, key=_job_of), sorted(found, key=_job_of)
        known, listed = both
        for each in {execution.job_id for execution in (*listed, *self._all())}:
            expected = [
                execution for execution in known if execution.job_id == each
            ] + self.owed.get(each, [])
            same(
                expected,
                [execution for execution in listed if execution.job_id == each],
                f"executions of {each!r}",
            )
        if ordered:
            same(known, listed[: len(known)], "the history before this call")
        self.history, self.owed = found, {}

    def prune(self, before: datetime, now: datetime, got: Any) -> None:
        """Delete what ended before, and what has expired; nothing that is claimed."""
        kept = [
            execution
            for execution in self.history
            if execution.finished_at >= before and not has_expired(execution, now)
        ]
        expired = [
            job_id
            for job_id, entry in self.entries.items()
            if entry.hold is None and entry.job is not None and has_expired(entry.job.standing, now)
        ]
        same(len(self.history) - len(kept) + len(expired), got, "how many were pruned")
        self.history = kept
        for job_id in expired:
            self.entries[job_id] = Entry()

    # -- answers

    def _answered(self, got: Any, kind: type) -> None:
        expect(isinstance(got, kind), f"expected an answer, got {got!r}")

    def _refused(self, got: Any, error: type[Exception]) -> None:
        expect(type(got) is error, f"expected {error.__name__}, got {got!r}")


def _is_what_it_wrote(stored: Execution | None, execution: Execution) -> bool:
    return stored is not None and (stored.token, stored.worker, stored.status) == (
        execution.token,
        execution.worker,
        execution.status,
    )


def _job_of(execution: Execution) -> str:
    return execution.job_id
