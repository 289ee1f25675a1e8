"""OpenTelemetry and logs: what a run, a failure and a lost claim leave in an exporter."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.core.running import Faulty, running, until

from sched_core import (
    BackendUnavailable,
    Drop,
    Interval,
    InvalidDefinition,
    JobEvent,
    JobRouter,
    MemoryBackend,
    MemoryStore,
    NoRoute,
    Once,
    Policy,
    Retry,
    Room,
    Scheduler,
)
from sched_core.logs import JsonFormatter, LogExecutions
from sched_core.otel import OTHER, Telemetry
from sched_core.testing import FakeClock

SECOND = timedelta(seconds=1)


class Exported:
    """A telemetry whose spans and metrics stay in memory."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        meters = MeterProvider([self.reader])
        self.telemetry = Telemetry(tracer_provider=self.tracers, meter_provider=meters, **options)

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def points(self, name: str) -> dict[tuple[str, ...], Any]:
        """Return a metric's points, by job, status and error, whatever of them they have."""
        data = self.reader.get_metrics_data()
        found: dict[tuple[str, ...], Any] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points if metric.name == name else ():
                        attributes: dict[str, Any] = dict(point.attributes or {})
                        assert attributes["messaging.system"] == "sched"
                        keys = ("messaging.destination.name", "sched.status", "error.type")
                        found[tuple(attributes[k] for k in keys if k in attributes)] = point
        return found

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        return {key: point.value for key, point in self.points(name).items()}


@pytest.fixture
def exported() -> Exported:
    return Exported()


def test_a_run_and_a_failure(exported: Exported) -> None:
    clock = FakeClock()
    begun = clock.now()

    async def handle(event: JobEvent) -> None:
        clock.advance(seconds=3)
        if event.id == "bad":
            raise ValueError("on purpose")

    async def main() -> None:
        backend = MemoryBackend()
        async with Scheduler(
            backend, handler=handle, clock=clock, observers=[exported.telemetry]
        ) as scheduler:
            await scheduler.submit_job("good", Once(begun))
            clock.advance(seconds=2)
            await scheduler.run_due()
            retry = Policy(retry=Retry(attempts=2, backoff=SECOND))
            await scheduler.submit_job("bad", Once(clock.now()), policy=retry)
            await scheduler.run_due()
            clock.advance(seconds=1)
            await scheduler.run_due()
            assert exported.values("sched.unhealthy") == {(): 0}
            assert exported.values("sched.executing") == {(): 0}
            assert exported.values("sched.oldest_due.age") == {(): 0}

    anyio.run(main)
    good, first, second = exported.spans()
    assert (good.name, good.kind) == ("process good", SpanKind.CONSUMER)
    assert good.start_time is not None
    assert good.end_time is not None
    assert good.end_time - good.start_time == 3 * 10**9
    assert good.start_time == int((begun + 2 * SECOND).timestamp()) * 10**9
    assert good.attributes is not None
    assert good.attributes["messaging.system"] == "sched"
    assert good.attributes["sched.status"] == "succeeded"
    assert good.status.status_code is StatusCode.UNSET
    for span, attempt in ((first, 1), (second, 2)):
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "ValueError: on purpose"
        assert span.attributes is not None
        assert span.attributes["error.type"] == "ValueError"
        assert span.attributes["sched.attempt"] == attempt

    assert exported.values("messaging.client.consumed.messages") == {
        ("good",): 1,
        ("bad", "ValueError"): 2,
    }
    assert exported.values("sched.occurrences") == {("good", "succeeded"): 1, ("bad", "failed"): 1}
    durations = exported.points("messaging.process.duration")
    assert durations["good",].sum == 3
    assert durations["bad", "ValueError"].count == 2
    lateness = exported.points("sched.lateness")
    assert (lateness["good",].count, lateness["good",].sum) == (1, 2)
    assert lateness["bad",].count == 1


