"""Operates jobs: pauses and skips, cancels and hurries, and runs once more what people ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from typing import Literal, NamedTuple

from attrs import evolve, frozen

from sched_core._model.claim import Change, Requested
from sched_core._model.execution import Execution, Kind, Status, bounded, occurrence_key
from sched_core._model.job import Job, check_text, texts_of
from sched_core._model.occurrence import Pending
from sched_core._rules import moment as moments
from sched_core._rules import operate, request
from sched_core._rules.grid import rest_of_backfill
from sched_core._rules.repeat import Selection, moments_of
from sched_core._service.definitions import Definitions
from sched_core._support.logger import Logger
from sched_core.clock import Clock
from sched_core.errors import (
    ExecutionNotFound,
    InvalidDefinition,
    JobNotFound,
    NothingToCancel,
    NothingToRetry,
    shown,
)
from sched_core.ports import Backend, ExecutionQuery, JobQuery, UndecodableExecution
from sched_core.schedule import utc

logger = Logger("sched_core")

PAGE = 200
"""Jobs or executions that are read at once."""
LARGEST_NUMBER = 2**60
"""Occurrences are never numbered as high."""

_REMOVED = "its job was removed, so it cannot be run again"

Only = Literal["missed", "failed"]
_STATUS = {"missed": Status.MISSED, "failed": Status.FAILED}


@frozen
class Request:
    """What was asked for by a backfill or a rerun, or would be.

    Attributes:
        job_id: The job's id.
        key: The idempotency key of its first occurrence, which names the whole request until it has
            ended: ``cancel_run`` takes it. ``None`` where nothing was asked for (``dry_run``).
        moments: How many moments it has; of a schedule that cannot count its moments, at least so
            many.
        first: The first of them.
        last: The last of them.
    """

    job_id: str
    key: str | None
    moments: int
    first: datetime
    last: datetime


class Name(NamedTuple):
    """An occurrence's name, in its parts."""

    uid: str
    number: int


def occurrence_of(key: object, field: str = "key") -> Name:
    """Return the parts of an idempotency key.

    Raises:
        InvalidDefinition: It is none.
    """
    check_text(field, key)
    uid, _, number = str(key).rpartition(":")
    if not uid or not (number.isascii() and number.isdecimal()) or len(number) > 19:
        raise InvalidDefinition(
            field,
            f"must be an idempotency key such as event.key or what trigger_job returns, "
            f"not {shown(key)}",
        )
    return Name(uid, min(int(number), LARGEST_NUMBER))


def checked_actor(actor: str | None) -> str | None:
    """Return who does something, as the caller names it.

    Raises:
        InvalidDefinition: It is no text of 1 to 255 characters.
    """
    if actor is not None:
        check_text("actor", actor)
    return actor


def checked_reason(reason: str | None) -> str | None:
    """Return a reason, cut to what an execution can keep.

    Raises:
        InvalidDefinition: It is no text.
    """
    if reason is None:
        return None
    if not isinstance(reason, str):
        raise InvalidDefinition("reason", f"must be a string, not {shown(reason)}")
    return bounded(reason)


