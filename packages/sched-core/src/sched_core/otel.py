"""Spans and metrics for OpenTelemetry; needs ``sched-core[otel]``.

Names follow the conventions for messaging: an occurrence is the message, a job its destination, a
run its processing. Where messaging has no name, ours begins with ``sched.``.

========================================  =====================================================
metric                                    what it is
========================================  =====================================================
``messaging.client.consumed.messages``    runs: attempts for which a handler was called
``messaging.process.duration``            how long they took, in seconds
``sched.occurrences``                     final executions, by ``sched.status``
``sched.lateness``                        seconds from an occurrence to its first attempt
``sched.claims.lost``                     lost claims, counted by the worker that takes over
``sched.backend.errors``                  failures to reach the backend
``sched.oldest_due.age``                  seconds by which what is claimed and unfinished is late
``sched.executing``                       runs under way or queued
``sched.unhealthy``                       1 while something is wrong, else 0
========================================  =====================================================

``error.type`` is set if a run failed. ``messaging.destination.name`` is the job's id for the first
hundred ids that come, and ``_other`` for all others: each one-shot must not make a series of its
own.
"""

from __future__ import annotations

import functools
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Protocol

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import SpanKind, StatusCode, TracerProvider
from opentelemetry.util.types import AttributeValue

from sched_core._model.event import JobEvent
from sched_core._model.execution import Execution, Status
from sched_core._runtime.observers import Health, HealthChange
from sched_core.errors import InvalidDefinition, NoRoute
from sched_core.handlers import Dispatcher, Handler, Snooze, is_async