def test_a_lost_claim_and_what_never_ran(exported: Exported) -> None:
    clock, store = FakeClock(), MemoryStore()

    async def handle(event: JobEvent) -> None:
        pass

    async def main() -> None:
        dead = MemoryBackend(store)
        await dead.open(clock, worker="dead")
        backend = MemoryBackend(store)
        async with Scheduler(
            backend, handler=handle, clock=clock, observers=[exported.telemetry]
        ) as scheduler:
            await scheduler.submit_job("lost", Once(clock.now()))
            await scheduler.ensure_job(
                "late", Interval(hours=1), policy=Policy(misfire=Drop(SECOND))
            )
            assert len((await dead.claim_due(Room(9))).claims) == 1
            clock.advance(seconds=31)
            assert await scheduler.run_due() == 0
            clock.advance(seconds=1)  # what was lost is due a little later
            assert await scheduler.run_due() == 1
            clock.advance(hours=1)
            await scheduler.run_due()

    anyio.run(main)
    abandoned, run, missed = exported.spans()
    assert abandoned.attributes is not None
    assert abandoned.attributes["sched.status"] == "abandoned"
    assert abandoned.attributes["sched.worker"] == "dead"
    assert abandoned.status.status_code is StatusCode.ERROR
    assert abandoned.start_time is not None
    assert abandoned.end_time is not None
    assert abandoned.end_time - abandoned.start_time == 31 * 10**9
    assert run.attributes is not None
    assert run.attributes["sched.attempt"] == 2
    assert missed.attributes is not None
    assert missed.attributes["sched.status"] == "missed"
    assert exported.values("sched.claims.lost") == {("lost", "lost"): 1}
    assert exported.values("messaging.client.consumed.messages") == {("lost",): 1}
    assert exported.values("sched.occurrences") == {
        ("lost", "succeeded"): 1,
        ("late", "missed"): 1,
    }


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_backend_errors_and_the_oldest_due(exported: Exported, loop: str) -> None:
    backend = Faulty(MemoryBackend())
    hold = threading.Event()

    async def handle(event: JobEvent) -> None:
        await until(hold.is_set)

    async def main() -> None:
        async with running(backend, handle, observers=[exported.telemetry]) as scheduler:
            early = (scheduler.snapshot() or pytest.fail("closed")).at - timedelta(seconds=50)
            await scheduler.submit_job("a", Once(early))
            await until(lambda: exported.values("sched.executing") == {(): 1})
            assert 50 <= exported.values("sched.oldest_due.age")[()] < 60
            backend.failures["claim_due"] = BackendUnavailable("on purpose")
            await scheduler.submit_job("b", Once(early))  # what waits looks again
            await until(lambda: exported.values("sched.backend.errors")[()] > 0)
            assert exported.values("sched.unhealthy") == {(): 1}
            del backend.failures["claim_due"]
            hold.set()
            await scheduler.submit_job("c", Once(early))
            await until(lambda: exported.values("sched.unhealthy") == {(): 0})
        assert exported.values("sched.executing") == {}

    anyio.run(main, backend=loop)


def test_a_current_span_goes_around_the_handler(exported: Exported) -> None:
    """What the handler traces lies inside; the line makes no second span."""
    tracer = exported.tracers.get_tracer("mine")
    router = JobRouter()
    router.middleware(exported.telemetry.middleware)

    @router.route("async")
    async def coroutine(event: JobEvent) -> None:
        with tracer.start_as_current_span("inner"):
            pass

    @router.route("sync")
    def function(event: JobEvent) -> None:
        with tracer.start_as_current_span("inner"):
            raise KeyError("x")

    @router.route("unknown")
    async def unknown(event: JobEvent) -> None:
        raise NoRoute

    async def main(handler: Any, ids: list[str]) -> None:
        backend = MemoryBackend()
        async with Scheduler(backend, handler=handler, observers=[exported.telemetry]) as scheduler:
            for job_id in ids:
                await scheduler.submit_job(job_id, Once(FakeClock().now()))
            await scheduler.run_due()

    anyio.run(main, router, ["async", "sync"])
    anyio.run(main, exported.telemetry.trace(coroutine), ["async"])
    anyio.run(main, exported.telemetry.trace(function), ["sync"])
    spans = exported.spans()
    assert sorted(span.name for span in spans) == sorted(
        ["inner", "process async", "inner", "process sync"] * 2
    )
    by_id = {span.context.span_id: span for span in spans if span.context is not None}
    for span in spans:
        if span.name == "inner":
            assert span.parent is not None
            assert by_id[span.parent.span_id].name.startswith("process ")
        elif span.name == "process sync":
            assert span.status.status_code is StatusCode.ERROR
            assert span.attributes is not None
            assert span.attributes["error.type"] == "KeyError"
    assert not exported.telemetry._traced

    with pytest.raises(InvalidDefinition, match=r"router\.middleware"):
        exported.telemetry.trace(router)


