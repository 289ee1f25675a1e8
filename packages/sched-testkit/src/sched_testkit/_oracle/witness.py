"""What operators asked for, and what is stored: the part of the judge that both tell.

A job is shown to it as it was read before a command, because what an edit makes of an occurrence
depends on whether that has begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from attrs import evolve

from sched_core import (
    Between,
    Cron,
    Execution,
    FixedDelay,
    Interval,
    Job,
    JobSpec,
    Kind,
    Pending,
    Standing,
    State,
    Status,
)
from sched_testkit._oracle import occurrences
from sched_testkit._oracle.annals import Epoch, Life, Request, Wrong, at
from sched_testkit._oracle.chronicle import Call, Chronicle
from sched_testkit._oracle.lateness import expect_excused, is_plain
from sched_testkit._stories.entry import due_of, pendings

NEVER_FINAL = {Status.INTERRUPTED, Status.ABANDONED}
NEVER_RAN = {Status.MISSED, Status.SKIPPED, Status.SUPERSEDED}
MAY_RUN = {Status.FAILED, Status.CANCELLED}
"""Of an attempt, or of an occurrence that was not attempted any more."""
ENDLESS = Interval, Cron, FixedDelay
ENDS = {
    Status.SUCCEEDED: {"succeeded"},
    Status.FAILED: {"failed", "lost"},
    Status.INTERRUPTED: {"interrupted"},
    Status.CANCELLED: {"lost", "failed", "interrupted", "cancelled"},
}
"""How the handler's call may have ended where an attempt has this status: told as lost is what was
cancelled, whatever for."""


class Witness(Chronicle):
    """Judges the history of one place."""

    def __init__(self, grace: timedelta | None = None) -> None:
        super().__init__(grace)
        self._pruned: set[str] = set()

    # -- commands

    def added(self, job: Job, spec: JobSpec, *, declared: bool, now: datetime) -> None:
        """``submit_job``, or ``ensure_job`` of an id that was free, returned this job."""
        self.place()
        if job.id in self.current:
            raise Wrong(f"job {job.id!r} was added though it exists")
        if job.uid in self.lives:
            raise Wrong(f"job {job.id!r} was added with the uid {job.uid}, which is used up")
        if job.anchor != now:
            raise Wrong(f"job {job.id!r} is anchored at {at(job.anchor)}, not at {at(now)}")
        super().edited(job.uid, spec.schedule, now, None)
        life = self.current[job.id] = self.lives[job.uid]
        life.spec, life.declared = spec, declared
        self.check_stored(life, job, now)

    def redefined(
        self,
        before: Job,
        job: Job,
        spec: JobSpec,
        *,
        declared: bool | None = None,
        now: datetime,
    ) -> None:
        """``ensure_job`` of an existing job, or ``update_job``, made this of it."""
        life = self._commanded(job)
        declared = life.declared if declared is None else declared
        same = life.spec == spec and life.declared == declared
        if same and job.revision != before.revision and not self.set_back:
            raise Wrong(f"job {job.id!r} was written though its definition is the same")
        old, life.spec, life.declared = life.spec, spec, declared
        assert old is not None
        if old.policy != spec.policy:
            life.edits += 1
            life.retries.append(spec.policy.retry)
            # How many claims may be lost is another number now.
            self.fatal = {key for key in self.fatal if key[0] != job.uid}
            for key in [key for key in self.lost if key[0] == job.uid]:
                del self.lost[key]
        if old.schedule != spec.schedule:
            if job.anchor != now:
                raise Wrong(
                    f"job {job.id!r}: a new schedule takes effect now, not {at(job.anchor)}"
                )
            number = before.standing.last_number + self._moves_on(life, before, now)
            super().edited(job.uid, spec.schedule, now, before, number)
        elif job.anchor != before.anchor:
            if not self.set_back or job.anchor != now:
                raise Wrong(f"job {job.id!r}: an edit that leaves the schedule moved its anchor")
            # A moment that a clock which was ahead has put far away: it takes effect anew.
            super().edited(job.uid, spec.schedule, now, before, before.standing.last_number)
        elif _of_schedule(job) != _of_schedule(before) and not self.set_back:
            raise Wrong(f"job {job.id!r}: an edit that leaves the schedule moved its standing")
        self.check_stored(life, job, now)

    def _moves_on(self, life: Life, job: Job, now: datetime) -> bool:
        """Whether a pause that has ended by itself gives the schedule's occurrence a new number."""
        pause, one = job.standing.pause, job.standing.scheduled
        until = None if pause is None else pause.until
        if pause is None or one is None or until is None or until > now:
            return False
        begun = one.began_at is not None or job.held == one.number
        if begun or one.number in job.standing.cancels or one.scheduled_at <= pause.since:
            return False
        epoch = life.epochs[-1]
        if isinstance(epoch.schedule, FixedDelay) or one.scheduled_at > until:
            return False
        following = _after(epoch, until)
        if following is not None:
            return True
        inside = [moment for moment in epoch.moments(until) if moment > pause.since]
        return bool(inside) and inside[-1] != one.scheduled_at

    def gone(self, before: Job, now: datetime) -> None:
        """``remove_job`` has removed this job."""
        self.place()
        del self.current[before.id]
        super().removed(before.uid, now, before)

    def paused(self, before: Job, job: Job, until: datetime | None, now: datetime) -> None:
        """``pause_job`` returned this job."""
        life = self._commanded(job)
        if job.state is State.FINISHED:
            return
        in_force = life.paused_at(now)
        if in_force is not None:
            in_force.end = in_force.until = until
        else:
            one = before.standing.scheduled
            held = one.scheduled_at if one is not None and one.number == before.held else None
            life.pause(now, until, self.seq, held)
        self.check_stored(life, job, now)

    def resumed(self, job: Job, now: datetime) -> None:
        """``resume_job`` returned this job."""
        life = self._commanded(job)
        if life.paused_at(now) is not None:
            life.resume(self.seq, now)
        self.check_stored(life, job, now)

    def triggered(self, before: Job, key: str, read_at: int) -> None:
        """``trigger_job`` returned this key."""
        uid, _, number = key.rpartition(":")
        life = self._commanded(before)
        if uid != before.uid:
            raise Wrong(f"job {before.id!r}: the trigger has the key {key}, not of {before.uid}")
        life.requests.append(Request(read_at, int(number), Kind.TRIGGERED))

    def skipped(self, job: Job, now: datetime) -> None:
        """``skip_next`` returned this job."""
        life = self._commanded(job)
        mark, epoch = job.standing.skip, life.epochs[-1]
        if mark is None:
            raise Wrong(f"job {job.id!r}: skip_next has marked nothing")
        known = not isinstance(epoch.schedule, FixedDelay | Between) and not self.set_back
        if known and len(life.epochs) == 1 and not life.pauses and mark != _after(epoch, now):
            raise Wrong(f"job {job.id!r}: skip_next has marked {at(mark)}, not what comes next")
        life.skips.append((self.seq, now))
        self.check_stored(life, job, now)

    def unskipped(self, job: Job, now: datetime) -> None:
        """``unskip`` returned this job."""
        life = self._commanded(job)
        life.unskipped = True
        if job.standing.skip is not None:
            raise Wrong(f"job {job.id!r}: unskip has left the mark")
        self.check_stored(life, job, now)

    def _commanded(self, job: Job) -> Life:
        self.place()
        life = self.current.get(job.id)
        if life is None or life.uid != job.uid:
            raise Wrong(f"a command reached {job.id!r} of the incarnation {job.uid}, which is gone")
        return life

    # -- what is stored

    def look(
        self,
        history: Sequence[Execution],
        jobs: Sequence[Job],
        now: datetime,
        pruned: datetime | None = None,
    ) -> None:
        """Compare everything with the whole history, oldest first, and all stored jobs."""
        self.read(history, now, pruned)
        self.check_jobs({job.id: job for job in jobs}, now)
        self._check_calls()

    def read(
        self, history: Sequence[Execution], now: datetime, pruned: datetime | None = None
    ) -> None:
        """Read the whole history, oldest first."""
        found = {each.id: each for each in history}
        if len(found) != len(history):
            raise Wrong("an execution is there twice")
        for known in self.executions:
            if known.id in found:
                if found[known.id] != known:
                    raise Wrong(f"{known.id} was rewritten")
            elif known.id not in self._pruned:
                expired = known.expires_at is not None and known.expires_at <= now
                if not expired and (pruned is None or known.finished_at >= pruned):
                    raise Wrong(f"{known.id} has vanished")
                self._pruned.add(known.id)
        if pruned is not None and any(each.finished_at < pruned for each in history):
            raise Wrong("prune left executions that are older")
        for each in history:
            if each.id not in self.ids:
                self.take(each)

    def take(self, found: Execution) -> None:
        """Read an execution that was not there before."""
        life = self.lives.get(found.uid)
        if life is None:
            raise Wrong(f"{found.id} belongs to no job that ever was")
        if found.id != f"{found.uid}:{found.number}:{found.attempt}":
            raise Wrong(f"{found.id} is of {found.uid}:{found.number}:{found.attempt}")
        self._check_form(life, found)
        call = self.calls.get((found.uid, found.number, found.attempt))
        if found.status is Status.ABANDONED:
            self._check_abandoned(found)
            if call is not None and call.event.token == found.token:
                call.execution = found
        elif found.attempt:
            self._check_attempt(found, call)
        is_plainly_missed = found.status is Status.MISSED and is_plain(life)
        if is_plainly_missed and not self.set_back:
            expect_excused(life, found, self.began.get((found.uid, found.number)))
        self.append(found)

    def _check_form(self, life: Life, found: Execution) -> None:
        """Refuse what contradicts itself, its job or the attempt before it."""
        told = f"{found.id} {found.status.value}"
        if life.spec is not None and found.job_id != life.spec.id:
            raise Wrong(f"{told} is of the job {found.job_id!r}, not {life.spec.id!r}")
        if found.final == (found.status in NEVER_FINAL) and found.status is not Status.FAILED:
            raise Wrong(f"{told}, and final is {found.final}")
        if (found.attempt == 0) != (found.status in NEVER_RAN) and found.status not in MAY_RUN:
            raise Wrong(f"{told} has the attempt {found.attempt}")
        if (found.coalesced > 0) != (found.coalesced_until is not None):
            raise Wrong(f"{told} stands for {found.coalesced} until {at(found.coalesced_until)}")
        before = self.stored(f"{found.uid}:{found.number}:{found.attempt - 1}")
        if found.attempt > 1 and before is not None and before.token >= found.token:
            raise Wrong(f"{told} has the token {found.token}, after {before.token}")
        early = found.finished_at < found.scheduled_at and found.kind is Kind.SCHEDULED
        if early and found.status in {Status.MISSED, Status.SKIPPED} and not self.set_back:
            raise Wrong(f"{told} at {at(found.finished_at)}, before it was due")

    def _check_abandoned(self, found: Execution) -> None:
        told, hold = f"{found.id} abandoned", self.holds.get((found.job_id, found.token))
        if hold is None or hold.claim.job.uid != found.uid:
            raise Wrong(f"{told} has the token {found.token}, which no claim of the job had")
        if hold.stored.expires_at > found.finished_at and not hold.crashed:
            raise Wrong(f"{told} at {at(found.finished_at)}, before its lease ended")

    def _check_attempt(self, found: Execution, call: Call | None) -> None:
        told = f"{found.id} {found.status.value}"
        if call is None:
            raise Wrong(f"{told}, but the handler was never called for it")
        event = call.event
        seen = event.token, call.worker, event.started_at, event.scheduled_at, event.kind
        mine = found.token, found.worker, found.started_at, found.scheduled_at, found.kind
        if seen != mine:
            raise Wrong(f"{told} says {mine}, and the handler was called with {seen}")
        stands = (event.coalesced, event.coalesced_until) if found.final else (0, None)
        if event.kind is Kind.SCHEDULED and (found.coalesced, found.coalesced_until) != stands:
            raise Wrong(
                f"{told} stands for {found.coalesced} until {at(found.coalesced_until)}, "
                f"and the handler was called for {stands[0]} until {at(stands[1])}"
            )
        policy = call.spec.policy
        timed_out = (
            policy.timeout is not None and found.finished_at - event.started_at >= policy.timeout
        )
        if call.how == "lost" and timed_out and found.status is Status.FAILED:
            call.how, call.ended_at = "failed", found.finished_at  # its time was up as well
            call.failures += 1
        if call.how not in ENDS[found.status]:
            raise Wrong(f"{told}, but the handler {call.how}")
        if found.status is Status.FAILED:
            allowed, key = policy.retry.attempts, (found.uid, found.number)
            kept = self._is_pending(key)
            if found.final and call.failures < allowed and kept:
                raise Wrong(f"{told}: failure {call.failures} of {allowed} must not be the last")
            # A run that is edited ends by the policy that is stored then.
            allowed = max([allowed, *(one.attempts for one in self.lives[found.uid].retries)])
            if not found.final and call.failures >= allowed:
                raise Wrong(f"{told}: failure {call.failures} of {allowed} must be the last")
        call.execution = found

    def _is_pending(self, key: tuple[str, int]) -> bool:
        """Whether nothing was edited or removed that could have taken an occurrence away."""
        life = self.lives[key[0]]
        return life.removed is None and len(life.epochs) == 1 and not life.edits

    def _check_calls(self) -> None:
        """Every call has its execution, but for those that nobody could write."""
        for call in self.calls.values():
            if call.execution is None and call.how in {"succeeded", "failed", "interrupted"}:
                raise Wrong(f"{call} of {call.event.id!r} {call.how}, and has no execution")

    def check_jobs(self, jobs: dict[str, Job], now: datetime) -> None:
        """Look at all stored jobs."""
        self.latest = now if self.latest is None else max(self.latest, now)
        self.stored_jobs = jobs
        for job_id, job in jobs.items():
            life = self.current.get(job_id)
            if life is None:
                raise Wrong(f"job {job_id!r} is stored though it was removed")
            self.check_stored(life, job, now)
            held = [hold for hold in self._open(job.id) if hold.claim.job.uid == job.uid]
            number = held[0].pending.number if held and held[0].pending is not None else None
            if job.held != number:
                raise Wrong(f"job {job_id!r}: {job.held} is told to be held, and {number} is")
        for job_id, life in list(self.current.items()):
            if job_id in jobs:
                continue
            keep = None if life.spec is None else life.spec.policy.keep_finished
            if life.declared or keep is None or not life.is_over:
                raise Wrong(f"job {job_id!r} has vanished")
            life.removed = self.place()
            del self.current[job_id]

    def check_stored(self, life: Life, job: Job, now: datetime) -> None:
        """Look at a job as it is stored now."""
        about, standing = f"job {job.id!r}", job.standing
        self.latest = now if self.latest is None else max(self.latest, now)
        if job.uid != life.uid:
            raise Wrong(f"{about} is the incarnation {job.uid}, not {life.uid}")
        if job.spec != life.spec:
            raise Wrong(f"{about} has another definition than the last accepted: an edit was lost")
        if job.declared != life.declared:
            raise Wrong(f"{about}: declared is {job.declared}")
        if job.revision < life.revision or standing.last_number < life.highest:
            raise Wrong(f"{about}: its revision or its newest number went back")
        life.revision, life.highest = job.revision, standing.last_number
        life.is_over = job.state is State.FINISHED
        endless = isinstance(life.epochs[-1].schedule, ENDLESS)
        if endless and standing.scheduled is None:
            raise Wrong(f"{about} has no occurrence to come, and its schedule has no end")
        self._check_pause(life, job, now)
        self._check_names(job, standing)

    def _check_pause(self, life: Life, job: Job, now: datetime) -> None:
        """Learn of pauses that have ended by themselves, or that failures have made."""
        pause = job.standing.pause
        if pause is None and not life.resumed:
            until = life.pauses[-1].end
            if job.standing.due_at is None and life.paused_at(now) is not None:
                life.resume(self.seq, now)  # a finished job is not paused
            elif until is not None and self.latest is not None and until <= self.latest:
                life.resume(self.seq)
            elif life.paused_at(now) is not None:
                raise Wrong(f"job {job.id!r} is active, though it was paused")
        elif pause is not None and pause.until is None and life.paused_at(now) is None:
            if job.spec.policy.pause_after is None:
                raise Wrong(f"job {job.id!r} is paused, and nobody asked for it")
            life.pause(pause.since, None, self.seq, None)

    def _check_names(self, job: Job, standing: Standing) -> None:
        ones: list[Pending] = [*pendings(standing)]
        numbers = [one.number for one in ones]
        if len(set(numbers)) < len(numbers) or max(numbers, default=0) > standing.last_number:
            raise Wrong(f"job {job.id!r}: numbers {numbers} up to {standing.last_number}")
        for one in ones:
            key = job.uid, one.number
            if key in self.finals:
                raise Wrong(f"job {job.id!r}: {one.number} is pending, and has its final execution")
            if self.names.get(key, (one.kind, one.scheduled_at)) != (one.kind, one.scheduled_at):
                raise Wrong(f"job {job.id!r}: {one.number} is another one than before")
        if standing.due_at != due_of(standing):
            due = due_of(standing)
            raise Wrong(f"job {job.id!r} is due {at(standing.due_at)}, not {at(due)}")

    # -- what must have happened

    def nothing_left(self, moment: datetime) -> None:
        """A healthy instance has run what was due at the moment."""
        for job_id, job in self.stored_jobs.items():
            due = job.standing.due_at
            if due is not None and due <= moment and not any(self._open(job_id)):
                raise Wrong(f"job {job_id!r} is due {at(due)}, and was left undone")
        for (job_id, _), hold in self.holds.items():
            ended = hold.open and hold.stored.expires_at <= moment
            if ended and hold.pending is not None and job_id in self.stored_jobs:
                raise Wrong(f"the lease of {job_id!r} has ended, and nobody took note")


def _of_schedule(job: Job) -> Standing:
    """Return what an edit must leave alone that changes something else than the schedule.

    What an occurrence stands for is accounted for at the end: another policy may have to write down
    what the one before had made of it.
    """
    one = job.standing.scheduled
    bare = None if one is None else evolve(one, coalesced=0, coalesced_until=None, until=None)
    return evolve(job.standing, scheduled=bare, due_at=None, expires_at=None)


def _after(epoch: Epoch, moment: datetime) -> datetime | None:
    """Return the first moment of a schedule after another one."""
    return occurrences.after(epoch.schedule, moment, epoch.anchor)
