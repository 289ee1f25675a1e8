"""The application service: what users call, and the loop that runs what is due."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

import anyio
import anyio.abc
import anyio.lowlevel
from attrs import evolve

from sched_core import lifecycle
from sched_core.clock import FIRST, Clock, SystemClock, backoff_pause
from sched_core.errors import (
    HandlerNotSet,
    InvalidDefinition,
    JobAlreadyExists,
    JobNotFound,
    JobUndecodable,
    RevisionConflict,
    SchedulerForked,
    SchedulerNotStarted,
    SchedulerRunning,
)
from sched_core.job import Claim, Execution, Job, JobSpec, check_text
from sched_core.lifecycle import Change
from sched_core.observing import Health, Observer, Observers
from sched_core.policy import Policy
from sched_core.ports import Backend, ExecutionQuery, Handler, JobQuery, Undecodable
from sched_core.schedule import Schedule
from sched_core.signals import stop_signals
from sched_core.workers import Workers

logger = logging.getLogger("sched_core")

DEFAULT_GRACE = timedelta(seconds=20)
"""Below the 30 seconds that Kubernetes waits before it kills."""
FLUSH = 5.0
"""Seconds for which settling is shielded when everything else has been cancelled."""
RETENTION_BEGINS = timedelta(minutes=1)
RETENTION = timedelta(hours=1)
"""How often expired jobs and ledger lines are deleted."""
STALLED = timedelta(seconds=30)
"""A loop that has not looked for work for so long is reported as stalled."""
PAGE = 200


class _Unset:
    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = _Unset()


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
        handler: Called with a :class:`~sched_core.job.JobEvent` for each attempt. Async ones run
            in the loop, others in threads of their own limiter.
        clock: Tells the time and waits; the machine's unless given.
        worker: A name for people. What goes into claims is made unique by a random suffix.
        max_concurrency: Handlers at a time.
        observers: Callables that get every ledger line that this scheduler's runs, edits and
            takeovers wrote, once it is stored, and health changes. They run in the loop and must
            not wait.
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
        self._clock: Clock = SystemClock() if clock is None else clock
        self._given_clock = self._clock
        self._worker = worker
        self._max_concurrency = max_concurrency
        self._observers = Observers(backend, observers)
        self._new_id = new_id
        self._handler: Handler | None = None
        self._handler_set = anyio.Event()
        self._queued: list[tuple[JobSpec, bool]] = []
        self._workers: Workers | None = None
        self._pid = 0
        self._looked_at: datetime | None = None
        self._waiting_for_capacity = False
        self._pruned_at: datetime | None = None
        self._busy = False
        self._running = False
        self._running_event = anyio.Event()
        self._stop_requested = anyio.Event()
        self._stop_now = anyio.Event()
        self._stopped = anyio.Event()
        self._engine_ended = anyio.Event()
        self._grace = DEFAULT_GRACE.total_seconds()
        self._wait_scope: anyio.CancelScope | None = None
        if handler is not None:
            self.set_handler(handler)

    # -- opening

    async def __aenter__(self) -> Self:
        if self._workers is not None:
            raise SchedulerRunning("this scheduler is open already: use one Scheduler for each")
        name = self._new_id() if self._worker is None else f"{self._worker}-{self._new_id()}"
        self._clock = await self._backend.open(self._given_clock, worker=name)
        self._pid = os.getpid()
        self._observers.forget()
        self._looked_at = self._pruned_at = None
        workers = Workers(
            self._backend,
            self._clock,
            max_concurrency=self._max_concurrency,
            on_line=self._observers.tell if self._observers else None,
            on_trouble=self._observers.trouble,
        )
        if self._handler is not None:
            workers.set_handler(self._handler)
        self._workers = workers
        try:
            queued, self._queued = self._queued, []
            for spec, declared in queued:
                await (self._ensure(spec) if declared else self._submit([spec]))
        except BaseException:
            await self._close()
            raise
        return self

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
        self._workers = None
        self._clock = self._given_clock
        with anyio.CancelScope(shield=True):
            await self._backend.close()

    def _opened(self) -> Workers:
        if self._workers is None:
            raise SchedulerNotStarted(
                "the scheduler is not open: use it inside `async with scheduler:`"
            )
        if self._pid != os.getpid():
            raise SchedulerForked(
                "this scheduler was opened by the parent process: open a new one after forking"
            )
        return self._workers

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
        if self._workers is not None:
            self._workers.set_handler(handler)
        self._handler_set.set()

    # -- declaring

    async def ensure_job(
        self,
        id: str,  # noqa: A002 -- the word that users know the job by
        schedule: Schedule,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        policy: Policy | None = None,
        group: str | None = None,
    ) -> Job:
        """Declare a job: add it, or change it where its definition differs.

        Where it is the same, nothing changes. Only a changed *schedule* moves the anchor and the
        next occurrence; changed metadata or policy keep both, and the state of retries.

        Returns:
            The job as stored; before the scheduler is open, as it would be stored.

        Raises:
            InvalidDefinition: A value is out of bounds; nothing was stored.
            JobUndecodable: What is stored under the id cannot be read by this version.
            BackendUnavailable: Try again.
        """
        spec = _spec(id, schedule, name, metadata, policy, group)
        if self._workers is None:
            return self._enqueue(spec, declared=True)
        return await self._ensure(spec)

    async def submit_job(
        self,
        id: str,  # noqa: A002 -- the word that users know the job by
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
        spec = _spec(id, schedule, name, metadata, policy, group)
        if self._workers is None:
            return self._enqueue(spec, declared=False)
        return (await self._submit([spec]))[0]

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
        if self._workers is None:
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
            stored += await self._submit(specs[start : start + size])
        return stored

    def _enqueue(self, spec: JobSpec, *, declared: bool) -> Job:
        job = lifecycle.admit(spec, uid=self._new_id(), declared=declared, now=self._clock.now())
        if not declared and any(spec.id == queued.id for queued, _ in self._queued):
            raise JobAlreadyExists(spec.id)
        self._queued.append((spec, declared))
        return job

    def _admit(self, spec: JobSpec, *, declared: bool) -> Job:
        return lifecycle.admit(spec, uid=self._new_id(), declared=declared, now=self._clock.now())

    async def _submit(self, specs: Sequence[JobSpec]) -> list[Job]:
        self._opened()
        jobs = [self._admit(spec, declared=False) for spec in specs]
        return list(await self._backend.add(jobs)) if jobs else []

    async def _ensure(self, spec: JobSpec) -> Job:
        self._opened()
        while True:
            stored = await self._backend.get(spec.id)
            if stored is None:
                try:
                    return (await self._backend.add([self._admit(spec, declared=True)]))[0]
                except JobAlreadyExists:
                    continue  # somebody else was faster: compare with theirs
            if isinstance(stored, Undecodable):
                raise JobUndecodable(stored.id, stored.reason)
            change = lifecycle.redefine(stored, spec, declared=True, now=self._clock.now())
            if change is None:
                return stored
            try:
                stored = await self._backend.replace(change.job, change.ledger)
            except (RevisionConflict, JobNotFound):
                continue
            await self._observers.edited(spec.id, change.ledger)
            return stored

    async def update_job(
        self,
        id: str,  # noqa: A002 -- the word that users know the job by
        schedule: Schedule | _Unset = UNSET,
        *,
        name: str | _Unset | None = UNSET,
        metadata: Mapping[str, str] | _Unset = UNSET,
        policy: Policy | _Unset = UNSET,
        group: str | _Unset | None = UNSET,
    ) -> Job:
        """Change what is given and keep the rest; see :meth:`ensure_job` for what that moves.

        Raises:
            JobNotFound: There is no such job.
            JobUndecodable: The record cannot be read by this version.
            InvalidDefinition: A value is out of bounds; nothing was stored.
        """
        given = {"schedule": schedule, "name": name, "metadata": metadata, "policy": policy}
        changes: dict[str, Any] = {
            key: value for key, value in {**given, "group": group}.items() if value is not UNSET
        }

        def edit(job: Job) -> Change | None:
            return lifecycle.redefine(job, evolve(job.spec, **changes), now=self._clock.now())

        return await self._edit(id, edit)

    async def remove_job(self, id: str) -> None:  # noqa: A002 -- see ensure_job
        """Remove a job. A run in flight is not interrupted, and cannot bring the job back.

        Raises:
            JobNotFound: There is no such job.
            JobUndecodable: The record cannot be read by this version; it was left alone.
        """
        while True:
            job = await self.get_job(id)
            lines = lifecycle.retire(job, now=self._clock.now())
            try:
                if await self._backend.remove(id, lines, expected=job.revision):
                    await self._observers.edited(id, lines)
                    return
            except RevisionConflict:
                continue
            raise JobNotFound(id)

    async def get_job(self, id: str) -> Job:  # noqa: A002 -- see ensure_job
        """Return a job as it is stored.

        Raises:
            JobNotFound: There is no such job.
            JobUndecodable: The record cannot be read by this version.
        """
        self._opened()
        stored = await self._backend.get(id)
        if stored is None:
            raise JobNotFound(id)
        if isinstance(stored, Undecodable):
            raise JobUndecodable(stored.id, stored.reason)
        return stored

    async def list_jobs(self, query: JobQuery | None = None) -> AsyncIterator[Job | Undecodable]:
        """Iterate over jobs, a page at a time, in id order where the backend promises order."""
        self._opened()
        query, after = query or JobQuery(), None
        while True:
            page = await self._backend.jobs(query, after=after, limit=PAGE)
            for job in page.items:
                yield job
            if (after := page.next) is None:
                return

    async def list_executions(
        self, query: ExecutionQuery | str | None = None
    ) -> AsyncIterator[Execution]:
        """Iterate over the ledger, newest first; a string is a job's id."""
        self._opened()
        if isinstance(query, str):
            query = ExecutionQuery(job_id=query)
        query, after = query or ExecutionQuery(), None
        while True:
            page = await self._backend.executions(query, after=after, limit=PAGE)
            for line in page.items:
                yield line
            if (after := page.next) is None:
                return

    # -- operating

    async def _edit(self, job_id: str, edit: Callable[[Job], Change | None]) -> Job:
        while True:
            job = await self.get_job(job_id)
            change = edit(job)
            if change is None or change.job == job:
                return job
            try:
                stored = await self._backend.replace(change.job, change.ledger)
            except RevisionConflict:
                continue
            await self._observers.edited(job_id, change.ledger)
            return stored

    async def _operate(self, job_id: str, act: Callable[[Job], Job | None]) -> Job:
        def edit(job: Job) -> Change | None:
            after = act(job)
            return None if after is None else Change(after)

        return await self._edit(job_id, edit)

    async def pause_job(
        self,
        id: str,  # noqa: A002 -- see ensure_job
        *,
        until: datetime | None = None,
        reason: str | None = None,
    ) -> Job:
        """Pause a job: a run in flight settles, occurrences inside the pause are not due.

        Args:
            id: Of the job. A finished one stays as it is.
            until: When the pause ends by itself; ``None`` until ``resume_job``.
            reason: For people.

        Raises:
            JobNotFound, JobUndecodable, InvalidDefinition: ``until`` is naive or has passed.
        """

        def pause(job: Job) -> Job:
            now = self._clock.now()
            woken = lifecycle.wake(job, now=now)
            return lifecycle.pause(woken, until=until, reason=reason, now=now)

        return await self._operate(id, pause)

    async def resume_job(self, id: str) -> Job:  # noqa: A002 -- see ensure_job
        """End a pause. A one-shot whose moment passed meanwhile runs now.

        Raises:
            JobNotFound, JobUndecodable.
        """
        return await self._operate(id, lambda job: lifecycle.resume(job, at=self._clock.now()))

    async def trigger_job(self, id: str) -> Job:  # noqa: A002 -- see ensure_job
        """Run a job once now, besides its schedule; also a paused or finished one.

        During a run, it runs right after it; a second call before it began is the same one.

        Raises:
            JobNotFound, JobUndecodable.
        """
        return await self._operate(id, lambda job: lifecycle.trigger(job, now=self._clock.now()))

    async def skip_next(self, id: str) -> Job:  # noqa: A002 -- see ensure_job
        """Skip the first occurrence after now; twice is once.

        Raises:
            JobNotFound, JobUndecodable, NothingToSkip: There is no such occurrence.
        """
        return await self._operate(id, lambda job: lifecycle.skip_next(job, now=self._clock.now()))

    async def unskip(self, id: str) -> Job:  # noqa: A002 -- see ensure_job
        """Take ``skip_next`` back.

        Raises:
            JobNotFound, JobUndecodable.
        """
        return await self._operate(id, lifecycle.unskip)

    async def prune(self, before: datetime) -> int:
        """Delete ledger lines that ended before the moment, and whatever has expired.

        Returns:
            How many ledger lines and jobs were deleted.
        """
        self._opened()
        if not isinstance(before, datetime) or before.utcoffset() is None:  # type: ignore[redundant-expr]  # callers may not type-check
            raise InvalidDefinition("before", f"must be a timezone-aware datetime, not {before!r}")
        return await self._backend.prune(before)

    # -- running

    @property
    def is_running(self) -> bool:
        """Whether ``run_forever`` is running."""
        return self._running

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
        workers = self._opened()
        if self._handler is None:
            raise HandlerNotSet("set a handler before run_due: Scheduler(backend, handler=...)")
        if self._busy:
            raise SchedulerRunning("run_due cannot run beside run_forever or another run_due")
        self._busy = True
        moment, before = self._clock.now(), workers.completed
        try:
            claims = await self._claim_until(workers, moment)
            if claims:
                await self._run_engine(
                    workers, lambda: self._run_claims(workers, claims, moment), signals=False
                )
            await self._prune_sometimes()
        finally:
            self._busy = False
        return workers.completed - before

    async def _run_claims(
        self, workers: Workers, claims: Sequence[Claim], moment: datetime
    ) -> None:
        while claims:
            workers.accept(claims)
            await self._wait(workers.until_idle)
            await self._wait(workers.until_settled)
            if self._stop_requested.is_set():
                return
            claims = await self._claim_until(workers, moment)

    async def _claim_until(self, workers: Workers, moment: datetime) -> Sequence[Claim]:
        self._looked_at = self._clock.now()
        claims = await self._backend.claim_due(workers.room())
        await self._observers.taken_over(claims)
        due = [claim for claim in claims if (claim.job.standing.due_at or moment) <= moment]
        if len(due) != len(claims):
            chosen = {claim.token for claim in due}
            await self._backend.release([c for c in claims if c.token not in chosen])
        return due

    async def run_forever(self, *, signals: bool | str = "auto") -> None:
        """Run what is due until :meth:`stop`, a signal, or cancellation.

        Args:
            signals: ``"auto"``: SIGINT and SIGTERM stop it, in the main thread and where the
                default handlers stand; a second one stops at once. ``False``: leave signals alone.

        Raises:
            SchedulerNotStarted: Outside ``async with``.
            SchedulerRunning: It is running already.
        """
        workers = self._opened()
        if self._busy:
            raise SchedulerRunning("run_forever is running already, or run_due is")
        self._busy = self._running = True
        self._stopped = anyio.Event()
        try:
            await self._run_engine(workers, lambda: self._dispatch(workers), signals=bool(signals))
        finally:
            self._running = self._busy = False
            self._running_event = anyio.Event()
            self._stopped.set()

    async def _run_engine(
        self, workers: Workers, work: Callable[[], Awaitable[None]], *, signals: bool
    ) -> None:
        self._stop_requested, self._stop_now = anyio.Event(), anyio.Event()
        self._engine_ended = anyio.Event()
        self._grace = DEFAULT_GRACE.total_seconds()
        failure: list[Exception] = []
        async with anyio.create_task_group() as host:
            host.start_soon(self._engine, workers, work, failure)
            try:
                async with stop_signals(enabled=signals, on_signal=self._on_signal):
                    await self._engine_ended.wait()
            except BaseException:
                self._request_stop(0)
                raise
        if failure:
            raise failure[0]

    def _on_signal(self) -> None:
        if self._stop_requested.is_set():
            logger.warning("second signal: stopping at once")
            self._request_stop(0)
        else:
            logger.info("signal: stopping within %s s", self._grace)
            self._request_stop(None)

    def _request_stop(self, grace: float | None) -> None:
        if grace is not None:
            self._grace = grace
        if self._grace <= 0:
            self._stop_now.set()
        self._stop_requested.set()
        if self._wait_scope is not None:
            self._wait_scope.cancel()

    async def stop(self, grace: timedelta | float = DEFAULT_GRACE) -> None:
        """Stop ``run_forever``: no new claims, wait for handlers, write how they ended.

        Args:
            grace: For handlers to end, in seconds or as a timedelta; then they are cancelled and
                their occurrences run again elsewhere or later (``interrupted``).
        """
        if not self._running:
            return
        self._request_stop(grace.total_seconds() if isinstance(grace, timedelta) else float(grace))
        await self._stopped.wait()

    async def _engine(
        self, workers: Workers, work: Callable[[], Awaitable[None]], failure: list[Exception]
    ) -> None:
        # Nothing in here is cancelled from outside: the end is decided by _request_stop alone.
        with anyio.CancelScope(shield=True):
            try:
                async with anyio.create_task_group() as tasks:
                    workers.start(tasks)
                    try:
                        await work()
                    except Exception as error:  # noqa: BLE001 -- raised by _run_engine
                        failure.append(error)
                    if await self._wind_down(workers, grace=self._grace):
                        # This task must wait for coroutines that refuse to end; stop() must not.
                        self._engine_ended.set()
                        self._stopped.set()
            except Exception as error:
                logger.exception("the scheduler's loop failed")
                failure.append(error)
            finally:
                self._engine_ended.set()

    async def _dispatch(self, workers: Workers) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._retain)
            self._running_event.set()
            await self._claim_and_run(workers)
            tasks.cancel_scope.cancel()

    async def _claim_and_run(self, workers: Workers) -> None:
        failures = 0
        while not self._stop_requested.is_set():
            self._looked_at = self._clock.now()
            try:
                if self._handler is None:
                    self._observers.trouble("handler", "no handler is set: nothing is claimed")
                    await self._wait(self._handler_set.wait)
                    continue
                self._observers.trouble("handler", None)
                changed = workers.changed
                free = workers.room()
                if free <= 0:
                    self._waiting_for_capacity = True
                    await self._wait(changed.wait)
                    self._waiting_for_capacity = False
                    continue
                if workers.held:
                    await workers.renew_expiring()
                claims = await self._backend.claim_due(free)
                if claims:
                    await self._observers.taken_over(claims)
                    workers.accept(claims)
                    # First they begin: what blocks the loop past its lease is renewed above.
                    while workers.queued and not self._stop_requested.is_set():
                        await anyio.lowlevel.checkpoint()
                else:
                    await self._wait(self._backend.wait_due, free)
                if failures:
                    failures = 0
                    self._observers.trouble("claiming", None)
            except Exception as error:  # noqa: BLE001 -- a third party's backend may raise anything
                failures += 1
                workers.trouble("claiming", error)
                await self._wait(backoff_pause, failures)

    async def _wait(self, wait: Callable[..., object], *arguments: object) -> None:
        """Wait for something in a way that a stop ends."""
        with anyio.CancelScope() as self._wait_scope:
            if not self._stop_requested.is_set():
                await wait(*arguments)  # type: ignore[misc]  # every caller passes an async callable
        self._wait_scope = None

    async def _wind_down(self, workers: Workers, *, grace: float) -> bool:
        """End what is running; return whether handlers are left that refuse to end."""
        with anyio.CancelScope(shield=True):
            queued = workers.take_queued()
            await self._release(queued)
            if workers.active and grace > 0 and not self._stop_now.is_set():
                with anyio.move_on_after(grace):
                    await _first_of(workers.until_idle, self._stop_now.wait)
            if workers.active:
                workers.cancel_all()
                with anyio.move_on_after(FLUSH):
                    await workers.until_idle()
            if workers.active:
                hanging = sorted(run.claim.job.id for run in workers.held.values())
                logger.error("handlers did not end, their leases must run out: %s", hanging)
                workers.abandon_threads()
            with anyio.move_on_after(FLUSH):
                await workers.until_settled()
            if workers.held:
                logger.error("%s runs were not written", len(workers.held))
            refusing = workers.hanging()
            workers.close()
        return refusing

    async def _release(self, claims: Sequence[Claim]) -> None:
        if not claims:
            return
        try:
            with anyio.move_on_after(FLUSH):
                await self._backend.release(claims)
        except Exception as error:
            logger.exception("claims could not be released, their leases must run out")
            self._observers.trouble("releasing", str(error))

    async def _retain(self) -> None:
        pause = RETENTION_BEGINS  # soon, or a service that restarts often would never prune
        while True:
            await self._clock.sleep_until(self._clock.now() + pause)
            pause = RETENTION
            try:
                await self._backend.prune(FIRST)
                self._observers.trouble("retention", None)
            except Exception as error:
                logger.exception("retention failed, it is tried again")
                self._observers.trouble("retention", str(error))

    async def _prune_sometimes(self) -> None:
        now = self._clock.now()
        if self._pruned_at is None or now - self._pruned_at >= RETENTION * 24:
            self._pruned_at = now
            await self._backend.prune(FIRST)

    # -- health

    async def health(self) -> Health:
        """Tell whether this scheduler does its work, with a real write to the backend.

        Raises:
            SchedulerNotStarted: Outside ``async with``.
        """
        workers = self._opened()
        try:
            await self._backend.check()
            self._observers.trouble("backend", None)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is what health is asked for
            self._observers.trouble("backend", f"{type(error).__name__}: {error}")
        missing = "no handler is set: nothing is claimed" if self._handler is None else None
        self._observers.trouble("handler", missing)
        looked_at = self._looked_at
        stalled = (
            self._running
            and not self._waiting_for_capacity
            and looked_at is not None
            and self._clock.now() - looked_at > STALLED
        )
        self._observers.trouble(
            "loop", f"has not looked for work since {looked_at}" if stalled else None
        )
        return Health(
            healthy=not self._observers.problems,
            problems=self._observers.problems,
            running=self._running,
            executing=workers.active,
            unsettled=len(workers.held),
            completed=workers.completed,
            looked_at=looked_at,
            oldest_due=workers.oldest_due(),
            lateness=workers.lateness,
            claims_lost=workers.claims_lost,
            backend_errors=workers.backend_errors,
        )


def _spec(
    job_id: str,
    schedule: Schedule,
    name: str | None,
    metadata: Mapping[str, str] | None,
    policy: Policy | None,
    group: str | None,
) -> JobSpec:
    return JobSpec(
        job_id,
        schedule,
        name,
        {} if metadata is None else metadata,
        Policy() if policy is None else policy,
        group,
    )


async def _first_of(*waits: Callable[[], object]) -> None:
    """Wait until one of them has returned."""
    async with anyio.create_task_group() as tasks:

        async def race(wait: Callable[[], object]) -> None:
            await wait()  # type: ignore[misc]  # every caller passes an async callable
            tasks.cancel_scope.cancel()

        for wait in waits:
            tasks.start_soon(race, wait)