def test_ids_of_one_shots_do_not_make_a_series_each() -> None:
    exported = Exported(max_jobs=2)
    clock = FakeClock()

    async def main() -> None:
        async with Scheduler(
            MemoryBackend(), handler=print, clock=clock, observers=[exported.telemetry]
        ) as scheduler:
            for number in range(5):
                await scheduler.submit_job(f"one-{number}", Once(clock.now()))
            await scheduler.run_due()

    anyio.run(main)
    found = exported.values("messaging.client.consumed.messages")
    assert len(found) == 3
    assert found[OTHER,] == 3
    assert len({span.name for span in exported.spans()}) == 5


def test_the_core_does_not_import_it() -> None:
    script = (
        "import sys, sched_core, sched_core.testing, sched_core.logs;"
        "sys.exit(any(name.partition('.')[0] == 'opentelemetry' for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_it_uses_the_global_providers_by_default() -> None:
    assert isinstance(trace.get_tracer("x"), object)
    Telemetry()


# -- logs --------------------------------------------------------------------


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What the logger ``sched_core`` writes, as JSON lines."""
    logger, stream = logging.getLogger("sched_core"), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_lines_are_logged_with_their_facts(logged: io.StringIO) -> None:
    clock = FakeClock()

    async def handle(event: JobEvent) -> None:
        clock.advance(seconds=3)
        if event.id == "bad":
            raise ValueError("on purpose, with ümlaut")

    async def main() -> None:
        backend = Faulty(MemoryBackend())
        async with Scheduler(
            backend, handler=handle, clock=clock, observers=[LogExecutions()]
        ) as scheduler:
            await scheduler.submit_job("good", Once(clock.now()))
            await scheduler.run_due()
            await scheduler.submit_job("bad", Once(clock.now()))
            await scheduler.run_due()
            backend.failures["check"] = BackendUnavailable("on purpose")
            await scheduler.health()

    anyio.run(main)
    records = [json.loads(line) for line in logged.getvalue().splitlines()]
    lines = [record for record in records if record["logger"] == "sched_core.executions"]
    good, bad, health = lines
    assert good["level"] == "INFO"
    assert (good["job_id"], good["status"], good["attempt"]) == ("good", "succeeded", 1)
    assert (good["duration"], good["delay"], good["final"]) == (3, 0, True)
    assert good["message"] == "job 'good' succeeded"
    assert bad["level"] == "ERROR"
    assert bad["reason"] == "ValueError: on purpose, with ümlaut"
    assert health["level"] == "ERROR"
    assert health["healthy"] is False
    assert "BackendUnavailable" in health["problems"][0]
    (failure,) = [record for record in records if "exception" in record]
    assert failure["logger"] == "sched_core"
    assert failure["job_id"] == "bad"
    assert failure["key"].endswith(":1")
    assert "Traceback" in failure["exception"]


def test_anything_can_be_a_field(logged: io.StringIO) -> None:
    logging.getLogger("sched_core.x").warning("a\nb", extra={"path": time, "level": "mine"})
    (line,) = logged.getvalue().splitlines()
    record = json.loads(line)
    assert record["message"] == "a\nb"
    assert record["level"] == "WARNING"
    assert "module 'time'" in record["path"]
