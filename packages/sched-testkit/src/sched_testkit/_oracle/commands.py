"""Judges what commands return, and remembers what they have changed.

The oracle gets each job as it was read before the command, because what an edit makes of an
occurrence depends on whether it has begun.
"""

from __future__ import annotations

from datetime import datetime

from attrs import define, evolve

from sched_core import Between, FixedDelay, Job, JobSpec, Kind, Standing, State
from sched_testkit._oracle.incarnations import Incarnation, Request
from sched_testkit._oracle.known import Known, held_moment
from sched_testkit._oracle.observed import Observed
from sched_testkit._oracle.stored import StoredJobs
from sched_testkit._oracle.violation import Violation, at


@define
class Commands:
    """Judges the commands of one history."""

    known: Known
    observed: Observed
    stored: StoredJobs

    def added(self, job: Job, spec: JobSpec, *, declared: bool, now: datetime) -> None:
        """Judge what ``submit_job``, or ``ensure_job`` of an id that was free, returned."""
        known = self.known
        known.next_seq()
        if job.id in known.current:
            raise Violation(f"job {job.id!r} was added though it exists")
        if job.uid in known.incarnations:
            raise Violation(f"job {job.id!r} was added with the uid {job.uid}, which is used up")
        if job.anchor != now:
            raise Violation(f"job {job.id!r} is anchored at {at(job.anchor)}, not at {at(now)}")
        known.reschedule(job.uid, spec.schedule, now, None)
        incarnation = known.current[job.id] = known.incarnations[job.uid]
        incarnation.spec, incarnation.declared = spec, declared
        self.stored.judge(incarnation, job, now)

    def redefined(
        self,
        before: Job,
        job: Job,
        spec: JobSpec,
        *,
        declared: bool | None = None,
        now: datetime,
    ) -> None:
        """Judge what ``update_job``, or ``ensure_job`` of an existing job, returned."""
        known = self.known
        incarnation = known.commanded(job)
        declared = incarnation.declared if declared is None else declared
        same = incarnation.spec == spec and incarnation.declared == declared
        if same and job.revision != before.revision and not known.set_back:
            raise Violation(f"job {job.id!r} was written though its definition is the same")
        old, incarnation.spec, incarnation.declared = incarnation.spec, spec, declared
        assert old is not None
        if old.policy != spec.policy:
            incarnation.edits += 1
            incarnation.retries.append(spec.policy.retry)
            self.observed.forget_losses(job.uid)
        last_number = before.standing.last_number
        if old.schedule != spec.schedule:
            if job.anchor != now:
                raise Violation(
                    f"job {job.id!r}: a new schedule takes effect now, not {at(job.anchor)}"
                )
            number = last_number + _moves_on(incarnation, before, now)
            known.reschedule(job.uid, spec.schedule, now, before, number)
        elif job.anchor != before.anchor:
            if not known.set_back or job.anchor != now:
                raise Violation(
                    f"job {job.id!r}: an edit that leaves the schedule moved its anchor"
                )
            # A clock that was ahead has put its moment far away: the schedule takes effect again.
            known.reschedule(job.uid, spec.schedule, now, before, last_number)
        elif _of_schedule(job) != _of_schedule(before) and not known.set_back:
            raise Violation(f"job {job.id!r}: an edit that leaves the schedule moved its standing")
        self.stored.judge(incarnation, job, now)

    def removed(self, before: Job, now: datetime) -> None:
        """Note that ``remove_job`` has removed this job."""
        self.known.next_seq()
        del self.known.current[before.id]
        self.known.remove(before.uid, now, before)

    def paused(self, before: Job, job: Job, until: datetime | None, now: datetime) -> None:
        """Judge what ``pause_job`` returned."""
        incarnation = self.known.commanded(job)
        if job.state is State.FINISHED:
            return
        in_force = incarnation.paused_at(now)
        if in_force is not None:
            in_force.end = in_force.until = until
        else:
            incarnation.pause(now, until, self.known.seq, held_moment(before))
        self.stored.judge(incarnation, job, now)

    def resumed(self, job: Job, now: datetime) -> None:
        """Judge what ``resume_job`` returned."""
        incarnation = self.known.commanded(job)
        if incarnation.paused_at(now) is not None:
            incarnation.resume(self.known.seq, now)
        self.stored.judge(incarnation, job, now)

    def triggered(self, before: Job, key: str, read_at: int) -> None:
        """Judge the key that ``trigger_job`` returned.

        Args:
            before: The job before the trigger.
            key: The idempotency key of the request.
            read_at: The place, in the order of everything that happened, at which the command
                began.
        """
        uid, _, number = key.rpartition(":")
        incarnation = self.known.commanded(before)
        if uid != before.uid:
            raise Violation(
                f"job {before.id!r}: the trigger has the key {key}, not of {before.uid}"
            )
        incarnation.requests.append(Request(read_at, int(number), Kind.TRIGGERED))

    def skipped(self, job: Job, now: datetime) -> None:
        """Judge what ``skip_next`` returned."""
        incarnation = self.known.commanded(job)
        mark, era = job.standing.skip, incarnation.eras[-1]
        if mark is None:
            raise Violation(f"job {job.id!r}: skip_next has marked nothing")
        is_sure = not isinstance(era.schedule, FixedDelay | Between) and not self.known.set_back
        untouched = len(incarnation.eras) == 1 and not incarnation.pauses
        if is_sure and untouched and mark != era.after(now):
            raise Violation(f"job {job.id!r}: skip_next has marked {at(mark)}, not what comes next")
        incarnation.skips.append((self.known.seq, now))
        self.stored.judge(incarnation, job, now)

    def unskipped(self, job: Job, now: datetime) -> None:
        """Judge what ``unskip`` returned."""
        incarnation = self.known.commanded(job)
        incarnation.unskipped = True
        if job.standing.skip is not None:
            raise Violation(f"job {job.id!r}: unskip has left the mark")
        self.stored.judge(incarnation, job, now)


def _moves_on(incarnation: Incarnation, job: Job, now: datetime) -> bool:
    """Whether a pause that has ended on its own gives the next occurrence a new number."""
    pause, one = job.standing.pause, job.standing.scheduled
    until = None if pause is None else pause.until
    if pause is None or one is None or until is None or until > now:
        return False
    begun = one.began_at is not None or job.held == one.number
    if begun or job.standing.is_marked(one.number) or one.scheduled_at <= pause.since:
        return False
    era = incarnation.eras[-1]
    if isinstance(era.schedule, FixedDelay) or one.scheduled_at > until:
        return False
    if era.after(until) is not None:
        return True
    inside = [moment for moment in era.moments(until) if moment > pause.since]
    return bool(inside) and inside[-1] != one.scheduled_at


def _of_schedule(job: Job) -> Standing:
    """Return what an edit must not change if it leaves the schedule as it is.

    The moments that an occurrence covers are judged at the end: another policy may have to write
    down what the policy before it had decided.
    """
    one = job.standing.scheduled
    bare = None if one is None else evolve(one, coalesced=0, coalesced_until=None, until=None)
    return evolve(job.standing, scheduled=bare, due_at=None, expires_at=None)
