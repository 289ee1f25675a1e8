"""What was commanded: the incarnations of every job, and the order of everything that happened."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import Factory, define, evolve

from sched_core import Job, Kind, Status
from sched_testkit._oracle.incarnations import Incarnation, ScheduleEra
from sched_testkit._oracle.observed import Observed
from sched_testkit._oracle.violation import Violation


@define
class Known:
    """All incarnations, and the order of everything that happened.

    Attributes:
        observed: What was seen of each occurrence: an edit leaves alone what has begun.
        incarnations: Every incarnation that ever was, by its uid.
        current: The incarnation that each job id has now.
        seq: The newest place in the order of everything that happened.
        set_back: Whether the clock was set back: what has run may then seem early.
    """

    observed: Observed
    incarnations: dict[str, Incarnation] = Factory(dict)
    current: dict[str, Incarnation] = Factory(dict)
    seq: int = 0
    set_back: bool = False

    def copy(self, observed: Observed) -> Known:
        """Return an independent copy that holds other observations."""
        incarnations = {uid: each.copy() for uid, each in self.incarnations.items()}
        current = {job_id: incarnations[each.uid] for job_id, each in self.current.items()}
        return evolve(self, observed=observed, incarnations=incarnations, current=current)

    def next_seq(self) -> int:
        """Return the next place in the order of everything that happens."""
        self.seq += 1
        return self.seq

    def alive(self) -> list[str]:
        """Return the ids that have a job, sorted."""
        return sorted(self.current)

    def commanded(self, job: Job) -> Incarnation:
        """Return the incarnation that a command has reached: it must be the current one."""
        self.next_seq()
        incarnation = self.current.get(job.id)
        if incarnation is None or incarnation.uid != job.uid:
            raise Violation(
                f"a command reached {job.id!r} of the incarnation {job.uid}, which is gone"
            )
        return incarnation

    def reschedule(
        self, uid: str, schedule: Any, now: datetime, before: Job | None, number: int = 0
    ) -> None:
        """Note that a schedule takes effect.

        Args:
            uid: The incarnation.
            schedule: The new schedule.
            now: The moment by the clock.
            before: The job before the edit, with what a worker holds of it.
            number: The newest number that the job gave before.
        """
        incarnation, observed = self.incarnations.setdefault(uid, Incarnation(uid)), self.observed
        if not incarnation.eras:
            incarnation.eras.append(ScheduleEra(schedule, now, number, self.seq))
            return
        self._end_era(incarnation, now, before)
        mine = observed.finals_of(uid)
        ahead = {
            found.number: found.scheduled_at for found in mine if observed.is_cancelled_ahead(found)
        }
        ran = [
            found
            for found in mine
            if found.kind is Kind.SCHEDULED and found.status is not Status.SUPERSEDED
            if found.number not in ahead
        ]
        must = max((found.scheduled_at for found in ran), default=None)
        begun = [moment for number, moment in incarnation.begun.items() if number not in ahead]
        begun += [found.coalesced_until or found.scheduled_at for found in ran]
        held = held_moment(before)
        if held is not None:
            begun.append(held)
        may = max(begun, default=None)
        cancelled = frozenset(moment for moment in ahead.values() if moment > now)
        incarnation.eras.append(
            ScheduleEra(schedule, now, number, self.seq, must, may, cancelled=cancelled)
        )
        pause = incarnation.paused_at(now)
        if pause is not None and pause.since > now:
            pause.end_seq = self.seq - 1
            incarnation.pauses.append(evolve(pause, since=now, seq=self.seq, end_seq=None))

    def remove(self, uid: str, now: datetime, before: Job | None) -> None:
        """Note that a command has removed the job."""
        incarnation = self.incarnations[uid]
        self._end_era(incarnation, now, before)
        incarnation.removed = self.seq

    def _end_era(self, incarnation: Incarnation, now: datetime, before: Job | None) -> None:
        era, pause = incarnation.eras[-1], incarnation.paused_at(now)
        one = None if before is None else before.standing.scheduled
        if before is not None and one is not None and one.number == before.held:
            era.held = one.scheduled_at, one.began_at or before.held_at or now
        era.end, era.end_seq = now, self.seq
        era.paused = None if pause is None else pause.since


def held_moment(job: Job | None) -> datetime | None:
    """Return the moment of the schedule's occurrence where a worker holds it."""
    one = None if job is None else job.standing.scheduled
    if job is None or one is None or one.number != job.held:
        return None
    return one.scheduled_at