OTHER = "_other"
"""The name in metrics of all jobs beyond the first hundred."""
REMEMBERED = 10_000
"""How many runs with a span of their own are remembered until their executions come."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 60, 600)
_BASE = {"messaging.system": "sched", "messaging.operation.name": "process"}


class Watched(Protocol):
    """A scheduler, as far as metrics read it."""

    def snapshot(self) -> Health | None: ...


class Telemetry:
    """An observer that exports spans and metrics: ``Scheduler(..., observers=[Telemetry()])``.

    It writes a span for each execution, once that is stored. If you want a span that is current
    while the handler runs, so that the spans of the handler's own calls lie inside it, wrap the
    handler in :meth:`trace`, or give :meth:`middleware` to a router.

    Args:
        tracer_provider: The provider of tracers, by default the global one.
        meter_provider: The provider of meters, by default the global one.
        max_jobs: How many job ids get metrics of their own.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        max_jobs: int = 100,
    ) -> None:
        self._tracer = trace.get_tracer("sched_core", tracer_provider=tracer_provider)
        meter = metrics.get_meter("sched_core", meter_provider=meter_provider)
        self._max_jobs = max_jobs
        self._jobs: set[str] = set()
        self._traced: OrderedDict[str, None] = OrderedDict()
        self._schedulers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Runs"
        )
        self._duration = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "How long runs took",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._occurrences = meter.create_counter(
            "sched.occurrences", "{occurrence}", "Occurrences that have ended, by status"
        )
        self._lateness = meter.create_histogram(
            "sched.lateness",
            "s",
            "How long after its occurrence the first attempt began",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._lost = meter.create_counter("sched.claims.lost", "{claim}", "Claims that were lost")
        meter.create_observable_counter(
            "sched.backend.errors",
            [self._read(lambda health: health.backend_errors)],
            "{error}",
            "Failures to reach the backend",
        )
        meter.create_observable_gauge(
            "sched.oldest_due.age",
            [self._read(_age)],
            "s",
            "By how much what is claimed and unfinished is late",
        )
        meter.create_observable_gauge(
            "sched.executing",
            [self._read(lambda health: health.executing)],
            "{run}",
            "Runs under way or queued",
        )
        meter.create_observable_gauge(
            "sched.unhealthy",
            [self._read(lambda health: int(not health.healthy))],
            "1",
            "1 while something is wrong",
        )

    def watch(self, scheduler: Watched) -> None:
        """Read this scheduler whenever metrics are collected; the scheduler calls this itself."""
        self._schedulers.add(scheduler)

    def _read(
        self, value: Callable[[Health], float]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            found: list[float] = []
            for scheduler in list(self._schedulers):
                health = scheduler.snapshot()
                if health is not None:
                    found.append(value(health))
            if found:
                yield Observation(sum(found), {"messaging.system": "sched"})

        return observe

    # -- called by the scheduler

    def __call__(self, what: Execution | HealthChange) -> None:
        if isinstance(what, HealthChange):
            return
        attributes = {**_BASE, "messaging.destination.name": self._label(what.job_id)}
        failed = _error_type(what)
        if failed is not None:
            attributes["error.type"] = failed
        if what.status is Status.ABANDONED:
            self._lost.add(1, attributes)
        elif what.started_at is not None:
            self._consumed.add(1, attributes)
            self._duration.record((what.finished_at - what.started_at).total_seconds(), attributes)
            if what.attempt == 1:
                lateness = (what.started_at - what.scheduled_at).total_seconds()
                self._lateness.record(max(lateness, 0), _without_error(attributes))
        if what.final:
            status = {"sched.status": what.status.value}
            self._occurrences.add(1, {**_without_error(attributes), **status})
        if self._traced.pop(what.id, "") == "":
            self._span(what, failed)

    def _label(self, job_id: str) -> str:
        if job_id not in self._jobs:
            if len(self._jobs) >= self._max_jobs:
                return OTHER
            self._jobs.add(job_id)
        return job_id

    def _span(self, execution: Execution, failed: str | None) -> None:
        """Write the span of an execution that has ended."""
        attributes: dict[str, AttributeValue] = {
            **_BASE,
            "messaging.operation.type": "process",
            "messaging.destination.name": execution.job_id,
            "messaging.message.id": f"{execution.uid}:{execution.number}",
            "sched.status": execution.status.value,
            "sched.final": execution.final,
            "sched.attempt": execution.attempt,
            "sched.kind": execution.kind.value,
            "sched.token": execution.token,
            "sched.worker": execution.worker,
            "sched.scheduled_at": execution.scheduled_at.isoformat(),
            "sched.coalesced": execution.coalesced,
        }
        if failed is not None:
            attributes["error.type"] = failed
        begun = execution.started_at
        if begun is None:
            begun = (
                execution.claimed_at
                if execution.status is Status.ABANDONED
                else execution.finished_at
            )
        span = self._tracer.start_span(
            f"process {execution.job_id}",
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            start_time=_nanoseconds(begun),
        )
        if failed is not None:
            span.set_status(StatusCode.ERROR, execution.reason or execution.status.value)
        span.end(_nanoseconds(execution.finished_at))

    # -- around handlers

    async def middleware(
        self, event: JobEvent, call_next: Callable[[JobEvent], Awaitable[Any]]
    ) -> Any:
        """Run the handlers of a :class:`~sched_core.JobRouter` inside a current span."""
        with self._current(event):
            return await call_next(event)

    def trace(self, handler: Handler) -> Handler:
        """Return the handler with a current span around each call.

        Raises:
            InvalidDefinition: The handler is a router; use :meth:`middleware` for it.
        """
        if isinstance(handler, Dispatcher):
            raise InvalidDefinition(
                "handler", "is a router: use router.middleware(telemetry.middleware)"
            )
        if is_async(handler):

            @functools.wraps(handler)
            async def traced(event: JobEvent) -> Any:
                with self._current(event):
                    return await handler(event)

            return traced

        @functools.wraps(handler)
        def traced_in_thread(event: JobEvent) -> Any:
            with self._current(event):
                return handler(event)

        return traced_in_thread

    @contextmanager
    def _current(self, event: JobEvent) -> Iterator[None]:
        attributes: dict[str, AttributeValue] = {
            **_BASE,
            "messaging.operation.type": "process",
            "messaging.destination.name": event.id,
            "messaging.message.id": event.key,
            "sched.attempt": event.attempt,
            "sched.kind": event.kind.value,
            "sched.token": event.token,
            "sched.scheduled_at": event.scheduled_at.isoformat(),
            "sched.coalesced": event.coalesced,
        }
        with self._tracer.start_as_current_span(
            f"process {event.id}", kind=SpanKind.CONSUMER, attributes=attributes
        ) as span:
            try:
                yield
            except (NoRoute, Snooze):
                raise
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                raise
            finally:
                self._traced[f"{event.key}:{event.attempt}"] = None
                if len(self._traced) > REMEMBERED:
                    self._traced.popitem(last=False)


def _age(health: Health) -> float:
    oldest = health.oldest_due
    return 0.0 if oldest is None else max((health.at - oldest).total_seconds(), 0.0)


def _error_type(execution: Execution) -> str | None:
    """Return the class of an execution's error, ``None`` if there is no error."""
    if execution.status is Status.ABANDONED:
        return "lost"
    if execution.status is not Status.FAILED:
        return None
    return (execution.reason or "failed").partition(":")[0][:100]


def _without_error(attributes: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in attributes.items() if name != "error.type"}


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
