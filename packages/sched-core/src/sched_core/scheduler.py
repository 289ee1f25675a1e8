"""The application service: what users call."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

import anyio
from attrs import frozen

from sched_core._model.execution import Execution
from sched_core._model.job import RESERVED, Job, JobSpec, check_text
from sched_core._model.policy import Policy
from sched_core._runtime import transactions
from sched_core._runtime.loop import Loop
from sched_core._runtime.observers import Health, Observer, Observers
from sched_core._runtime.shutdown import DEFAULT_GRACE, FLUSH
from sched_core._runtime.workers import Workers
from sched_core._service.definitions import (
    UNSET,
    Definitions,
    Unset,
    changes_of,
    spec_of,
)
from sched_core._service.in_transaction import JobsInTransaction
from sched_core._service.marker import version_of
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


class Scheduler:
    """Jobs on a backend.

    ``async with`` opens the backend and starts no task; ``run_forever`` runs what is due. Before
    it is opened, ``ensure_job``, ``submit_job`` and ``submit_jobs`` are queued and applied in order
    when it opens: they are not durable until then.

    Args:
        backend: Where jobs live.
        handler: Called with a :class:`~sched_core.JobEvent` for each attempt. Async ones run
            in the loop, others in threads of their own limiter.
        clock: Tells the time and waits; the machine's unless given.
        worker: A name for people. What goes into claims is made unique by a random suffix.
        max_concurrency: Handlers at a time.
        observers: Callables that get every execution that this scheduler's runs, edits and
            looks for lost claims wrote, once it is stored, and health changes. They run in the loop
            and must not wait.
        new_id: Makes the random part of incarnations and worker names; for repeatable tests.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        handler: Handler | None = None,
        clock: Clock | None = None,
        worker: str | None = None,
        max_concurrency: int = 100,
        observers: Sequence[Observer] = (),
        new_id: Callable[[], str] = random_id,
    ) -> None:
        if isinstance(max_concurrency, bool) or not isinstance(max_concurrency, int):
            raise InvalidDefinition(
                "max_concurrency", f"must be a whole number, not {max_concurrency!r}"
            )
        if max_concurrency < 1:
            raise InvalidDefinition("max_concurrency", f"must be at least 1, not {max_concurrency}")
        if worker is not None:
            check_text("worker", worker)
        self._backend = backend
        self._given_clock: Clock = SystemClock() if clock is None else clock
        self._worker = worker
        self._max_concurrency = max_concurrency
        self._observers = Observers(backend, observers)
        self._new_id = new_id
        self._handler: Handler | None = None
        self._handler_set = anyio.Event()
        self._running_event = anyio.Event()
        self._queued: list[tuple[JobSpec, bool]] = []
        self._declared: tuple[object, tuple[JobSpec, ...]] | None = None
        self._opened: _Opened | None = None
        self._busy = False
        if handler is not None:
            self.set_handler(handler)

    @property
    def backend(self) -> Backend:
        """Where jobs are kept; its ``str`` is for people."""
        return self._backend

    # -- opening

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise SchedulerRunning("this scheduler is open already: use one Scheduler for each")
        name = self._new_id() if self._worker is None else f"{self._worker}-{self._new_id()}"
        clock = await self._backend.open(self._given_clock, worker=name)
        self._observers.forget()
        self._declared = None
        opened = self._opened = self._parts(clock)
        self._observers.watch(self)
        try:
            while self._queued:
                spec, declared = self._queued[0]
                if declared:
                    await opened.definitions.ensure(spec)
                else:
                    await opened.definitions.submit([spec])
                del self._queued[0]
            await self._declare()
        except BaseException:
            await self._close()
            raise
        return self

    async def _declare(self) -> None:
        """Store the jobs that the handler declares, unless that was done already."""
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

    def _parts(self, clock: Clock) -> _Opened:
        workers = Workers(
            self._backend,
            clock,
            max_concurrency=self._max_concurrency,
            on_execution=self._observers.notify if self._observers else None,
            set_problem=self._observers.set_problem,
            set_notice=self._observers.set_notice,
        )
        if self._handler is not None:
            workers.caller.set_handler(self._handler)
        return _Opened(
            clock=clock,
            workers=workers,
            loop=Loop(self._backend, clock, workers, self._observers, self._handler_set),
            definitions=self._definitions(clock),
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
            logger.error("the backend was not closed within %.1f s: it is left as it is", seconds)

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

    def set_handler(self, handler: Handler) -> None:
        """Use this handler from the next run on.

        Raises:
            InvalidDefinition: It cannot be called.
        """
        if not callable(handler):
            raise InvalidDefinition(
                "handler", f"must be a function that takes a JobEvent, not {handler!r}"
            )
        self._handler = handler
        if self._opened is not None:
            self._opened.workers.caller.set_handler(handler)
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
    ) -> Job:
        """Declare a job: add it, or change it where its definition differs.

        Where it is the same, nothing changes. Only a changed *schedule* moves the anchor and what
        is not yet due; what is due or has begun is kept, once, unless the new schedule is one of
        calendar moments and lacks it. Changed metadata or policy keep all of it.

        Returns:
            The job as stored; before the scheduler is open, as it would be stored.

        Raises:
            InvalidDefinition: A value is out of bounds; nothing was stored.
            JobNotFound: It is on its way from another id, where it still is: the ``sync_jobs`` that
                renames it was cut off, and is to be repeated.
            JobUndecodable: What is stored under the id cannot be read by this version.
            BackendUnavailable: Try again.
        """
        spec = spec_of(id, schedule, name, metadata, policy, group)
        if self._opened is None:
            return self._enqueue(spec, declared=True)
        return await self._open().definitions.ensure(spec)

    async def submit_job(
        self,
        id: str,
        schedule: Schedule,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        policy: Policy | None = None,
        group: str | None = None,
    ) -> Job:
        """Add a job. Once finished, it is deleted after ``policy.keep_finished``.

        Returns:
            The job as stored; before the scheduler is open, as it would be stored.

        Raises:
            JobAlreadyExists: Another job is stored under the id; nothing was stored.
            InvalidDefinition: A value is out of bounds; nothing was stored.
            BackendUnavailable: The outcome is unknown. Look before you submit again.
        """
        spec = spec_of(id, schedule, name, metadata, policy, group)
        if self._opened is None:
            return self._enqueue(spec, declared=False)
        return (await self._open().definitions.submit([spec]))[0]

    async def submit_jobs(self, specs: Sequence[JobSpec], *, atomic: bool = True) -> list[Job]:
        """Add many jobs.

        Args:
            specs: Their definitions, each id once.
            atomic: All or none, as far as ``capabilities.bulk_limit`` reaches; False goes in
                chunks, each of them all or none.

        Raises:
            JobAlreadyExists: One of the ids is taken; with ``atomic`` nothing was stored.
            InvalidDefinition: More jobs than the backend takes at once, or an id occurs twice.
        """
        specs = list(specs)
        seen: set[str] = set()
        for spec in specs:
            if spec.id in seen:
                raise InvalidDefinition("specs", f"the id {spec.id!r} occurs twice")
            seen.add(spec.id)
        if self._opened is None:
            return [self._enqueue(spec, declared=False) for spec in specs]
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
            stored += await self._open().definitions.submit(specs[start : start + size])
        return stored

    def _enqueue(self, spec: JobSpec, *, declared: bool) -> Job:
        if not declared and any(spec.id == queued.id for queued, _ in self._queued):
            raise JobAlreadyExists(spec.id)
        job = self._definitions(self._given_clock).admit(spec, declared=declared)
        self._queued.append((spec, declared))
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
    ) -> Synced:
        """Declare a whole set: add, change and remove jobs until the group is what the specs say.

        It converges and is no transaction: called again, also by other replicas at the same time,
        it goes on where it was interrupted. As with :meth:`ensure_job`, only a changed schedule
        moves the next occurrence. A job of the same id that ``ensure_job`` declared without a group
        joins the group.

        Args:
            specs: The set, each id once; their group may be left out.
            group: Its name, for example of the service.
            version: Of this deployment: a whole number, or dotted numbers such as ``"1.4.10"``,
                which grow with every deployment. Once a version has synced, older ones, and those
                without one, change nothing any more. Without any version the last sync wins.
            prune: Whether to remove jobs of the group that are not in the set.
            dry_run: Whether to say only what would be done.
            renamed_from: Earlier ids of jobs of the set, by their present ones. Such a job keeps
                what is due, waits or was asked for, under the same keys; a run in flight ends under
                the old id.

        Raises:
            GroupConflict: An id is of another group, or was submitted; nothing was written.
            InvalidDefinition: A value is out of bounds, an id occurs twice or is of another group.
            SchedulerNotStarted: Outside ``async with``.
            BackendUnavailable: A part may have been done: call it again.
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
    ) -> Job:
        """Change what is given and keep the rest; see :meth:`ensure_job` for what that moves.

        Raises:
            JobNotFound: There is no such job.
            JobUndecodable: The record cannot be read by this version.
            InvalidDefinition: A value is out of bounds; nothing was stored.
        """
        changes = changes_of(schedule, name, metadata, policy, group)
        return await self._open().definitions.update(id, changes)

    async def remove_job(self, id: str) -> None:
        """Remove a job. A run in flight is not interrupted, and cannot bring the job back.

        Raises:
            JobNotFound: There is no such job.
            JobUndecodable: The record cannot be read by this version; it was left alone.
        """
        await self._open().definitions.remove(id)

    def in_transaction(self, connection: Any) -> JobsInTransaction:
        """Return what declares and removes jobs inside the caller's own database transaction.

        A job that is written so is visible, and wakes whoever waits, only if that commits.

        Args:
            connection: Of the backend's driver, synchronous or asynchronous, to the backend's
                database, with a transaction open or opened by its first statement.

        Raises:
            BackendError: The backend has no transactions, or stands in front of one that has them
                and does not say how it takes part.
            InvalidDefinition: The connection is none of its driver's, or commits each statement.
        """
        opened = self._open(any_loop=True)  # what runs on the caller's connection is the caller's
        store = transactions.within(self._backend, connection)
        return JobsInTransaction(store, opened.clock, new_id=self._new_id)

    async def get_job(self, id: str) -> Job:
        """Return a job as it is stored.

        Raises:
            JobNotFound: There is no such job.
            JobUndecodable: The record cannot be read by this version.
        """
        return await self._open().definitions.get(id)

    async def list_jobs(self, query: JobQuery | None = None) -> AsyncIterator[Job | Undecodable]:
        """Iterate over jobs, a page at a time, in id order where the backend promises order."""
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
        """Iterate over the history, newest first; a string is a job's id.

        A record that this version cannot read comes in its place, with its bytes and the reason.
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
    ) -> Job:
        """Pause a job: a run in flight settles, moments inside the pause are not due.

        What is due, waits for a retry or was asked for before is held until the pause has ended. A
        trigger during the pause runs.

        Args:
            id: Of the job. A finished one stays as it is.
            until: When the pause ends by itself; ``None`` until ``resume_job``.
            reason: For people.

        Raises:
            JobNotFound, JobUndecodable, InvalidDefinition: ``until`` is naive or has passed.
        """
        return await self._open().definitions.pause(id, until=until, reason=reason)

    async def resume_job(self, id: str) -> Job:
        """End a pause. A one-shot whose moment passed meanwhile runs now.

        Raises:
            JobNotFound, JobUndecodable.
        """
        return await self._open().definitions.resume(id)

    async def trigger_job(self, id: str) -> str:
        """Run a job once more, now, besides its schedule; also a paused or finished one.

        It waits for nothing but a run of the job that is under way, and ends and hurries no retry.
        A second call before it has begun is the same request.

        Returns:
            The key of its occurrence: its handler's ``event.key``, and in front of the attempt in
            the ids of its executions.

        Raises:
            JobNotFound, JobUndecodable.
            InvalidDefinition: 16 requests of the job wait already.
        """
        return await self._open().definitions.trigger(id)

    async def reanchor_job(self, id: str) -> Job:
        """Have a job run at its schedule's next moment, where its stored one lies far after that.

        A clock that was far ahead for a while leaves such moments behind; retries and requests that
        wait since then are due now. ``ensure_job``, ``update_job``, ``sync_jobs`` and
        ``resume_job`` do the same for the jobs that they are given, and ``run_forever`` for all
        jobs, soon after it has begun. Where the stored moment is the schedule's next one, or lies
        less than an hour or a period after it, nothing is changed.

        Raises:
            JobNotFound, JobUndecodable.
        """
        return await self._open().definitions.reanchor(id)

    async def skip_next(self, id: str) -> Job:
        """Skip the first occurrence after now; twice is once.

        Raises:
            JobNotFound, JobUndecodable, NothingToSkip: There is no such occurrence.
        """
        return await self._open().definitions.skip_next(id)

    async def unskip(self, id: str) -> Job:
        """Take ``skip_next`` back.

        Raises:
            JobNotFound, JobUndecodable.
        """
        return await self._open().definitions.unskip(id)

    async def prune(self, before: datetime) -> int:
        """Delete executions that ended before the moment, and whatever has expired.

        Returns:
            How many executions and jobs were deleted.
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
        """Run until nothing is left that was due when this was called.

        Returns:
            How many attempts ran.

        Raises:
            HandlerNotSet: There is no handler.
            SchedulerRunning: ``run_forever`` is running.
            BackendUnavailable: The store could not be reached.
        """
        opened = self._open()
        if self._handler is None:
            raise HandlerNotSet("set a handler before run_due: Scheduler(backend, handler=...)")
        if self._busy:
            raise SchedulerRunning("run_due cannot run beside run_forever or another run_due")
        self._busy = True
        before = opened.workers.completed
        try:
            await self._declare()
            await opened.loop.run_due(opened.clock.now())
        finally:
            self._busy = False
        return opened.workers.completed - before

    async def run_forever(self, *, signals: bool | str = "auto") -> None:
        """Run what is due until :meth:`stop`, a signal, or cancellation.

        Args:
            signals: ``"auto"``: SIGINT and SIGTERM stop it, in the main thread and where the
                default handlers stand; a second one stops at once. ``False``: leave signals alone.

        Raises:
            SchedulerNotStarted: Outside ``async with``.
            SchedulerRunning: It is running already.
            SchedulerStopped: It has ended although nothing asked it to.
        """
        loop = self._open().loop
        if self._busy:
            raise SchedulerRunning("run_forever is running already, or run_due is")
        self._busy = True
        try:
            await self._declare()
            await loop.run_forever(signals=bool(signals), running=self._running_event.set)
        finally:
            self._busy = False
            self._running_event = anyio.Event()

    async def stop(self, grace: timedelta | float = DEFAULT_GRACE) -> None:
        """Stop ``run_forever``: no new claims, wait for handlers, write how they ended.

        It has ended, or is given up, 5 seconds after the grace, whatever the store does. Called by
        a handler, it asks and returns at once: the handler is waited for like all others.

        Args:
            grace: For handlers to end, in seconds or as a timedelta; then they are cancelled and
                their occurrences run again elsewhere or later (``interrupted``).

        Raises:
            InvalidDefinition: The grace is no number of seconds from 0 on.
            WrongEventLoop: In another event loop than the one that opened the scheduler.
        """
        seconds = grace.total_seconds() if isinstance(grace, timedelta) else grace
        if not isinstance(seconds, (int, float)) or not seconds >= 0:  # type: ignore[redundant-expr]  # callers may not type-check
            raise InvalidDefinition("grace", f"must be seconds, 0 or more, not {grace!r}")
        if self._opened is not None:
            self._opened.affinity.check()
            await self._opened.loop.stop(float(seconds))

    # -- health

    async def health(self) -> Health:
        """Tell whether this scheduler does its work, with a real write to the backend.

        Raises:
            SchedulerNotStarted: Outside ``async with``.
        """
        opened = self._open()
        set_problem = self._observers.set_problem
        try:
            await self._backend.check()
            set_problem("backend", None)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is what health is asked for
            set_problem("backend", f"{type(error).__name__}: {error}")
        missing = "no handler is set: nothing is claimed" if self._handler is None else None
        set_problem("handler", missing)
        loop = opened.loop
        stalled = f"has not looked for work since {loop.looked_at}" if loop.stalled() else None
        set_problem("loop", stalled)
        return self._health(opened)

    def snapshot(self) -> Health | None:
        """Return what is known without asking the backend, for metrics; callable in any thread.

        Returns:
            ``None`` outside ``async with``.
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
        )


@frozen
class _Opened:
    """What an open scheduler is made of."""

    clock: Clock
    workers: Workers
    loop: Loop
    definitions: Definitions
    affinity: Affinity
