"""What must, may and must not have happened; shares no code with what it judges.

It is told every command, claim and call of the handler at the place in the history where it
happened, and compares all of it with the ledger and the stored jobs (:meth:`Oracle.look`) and,
after a run of a healthy instance, with what was due (:meth:`Oracle.nothing_left`). What is wrong
raises :class:`~sched_testkit.annals.Wrong` with a sentence that says what and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sched_core import Execution, FixedDelay, Job, State, Status
from sched_testkit import lines as reading
from sched_testkit.annals import Call, Life, Wrong
from sched_testkit.chronicle import Chronicle, backoff


class Oracle(Chronicle):
    """Judges the history of one place."""

    def look(
        self,
        ledger: Sequence[Execution],
        jobs: Sequence[Job],
        now: datetime,
        pruned: datetime | None = None,
    ) -> None:
        """Compare everything with the whole ledger, oldest line first, and all stored jobs."""
        found = {line.id: line for line in ledger}
        if len(found) != len(ledger):
            raise Wrong("a ledger line is there twice")
        for line_id, line in list(self.ledger.items()):
            if line_id not in found:
                expired = line.expires_at is not None and line.expires_at <= now
                if not expired and (pruned is None or line.finished_at >= pruned):
                    raise Wrong(f"{reading.title(line)} has vanished")
                del self.ledger[line_id]
            elif found[line_id] != line:
                raise Wrong(f"{reading.title(line)} was rewritten")
        if pruned is not None and any(line.finished_at < pruned for line in ledger):
            raise Wrong("prune left lines that are older")
        for line in ledger:
            if line.id not in self.ledger:
                self._read(line)
                self.ledger[line.id] = line
        self._check_jobs({job.id: job for job in jobs}, now)
        for life in self.lives.values():
            self._check_owed(life)
            self._check_ends(life)
        self._check_calls()
        self.looked = self.seq

    def _read(self, line: Execution) -> None:
        life = self.lives.get(line.uid)
        if life is None:
            raise Wrong(f"{reading.title(line)} belongs to no job that ever was")
        reading.check_form(line, life)
        call = self.calls.get((line.uid, line.number, line.attempt))
        hold = self.holds.get((line.job_id, line.token))
        policy = None if hold is None else hold.claim.job.spec.policy
        epoch = life.epoch_of(line.number)
        if line.attempt > 0:
            life.attempts.setdefault(line.number, []).append(line)
            reading.check_attempt(line, call, hold)
        reading.check_fold(line, life, epoch, policy)
        if line.status in {Status.SUCCEEDED, Status.FAILED} and line.attempt > 0:
            assert call is not None and hold is not None and policy is not None
            if not line.manual:
                self._check_unmarked(life, call.event, hold, reading.title(line))
            if line.attempt == 1 and not line.manual:
                reading.check_within_policy(line, life, epoch, policy)
            if line.status is Status.FAILED and call.spec is not None:
                reading.check_failure(line, life, call, call.spec.policy, hold.seq)
        if line.status is Status.FAILED and line.attempt == 0:
            lost = [one for one in life.attempts.get(line.number, ()) if one.attempt]
            if policy is None or len(lost) < policy.max_lost:
                raise Wrong(f"{reading.title(line)} after {len(lost)} lost claims")
        if line.status is Status.SKIPPED:
            self._use_mark(line, life)
        if line.status is Status.MISSED:
            reading.check_missed(line, life, epoch, policy)
        if line.manual:
            if line.final:
                life.manual_lines += line.status is not Status.SUPERSEDED
                life.answered = max(life.answered, self.seq if line.attempt == 0 else 0)
            asked = any(
                timedelta(0) <= line.scheduled_at - trigger.at < timedelta(milliseconds=1)
                for trigger in life.triggers
            )
            if not asked or life.manual_lines > len(life.triggers):
                raise Wrong(f"{reading.title(line)}: nobody triggered it")
        elif line.final and not self._precedes_held(line):
            reading.account(line, life)
        if line.final:
            life.finals[line.number] = line
            if line.status is not Status.SUPERSEDED:
                life.past = max(life.past or line.scheduled_at, line.scheduled_at)

    def _precedes_held(self, line: Execution) -> bool:
        """Whether an edit wrote it while an earlier occurrence is held, whose end comes later."""
        life = self.lives[line.uid]
        counted, _ = life.first_due(life.epoch_of(line.number))
        skips = line.token == 0 and line.scheduled_at != counted
        return skips and any(
            hold.open
            and hold.claim.job.uid == line.uid
            and hold.claim.job.standing.number < line.number
            for hold in self.holds.values()
        )

    def _use_mark(self, line: Execution, life: Life) -> None:
        fixed = isinstance(life.epoch_of(line.number).schedule, FixedDelay)
        for marks in (life.marks, life.old_marks):
            for mark in marks:
                if mark.moment == line.scheduled_at or (fixed and mark.moment <= line.scheduled_at):
                    marks.remove(mark)
                    return
        raise Wrong(f"{reading.title(line)}: nobody asked for that")

    def _check_jobs(self, jobs: dict[str, Job], now: datetime) -> None:
        for job_id, job in jobs.items():
            life = self.current.get(job_id)
            if life is None:
                raise Wrong(f"job {job_id!r} is stored though it was removed")
            self._check_stored(life, job, now)
            if job.standing.state is State.FINISHED and not self._finished(life):
                raise Wrong(f"job {job_id!r} is finished, though {life.epoch.next} is to come")
        for job_id, life in list(self.current.items()):
            if job_id in jobs:
                continue
            keep = life.spec.policy.keep_finished
            ended = [line.finished_at for line in life.finals.values()]
            since = max([life.redefined_at, *ended])
            finished = self._finished(life) and self._unanswered(life, now) is None
            if life.declared or keep is None or not finished or since + keep > now:
                raise Wrong(f"job {job_id!r} has vanished")
            life.removed = self._place()
            del self.current[job_id]

    def _check_owed(self, life: Life) -> None:
        if self._held(life.uid):
            return
        for epoch in life.epochs:
            if epoch.owed is not None and epoch.next is not None and epoch.next <= epoch.owed:
                raise Wrong(
                    f"job {life.job.id!r}: the occurrence at {epoch.owed:%d. %H:%M:%S} was due "
                    "when it was edited or removed away, and has no final line"
                )
        if life.owes_manual and self._unanswered(life, None) is not None:
            raise Wrong(f"job {life.job.id!r} was triggered and removed: the trigger has no line")

    def _check_ends(self, life: Life) -> None:
        """What has begun has its end as soon as the job stands at another occurrence."""
        if self._held(life.uid):
            return
        for number in life.attempts:
            past = number < life.job.standing.number or life.removed is not None
            if past and number not in life.finals:
                raise Wrong(
                    f"job {life.job.id!r} has left the occurrence {life.uid}:{number}, which has "
                    "begun, without a final line"
                )

    def _check_calls(self) -> None:
        """Every call has its line, but for those that nobody could write."""
        for call in self.calls.values():
            if call.line is None and call.how in {"succeeded", "failed", "interrupted"}:
                raise Wrong(f"{call} of {call.event.id!r} {call.how}, and has no line")

    # -- what must have happened

    def _manual_waits(self, life: Life, moment: datetime) -> bool:
        """Whether a manual occurrence waits for its retry; refuse one that waits for nothing."""
        waits = False
        for call in self.newest.values():
            if call.uid != life.uid or not call.event.manual or call.number in life.finals:
                continue
            due = call.event.started_at
            if call.how == "failed" and call.spec and call.ended_at:
                due = call.ended_at + backoff(call)
            if due <= moment and call.how != "running":
                raise Wrong(
                    f"job {life.job.id!r}: {call}, a manual one, {call.how}; and that is all"
                )
            waits = True
        return waits

    def nothing_left(self, moment: datetime, since: int) -> None:
        """A healthy instance has run what was due at the moment; ``since``: where that began."""
        for life in self.current.values():
            if any(
                hold.open and hold.expires_at > moment and hold.claim.job.id == life.job.id
                for hold in self.holds.values()
            ):
                continue
            about = f"job {life.job.id!r}"
            counted, due = life.first_due(life.epoch)
            call = self._newest_call(life, counted)
            if call is not None and call.how == "failed" and call.spec and call.ended_at:
                due = call.ended_at + backoff(call)
            asked = self._unanswered(life, moment)
            # A retry that waits since the trigger is made first.
            begun = (
                asked is not None
                and call is not None
                and call.end_seq > asked.seq
                and (due is None or due > moment)
            )
            if asked is not None and asked.seq <= since and not begun:
                raise Wrong(f"{about} was triggered at {asked.at:%H:%M:%S} and did not run")
            if any(
                hold.open
                and hold.claim.job.uid == life.uid
                and hold.claim.job.standing.number < life.job.standing.number
                for hold in self.holds.values()
            ):
                continue  # moved on from under a lost claim: it ends when the job is next due
            waits = self._manual_waits(life, moment)
            if waits or life.touched > since or life.paused(moment):
                continue
            if life.job.standing.state is State.PAUSED:
                raise Wrong(f"{about} is still paused, after the end of the pause")
            if due is not None and due <= moment:
                raise Wrong(f"{about}: the occurrence at {counted:%d. %H:%M:%S} was left undone")

    def _newest_call(self, life: Life, moment: datetime | None) -> Call | None:
        """Return the newest call for the scheduled occurrence at the moment."""
        for call in self.newest.values():
            event = call.event
            mine = call.uid == life.uid and call.number >= life.epoch.number
            if mine and event.scheduled_at == moment and not event.manual:
                return call
        return None


__all__ = ["Oracle", "Wrong"]
