"""Judges the stored jobs by what was commanded, claimed and written."""

from __future__ import annotations

from datetime import datetime

from attrs import Factory, define

from sched_core import Cron, FixedDelay, Interval, Job, State
from sched_testkit._oracle.claims import Claims
from sched_testkit._oracle.incarnations import Incarnation
from sched_testkit._oracle.known import Known
from sched_testkit._oracle.observed import Observed
from sched_testkit._oracle.violation import Violation, at
from sched_testkit._stories.entry import due_of, pendings

ENDLESS = Interval, Cron, FixedDelay


@define
class StoredJobs:
    """Reads the jobs of a store.

    Attributes:
        known: What was commanded.
        observed: What was seen of each occurrence.
        claims: The claims that hold jobs.
        jobs: The jobs as they were read last, by id.
        latest: The latest moment at which they were read.
    """

    known: Known
    observed: Observed
    claims: Claims
    jobs: dict[str, Job] = Factory(dict)
    latest: datetime | None = None

    def read(self, jobs: dict[str, Job], now: datetime) -> None:
        """Judge all stored jobs."""
        self._see(now)
        self.jobs = jobs
        current = self.known.current
        for job_id, job in jobs.items():
            incarnation = current.get(job_id)
            if incarnation is None:
                raise Violation(f"job {job_id!r} is stored though it was removed")
            self.judge(incarnation, job, now)
            held = [hold for hold in self.claims.open_of(job.id) if hold.claim.job.uid == job.uid]
            number = held[0].pending.number if held and held[0].pending is not None else None
            if job.held != number:
                raise Violation(f"job {job_id!r}: {job.held} is told to be held, and {number} is")
        for job_id, incarnation in list(current.items()):
            if job_id in jobs:
                continue
            keep = None if incarnation.spec is None else incarnation.spec.policy.keep_finished
            if incarnation.declared or keep is None or not incarnation.is_over:
                raise Violation(f"job {job_id!r} has vanished")
            incarnation.removed = self.known.next_seq()
            del current[job_id]

    def judge(self, incarnation: Incarnation, job: Job, now: datetime) -> None:
        """Judge a job as it is stored now."""
        about, standing = f"job {job.id!r}", job.standing
        self._see(now)
        if job.uid != incarnation.uid:
            raise Violation(f"{about} is the incarnation {job.uid}, not {incarnation.uid}")
        if job.spec != incarnation.spec:
            raise Violation(
                f"{about} has another definition than the last accepted: an edit was lost"
            )
        if job.declared != incarnation.declared:
            raise Violation(f"{about}: declared is {job.declared}")
        if job.revision < incarnation.revision or standing.last_number < incarnation.highest:
            raise Violation(f"{about}: its revision or its newest number went back")
        incarnation.revision, incarnation.highest = job.revision, standing.last_number
        incarnation.is_over = job.state is State.FINISHED
        endless = isinstance(incarnation.eras[-1].schedule, ENDLESS)
        if endless and standing.scheduled is None:
            raise Violation(f"{about} has no occurrence to come, and its schedule has no end")
        self._judge_pause(incarnation, job, now)
        self._judge_names(job)

    def _see(self, now: datetime) -> None:
        self.latest = now if self.latest is None else max(self.latest, now)

    def _judge_pause(self, incarnation: Incarnation, job: Job, now: datetime) -> None:
        """Learn of pauses that have ended on their own, or that failures have made."""
        pause, seq = job.standing.pause, self.known.seq
        if pause is None and not incarnation.resumed:
            until, in_force = incarnation.pauses[-1].end, incarnation.paused_at(now) is not None
            if job.standing.due_at is None and in_force:
                incarnation.resume(seq, now)  # a finished job is not paused
            elif until is not None and self.latest is not None and until <= self.latest:
                incarnation.resume(seq)
            elif in_force:
                raise Violation(f"job {job.id!r} is active, though it was paused")
        elif pause is not None and pause.until is None and incarnation.paused_at(now) is None:
            if job.spec.policy.pause_after is None:
                raise Violation(f"job {job.id!r} is paused, and no command asked for it")
            incarnation.pause(pause.since, None, seq, None)

    def _judge_names(self, job: Job) -> None:
        """Expect that each pending occurrence has one number, and is due when it says."""
        standing, observed = job.standing, self.observed
        ones = [*pendings(standing)]
        numbers = [one.number for one in ones]
        if len(set(numbers)) < len(numbers) or max(numbers, default=0) > standing.last_number:
            raise Violation(f"job {job.id!r}: numbers {numbers} up to {standing.last_number}")
        for one in ones:
            key, name = (job.uid, one.number), (one.kind, one.scheduled_at)
            if key in observed.finals:
                raise Violation(
                    f"job {job.id!r}: {one.number} is pending, and has its final execution"
                )
            if observed.names.get(key, name) != name:
                raise Violation(f"job {job.id!r}: {one.number} is another one than before")
            asked = None if job.held == one.number else observed.asked.get(key)
            waits_until, is_cancelled = one.retry_at or one.due_at, standing.is_marked(one.number)
            if asked not in {None, waits_until} and not (is_cancelled or self.known.set_back):
                raise Violation(
                    f"job {job.id!r}: {one.number} waits until {at(waits_until)}, "
                    f"and its handler asked for {at(asked)}"
                )
        due = due_of(standing)
        if standing.due_at != due:
            raise Violation(f"job {job.id!r} is due {at(standing.due_at)}, not {at(due)}")

    def expect_claimed(self, moment: datetime) -> None:
        """Expect that a worker has claimed each job that was due at the moment."""
        for job_id, job in self.jobs.items():
            due = job.standing.due_at
            if due is not None and due <= moment and not any(self.claims.open_of(job_id)):
                raise Violation(f"job {job_id!r} is due {at(due)}, and was left undone")
