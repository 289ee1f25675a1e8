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
from sched_testkit._stories.entry import pendings


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
            incarnation.policies.append(spec.policy)
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

    def removed(self, before: Job, now: datetime, *, cancel: bool = False) -> None:
        """Note that ``remove_job`` has removed this job, and perhaps cancelled what was held."""
        self.known.next_seq()
        if cancel and before.held is not None:
            self.known.incarnations[before.uid].cancels.add(before.held)
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
        """Judge the key that ``trigger_job`` returned to a plain call.

        Args:
            before: The job before the trigger.
            key: The idempotency key of the request.
            read_at: The place, in the order of everything that happened, at which the command
                began.
        """
        self.asked(before, key, Request(read_at, 0, Kind.TRIGGERED))

    def asked(self, before: Job, key: str, request: Request) -> None:
        """Judge the key that a request got: of a trigger, a rerun or a backfill.

        Until a request has ended, one with the same name is the same one, with its arguments.

        Args:
            before: The job before the request.
            key: The idempotency key that the caller got.
            request: What was asked for; it gets its number here.
        """
        uid, _, digits = key.rpartition(":")
        incarnation, number = self.known.commanded(before), int(digits)
        what = f"job {before.id!r}: the {request.kind.value} request has the key {key}"
        if uid != before.uid:
            raise Violation(f"{what}, not of {before.uid}")
        same = None if request.key is None else incarnation.newest_with(request.kind, request.key)
        if same is not None and not self._has_ended(uid, same):
            request.args = same.args
            if request.kind is not Kind.BACKFILLED and number != same.number:
                raise Violation(f"{what}, though {same.number} is the same and has not ended")
        elif request.key is not None and (uid, number) in self.observed.finals:
            raise Violation(f"{what}, which has ended")
        request.number = number
        incarnation.requests.append(request)

    def refused(self, before: Job, request: Request) -> None:
        """Judge that a backfill was refused: there is no moment in its range."""
        incarnation = self.known.commanded(before)
        untouched = not (incarnation.pauses or incarnation.cancels or self.known.set_back)
        since, until = request.since, request.until
        if request.kind is not Kind.BACKFILLED or since is None or until is None:
            raise Violation(f"job {before.id!r}: a {request.kind.value} request was refused")
        found = [each for each in incarnation.eras[-1].moments(until) if each >= since]
        if found and untouched:
            raise Violation(f"job {before.id!r}: nothing to backfill, though {at(found[0])} is")

    def _has_ended(self, uid: str, request: Request) -> bool:
        return (uid, request.number) in self.observed.finals

    def cancelled(self, before: Job, key: str, *, by_key: bool) -> None:
        """Judge the key that ``cancel_run`` returned.

        Args:
            before: The job before the command.
            key: The idempotency key of the occurrence that is marked.
            by_key: Whether the caller has named an occurrence; otherwise it is the one that runs.
        """
        uid, _, digits = key.rpartition(":")
        incarnation, number = self.known.commanded(before), int(digits)
        what = f"job {before.id!r}: cancelled is {key}"
        if uid != before.uid:
            raise Violation(f"{what}, not of {before.uid}")
        if not by_key and number != before.held:
            raise Violation(f"{what}, and {before.held} runs")
        if (uid, number) in self.observed.finals:
            raise Violation(f"{what}, which has ended")
        incarnation.cancels.add(number)
        self.observed.asked.pop((uid, number), None)

    def nothing_to_cancel(self, before: Job, number: int | None) -> None:
        """Judge that ``cancel_run`` has found nothing.

        Args:
            before: The job before the command, while nothing else was done.
            number: The number that the caller has named; ``None`` for what runs.
        """
        pending = {before.held, *(one.number for one in pendings(before.standing))}
        is_there = before.held is not None if number is None else number in pending
        if is_there:
            raise Violation(
                f"job {before.id!r}: nothing was to be cancelled, and {number} is there"
            )

    def hurried(self, job: Job, now: datetime, number: int | None = None) -> None:
        """Judge what ``retry_now`` returned.

        Args:
            job: The job as it was returned.
            now: The moment by the clock.
            number: The occurrence that the caller has named; ``None`` for all that wait.
        """
        incarnation = self.known.commanded(job)
        for one in pendings(job.standing):
            if one.began_at is not None and number in {None, one.number}:
                self.observed.hurry((job.uid, one.number))
        self.expect_hurried(job, now, number)
        self.stored.judge(incarnation, job, now)

    @staticmethod
    def expect_hurried(job: Job, now: datetime, number: int | None = None) -> None:
        """Expect that what has begun, and does not run, waits no more."""
        for one in pendings(job.standing):
            is_meant = one.began_at is not None and number in {None, one.number}
            if is_meant and job.held != one.number and (one.retry_at or one.due_at) > now:
                raise Violation(f"job {job.id!r}: {one.number} was to be retried now, and waits")

    def expect_marked(self, key: str) -> None:
        """Expect that the occurrence with the key that ``cancel_run`` returned was marked."""
        uid, _, number = key.rpartition(":")
        if int(number) not in self.known.incarnations[uid].cancels:
            raise Violation(f"{key} is told to be marked, and is not")

    def skipped(self, job: Job, now: datetime) -> None:
        """Judge what ``skip_next`` returned."""
        incarnation = self.known.commanded(job)
        mark, era = job.standing.skip, incarnation.eras[-1]
        if mark is None:
            raise Violation(f"job {job.id!r}: skip_next has marked nothing")
        is_sure = not isinstance(era.schedule, FixedDelay | Between) and not self.known.set_back
        untouched = len(incarnation.eras) == 1 and not (incarnation.pauses or incarnation.cancels)
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
