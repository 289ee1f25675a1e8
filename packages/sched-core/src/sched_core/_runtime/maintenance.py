"""What a running scheduler does beside running jobs, and is never urgent.

It has the backend delete what has expired, looks for jobs that it cannot read, and for moments that
are wrong since a clock or the rules of time zones were mended.
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
"""How often expired jobs and executions are deleted. For as long a clock that was set forward
must stay so before anything is: one that is put right meanwhile has deleted nothing."""
LOOK_BEGINS = timedelta(seconds=10)
"""What became due while no worker was there goes first: the look may have to read every job."""
LOOK_FOR_UNREADABLE = timedelta(hours=1)
LOOK_AGAIN = timedelta(minutes=5)
"""Longest pause after a look that failed."""
LOOK_SHARE = 20
"""A look that failed is made again after so many times as long as the store answered it."""
PAGE = 200
"""Jobs that are read at a time."""
SHOWN = 20
"""Most jobs that are named."""


class Retention:
    """Has the backend delete what has expired.

    Args:
        backend: That deletes.
        clock: The one that decides.
        observers: Told of troubles.
        step: A clock that moves further than that at once was set.
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
        """Delete until cancelled, every hour."""
        pause = RETENTION_BEGINS  # soon, or a service that restarts often would never prune
        while True:
            await wait(self._clock, pause)
            if self._was_set_forward():
                pause = RETENTION
                continue
            try:
                await self._backend.prune(FIRST)
                pause = RETENTION
                self._observers.trouble("retention", None)
            except Exception as error:
                pause = RETENTION_BEGINS  # health is bad until it succeeds
                logger.exception("retention failed, it is tried again")
                self._observers.trouble("retention", describe(error))

    async def sometimes(self) -> None:
        """Delete if it was not done for a day."""
        now = self._clock.now()
        if self._was_set_forward():
            return
        if self._pruned_at is None or now - self._pruned_at >= RETENTION * 24:
            self._pruned_at = now
            await self._backend.prune(FIRST)

    def _was_set_forward(self) -> bool:
        """Whether the clock shows a time, by being set, in which nothing has expired yet."""
        if self._steps.step() <= self._step:
            return False
        logger.warning("the clock was set forward: nothing is deleted for %s", RETENTION)
        return True


class Unreadable:
    """Looks for jobs that this version cannot read, and that therefore do not run here.

    Args:
        backend: That lists them.
        clock: The one that decides.
        observers: Told of them.
    """

    def __init__(self, backend: Backend, clock: Clock, observers: Observers) -> None:
        self._backend = backend
        self._clock = clock
        self._observers = observers

    async def run(self) -> None:
        """Look until cancelled, soon and then every hour."""
        pause = LOOK_BEGINS
        while True:
            await wait(self._clock, pause)
            try:
                await self._look()
                pause = LOOK_FOR_UNREADABLE
                self._observers.trouble("listing", None)
            except Exception as error:  # noqa: BLE001 -- a third party's backend may raise anything
                pause = LOOK_BEGINS  # health is bad until it succeeds
                logger.warning("the look for unreadable jobs failed: %s", describe(error))
                self._observers.trouble("listing", describe(error))

    async def _look(self) -> None:
        page = await self._backend.jobs(NO_READABLE_JOB, after=None, limit=SHOWN)
        found = [job for job in page.items if isinstance(job, Undecodable)]
        if not found:
            self._observers.notice("unreadable", None)
            return
        more = "" if page.next is None else ", and more"
        named = "; ".join(f"{job.id!r}: {job.reason}" for job in found) + more
        logger.warning("jobs that this version cannot read do not run here: %s", named)
        self._observers.notice("unreadable", f"jobs that this version cannot read: {named}")


class Moments:
    """Puts right the stored moments of all jobs where it can be seen that some are wrong.

    A clock that was far ahead for a while leaves executions in the future behind. A newer release
    of the time zone database than the store has seen is told by a record of the store's own. Where
    there is neither, a look costs two questions.

    Args:
        backend: That lists jobs and executions.
        clock: The one that decides.
        observers: Told of what was done.
    """

    def __init__(self, backend: Backend, clock: Clock, observers: Observers) -> None:
        self._backend = backend
        self._clock = clock
        self._observers = observers
        self._is_newer = False
        self._awaits = self._left = False
        self._answered_at = elapsed(clock)

    async def run(self) -> None:
        """Look once, soon; again where that fails, or where it has not seen the end of all.

        Another worker that has not ended its look may have died. What began in a future that did
        not come leaves a next moment there when it ends.
        """
        pause = LOOK_BEGINS
        while True:
            await wait(self._clock, pause)
            began = self._answered_at = elapsed(self._clock)
            try:
                await self.look()
                self._observers.trouble("moments", None)
                if not (self._awaits or self._left):
                    return
                pause = LOOK_AGAIN
            except Exception as error:  # noqa: BLE001 -- a third party's backend may raise anything
                pause = after_failure(self._answered_at - began)
                logger.warning("the look for wrong moments failed: %s", describe(error))
                self._observers.trouble("moments", describe(error))

    async def look(self) -> None:
        """Read all jobs, and put their moments right, where some may be wrong."""
        mine = release()
        # Taken up already where an earlier look has failed after that.
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
            self._observers.notice("moments", text)

    async def _takes_up(self, mine: str) -> bool:
        """Return whether to look by this machine's release of time zone rules.

        Not where that was done by this release or a newer one. Of several workers that begin at
        once one takes it up, and the others see later whether it has come to the end.
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
        """Write the record; return whether nobody else did meanwhile."""
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
        """Return whether the job's next moment was moved."""
        now, standing = self._clock.now(), job.standing
        # Its next moment is computed from that when it has ended.
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
            return False  # it was claimed or edited meanwhile, which looks at the moment itself
        return (mended.next_run, mended.standing.due_at) != (job.next_run, standing.due_at)


RELEASE = f"{RESERVED}release"
"""The id of the record that tells the newest release of time zone rules that a worker has had, and
the newest by which a worker has looked at all jobs."""
NO_READABLE_JOB = JobQuery(group="\x1f")
"""No group has a control character in its name. What cannot be read is listed all the same."""


def after_failure(worked: float) -> timedelta:
    """Return the pause after a look that failed, by the seconds in which the store answered it.

    Health is bad until a look succeeds, so the next one comes soon. A look may read every job: one
    that has read for long comes later, or looks would be what the store is busy with. Neither how
    often a look has failed matters nor how long its last call hung: after a long outage, health is
    good as soon as after a short one.
    """
    return min(max(LOOK_BEGINS, timedelta(seconds=LOOK_SHARE * worked)), LOOK_AGAIN)


async def wait(clock: Clock, duration: timedelta) -> None:
    """Wait until so much has elapsed, whatever the clock is set to meanwhile."""
    ends = elapsed(clock) + duration.total_seconds()
    while (left := ends - elapsed(clock)) > 0:
        await clock.sleep_until(instant_after(clock.now(), timedelta(seconds=left)))
