"""The scheduler: the calls with which a service declares, operates and runs its jobs."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Literal, Self

import anyio
from attrs import frozen

from sched_core._model.execution import DEFAULT_QUEUE, Execution
from sched_core._model.job import RESERVED, Job, JobSpec, check_text
from sched_core._model.policy import Policy
from sched_core._runtime import transactions
from sched_core._runtime.lanes import checked_queues
from sched_core._runtime.loop import Loop
from sched_core._runtime.observers import Health, Observer, Observers
from sched_core._runtime.shutdown import DEFAULT_GRACE, FLUSH
from sched_core._runtime.workers import Workers
from sched_core._service.bulk import Bulk, BulkParts
from sched_core._service.definitions import (
    UNSET,
    Definitions,
    Unset,
    changes_of,
    spec_of,
)
from sched_core._service.in_transaction import JobsInTransaction
from sched_core._service.maintenance import MaintenanceRecord, MaintenanceSwitch
from sched_core._service.marker import version_of
from sched_core._service.names import checked_actor, checked_reason
from sched_core._service.operations import Operations
from sched_core._service.requests import Request, Requests
from sched_core._service.survey import Survey
from sched_core._service.sync import Sync, Synced
from sched_core._support.logger import Logger
from sched_core.affinity import Affinity
from sched_core.clock import Clock, SystemClock
from sched_core.errors import (
    HandlerNotSet,
    InvalidDefinition,
    JobAlreadyExists,
    SchedulerNotStarted,
    SchedulerRunning,
)
from sched_core.handlers import Dispatcher, Handler
from sched_core.ports import (
    Backend,
    ExecutionQuery,
    JobQuery,
    Undecodable,
    UndecodableExecution,
)
from sched_core.schedule import Schedule

PAGE = 200

logger = Logger("sched_core")


def random_id() -> str:
    """Return 128 random bits in hexadecimal."""
    return secrets.token_hex(16)


_running: ContextVar[Scheduler] = ContextVar("sched_core.running")


def running_scheduler() -> Scheduler:
    """Return the scheduler that has called the handler from which this is called.

    Raises:
        SchedulerNotStarted: No scheduler has called it.
    """
    try:
        return _running.get()
    except LookupError:
        raise SchedulerNotStarted(
            "no scheduler has called this: it works in handlers of a running scheduler"
        ) from None


class Scheduler(Survey, Bulk, MaintenanceSwitch):
    """Declares, operates and runs the jobs on a backend.

    ``async with`` opens the backend and starts no task; ``run_forever`` runs due jobs. You can call
    ``ensure_job``, ``submit_job`` and ``submit_jobs`` before the scheduler is open: it queues these
    calls and applies them in order when it opens. Until then nothing is stored.

    Args:
        backend: The backend that stores the jobs.
        handler: A callable that gets a :class:`~sched_core.JobEvent` for each attempt. An ``async``
            one runs in the event loop, a plain function in a thread.
        clock: The clock that tells the time and waits; by default the machine's.
        worker: A name for this worker, for people. Claims carry it with a random suffix that makes
            it unique.
        max_concurrency: The most handlers that run at a time; 100 unless given. With ``queues`` it
            is the sum of their numbers.
        queues: The queues that this worker serves, and how many of their jobs run here at a time,
            such as ``{"alerts": 20, "bulk": 50}``. Each queue has its own places, so bulk work
            never delays an alert. ``"*"`` means all queues that are not named; without it
            their jobs are left to other workers. The numbers are this process's: so many run in
            each process that serves the queue. ``None`` serves all queues.
        observers: Callables that get every execution that this scheduler has written, once it is
            stored, and every change of health. They run in the event loop and must not block.
        new_id: A function that makes the random part of job uids and worker names, for repeatable
            tests.

    Raises:
        InvalidDefinition: An argument is out of bounds.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        handler: Handler | None = None,
        clock: Clock | None = None,
        worker: str | None = None,
        max_concurrency: int | None = None,
        queues: Mapping[str, int] | None = None,
        observers: Sequence[Observer] = (),
        new_id: Callable[[], str] = random_id,
    ) -> None:
        self._queues = checked_queues(queues)
        if worker is not None:
            check_text("worker", worker)
        self._backend = backend
        self._given_clock: Clock = SystemClock() if clock is None else clock
        self._worker = worker
        self._max_concurrency = _concurrency(max_concurrency, self._queues)
        self._observers = Observers(backend, observers)
        self._new_id = new_id
        self._handler: Handler | None = None
        self._handler_set = anyio.Event()
        self._running_event = anyio.Event()
        self._queued: list[tuple[JobSpec, bool, str | None]] = []
        self._declared: tuple[object, tuple[JobSpec, ...]] | None = None
        self._opened: _Opened | None = None
        self._busy = False
        if handler is not None:
            self.set_handler(handler)

    @property
    def backend(self) -> Backend:
        """The backend that stores the jobs; its ``str`` is for people."""
        return self._backend

    # -- opening

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise SchedulerRunning("this scheduler is open already: use one Scheduler for each")
        name = self._new_id() if self._worker is None else f"{self._worker}-{self._new_id()}"
        clock = await self._backend.open(self._given_clock, worker=name)
        self._observers.forget()
        self._declared = None
        opened = self._opened = self._parts(clock, name)
        self._observers.watch(self)
        try:
            while self._queued:
                spec, declared, actor = self._queued[0]
                if declared:
                    await opened.definitions.ensure(spec, actor=actor)
                else:
                    await opened.definitions.submit([spec], actor=actor)
                del self._queued[0]
            await self._declare()
        except BaseException:
            await self._close()
            raise
        return self

    async def _declare(self) -> None:
        """Store the jobs that the handler declares, unless that was done before."""
        handler: Any = self._handler
        if not isinstance(handler, Dispatcher) or not handler.declares:
            return
        specs = tuple(handler.specs)
        if self._declared == (handler, specs):
            return
        if handler.group is not None:
            await self.sync_jobs(
                specs,
                group=handler.group,
                version=handler.version,
                renamed_from=handler.renamed_from,
            )
        else:
            for spec in specs:
                await self._open().definitions.ensure(spec)
        self._declared = (handler, specs)

    def _parts(self, clock: Clock, worker: str) -> _Opened:
        workers = Workers(
            self._backend,
            clock,
            max_concurrency=self._max_concurrency,
            queues=self._queues,
            on_execution=self._observers.notify if self._observers else None,
            set_problem=self._observers.set_problem,
            set_notice=self._observers.set_notice,
        )
        if self._handler is not None:
            workers.set_handler(self._handler)
        definitions = self._definitions(clock)
        maintenance = MaintenanceRecord(
            self._backend, clock, new_id=self._new_id, switches=workers.switches
        )
        return _Opened(
            clock=clock,
            workers=workers,
            loop=Loop(
                self._backend, clock, workers, self._observers, self._handler_set, worker=worker
            ),
            definitions=definitions,
            operations=Operations(definitions, self._backend, clock),
            requests=Requests(definitions, self._backend, clock, maintenance),
            maintenance=maintenance,
            affinity=Affinity("this scheduler"),
        )

    def _definitions(self, clock: Clock) -> Definitions:
        return Definitions(self._backend, clock, new_id=self._new_id, edited=self._observers.edited)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        cancelled = kind is not None and not issubclass(kind, Exception)
        with anyio.CancelScope(shield=True):
            await self.stop(0 if cancelled else DEFAULT_GRACE)
            await self._close()

    async def _close(self) -> None:
        opened, self._opened = self._opened, None
        seconds = FLUSH if opened is None else opened.loop.left_to_close()
        with anyio.CancelScope(shield=True), anyio.move_on_after(seconds) as limit:
            await self._backend.close()
        if limit.cancelled_caught:
            logger.error(
                "the backend did not close within %.1f s; the scheduler waits no longer", seconds
            )

    def _open(self, *, any_loop: bool = False) -> _Opened:
        if self._opened is None:
            raise SchedulerNotStarted(
                "the scheduler is not open: use it inside `async with scheduler:`"
            )
        if any_loop:
            self._opened.affinity.check_process()
        else:
            self._opened.affinity.check()
        return self._opened

    def _looking(self) -> tuple[Backend, Clock]:
        return self._backend, self._open().clock

    def _bulk(self) -> BulkParts:
        opened = self._open()
        return BulkParts(
            self._backend,
            opened.clock,
            opened.definitions,
            opened.operations,
            opened.requests,
            opened.workers.leases.look,
        )

    def _maintenance(self) -> MaintenanceRecord:
        return self._open().maintenance

    def set_handler(self, handler: Handler) -> None:
        """Use this handler for all runs that have not begun.

        Raises:
            InvalidDefinition: The handler cannot be called.
        """
        if not callable(handler):
            raise InvalidDefinition(
                "handler", f"must be a function that takes a JobEvent, not {handler!r}"
            )
        self._handler = handler
        if self._opened is not None:
            self._opened.workers.set_handler(handler)
        self._handler_set.set()

    # -- declaring

    async def ensure_job(
        self,
        id: str,
        schedule: Schedule,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        policy: Policy | None = None,
        group: str | None = None,
        queue: str = DEFAULT_QUEUE,
        actor: str | None = None,
    ) -> Job:
        """Declare a job: add it, or change it if its definition differs.

        Call this at every start: if the definition is the same, nothing changes. Only a changed
        *schedule* moves the anchor and occurrences that are not yet due. An occurrence that is due
        or has begun is kept, once, unless the new schedule lists calendar moments and this is none
        of them. Changed metadata or a changed policy keep all occurrences. Where something changes,
        ``job.actor`` is who changes it.

        Returns:
            The job as stored; before the scheduler is open, as it would be stored.

        Raises:
            InvalidDefinition: A value is out of bounds; nothing was stored.
            JobNotFound: A ``sync_jobs`` that moves the job here from another id was interrupted.
                Call ``sync_jobs`` again.
            JobUndecodable: This version cannot read the record under the id.
            BackendUnavailable: The store cannot be reached; call again.
        """
        spec = spec_of(id, schedule, name, metadata, policy, group, queue)
        by = checked_actor(actor)
        if self._opened is None:
            return self._enqueue(spec, declared=True, actor=by)
        return await self._open().definitions.ensure(spec, actor=by)

    async def submit_job(
        self,
        id: str,
        schedule: Schedule,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        policy: Policy | None = None,
        group: str | None = None,
        queue: str = DEFAULT_QUEUE,
        actor: str | None = None,
    ) -> Job:
        """Add a job. Once it has finished, it is deleted after ``policy.keep_finished``.

        ``job.actor`` is who adds it.

        Returns:
            The job as stored; before the scheduler is open, as it would be stored.

        Raises:
            JobAlreadyExists: Another job is stored under the id; nothing was stored.
            InvalidDefinition: A value is out of bounds; nothing was stored.
            BackendUnavailable: The outcome is unknown. Call ``get_job`` before you submit again.
        """
        spec = spec_of(id, schedule, name, metadata, policy, group, queue)
        by = checked_actor(actor)
        if self._opened is None:
            return self._enqueue(spec, declared=False, actor=by)
        return (await self._open().definitions.submit([spec], actor=by))[0]

    async def submit_jobs(
        self, specs: Sequence[JobSpec], *, atomic: bool = True, actor: str | None = None
    ) -> list[Job]:
        """Add many jobs.

        Args:
            specs: The definitions, each id once.
            atomic: Whether to store all jobs or none; ``capabilities.bulk_limit`` says how many
                that can be. False stores them in chunks, each of which is all or none.
            actor: Who adds them, for people: ``job.actor``.

        Raises:
            JobAlreadyExists: An id is taken; with ``atomic`` nothing was stored.
            InvalidDefinition: There are more jobs than the backend takes at once, or an id occurs
                twice.
        """
        specs, by = list(specs), checked_actor(actor)
        seen: set[str] = set()
        for spec in specs:
            if spec.id in seen:
                raise InvalidDefinition("specs", f"the id {spec.id!r} occurs twice")
            seen.add(spec.id)
        if self._opened is None:
            return [self._enqueue(spec, declared=False, actor=by) for spec in specs]
        limit = self._backend.capabilities.bulk_limit
        if atomic and limit is not None and len(specs) > limit:
            raise InvalidDefinition(
                "specs",
                f"this backend adds at most {limit} jobs all-or-nothing, not {len(specs)}: "
                "pass atomic=False",
            )
        size = len(specs) if atomic else min(limit or 1000, 1000)
        stored: list[Job] = []
        for start in range(0, len(specs), size or 1):
            stored += await self._open().definitions.submit(specs[start : start + size], actor=by)
        return stored

    def _enqueue(self, spec: JobSpec, *, declared: bool, actor: str | None) -> Job:
        if not declared and any(spec.id == queued[0].id for queued in self._queued):
            raise JobAlreadyExists(spec.id)
        definitions = self._definitions(self._given_clock)
        job = definitions.admit(spec, declared=declared, actor=actor)
        self._queued.append((spec, declared, actor))
        return job

    async def sync_jobs(
        self,
        specs: Iterable[JobSpec],
        *,
        group: str,
        version: int | str | None = None,
        prune: bool = True,
        dry_run: bool = False,
        renamed_from: Mapping[str, str] | None = None,
        actor: str | None = None,
    ) -> Synced:
        """Declare a whole set: add, change and remove jobs until the group is what the specs say.

        A sync is no transaction, but it converges: call it again after an interruption, also from
        other replicas at the same time, and it continues. As with :meth:`ensure_job`, only a
        changed schedule moves the next occurrence. A job with the same id that ``ensure_job`` has
        declared without a group joins the group.

        Args:
            specs: The set, each id once. The specs may leave their group out.
            group: The group's name, for example that of the service.
            version: The version of this deployment: a whole number, or dotted numbers such as
                ``"1.4.10"``, which grow with every deployment. Once a version has synced, syncs
                with an older version, or with none, change nothing. If no sync has a version, the
                last one wins.
            prune: Whether to remove jobs of the group that are not in the set.
            dry_run: Whether to return what would be done, and to write nothing.
            renamed_from: The earlier ids of jobs of the set, by their present ids. A renamed job
                keeps its pending occurrences, retries and requests under the same idempotency keys;
                a run in flight ends under the old id.
            actor: Who declares them, for people: ``job.actor`` of each job that changes, and
                ``actor`` of the executions of what ends.

        Raises:
            GroupConflict: An id is of another group, or was submitted; nothing was written.
            InvalidDefinition: A value is out of bounds, an id occurs twice or is of another group.
            SchedulerNotStarted: The scheduler is not open.
            BackendUnavailable: A part may have been done; call again.
        """
        opened = self._open()
        sync = Sync(
            self._backend,
            opened.clock,
            new_id=self._new_id,
            edited=self._observers.edited,
            advise=opened.definitions.advise,
            group=group,
            version=version_of(version),
            renamed_from={} if renamed_from is None else renamed_from,
            actor=checked_actor(actor),
        )
        return await sync.run(specs, prune=prune, dry_run=dry_run)

    async def update_job(
        self,
        id: str,
        schedule: Schedule | Unset = UNSET,
        *,
        name: str | Unset | None = UNSET,
        metadata: Mapping[str, str] | Unset = UNSET,
        policy: Policy | Unset = UNSET,
        group: str | Unset | None = UNSET,
        queue: str | Unset = UNSET,
        actor: str | None = None,
    ) -> Job:
        """Change the given fields and keep the others; :meth:`ensure_job` says what that moves.

        Where something changes, ``job.actor`` is who changes it.

        Raises:
            JobNotFound: There is no such job.
            JobUndecodable: This version cannot read the record.
            InvalidDefinition: A value is out of bounds; nothing was stored.
        """
        changes = changes_of(schedule, name, metadata, policy, group, queue)
        return await self._open().definitions.update(id, changes, actor=checked_actor(actor))

    async def remove_job(
        self,
        id: str,
        *,
        cancel: bool = False,
        reason: str | None = None,
        actor: str | None = None,
    ) -> None:
        """Remove a job. A run in flight cannot bring the job back.

        Args:
            id: The job's id.
            cancel: Whether to cancel a run in flight, as ``cancel_run`` does; else it continues.
            reason: Why the run is cancelled, for people; its execution keeps the first 2 KiB of it.
            actor: Who removes it, for people; the executions of what ends with it keep it.

        Raises:
            JobNotFound: There is no such job.
            JobUndecodable: This version cannot read the record; it was left alone.
            InvalidDefinition: ``actor`` or ``reason`` is out of bounds.
        """
        opened = self._open()
        await opened.definitions.remove(
            id, cancel=cancel, reason=checked_reason(reason), actor=checked_actor(actor)
        )
        if cancel:
            await opened.workers.leases.look(id)

    def in_transaction(self, connection: Any) -> JobsInTransaction:
        """Declare and remove jobs inside your own database transaction.

        Other workers see such a job, and wake up for it, only if your transaction commits.

        Args:
            connection: A connection of the backend's driver, synchronous or asynchronous, to the
                backend's database. A transaction is open on it, or its first statement opens one.

        Returns:
            An object with methods like those of the scheduler, which write on the connection.

        Raises:
            BackendError: The backend has no transactions, or wraps a backend that has them and does
                not say how it takes part.
            InvalidDefinition: The connection is not of the backend's driver, or it commits each
                statement.
        """
        opened = self._open(
            any_loop=True
        )  # the caller decides in which loop its connection is used
        store = transactions.within(self._backend, connection)
        return JobsInTransaction(store, opened.clock, new_id=self._new_id)

    async def get_job(self, id: str) -> Job:
        """Return a job as stored.

        Raises:
            JobNotFound: There is no such job.
            JobUndecodable: This version cannot read the record.
        """
        return await self._open().definitions.get(id)

    async def list_jobs(self, query: JobQuery | None = None) -> AsyncIterator[Job | Undecodable]:
        """Iterate over jobs, in the order of their ids if the backend promises an order."""
        self._open()
        query, after = query or JobQuery(), None
        while True:
            page = await self._backend.jobs(query, after=after, limit=PAGE)
            for job in page.items:
                if not job.id.startswith(RESERVED):
                    yield job
            if (after := page.next) is None:
                return

    async def list_executions(
        self, query: ExecutionQuery | str | None = None
    ) -> AsyncIterator[Execution | UndecodableExecution]:
        """Iterate over the history, newest first.

        A record that this version cannot read comes in its place, with its bytes and the reason.

        Args:
            query: A filter, or the id of a job. Without it, all executions come.
        """
        self._open()
        if isinstance(query, str):
            query = ExecutionQuery(job_id=query)
        query, after = query or ExecutionQuery(), None
        while True:
            page = await self._backend.executions(query, after=after, limit=PAGE)
            for each in page.items:
                yield each
            if (after := page.next) is None:
                return

    # -- operating

    async def pause_job(
        self,
        id: str,
        *,
        until: datetime | None = None,
        reason: str | None = None,
        actor: str | None = None,
    ) -> Job:
        """Pause a job: until the pause ends, it runs only when it is triggered.

        A run in flight ends as usual. The schedule's moments inside the pause are not due.
        Occurrences that were due, waited for a retry or were requested before the pause wait until
        its end. A finished job stays as it is.

        Args:
            id: The job's id.
            until: The time when the pause ends on its own; ``None`` pauses until ``resume_job``.
            reason: A text for people.
            actor: Who pauses it, for people: ``job.standing.pause.actor``.

        Raises:
            JobNotFound: There is no such job.
            JobUndecodable: This version cannot read the record.
            InvalidDefinition: ``until`` has no time zone, or has passed.
        """
        return await self._open().operations.pause(id, until=until, reason=reason, actor=actor)

    async def resume_job(self, id: str, *, actor: str | None = None) -> Job:
        """End a pause. A one-shot whose moment has passed in the meantime runs now.

        Args:
            id: The job's id.
            actor: Who ends it, for the log.

        Raises:
            JobNotFound: There is no such job.
            JobUndecodable: This version cannot read the record.
        """
        return await self._open().operations.resume(id, actor=actor)

    async def cancel_run(
        self,
        key: str | None = None,
        *,
        job_id: str | None = None,
        reason: str | None = None,
        actor: str | None = None,
    ) -> str:
        """Cancel one occurrence, whether it runs or waits: it ends ``cancelled``, without a retry.

        If it runs, its worker cancels the handler at its next renewal of the claim, which is after
        a third of a lease at the latest; in this process at once. A handler that returns before
        that has succeeded. If it waits, for its moment, a retry or the end of a pause, it is due
        at once, and the next claim by any worker ends it without a run. A backfill or a rerun of
        many moments ends with all that is left of it. A second call changes nothing, nor does its
        reason.

        Args:
            key: The occurrence's idempotency key: ``event.key``, or what ``trigger_job`` and its
                like return.
            job_id: The job's id. Without a key, its run in flight is cancelled, and only that: what
                waits is named by its key. With a key, it spares the search for the key's job.
            reason: Why, for people; the execution keeps the first 2 KiB of it.
            actor: Who cancels it, for people; the execution keeps it.

        Returns:
            The idempotency key of the occurrence that is marked.

        Raises:
            NothingToCancel: No such occurrence runs or waits, or without a key, the job does not
                run.
            JobNotFound: There is no such job.
            JobUndecodable: This version cannot read the record.
            InvalidDefinition: The key is none, or neither it nor ``job_id`` is given.
        """
        opened = self._open()
        marked = await opened.operations.cancel(key, job_id, reason=reason, actor=actor)
        await opened.workers.leases.look(marked.job_id)
        return marked.key

    async def retry_now(
        self, key: str | None = None, *, job_id: str | None = None, actor: str | None = None
    ) -> Job:
        """Make the next attempt of what waits for one now: after a failure, a snooze, a lost claim.

        What runs already, or is due, is left alone. A pause still holds what it holds.

        Args:
            key: The occurrence's idempotency key.
            job_id: The job's id. Without a key, all of the job that waits is attempted now. With a
                key, it spares the search for the key's job.
            actor: Who asks for it, for people; the execution keeps it.

        Raises:
            NothingToRetry: No such occurrence has begun, or it has ended.
            JobNotFound: There is no such job.
            JobUndecodable: This version cannot read the record.
            InvalidDefinition: The key is none, or neither it nor ``job_id`` is given.
        """
        return await self._open().operations.retry_now(key, job_id, actor=actor)

    async def trigger_job(
        self,
        id: str,
        *,
        args: Mapping[str, str] | None = None,
        request_key: str | None = None,
        actor: str | None = None,
    ) -> str:
        """Run a job once more, now, in addition to its schedule, even if it is paused or finished.

        The request waits only for a run of the job that is under way. It does not end a waiting
        retry, nor hurry it. A second plain call, without arguments and key, before the request has
        begun is the same request.

        Args:
            id: The job's id.
            args: Texts by name for the handler, which finds them as ``event.args``; 64 KiB at most.
            request_key: A name for the request. Until it has ended, a further call with the same
                name is the same request, whatever its arguments; 255 characters at most.
            actor: Who asks for it, for people; its executions keep it.

        Returns:
            The idempotency key of the occurrence: its handler finds it as ``event.key``, and the
            ids of its executions begin with it.

        Raises:
            JobNotFound: There is no such job.
            JobUndecodable: This version cannot read the record.
            UnderMaintenance: The job is under maintenance.
            TooManyRequests: 16 requests of the job wait already.
            InvalidDefinition: An argument is out of bounds.
        """
        return await self._open().requests.trigger(
            id, args=args, request_key=request_key, actor=actor
        )

    async def rerun(self, execution_id: str, *, actor: str | None = None) -> str:
        """Run once more what an execution tells of: for its moment, and with its arguments.

        While the same execution is being repeated, a further call is the same request. Of an
        execution that covers many moments, the first one is repeated; ``backfill_job`` takes all.

        Args:
            execution_id: The execution's id, ``uid:number:attempt``.
            actor: Who asks for it, for people; the new executions keep it.

        Returns:
            The idempotency key of the new occurrence.

        Raises:
            ExecutionNotFound: There is none, or its job was removed.
            UnderMaintenance: The job is under maintenance.
            TooManyRequests: 16 requests of the job wait already.
            InvalidDefinition: The id is none, or the occurrence has not ended: ``retry_now``.
        """
        return await self._open().requests.rerun(execution_id, actor=actor)

    async def rerun_all(
        self, query: ExecutionQuery, *, dry_run: bool = False, actor: str | None = None
    ) -> list[Request]:
        """Run once more what a query finds: all moments of a job are one request.

        They run one after the other, in order, each with its own retries. Of each moment the newest
        outcome decides, so what has succeeded since it failed is left alone. What is being repeated
        already is not asked for twice. Executions with different arguments are different requests.
        If a call fails, what it has asked for by then stays, and the same call does the rest.

        Args:
            query: A choice of final executions to repeat. It must name statuses.
            dry_run: Whether to return what would be asked for, and to write nothing.
            actor: Who asks for it, for people; the new executions keep it.

        Returns:
            The requests; empty where there is nothing to repeat.

        Raises:
            UnderMaintenance: The job is under maintenance.
            TooManyRequests: 16 requests of a job wait already.
            InvalidDefinition: The query names no status, or finds more than 10,000 moments of one
                job.
        """
        return await self._open().requests.rerun_all(query, dry_run=dry_run, actor=actor)

    async def backfill_job(
        self,
        id: str,
        start: datetime,
        end: datetime,
        *,
        only: Literal["missed", "failed"] | None = None,
        dry_run: bool = False,
        actor: str | None = None,
    ) -> Request | None:
        """Run a job for the moments of its schedule from one time to another, as one request.

        They run one after the other, in order, in addition to the schedule. Moments of the calendar
        may lie before the job was declared. Until the request has ended, a further call for the
        same range is the same request.

        Args:
            id: The job's id.
            start: The first time, with a time zone.
            end: The last time, included, not in the future.
            only: ``"missed"`` or ``"failed"`` runs moments whose newest outcome, as far as the
                history is kept, is that one; at most 10,000. ``None`` runs all of the range.
            dry_run: Whether to return what would be asked for, and to write nothing.
            actor: Who asks for it, for people; the executions keep it.

        Returns:
            The request; ``None`` where nothing in the range was missed, or has failed.

        Raises:
            JobNotFound: There is no such job.
            JobUndecodable: This version cannot read the record.
            UnderMaintenance: The job is under maintenance.
            TooManyRequests: 16 requests of the job wait already.
            InvalidDefinition: The schedule has no moment in the range, or a time is out of bounds.
        """
        return await self._open().requests.backfill(
            id, start, end, only=only, dry_run=dry_run, actor=actor
        )

    async def reanchor_job(self, id: str, *, actor: str | None = None) -> Job:
        """Move a job to its schedule's next moment if its stored one lies far after that.

        A clock that was far ahead for a while leaves such moments behind. Retries and requests that
        have waited since then become due now. If the stored moment is the schedule's next one, or
        lies less than an hour or a period after it, nothing changes.

        You rarely need this: ``ensure_job``, ``update_job``, ``sync_jobs`` and ``resume_job`` do
        the same for their jobs, and ``run_forever`` for all jobs, soon after it has begun.

        Args:
            id: The job's id.
            actor: Who asks for it, for the log.

        Raises:
            JobNotFound: There is no such job.
            JobUndecodable: This version cannot read the record.
        """
        return await self._open().operations.reanchor(id, actor=actor)

    async def skip_next(
        self, id: str, *, moment: datetime | None = None, actor: str | None = None
    ) -> Job:
        """Skip the first occurrence after now, or the one at a moment.

        One moment is marked at a time: without ``moment``, a second call skips no further one; with
        it, the mark moves there.

        Args:
            id: The job's id.
            moment: The nominal moment of the occurrence, with a time zone. Where it has passed,
                nothing is skipped in its place.
            actor: Who skips it, for people; the execution keeps it.

        Raises:
            JobNotFound: There is no such job.
            JobUndecodable: This version cannot read the record.
            NothingToSkip: The schedule has no occurrence after now, or none at the moment.
            InvalidDefinition: The moment has no time zone.
        """
        return await self._open().operations.skip_next(id, at=moment, actor=actor)

    async def unskip(self, id: str, *, actor: str | None = None) -> Job:
        """Take ``skip_next`` back.

        Args:
            id: The job's id.
            actor: Who takes it back, for the log.

        Raises:
            JobNotFound: There is no such job.
            JobUndecodable: This version cannot read the record.
        """
        return await self._open().operations.unskip(id, actor=actor)

    async def prune(self, before: datetime) -> int:
        """Delete executions that ended before a moment, and all that has expired.

        Args:
            before: The moment, with a time zone.

        Returns:
            How many executions and jobs were deleted.

        Raises:
            InvalidDefinition: The moment has no time zone.
        """
        self._open()
        if not isinstance(before, datetime) or before.utcoffset() is None:  # type: ignore[redundant-expr]  # callers may not type-check
            raise InvalidDefinition("before", f"must be a timezone-aware datetime, not {before!r}")
        return await self._backend.prune(before)

    # -- running

    @property
    def is_running(self) -> bool:
        """Whether ``run_forever`` is running."""
        return self._opened is not None and self._opened.loop.running

    async def wait_until_running(self) -> None:
        """Wait until ``run_forever`` has begun to look for work."""
        await self._running_event.wait()

    async def run_due(self) -> int:
        """Run until no job is left that was due at the call.

        Returns:
            How many attempts ran.

        Raises:
            HandlerNotSet: The scheduler has no handler.
            SchedulerRunning: ``run_forever`` or another ``run_due`` is running.
            BackendUnavailable: The store could not be reached.
        """
        opened = self._open()
        if self._handler is None:
            raise HandlerNotSet("set a handler before run_due: Scheduler(backend, handler=...)")
        if self._busy:
            raise SchedulerRunning("run_due cannot run while run_forever or another run_due does")
        self._busy = True
        before = opened.workers.completed
        token = _running.set(self)
        try:
            await self._declare()
            await opened.loop.run_due(opened.clock.now())
        finally:
            _running.reset(token)
            self._busy = False
        return opened.workers.completed - before

    async def run_forever(self, *, signals: bool | str = "auto") -> None:
        """Run due jobs until :meth:`stop`, a signal, or cancellation.

        Args:
            signals: ``"auto"`` stops on SIGINT and SIGTERM, and at once on a second one. It applies
                in the main thread, to signals that the program does not handle itself. ``False``
                leaves signals alone.

        Raises:
            SchedulerNotStarted: The scheduler is not open.
            SchedulerRunning: ``run_forever`` or ``run_due`` is running.
            SchedulerStopped: The loop has ended although no stop was requested.
        """
        loop = self._open().loop
        if self._busy:
            raise SchedulerRunning("run_forever is running already, or run_due is")
        self._busy = True
        token = _running.set(self)
        try:
            await self._declare()
            await loop.run_forever(signals=bool(signals), running=self._running_event.set)
        finally:
            _running.reset(token)
            self._busy = False
            self._running_event = anyio.Event()

    async def stop(self, grace: timedelta | float = DEFAULT_GRACE) -> None:
        """Stop ``run_forever``: claim nothing more, wait for handlers, write their outcomes.

        This returns at the latest 5 seconds after the grace, whatever the store does. If a handler
        calls it, it returns at once, and the scheduler waits for that handler as for all others.

        Args:
            grace: How long handlers may still run, in seconds or as a timedelta. Then the scheduler
                cancels them; their occurrences run again elsewhere or later (``interrupted``).

        Raises:
            InvalidDefinition: The grace is no number of seconds, or negative.
            WrongEventLoop: This is not the event loop that opened the scheduler.
        """
        seconds = grace.total_seconds() if isinstance(grace, timedelta) else grace
        if not isinstance(seconds, (int, float)) or not seconds >= 0:  # type: ignore[redundant-expr]  # callers may not type-check
            raise InvalidDefinition("grace", f"must be seconds, 0 or more, not {grace!r}")
        if self._opened is not None:
            self._opened.affinity.check()
            await self._opened.loop.stop(float(seconds))

    # -- health

    async def health(self) -> Health:
        """Return whether this scheduler works, after a real write to the backend.

        Raises:
            SchedulerNotStarted: The scheduler is not open.
        """
        opened = self._open()
        set_problem = self._observers.set_problem
        try:
            await self._backend.check()
            await opened.workers.switches.look()
            set_problem("backend", None)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is the problem to report
            set_problem("backend", f"{type(error).__name__}: {error}")
        missing = "no handler is set: nothing is claimed" if self._handler is None else None
        set_problem("handler", missing)
        loop = opened.loop
        stalled = f"has not looked for work since {loop.looked_at}" if loop.stalled() else None
        set_problem("loop", stalled)
        return self._health(opened)

    def snapshot(self) -> Health | None:
        """Return what this process knows without asking the backend. Any thread may call this.

        Returns:
            The state, for metrics; ``None`` if the scheduler is not open.
        """
        opened = self._opened
        return None if opened is None else self._health(opened)

    def _health(self, opened: _Opened) -> Health:
        loop, workers, problems = opened.loop, opened.workers, self._observers.problems
        return Health(
            healthy=not problems,
            problems=problems,
            notices=self._observers.notices,
            running=loop.running,
            executing=workers.active,
            unsettled=len(workers.in_flight.runs),
            completed=workers.completed,
            looked_at=loop.looked_at,
            full_since=loop.full_since,
            oldest_due=workers.in_flight.oldest_due(),
            lateness=workers.lateness,
            claims_lost=workers.in_flight.claims_lost,
            backend_errors=workers.in_flight.backend_errors,
            at=opened.clock.now(),
            backlog=loop.reporting.backlog,
        )


def _concurrency(given: int | None, queues: Mapping[str, int] | None) -> int:
    if given is not None and (isinstance(given, bool) or not isinstance(given, int)):
        raise InvalidDefinition("max_concurrency", f"must be a whole number, not {given!r}")
    if given is not None and given < 1:
        raise InvalidDefinition("max_concurrency", f"must be at least 1, not {given}")
    if queues is None:
        return 100 if given is None else given
    total = sum(queues.values())
    if given not in (None, total):
        raise InvalidDefinition(
            "max_concurrency",
            f"the numbers of queues make {total} in all, not {given}: leave it out",
        )
    return total


@frozen
class _Opened:
    """The parts of an open scheduler."""

    clock: Clock
    workers: Workers
    loop: Loop
    definitions: Definitions
    operations: Operations
    requests: Requests
    maintenance: MaintenanceRecord
    affinity: Affinity
