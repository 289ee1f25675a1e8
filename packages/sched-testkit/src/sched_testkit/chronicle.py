"""Writes the history down: commands, claims and calls of the handler, each at its place.

What cannot be right whatever the ledger says is refused at once; the rest waits for
:class:`~sched_testkit.oracle.Oracle`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from attrs import evolve

from sched_core import Claim, Execution, FixedDelay, Job, JobEvent, JobSpec, State
from sched_testkit import occurrences
from sched_testkit.annals import Call, Epoch, Hold, Life, Mark, Pause, Trigger, Wrong, share


class Chronicle:
    """Knows the whole history of one place, from the beginning."""

    def __init__(self) -> None:
        self.seq = 0
        self.lives: dict[str, Life] = {}
        self.current: dict[str, Life] = {}
        """The incarnation that each id has now."""
        self.holds: dict[tuple[str, int], Hold] = {}
        """By job id and token: tokens need not differ between jobs."""
        self.calls: dict[tuple[str, int, int], Call] = {}
        self.newest: dict[tuple[str, int], Call] = {}
        """The newest call of each occurrence."""
        self.ledger: dict[str, Execution] = {}
        self.tokens: dict[str, int] = {}
        self.revisions: dict[str, int] = {}
        self.looked = 0

    def _place(self) -> int:
        self.seq += 1
        return self.seq

    def alive(self) -> list[str]:
        """Return the ids that have a job, sorted."""
        return sorted(self.current)

    # -- commands

    def added(self, job: Job, spec: JobSpec, *, declared: bool, now: datetime) -> None:
        """``submit_job``, or ``ensure_job`` of an id that was free, returned this job."""
        seq = self._place()
        if job.id in self.current:
            raise Wrong(f"job {job.id!r} was added though it exists")
        if job.uid in self.lives:
            raise Wrong(f"job {job.id!r} was added with the uid {job.uid}, which is used up")
        if job.anchor != now:
            raise Wrong(f"job {job.id!r} is anchored at {job.anchor}, not at {now}")
        life = Life(job.uid, job, spec, declared, seq, seq, now)
        life.jitters.add(spec.policy.jitter)
        begins = occurrences.first(spec.schedule, now)
        life.epochs.append(Epoch(spec.schedule, now, job.standing.number, begins))
        if self._retries_a_trigger(job.uid):
            life.answered = self.seq  # the edit ends it, and who asked once more meant the same one
        self.lives[job.uid] = self.current[job.id] = life
        self._check_stored(life, job, now)

    def edited(
        self, job: Job, spec: JobSpec, *, declared: bool | None = None, now: datetime
    ) -> None:
        """``ensure_job`` of an existing job, or ``update_job``, returned this job."""
        life = self._commanded(job, "edit")
        declared = life.declared if declared is None else declared
        before, same = life.job, life.spec == spec and life.declared == declared
        life.declared = declared
        if same:
            if job.revision != before.revision:
                raise Wrong(f"job {job.id!r} was written though its definition is the same")
            return
        life.redefined_at = now
        rescheduled = life.spec.schedule != spec.schedule
        life.spec = spec
        life.jitters.add(spec.policy.jitter)
        if not rescheduled:
            kept = evolve(before.standing, expires_at=None)
            if job.anchor != before.anchor or evolve(job.standing, expires_at=None) != kept:
                raise Wrong(f"job {job.id!r}: an edit that leaves the schedule moved its standing")
            self._check_stored(life, job, now)
            return
        life.commands.append((self.seq, "schedule"))
        if job.anchor != now:
            raise Wrong(f"job {job.id!r}: a new schedule must take effect now, not at {job.anchor}")
        self._end_epoch(life, now)
        begins = occurrences.first(spec.schedule, now)
        if begins is not None and life.past is not None and begins <= life.past:
            # The clock was set back: moments that have run do not come again.
            since = max(life.past, now)
            if isinstance(spec.schedule, FixedDelay):
                begins = since + spec.schedule.every
            else:
                begins = occurrences.after(spec.schedule, since, now)
        life.epochs.append(Epoch(spec.schedule, now, job.standing.number, begins))
        if self._retries_a_trigger(job.uid):
            life.answered = self.seq  # the edit ends it, and who asked once more meant the same one
        life.old_marks += life.marks
        life.marks = []
        self._check_stored(life, job, now)

    def _retries_a_trigger(self, uid: str) -> bool:
        return any(
            hold.open
            and hold.claim.job.uid == uid
            and hold.claim.attempt > 1
            and hold.claim.job.standing.manual
            for hold in self.holds.values()
        )

    def removed(self, job_id: str, now: datetime) -> None:
        """``remove_job`` returned."""
        life = self.current.pop(job_id)
        life.removed = life.touched = self._place()
        life.commands.append((life.removed, "remove"))
        self._end_epoch(life, now)
        life.owes_manual = self._unanswered(life, now) is not None and not self._held(life.uid)

    def _end_epoch(self, life: Life, now: datetime) -> None:
        """Note what was due: it must get a final line though nobody will attempt it again."""
        moment, due = life.first_due(life.epoch)
        if moment is None:
            return
        begun = any(
            call.number >= life.epoch.number
            and not call.event.manual
            and call.uid == life.uid
            and call.event.scheduled_at == moment
            for call in self.calls.values()
        )
        if begun or (due is not None and due <= now):
            life.epoch.owed = moment

    def paused(self, job: Job, until: datetime | None, now: datetime) -> None:
        """``pause_job`` returned this job."""
        life = self._commanded(job, "pause")
        if job.standing.state is State.FINISHED:
            return
        if life.paused(now):
            life.pauses[-1].until = until
        else:
            life.pauses.append(Pause(now, until))
        self._check_stored(life, job, now)

    def resumed(self, job: Job, now: datetime) -> None:
        """``resume_job`` returned this job."""
        life = self._commanded(job, "resume")
        if life.paused(now):
            life.pauses[-1].ended = now
        self._check_stored(life, job, now)

    def triggered(self, job: Job, now: datetime) -> None:
        """``trigger_job`` returned this job."""
        life = self._commanded(job, "trigger")
        life.triggers.append(Trigger(self.seq, now))
        self._check_stored(life, job, now)

    def to_skip(self, job_id: str, now: datetime) -> datetime | None:
        """Return the first occurrence after now, which ``skip_next`` would mark."""
        life = self.current[job_id]
        epoch = life.epoch
        if isinstance(epoch.schedule, FixedDelay):
            return epoch.next if epoch.next and epoch.next > now else now + epoch.schedule.every
        begins = epoch.next
        if begins is None or begins > now:
            return begins
        return occurrences.after(epoch.schedule, now, epoch.anchor)

    def skipped(self, job: Job, now: datetime) -> None:
        """``skip_next`` returned this job."""
        moment = self.to_skip(job.id, now)
        life = self._commanded(job, "skip")
        if moment is None:
            raise Wrong(f"job {job.id!r} has nothing to skip, and skip_next did not say so")
        if job.standing.skipped_run != moment:
            raise Wrong(
                f"job {job.id!r}: skip_next marked {job.standing.skipped_run}, not {moment}, "
                "the first occurrence after now"
            )
        life.old_marks += life.marks
        life.marks = [Mark(self.seq, now, moment)]
        self._check_stored(life, job, now)

    def unskipped(self, job: Job, now: datetime) -> None:
        """``unskip`` returned this job."""
        life = self._commanded(job, "unskip")
        life.old_marks += life.marks
        life.marks = []
        self._check_stored(life, job, now)

    def _commanded(self, job: Job, kind: str) -> Life:
        seq = self._place()
        life = self.current.get(job.id)
        if life is None or life.uid != job.uid:
            raise Wrong(
                f"a command reached {job.id!r} of the incarnation {job.uid}: gone or unknown"
            )
        life.touched = seq
        life.commands.append((seq, kind))
        return life

    # -- runs

    def claimed(self, claim: Claim, now: datetime) -> None:
        """A backend handed out this claim."""
        seq, job = self._place(), claim.job
        if claim.token <= self.tokens.get(job.id, 0):
            raise Wrong(f"the claim of {job.id!r} has the token {claim.token}, which is not higher")
        self.tokens[job.id] = claim.token
        life = self.lives.get(job.uid)
        if life is None or life.removed is not None:
            raise Wrong(f"job {job.id!r} ({job.uid}) was handed out though it is gone")
        for hold in self.holds.values():
            if hold.open and hold.claim.job.id == job.id:
                if hold.expires_at > now and not hold.crashed:
                    raise Wrong(f"job {job.id!r} was handed out to two at a time")
                hold.open = False
        self._check_stored(life, job, now)
        # What a trigger waits behind is brought to its end also in a pause.
        paused = life.paused(now) and self._unanswered(life, None) is None
        self.holds[job.id, claim.token] = Hold(claim, seq, claim.expires_at, paused)

    def renewed(self, claim: Claim) -> None:
        """A backend prolonged this claim."""
        self._place()
        hold = self.holds[claim.job.id, claim.token]
        hold.expires_at = max(hold.expires_at, claim.expires_at)

    def unclaimed(self, claim: Claim, *, written: bool = True) -> None:
        """A claim was settled or released, or, if not ``written``, was found to be lost."""
        self._place()
        hold = self.holds.get((claim.job.id, claim.token))
        if hold is not None:
            hold.open &= not written
        for call in self.calls.values():
            if call.event.token == claim.token and call.event.id == claim.job.id:
                call.settled = written
                call.how = call.how if written else "lost"

    def crashed(self, worker: str) -> None:
        """A worker is gone; its claims are left to their lease."""
        self._place()
        for hold in self.holds.values():
            if hold.claim.worker == worker:
                hold.crashed = True
        for call in self.calls.values():
            if call.worker == worker and not call.settled:
                call.how = "crashed"

    def called(self, event: JobEvent, now: datetime) -> Call:
        """The handler is called."""
        seq, hold = self._place(), self.holds.get((event.id, event.token))
        if hold is None:
            raise Wrong(f"the handler of {event.id!r} was called without a claim")
        uid, number = hold.claim.job.uid, hold.claim.job.standing.number
        what = f"the handler was called for {event.id!r} at {event.scheduled_at:%H:%M:%S}"
        if event.key != f"{uid}:{number}":
            raise Wrong(f"{what} with the key {event.key}, not {uid}:{number}")
        call = Call(event, uid, number, hold.claim.worker, seq)
        life = self.lives[uid]
        if life.removed is not None and life.removed < hold.seq:
            raise Wrong(f"{what}, which is removed")
        ahead = event.scheduled_at > now and not event.manual  # asked for before a clock was set
        if ahead or event.started_at != now:
            raise Wrong(f"{what}, and told that it began at {event.started_at}; it is {now}")
        if hold.paused and not event.manual:
            raise Wrong(f"{what} inside a pause")
        for other in self.calls.values():
            held = self.holds[other.event.id, other.event.token]
            if other.how == "running" and other.event.id == event.id and held.expires_at > now:
                raise Wrong(f"{what} while {other} is running")
        self._check_again(call, self.newest.get((uid, number)), life, what)
        if not event.manual and len(life.jitters) == 1:
            due = event.scheduled_at + life.spec.policy.jitter * share(event.key)
            if now < due:
                raise Wrong(f"{what}, but its jitter makes it due at {due:%H:%M:%S.%f}")
        if not event.manual and not isinstance(life.epoch.schedule, FixedDelay):
            self._check_unmarked(life, event, hold, what)
        self.calls[uid, number, event.attempt] = self.newest[uid, number] = call
        if event.manual:
            life.answered = seq
        else:
            life.called.add((life.epoch_of(number).number, event.scheduled_at))
        return call

    def _check_again(self, call: Call, earlier: Call | None, life: Life, what: str) -> None:
        event = call.event
        if earlier is None:
            return
        if event.attempt <= earlier.event.attempt:
            raise Wrong(f"{what} as attempt {event.attempt}, after attempt {earlier.event.attempt}")
        if event.manual != earlier.event.manual or (
            not event.manual and event.scheduled_at != earlier.event.scheduled_at
        ):
            raise Wrong(f"{what}: its key {event.key} belongs to {earlier.event.scheduled_at}")
        call.failed_before = earlier.failures
        # One that nobody could settle before its lease ended is repeated.
        if earlier.how == "succeeded" and earlier.settled:
            raise Wrong(f"{what} again, though {earlier} succeeded")
        if earlier.how == "failed" and earlier.spec is not None and earlier.ended_at is not None:
            due = earlier.ended_at + backoff(earlier)
            asked = any(trigger.seq > earlier.seq for trigger in life.triggers)
            # By the order of things, too: the clock may have been set back before the pause.
            paused_since = life.commanded(earlier.end_seq, "pause")
            paused = any(
                pause.end is not None
                and pause.end <= event.started_at
                and (paused_since or earlier.ended_at <= pause.end)
                for pause in life.pauses
            )
            if event.started_at < due and not asked and not paused:
                raise Wrong(f"{what} before its retry was due at {due:%H:%M:%S}")

    def _check_unmarked(self, life: Life, event: JobEvent, hold: Hold, what: str) -> None:
        fixed = isinstance(life.epoch.schedule, FixedDelay)
        for mark in life.marks:
            meant = event.scheduled_at == mark.moment or (
                fixed and event.scheduled_at >= mark.moment
            )
            if meant and mark.seq < hold.seq:
                raise Wrong(f"{what}, which was to be skipped")

    def ended(self, call: Call, how: str, now: datetime) -> None:
        """The handler has returned or raised, or was cancelled."""
        call.end_seq = self._place()
        if call.how == "running":
            call.how, call.ended_at = how, now
            call.spec = self.lives[call.uid].spec

    # -- shared

    def _check_stored(self, life: Life, job: Job, now: datetime) -> None:
        about, standing = f"job {job.id!r}", job.standing
        if job.uid != life.uid:
            raise Wrong(f"{about} is the incarnation {job.uid}, not {life.uid}")
        if job.spec != life.spec:
            raise Wrong(f"{about} has another definition than the last accepted: an edit was lost")
        if job.declared != life.declared:
            raise Wrong(f"{about}: declared is {job.declared}")
        if job.revision < self.revisions.get(job.id, 0):
            raise Wrong(f"{about}: its revision went back to {job.revision}")
        if standing.number < life.job.standing.number:
            raise Wrong(f"{about}: its number went back to {standing.number}")
        if standing.state is State.FINISHED and life.paused(now):
            life.pauses[-1].ended = now  # a finished job has no pause
        paused = life.paused(now)
        if paused and standing.state is State.ACTIVE:
            raise Wrong(f"{about} is active, though it was paused")
        if standing.state is State.PAUSED and not (
            paused or (life.pauses and life.pauses[-1].until)
        ):
            raise Wrong(f"{about} is paused, though it was resumed")
        self.revisions[job.id], life.job = job.revision, job

    def _unanswered(self, life: Life, now: datetime | None) -> Trigger | None:
        if not life.triggers:
            return None
        trigger = life.triggers[-1]
        waits = life.answered < trigger.seq and (now is None or trigger.at <= now)
        return trigger if waits else None

    def _finished(self, life: Life) -> bool:
        return life.epoch.next is None

    def _held(self, uid: str) -> bool:
        return any(hold.open and hold.claim.job.uid == uid for hold in self.holds.values())


def backoff(call: Call) -> timedelta:
    """Return how long the retry after a failed call waits."""
    assert call.spec is not None
    retry, delay = call.spec.policy.retry, call.spec.policy.retry.backoff
    for _ in range(call.failures - 1):
        delay = min(delay * retry.factor, retry.maximum)
    delay = min(delay, retry.maximum)
    return delay * (1 + retry.jitter * share(f"{call.event.key}:{call.event.attempt}"))
