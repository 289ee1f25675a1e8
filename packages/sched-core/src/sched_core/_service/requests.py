"""Asks for further runs: triggers, reruns and backfills."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from typing import Literal, NamedTuple

from attrs import evolve, frozen

from sched_core._model.claim import Requested
from sched_core._model.execution import Execution, Kind, Status, occurrence_key
from sched_core._model.job import Job, check_text, texts_of
from sched_core._model.occurrence import Pending
from sched_core._rules import request
from sched_core._rules.grid import rest_of_backfill
from sched_core._rules.repeat import Selection, moments_of
from sched_core._service.definitions import Definitions
from sched_core._service.maintenance import MaintenanceRecord, refuse_covered
from sched_core._service.names import PAGE, checked_actor, job_of, occurrence_of
from sched_core.clock import Clock
from sched_core.errors import ExecutionNotFound, InvalidDefinition, JobNotFound, shown
from sched_core.ports import Backend, ExecutionQuery, UndecodableExecution
from sched_core.schedule import utc

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


class Asked(NamedTuple):
    """An occurrence that was asked for.

    Attributes:
        key: Its idempotency key.
        is_new: Whether no earlier request is the same.
    """

    key: str
    is_new: bool


class Requests:
    """Asks for further runs of the jobs of a store.

    Args:
        definitions: Reads and writes the jobs.
        backend: The store.
        clock: The clock that decides.
        maintenance: What is under maintenance is asked for nothing.
    """

    def __init__(
        self,
        definitions: Definitions,
        backend: Backend,
        clock: Clock,
        maintenance: MaintenanceRecord,
    ) -> None:
        self._definitions = definitions
        self._maintenance = maintenance
        self._backend = backend
        self._clock = clock

    async def trigger(
        self,
        job_id: str,
        *,
        args: Mapping[str, str] | None,
        request_key: str | None,
        actor: str | None,
    ) -> str:
        """Run a job once now, in addition to its schedule; return the occurrence's key."""
        asked = await self.ask_to_run(job_id, args=args, request_key=request_key, actor=actor)
        return asked.key

    async def ask_to_run(
        self,
        job_id: str,
        *,
        args: Mapping[str, str] | None,
        request_key: str | None,
        actor: str | None,
    ) -> Asked:
        """Run a job once now, in addition to its schedule; return what was asked for."""
        by, given = checked_actor(actor), texts_of("args", args) or None
        if request_key is not None:
            check_text("request_key", request_key)
        is_new = False

        def ask(job: Job, now: datetime) -> Requested:
            nonlocal is_new
            asked = request.trigger(job, now=now, args=given, key=request_key, actor=by)
            is_new = asked.job != job
            return asked

        job, one = await self._ask(job_id, ask)
        return Asked(occurrence_key(job.uid, one.number), is_new)

    async def rerun(self, execution_id: str, *, actor: str | None) -> str:
        """Run once more what an execution tells of; return the new occurrence's key."""
        by = checked_actor(actor)
        job_id, found = await self._execution(execution_id)

        def ask(job: Job, now: datetime) -> Requested:
            if job.uid != found.uid:
                raise ExecutionNotFound(execution_id, _REMOVED)
            if job.standing.find(found.number) is not None:
                key = occurrence_key(found.uid, found.number)
                raise InvalidDefinition(
                    "execution_id",
                    f"its occurrence has not ended: retry_now({key!r}) makes its next attempt now",
                )
            return request.rerun(
                job, found.scheduled_at, now=now, key=found.id, args=found.args, actor=by
            )

        job, one = await self._ask(job_id, ask)
        return occurrence_key(job.uid, one.number)

    async def _execution(self, execution_id: str) -> tuple[str, Execution]:
        """Return an execution of a stored job, after the job's id.

        Raises:
            ExecutionNotFound: There is none, it cannot be read, or its job was removed.
            InvalidDefinition: It is no execution's id.
        """
        check_text("execution_id", execution_id)
        key, _, attempt = execution_id.rpartition(":")
        if not (attempt.isascii() and attempt.isdecimal()) or ":" not in key:
            raise InvalidDefinition(
                "execution_id",
                f"must be the id of an execution, uid:number:attempt, not {shown(execution_id)}",
            )
        uid = occurrence_of(key, "execution_id").uid
        found = await self._backend.execution(execution_id)
        if found is None:
            raise ExecutionNotFound(execution_id)
        if isinstance(found, UndecodableExecution):
            raise ExecutionNotFound(execution_id, f"it cannot be read here: {found.reason}")
        job = await job_of(self._backend, uid)
        if job is None:
            raise ExecutionNotFound(execution_id, _REMOVED)
        return job.id, found

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
        """Write a request; return the job, and the request's occurrence as it is pending.

        Raises:
            UnderMaintenance: The job is under maintenance.
        """
        asked, maintenance = list[Requested](), await self._maintenance.read()

        def edit(job: Job, now: datetime) -> Job:
            refuse_covered(job.spec, maintenance)
            asked[:] = [ask(job, now)]
            return asked[0].job

        job = await self._definitions.operate(job_id, edit)
        return job, _asked(asked[0])


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
