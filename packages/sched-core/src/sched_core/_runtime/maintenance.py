"""The upkeep that a running scheduler does next to running jobs; none of it is urgent.

It has the backend delete what has expired. It checks for jobs that it cannot read, and for stored
moments that are wrong because a clock or the rules of time zones have been corrected since.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from attrs import evolve

from sched_core._model.execution import describe
from sched_core._model.job import RESERVED, Job, JobSpec
from sched_core._model.occurrence import Standing
from sched_core._rules.moment import BELIEVED, corrected, is_from_ahead
from sched_core._runtime.observers import Observers
from sched_core._support.logger import Logger
from sched_core.clock import FIRST, Clock, StepWatch, elapsed, instant_after
from sched_core.errors import JobAlreadyExists, JobNotFound, RevisionConflict
from sched_core.ports import Backend, ExecutionQuery, JobQuery, Undecodable
from sched_core.schedule import Once
from sched_core.schedule.derivation import release

logger = Logger("sched_core")

RETENTION_BEGINS = timedelta(minutes=1)
RETENTION = timedelta(hours=1)
"""How often expired jobs and executions are deleted.

A clock that was set forward must stay so for as long before anything is deleted: if it is put right
within that time, nothing was deleted by mistake.
"""
CHECKS_BEGIN = timedelta(seconds=10)
"""Jobs that became due while no worker ran go first: a check may have to read every job."""
UNREADABLE_CHECK_EVERY = timedelta(hours=1)
LONGEST_CHECK_PAUSE = timedelta(minutes=5)
"""The longest pause after a check that failed."""
CHECK_PAUSE_FACTOR = 20
"""A failed check is repeated after so many times the seconds in which the store answered it."""
PAGE = 200
"""How many jobs are read at a time."""
SHOWN = 20
"""The most jobs that a message names."""


class Retention:
    """Has the backend delete what has expired.

    Args:
        backend: The backend that deletes.
        clock: The clock that decides.
        observers: They keep the problems for health.
        step: A clock that moves further than this at once was set.
    """

    def __init__(
        self, backend: Backend, clock: Clock, observers: Observers, *, step: timedelta
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._observers = observers
        self._steps = StepWatch(clock)
        self._step = step
        self._pruned_at: datetime | None = None

    async def run(self) -> None:
        """Delete expired data every hour, until cancelled."""
        pause = RETENTION_BEGINS  # soon, or a service that restarts often would never prune
        while True:
            await wait(self._clock, pause)
            if self._was_set_forward():
                pause = RETENTION
                continue
            try:
                await self._backend.prune(FIRST)
                pause = RETENTION
                self._observers.set_problem("retention", None)
            except Exception as error:
                pause = RETENTION_BEGINS  # health is bad until it succeeds
                logger.exception("retention failed, it is tried again")
                self._observers.set_problem("retention", describe(error))

    async def sometimes(self) -> None:
        """Delete expired data if that was not done for a day."""
        now = self._clock.now()
        if self._was_set_forward():
            return
        if self._pruned_at is None or now - self._pruned_at >= RETENTION * 24:
            self._pruned_at = now
            await self._backend.prune(FIRST)

    def _was_set_forward(self) -> bool:
        """Whether the clock was set forward since the last look."""
        if self._steps.step() <= self._step:
            return False
        logger.warning("the clock was set forward: nothing is deleted for %s", RETENTION)
        return True


class UnreadableCheck:
    """Finds jobs that this version cannot read, and that therefore do not run here.

    Args:
        backend: The backend that lists jobs.
        clock: The clock that decides.
        observers: They keep the notice that names the jobs.
    """

    def __init__(self, backend: Backend, clock: Clock, observers: Observers) -> None:
        self._backend = backend
        self._clock = clock
        self._observers = observers

    async def run(self) -> None:
        """Check soon, and then every hour, until cancelled."""
        pause = CHECKS_BEGIN
        while True:
            await wait(self._clock, pause)
            try:
                await self._check()
                pause = UNREADABLE_CHECK_EVERY
                self._observers.set_problem("listing", None)
            except Exception as error:  # noqa: BLE001 -- a third party's backend may raise anything
                pause = CHECKS_BEGIN  # health is bad until it succeeds
                logger.warning("the check for unreadable jobs failed: %s", describe(error))
                self._observers.set_problem("listing", describe(error))

    async def _check(self) -> None:
        page = await self._backend.jobs(UNREADABLE_JOBS, after=None, limit=SHOWN)
        found = [job for job in page.items if isinstance(job, Undecodable)]
        if not found:
            self._observers.set_notice("unreadable", None)
            return
        more = "" if page.next is None else ", and more"
        named = "; ".join(f"{job.id!r}: {job.reason}" for job in found) + more
        logger.warning("jobs that this version cannot read do not run here: %s", named)
        self._observers.set_notice("unreadable", f"jobs that this version cannot read: {named}")


class MomentsCheck:
    """Corrects the stored moments of jobs after a clock or the rules of time zones were wrong.

    A clock that was far ahead for a while leaves executions in the future behind. A record in the
    store tells whether this machine has newer rules of time zones than any worker had before. If
    neither is the case, a check costs two calls of the backend.

    Args:
        backend: The backend that lists jobs and executions.
        clock: The clock that decides.
        observers: They keep the notice that names the corrected jobs.
    """

    def __init__(self, backend: Backend, clock: Clock, observers: Observers) -> None:
        self._backend = backend
        self._clock = clock
        self._observers = observers
        self._is_newer = False
        self._awaits = self._left = False
        self._answered_at = elapsed(clock)

    async def run(self) -> None:
        """Check once, soon; check again if that fails, or leaves something to be done.

        Another worker that has begun a check may have died before its end. And a run that began in
        a future that did not come leaves a next moment there when it ends.
        """
        pause = CHECKS_BEGIN
        while True:
            await wait(self._clock, pause)
            began = self._answered_at = elapsed(self._clock)
            try:
                await self.check()
                self._observers.set_problem("moments", None)
                if not (self._awaits or self._left):
                    return
                pause = LONGEST_CHECK_PAUSE
            except Exception as error:  # noqa: BLE001 -- a third party's backend may raise anything
                pause = after_failure(self._answered_at - began)
                logger.warning("the check for wrong moments failed: %s", describe(error))
                self._observers.set_problem("moments", describe(error))

    async def check(self) -> None:
        """If moments may be wrong, read all jobs and correct them."""
        mine = release()
        # An earlier check that failed may have taken this up already.
        self._is_newer = self._is_newer or await self._takes_up(mine)
        ahead = ExecutionQuery(since=instant_after(self._clock.now(), BELIEVED))
        was_ahead = bool((await self._backend.executions(ahead, after=None, limit=1)).items)
        self._left = False
        if not self._is_newer and not was_ahead:
            return
        moved: list[str] = []
        after: str | None = None
        while True:
            page = await self._backend.jobs(JobQuery(), after=after, limit=PAGE)
            jobs = [job for job in page.items if isinstance(job, Job)]
            moved += [job.id for job in jobs if await self._put_right(job)]
            self._answered_at = elapsed(self._clock)
            if (after := page.next) is None:
                break
        if self._is_newer:
            await self._note_end(mine)
            self._is_newer = False
        if moved:
            named = ", ".join(map(repr, moved[:SHOWN])) + (", and more" * (len(moved) > SHOWN))
            why = "a clock was far ahead" if was_ahead else "there are new rules of time zones"
            text = f"{why}: the next moments of these jobs were put right: {named}"
            logger.warning(text)
            self._observers.set_notice("moments", text)

    async def _takes_up(self, mine: str) -> bool:
        """Return whether to check jobs by this machine's release of time zone rules.

        No check is needed if a worker has done it with this release or a newer one. If several
        workers begin at once, one takes the check up; the others see later whether it has ended.
        """
        stored = await self._backend.get(RELEASE)
        known = stored.spec.metadata if isinstance(stored, Job) else {}
        if not mine or isinstance(stored, Undecodable) or known.get("looked", "") >= mine:
            self._awaits = False
            return False
        newest = max(mine, known.get("release", ""))
        if newest == known.get("release") and not self._awaits:
            self._awaits = True
            return False
        self._awaits = not await self._write(stored, {**known, "release": newest})
        return not self._awaits

    async def _note_end(self, mine: str) -> None:
        stored = await self._backend.get(RELEASE)
        if isinstance(stored, Job):
            await self._write(stored, {**stored.spec.metadata, "looked": mine})

    async def _write(self, stored: Job | None, metadata: Mapping[str, str]) -> bool:
        """Write the record; return whether no other worker wrote it first."""
        spec = JobSpec(RELEASE, Once(FIRST), name="marker", metadata=metadata)
        try:
            if stored is None:
                now, standing = self._clock.now(), Standing(0, None, None)
                uid = f"{RELEASE}:{metadata['release']}"
                await self._backend.add([Job(spec, uid, True, now, standing)])
            else:
                await self._backend.replace(evolve(stored, spec=spec))
        except (JobAlreadyExists, JobNotFound, RevisionConflict):
            return False
        return True

    async def _put_right(self, job: Job) -> bool:
        """Correct a job's moments if they are wrong; return whether its next moment was moved."""
        now, standing = self._clock.now(), job.standing
        # The job's next moment is computed from this one when its run has ended.
        self._left = self._left or any(
            one is not None and is_from_ahead(job, one, now)
            for one in (standing.scheduled, *standing.requests)
        )
        mended = corrected(job, now=now)
        if mended is None or job.id.startswith(RESERVED):
            return False
        try:
            await self._backend.replace(mended)
        except (RevisionConflict, JobNotFound):
            return (
                False  # it was claimed or edited in the meantime, which corrects the moment as well
            )
        return (mended.next_run, mended.standing.due_at) != (job.next_run, standing.due_at)


RELEASE = f"{RESERVED}release"
"""The id of a record that holds two releases of time zone rules.

They are the newest that a worker has had, and the newest by which a worker has checked all jobs.
"""
UNREADABLE_JOBS = JobQuery(group="\x1f")
"""Matches unreadable jobs alone.

No group has a control character in its name, and a list always includes jobs that cannot be read.
"""


def after_failure(worked: float) -> timedelta:
    """Return the pause after a check that failed, by the seconds in which the store answered it.

    Health is bad until a check succeeds, so the next one comes soon. A check may read every job:
    the longer it has read, the later it comes again, or checks would keep the store busy. How often
    a check has failed does not matter, nor how long its last call hung: health turns good as soon
    after a long outage as after a short one.
    """
    return min(
        max(CHECKS_BEGIN, timedelta(seconds=CHECK_PAUSE_FACTOR * worked)), LONGEST_CHECK_PAUSE
    )


async def wait(clock: Clock, duration: timedelta) -> None:
    """Wait for a duration, whatever the clock is set to in the meantime."""
    ends = elapsed(clock) + duration.total_seconds()
    while (left := ends - elapsed(clock)) > 0:
        await clock.sleep_until(instant_after(clock.now(), timedelta(seconds=left)))