class Operations:
    """Operates the jobs of a store.

    Args:
        definitions: Reads and writes the jobs.
        backend: The store.
        clock: The clock that decides.
    """

    def __init__(self, definitions: Definitions, backend: Backend, clock: Clock) -> None:
        self._definitions = definitions
        self._backend = backend
        self._clock = clock

    # -- pause and skip

    async def pause(
        self, job_id: str, *, until: datetime | None, reason: str | None, actor: str | None
    ) -> Job:
        """Pause a job."""
        by = checked_actor(actor)
        return await self._act(
            job_id,
            lambda job, now: operate.pause(job, until=until, reason=reason, now=now, actor=by),
        )

    async def resume(self, job_id: str, *, actor: str | None) -> Job:
        """End a pause, and correct wrong moments, since the scheduler's check skips paused jobs."""
        by = checked_actor(actor)

        def resume(job: Job, now: datetime) -> Job:
            resumed = operate.resume(job, at=now)
            return moments.corrected(resumed, now=now) or resumed

        job = await self._act(job_id, resume)
        _tell("resumed", job_id, by)
        return job

    async def reanchor(self, job_id: str) -> Job:
        """Move a job to its schedule's next moment if a wrong clock has put it far after that."""

        def mend(job: Job) -> Change | None:
            mended = moments.corrected(job, now=self._clock.now())
            return None if mended is None else Change(mended)

        return await self._definitions.edit(job_id, mend)

    async def skip_next(self, job_id: str, *, at: datetime | None, actor: str | None) -> Job:
        """Skip the first occurrence after now, or the one at a moment."""
        by, wanted = checked_actor(actor), None if at is None else utc(at, "moment")
        return await self._act(
            job_id, lambda job, now: operate.skip_next(job, now=now, wanted=wanted, actor=by)
        )

    async def unskip(self, job_id: str, *, actor: str | None) -> Job:
        """Take a skip back."""
        by = checked_actor(actor)
        job = await self._act(job_id, lambda job, _: operate.unskip(job))
        _tell("the skip was taken back", job_id, by)
        return job

    # -- one occurrence

    async def cancel(
        self, key: str | None, job_id: str | None, *, reason: str | None, actor: str | None
    ) -> Marked:
        """Mark an occurrence to be cancelled."""
        why, by, numbers = checked_reason(reason), checked_actor(actor), list[int]()
        name, job_id = await self._place(key, job_id, NothingToCancel)

        def mark(job: Job, now: datetime) -> Job:
            number = _number_in(job, name, key, NothingToCancel)
            marked = operate.cancel(job, now=now, number=number, reason=why, actor=by)
            numbers[:] = [job.held or 0 if number is None else number]
            return marked

        job = await self._act(job_id, mark)
        return Marked(job_id, occurrence_key(job.uid, numbers[0]))

    async def retry_now(self, key: str | None, job_id: str | None, *, actor: str | None) -> Job:
        """Have what waits for its next attempt attempted now."""
        by = checked_actor(actor)
        name, job_id = await self._place(key, job_id, NothingToRetry)

        def hurry(job: Job, now: datetime) -> Job:
            number = _number_in(job, name, key, NothingToRetry)
            return operate.retry_now(job, now=now, number=number, actor=by)

        return await self._act(job_id, hurry)

    async def _place(
        self,
        key: str | None,
        job_id: str | None,
        missing: type[NothingToCancel | NothingToRetry],
    ) -> tuple[Name | None, str]:
        """Return what a key names, and the id of its job."""
        if key is None:
            if job_id is None:
                raise InvalidDefinition(
                    "key", "must be given: the idempotency key of an occurrence, or else job_id="
                )
            return None, job_id
        name = occurrence_of(key)
        if job_id is None:
            job = await self._job_of(name.uid)
            if job is None:
                raise missing("", key)
            job_id = job.id
        return name, job_id

    async def _job_of(self, uid: str) -> Job | None:
        """Return the stored job of an incarnation."""
        after = None
        while True:
            page = await self._backend.jobs(JobQuery(uid=uid), after=after, limit=PAGE)
            for job in page.items:
                if isinstance(job, Job) and job.uid == uid:
                    return job
            if (after := page.next) is None:
                return None

    # -- requests

    async def trigger(
        self,
        job_id: str,
        *,
        args: Mapping[str, str] | None,
        request_key: str | None,
        actor: str | None,
    ) -> str:
        """Run a job once now, in addition to its schedule; return the occurrence's key."""
        by, given = checked_actor(actor), texts_of("args", args) or None
        if request_key is not None:
            check_text("request_key", request_key)
        job, one = await self._ask(
            job_id,
            lambda job, now: request.trigger(job, now=now, args=given, key=request_key, actor=by),
        )
        return occurrence_key(job.uid, one.number)

    async def rerun(self, execution_id: str, *, actor: str | None) -> str:
        """Run once more what an execution tells of; return the new occurrence's key."""
        by = checked_actor(actor)
        found = await self._execution(execution_id)

        def ask(job: Job, now: datetime) -> Requested:
            if job.uid != found.uid:
                raise ExecutionNotFound(execution_id, _REMOVED)
            if job.standing.find(found.number) is not None:
                raise InvalidDefinition(
                    "execution_id",
                    f"its occurrence has not ended: retry_now({found.uid}:{found.number!r}) makes "
                    "its next attempt at once",
                )
            return request.rerun(
                job, found.scheduled_at, now=now, key=found.id, args=found.args, actor=by
            )

        job, one = await self._ask(found.job_id, ask)
        return occurrence_key(job.uid, one.number)

    async def _execution(self, execution_id: str) -> Execution:
        """Return an execution of a stored job.

        Raises:
            ExecutionNotFound: There is none, it cannot be read, or its job was removed.
            InvalidDefinition: It is no execution's id.
        """
        check_text("execution_id", execution_id)
        key, _, attempt = execution_id.rpartition(":")
        if not attempt.isdecimal() or ":" not in key:
            raise InvalidDefinition(
                "execution_id",
                f"must be the id of an execution, uid:number:attempt, not {shown(execution_id)}",
            )
        occurrence_of(key, "execution_id")
        found = await self._backend.execution(execution_id)
        if isinstance(found, UndecodableExecution):
            raise ExecutionNotFound(execution_id, f"it cannot be read here: {found.reason}")
        if found is None:
            raise ExecutionNotFound(execution_id)
        if await self._backend.get(found.job_id) is None:
            raise ExecutionNotFound(execution_id, _REMOVED)
        return found

    async def backfill(
        self,
        job_id: str,
        start: datetime,
        end: datetime,
        *,
        only: Only | None,
        dry_run: bool,
        actor: str | None,
    ) -> Request | None:
        """Ask for the moments of a schedule from one to the other, as one request."""
        by, since, until = checked_actor(actor), utc(start, "start"), utc(end, "end")
        if only is not None and only not in _STATUS:
            raise InvalidDefinition("only", f"must be 'missed', 'failed' or None, not {only!r}")
        if since > until:
            raise InvalidDefinition("start", f"must not be after end, {until.isoformat()}")
        if only is not None:
            return await self._backfill_again(job_id, since, until, only, dry_run, by)

        def ask(job: Job, now: datetime) -> Requested:
            return request.backfill(job, since=since, until=until, now=now, actor=by)

        if dry_run:
            asked = ask(await self._definitions.get(job_id), self._clock.now())
            return _described(asked.job, _asked(asked), keyed=False)
        return _described(*await self._ask(job_id, ask))

    async def _backfill_again(
        self,
        job_id: str,
        since: datetime,
        until: datetime,
        only: Only,
        dry_run: bool,
        actor: str | None,
    ) -> Request | None:
        """Ask for the moments of a range whose newest outcome is the one given."""
        job, status = await self._definitions.get(job_id), _STATUS[only]
        request.first_to_backfill(job, since, until, self._clock.now())

        def wanted(one: Execution) -> Iterable[datetime]:
            return moments_of(job, one, since, until) if one.status is status else ()

        def is_of_schedule(one: Execution) -> bool:
            return one.uid == job.uid and one.kind is not Kind.TRIGGERED and one.args is None

        found = Selection("start", wanted)
        async for one in self._history(ExecutionQuery(job_id=job_id, final=True, since=since)):
            if is_of_schedule(one):
                found.take(one)
        key = f"{since.isoformat()}/{until.isoformat()} {only}"
        asked = await self._repeat(job, found, Kind.BACKFILLED, key, dry_run, actor)
        return asked[0] if asked else None

    async def rerun_all(
        self, query: ExecutionQuery, *, dry_run: bool, actor: str | None
    ) -> list[Request]:
        """Run once more what a query finds, as one request for each job and set of arguments."""
        by = checked_actor(actor)
        if not query.statuses:
            raise InvalidDefinition(
                "query",
                "must name the statuses that are to be repeated, or what succeeded would run "
                "again, too: ExecutionQuery(statuses=frozenset({Status.FAILED}))",
            )
        finals, jobs = evolve(query, final=True), dict[str, None]()
        if query.job_id is not None:
            jobs[query.job_id] = None
        else:
            async for one in self._history(finals):
                jobs.setdefault(one.job_id)
        requests = list[Request]()
        for job_id in jobs:
            job = await self._backend.get(job_id)
            if not isinstance(job, Job):
                continue  # it was removed, or a newer version has written it
            found = Selection(
                "query", lambda one: (one.scheduled_at,) if finals.matches(one) else ()
            )
            async for one in self._history(
                ExecutionQuery(job_id=job_id, final=True, since=query.since)
            ):
                if one.uid == job.uid:
                    found.take(one)
            requests += await self._repeat(job, found, Kind.RERUN, None, dry_run, by)
        return requests

    async def _repeat(
        self,
        job: Job,
        found: Selection,
        kind: Kind,
        key: str | None,
        dry_run: bool,
        actor: str | None,
    ) -> list[Request]:
        requests = list[Request]()
        for args, wanted in found.moments():
            if dry_run:
                requests.append(Request(job.id, None, len(wanted), wanted[0], wanted[-1]))
                continue

            def ask(
                stored: Job,
                now: datetime,
                wanted: list[datetime] = wanted,
                args: Mapping[str, str] | None = args,
            ) -> Requested:
                if stored.uid != job.uid:
                    raise JobNotFound(job.id)
                return request.repeat(
                    stored, wanted, now=now, kind=kind, key=key, args=args, actor=actor
                )

            stored, one = await self._ask(job.id, ask)
            requests.append(_described(stored, one))
        return requests

    # -- reading and writing

    async def _history(self, query: ExecutionQuery) -> AsyncIterator[Execution]:
        """Yield executions, newest first; those that cannot be read are passed over."""
        after = None
        while True:
            page = await self._backend.executions(query, after=after, limit=PAGE)
            for one in page.items:
                if isinstance(one, Execution):
                    yield one
            if (after := page.next) is None:
                return

    async def _ask(
        self, job_id: str, ask: Callable[[Job, datetime], Requested]
    ) -> tuple[Job, Pending]:
        """Write a request; return the job, and the request's occurrence as it is pending."""
        asked = list[Requested]()

        def edit(job: Job, now: datetime) -> Job:
            asked[:] = [ask(job, now)]
            return asked[0].job

        job = await self._act(job_id, edit)
        return job, _asked(asked[0])

    async def _act(self, job_id: str, act: Callable[[Job, datetime], Job]) -> Job:
        def edit(job: Job) -> Change:
            now = self._clock.now()
            return Change(act(operate.resumed_if_over(job, now=now), now))

        return await self._definitions.edit(job_id, edit)


class Marked(NamedTuple):
    """An occurrence that is marked to be cancelled."""

    job_id: str
    key: str


def _number_in(
    job: Job,
    name: Name | None,
    key: str | None,
    missing: type[NothingToCancel | NothingToRetry],
) -> int | None:
    """Return the number that a key's occurrence has now in a job; ``None`` without a key."""
    if name is None:
        return None
    if name.uid != job.uid:
        raise missing("", key)
    return operate.present_number(job, name.number)


def _asked(asked: Requested) -> Pending:
    """Return the occurrence of a request."""
    one = asked.job.standing.find(asked.number)
    if one is None:
        raise AssertionError("a request is pending")
    return one


def _described(job: Job, one: Pending, *, keyed: bool = True) -> Request:
    rest = rest_of_backfill(job, one)
    key = occurrence_key(job.uid, one.origin) if keyed else None
    last = rest.last or one.scheduled_at
    return Request(job.id, key, 1 + rest.number, one.scheduled_at, last)


def _tell(what: str, job_id: str, actor: str | None) -> None:
    """Log who did what leaves nothing that could name them."""
    if actor is not None:
        logger.info("job %r: %s by %s", job_id, what, actor)
