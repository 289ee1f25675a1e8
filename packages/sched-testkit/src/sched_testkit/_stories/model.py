"""What the port's sentences say, as a small program: the judge of whole sequences of calls.

It is written from ``sched_core.ports`` and the guide for authors alone. It shares no code with the
backends, with ``sched_core.row`` or with the rules, so that a fault there is not believed here. It
takes each call with the backend's answer, says what it expected if they differ, and goes on from
what a backend may choose: numbers of revisions and tokens, how long a lost occurrence waits within
its bounds, and what is called a *freedom* below.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import evolve

from sched_core import (
    Claim,
    Claimed,
    Execution,
    Hold,
    Job,
    JobAlreadyExists,
    JobNotFound,
    Renewal,
    RevisionConflict,
    Room,
    Settled,
    Settlement,
    Status,
)
from sched_testkit._stories.difference import Differs, expect, same
from sched_testkit._stories.entry import (
    Entry,
    Fence,
    count_of_lost,
    fence_of,
    has_expired,
    kept_by,
    next_of,
    owed,
    pending_of,
    wait_after,
    with_one,
)
from sched_testkit._stories.filters import counts_under

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
        """Written by the last call, by job. A freedom: their order across jobs, within one call."""
        self.gone: set[str] = set()
        """Workers that have ended. A freedom: their claims may be lost before the lease ends."""
        self._waits: dict[str, tuple[int, datetime, datetime]] = {}
        """A lost occurrence that waits, by job: its number, and from when until when it is due."""
        self._revisions: dict[str, set[int]] = {}
        self._tokens: dict[str, int] = {}
        self._fences: set[tuple[str, Fence]] = set()

    def entry(self, job_id: str) -> Entry:
        """Return what is stored under the id, maybe nothing."""
        return self.entries.setdefault(job_id, Entry())

    def job(self, job_id: str) -> Job | None:
        """Return the job as the model would read it."""
        return self.entry(job_id).seen()

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
        """Expect the backend to show the job that is stored, and remember what it chose."""
        entry = self.entry(job.id)
        stored = entry.job
        if stored is None:
            raise Differs(f"{job.id!r} is not stored, and was shown: {job!r}")
        if stored.revision == UNSEEN:
            had = self._revisions.setdefault(job.id, set())
            expect(job.revision not in had, f"{job.id!r} had the revision {job.revision} before")
            had.add(job.revision)
            entry.job = stored = evolve(stored, revision=job.revision)
        self._waited(entry, stored, job)
        same(entry.seen(), job, f"the job {job.id!r}")

    def _waited(self, entry: Entry, stored: Job, job: Job) -> None:
        """Go on from how long a lost occurrence waits, if that is within bounds."""
        waits = self._waits.pop(job.id, None)
        if waits is None:
            return
        number, since, until = waits
        mine, theirs = stored.standing.find(number), job.standing.find(number)
        if mine is None or theirs is None:
            return
        expect(
            max(mine.due_at, since) <= theirs.due_at <= max(mine.due_at, until),
            f"after a lost claim {job.id!r} is due at {theirs.due_at}, not in [{since}, {until}]",
        )
        waiting = with_one(stored.standing, evolve(mine, due_at=theirs.due_at))
        entry.job = evolve(stored, standing=waiting)

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
        """Compare what was read, keep the hold, write no execution of what is held."""
        if self._edits(job, got):
            self._store(job)
            self._write_or_leave(self.entry(job.id), executions)
            self._answered(got, Job)
            self.shown(got)

    def remove(self, job: Job, executions: Sequence[Execution], got: Any) -> None:
        """Compare what was read; a hold stays behind."""
        if self._edits(job, got):
            same(None, got, f"remove({job.id!r})")
            entry = self.entry(job.id)
            self._write_or_leave(entry, executions)
            self.entries[job.id] = Entry(hold=entry.hold)

    def _edits(self, job: Job, got: Any) -> bool:
        """Whether a job is still what was read; expect a refusal where it is not."""
        stored = self.job(job.id)
        if stored is None:
            self._refused(got, JobNotFound)
            return False
        read = job.uid, job.revision, job.held, job.held_at
        if read != (stored.uid, stored.revision, stored.held, stored.held_at):
            self._refused(got, RevisionConflict)
            return False
        return True

    def _store(self, job: Job) -> None:
        self.entry(job.id).job = evolve(job, revision=UNSEEN, held=None, held_at=None)

    # -- claims

    def claim_due(self, room: Room, now: datetime, worker: str, got: Any) -> None:
        """End claims whose lease has ended; then hand out what is due and free, oldest first."""
        self._answered(got, Claimed)
        ids = [claim.job.id for claim in got.claims]
        told = {each.token for each in got.lapsed}
        lapsed: list[Execution] = []
        for job_id, entry in self.entries.items():
            hold = entry.hold
            if hold is None:
                continue
            early = hold.worker in self.gone and (hold.token in told or job_id in ids)
            if early or hold.expires_at <= now:
                lapsed += self._lose(job_id, hold, now)
        for each in {one.job_id for one in (*lapsed, *got.lapsed)}:
            expected = [one for one in lapsed if one.job_id == each]
            same(expected, [one for one in got.lapsed if one.job_id == each], f"lapsed of {each!r}")
        expect(len(set(ids)) == len(ids), f"a job was handed out twice: {ids}")
        for job_id in ids:
            expect(self._is_due(job_id, now), f"{job_id!r} is not due or not free: got {ids}")
            taken = self._lane(room, job_id) is not None
            expect(taken, f"{job_id!r} does not fit into {room}: got {ids}")
        self._oldest(room, ids, {key for key in self.entries if self._is_due(key, now)} - set(ids))
        for claim in got.claims:
            self._hand_out(claim, now, worker)

    def _oldest(self, room: Room, ids: Sequence[str], rest: set[str]) -> None:
        """Compare what was handed out with the room, and with what was left out."""
        limit = room.limit
        expect(len(ids) <= limit, f"expected up to {limit} claims, got {ids}")
        lanes = [self._lane(room, job_id) for job_id in ids]
        left = []
        for lane in {self._lane(room, job_id) for job_id in (*ids, *rest)} - {None}:
            most = limit if room.queues is None else room.queues[str(lane)]
            expect(lanes.count(lane) <= most, f"expected up to {most} of {lane!r}, got {ids}")
            mine = [job_id for job_id in rest if self._lane(room, job_id) == lane]
            if lanes.count(lane) < most:
                left += mine
            for job_id in (job_id for job_id in ids if self._lane(room, job_id) == lane):
                self._in_order(job_id, mine, ids)
        expect(len(ids) == limit or not left, f"{sorted(left)} were left out: got {ids}")
        for place, first in enumerate(ids):
            self._in_order(first, [*ids[place + 1 :], *left], ids)

    def _in_order(self, first: str, others: Iterable[str], ids: Sequence[str]) -> None:
        for other in others:
            earlier = self._due_at(first) <= self._due_at(other)
            expect(earlier, f"{other!r} was due before {first!r}: got {ids}")

    def _lane(self, room: Room, job_id: str) -> str | None:
        """Return under which name of the room's queues a job counts, None if it does not fit."""
        job = self.job(job_id)
        refused = room.accepts is not None and not room.accepts(job_id)
        return None if job is None or refused else counts_under(room.queues, job.spec.queue)

    def _due_at(self, job_id: str) -> datetime:
        """Return by what a job comes before others. A freedom: the order of those due at once."""
        job = self.job(job_id)
        due = None if job is None else job.standing.due_at
        if due is None:
            raise Differs(f"{job_id!r} is never due, and was handed out")
        return due

    def _is_due(self, job_id: str, now: datetime) -> bool:
        entry = self.entry(job_id)
        due = None if entry.job is None or entry.hold is not None else entry.job.standing.due_at
        return due is not None and due <= now

    def _hand_out(self, claim: Claim, now: datetime, worker: str) -> None:
        job_id = claim.job.id
        entry = self.entry(job_id)
        self.shown(claim.job)
        job = entry.job
        if job is None:
            raise Differs(f"{job_id!r} is not stored, and was handed out")
        newest = self._tokens.get(job_id, 0)
        expect(claim.token > newest, f"the token of {job_id!r} was {newest}, now {claim.token}")
        self._tokens[job_id] = claim.token
        until = now + self.lease
        same(Claim(job, claim.token, worker, now, until), claim, f"the claim of {job_id!r}")
        entry.hold = Hold(
            job_id,
            job.uid,
            claim.token,
            worker,
            now,
            now,
            until,
            next_of(job.standing),
            kept_by(job),
            queue=job.spec.queue,
        )

    def _lose(self, job_id: str, hold: Hold, now: datetime) -> list[Execution]:
        """End a claim whose lease has ended; return what is written."""
        entry = self.entry(job_id)
        one, job = entry.pending(), entry.job
        entry.hold = None
        written: list[Execution] = []
        if hold.pending is not None:
            written.append(owed(hold, now, Status.ABANDONED, hold.pending.attempts + 1))
        if one is not None and job is not None:
            self._count(entry, job, hold, now)
        elif hold.pending is not None:
            written.append(owed(hold, now, Status.SUPERSEDED, 0))
        if job is None:
            self.entries[job_id] = Entry()
        return self._write(written)

    def _count(self, entry: Entry, job: Job, hold: Hold, now: datetime) -> None:
        """Count the attempt that was lost, and have it wait."""
        one = pending_of(job, hold)
        if one is None or hold.pending is None:
            return
        most = job.spec.policy.max_lost
        count = count_of_lost(one, most, hold)
        lost = evolve(
            one,
            attempts=hold.pending.attempts + 1,
            lost=count,
            began_at=one.began_at or hold.claimed_at,
        )
        # What is pending does not expire: a finished job may be deleted, and this one goes on.
        if count < most and not job.standing.is_marked(one.number):
            least, longest = wait_after(count)
            self._waits[job.id] = one.number, now + least, now + longest
            lost = evolve(lost, due_at=max(one.due_at, now + least))
        waiting = evolve(with_one(job.standing, lost), expires_at=None)
        self._store(evolve(job, standing=waiting))

    def renew(self, renewals: Sequence[Renewal], now: datetime, got: Any) -> None:
        """Extend what is still held, and tell what is to be cancelled. A freedom: the order."""
        self._answered(got, list)
        held = {}
        for renewal in renewals:
            claim, entry = renewal.claim, self.holder(renewal.claim)
            if entry is None or entry.hold is None:
                continue
            hold = entry.hold
            until = max(hold.expires_at, now + self.lease)
            alone = (hold.alone_at or now) if renewal.alone else None
            entry.hold = evolve(hold, renewed_at=now, expires_at=until, alone_at=alone)
            held[claim.job.id, claim.token] = evolve(
                claim, expires_at=until, cancel=self._is_marked(entry)
            )
        answered = {(claim.job.id, claim.token): claim for claim in got}
        expect(len(answered) == len(got), f"a claim was renewed twice: {sorted(answered)}")
        expect(
            answered.keys() == held.keys(),
            f"expected {sorted(held)} to be held, got {sorted(answered)}",
        )
        for key, claim in held.items():
            same(claim, answered[key], f"the renewed claim of {key[0]!r}")

    def _is_marked(self, entry: Entry) -> bool:
        """Whether what is held is to be cancelled, be it edited away or not."""
        job, hold = entry.job, entry.hold
        if job is None or hold is None or hold.pending is None or job.uid != hold.uid:
            return False
        return job.standing.is_marked(hold.pending.number)

    def release(self, claims: Sequence[Claim], now: datetime, got: Any) -> None:
        """Free what is held, as if it had not been handed out."""
        same(None, got, "release()")
        for claim in claims:
            entry = self.holder(claim)
            if entry is not None:
                self._free(claim.job.id, entry, (), now)

    def _free(
        self, job_id: str, entry: Entry, executions: Sequence[Execution], now: datetime
    ) -> None:
        """End a claim: what is not there any more ends with it."""
        hold, one = entry.hold, entry.pending()
        entry.hold = None
        written = list(executions)
        over = any(each.final for each in executions)
        if hold is not None and hold.pending is not None and one is None and not over:
            written.append(owed(hold, now, Status.SUPERSEDED, 0))
        self._write(written)
        if entry.job is None:
            self.entries[job_id] = Entry()

    def settle(self, settlements: Sequence[Settlement], now: datetime, got: Any) -> None:
        """Judge each by what is stored, in order, whatever becomes of its neighbours."""
        self._answered(got, list)
        expect(len(got) == len(settlements), f"expected {len(settlements)} answers, got {len(got)}")
        for settlement, answer in zip(settlements, got, strict=True):
            allowed = self._settle(settlement, now)
            if (
                isinstance(answer, Settled)
                and answer.job is not None
                and allowed[0].job is not None
            ):
                self.shown(answer.job)
                allowed = [evolve(allowed[0], job=self.job(answer.job.id))]
            if not any(answer == one for one in allowed):
                same(allowed[0], answer, f"settling {settlement.claim.job.id!r}")

    def _settle(self, settlement: Settlement, now: datetime) -> list[Settled]:
        claim, standing = settlement.claim, settlement.standing
        job_id, fence = claim.job.id, fence_of(claim)
        entry = self.holder(claim)
        written, lost = Settled("written"), Settled("claim_lost")
        if entry is None:
            stored = [self._stored(each.id) for each in settlement.executions]
            is_there = (
                each is not None and (each.token, each.worker, each.status) == (*fence, mine.status)
                for each, mine in zip(stored, settlement.executions, strict=True)
            )
            newest = self.entry(job_id).settled
            if (newest is not None and fence_of(newest.claim) == fence) or (
                stored and all(is_there)
            ):
                return [written]
            # A freedom: how long a store remembers a settlement of which nothing is stored.
            return [lost, written] if (job_id, fence) in self._fences else [lost]
        job = entry.job
        conflict = Settled("conflict", entry.seen())
        if standing is not None and (job is None or job.revision != settlement.expected):
            return [conflict]
        ends = any(each.final and entry.left_to_claim(each) for each in settlement.executions)
        if standing is None and ends and entry.pending() is not None:
            return [conflict]
        self._free(job_id, entry, settlement.executions, now)
        self._fences.add((job_id, fence))
        if job is not None:
            entry.settled = settlement
            if standing is not None:
                self._store(evolve(job, standing=standing))
        return [written]

    # -- the history

    def _stored(self, execution_id: str) -> Execution | None:
        return next((each for each in self._all() if each.id == execution_id), None)

    def _all(self) -> Iterator[Execution]:
        yield from self.history
        for executions in self.owed.values():
            yield from executions

    def _write_or_leave(self, entry: Entry, executions: Iterable[Execution]) -> None:
        self._write([each for each in executions if not entry.left_to_claim(each)])
        for each in executions:
            if entry.left_to_claim(each):
                entry.covers(each)

    def _write(self, executions: Sequence[Execution]) -> list[Execution]:
        for each in executions:
            if self._stored(each.id) is None:
                self.owed.setdefault(each.job_id, []).append(each)
        return list(executions)

    def listed(self, executions: Sequence[Execution], now: datetime, *, ordered: bool) -> None:
        """Expect the backend to list the whole history, newest first; go on from its order."""
        found = [*executions][::-1]
        ids = {each.id for each in found}
        # A freedom: from expires_at on an execution may be gone, and before that not.
        kept = [each for each in self.history if each.id in ids or not has_expired(each, now)]
        both = kept, found
        if not ordered:
            both = sorted(kept, key=_job_of), sorted(found, key=_job_of)
        known, listed = both
        for name in {each.job_id for each in (*listed, *self._all())}:
            expected = [one for one in known if one.job_id == name] + self.owed.get(name, [])
            same(expected, [one for one in listed if one.job_id == name], f"history of {name!r}")
        if ordered:
            same(known, listed[: len(known)], "the history before this call")
        self.history, self.owed = found, {}

    def prune(self, before: datetime, now: datetime, got: Any) -> None:
        """Delete what ended before, and what has expired; nothing that is claimed."""
        kept = [
            each
            for each in self.history
            if each.finished_at >= before and not has_expired(each, now)
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


def _job_of(execution: Execution) -> str:
    return execution.job_id
