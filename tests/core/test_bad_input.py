"""Bad input, as one table: a typed error that names the field and the remedy, nothing harmed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.core.backends import KINDS, fresh_store

from sched_core import (
    CatchUp,
    Cron,
    Drop,
    FixedDelay,
    Interval,
    InvalidDefinition,
    JobSpec,
    MemoryBackend,
    Once,
    Policy,
    Retry,
    Scheduler,
    StartAtInterval,
)
from sched_core.testing import EPOCH, FakeClock

NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 -- what is to be refused
HOURLY = Interval(hours=1)
ANY: Any = None
"""Stands for what a type checker would refuse."""

Act = Callable[[Scheduler], Awaitable[object]]


def ensure(job_id: Any = "new", schedule: Any = HOURLY, **rest: Any) -> Act:
    return lambda scheduler: scheduler.ensure_job(job_id, schedule, **rest)


def making(make: Callable[[], Any]) -> Act:
    async def act(scheduler: Scheduler) -> object:
        return await scheduler.ensure_job("new", make())

    return act


def policy(make: Callable[[], Any]) -> Act:
    async def act(scheduler: Scheduler) -> object:
        return await scheduler.ensure_job("new", HOURLY, policy=make())

    return act


MS = timedelta(milliseconds=1)
TABLE: list[tuple[str, Act, str, str]] = [
    # what, how, the field that is named, a part of the remedy
    ("empty id", ensure(""), "id", "must not be empty"),
    ("long id", ensure("x" * 256), "id", "at most 255 characters, not 256"),
    ("control character", ensure("a\nb"), "id", "remove it"),
    ("C1 control character", ensure("a\x85b"), "id", "remove it"),
    ("NUL", ensure("a\0b"), "id", "remove it"),
    ("lone surrogate", ensure("a\ud800"), "id", "remove it"),
    ("execution separator", ensure("a\u2028"), "id", "remove it"),
    ("id of bytes", ensure(b"a"), "id", "must be a string"),
    ("no id", ensure(None), "id", "must be a string"),
    ("empty name", ensure(name=""), "name", "must not be empty"),
    ("long name", ensure(name="x" * 256), "name", "at most 255"),
    ("long group", ensure(group="x" * 256), "group", "at most 255"),
    ("group of int", ensure(group=1), "group", "must be a string"),
    ("naive one-shot", making(lambda: Once(NAIVE)), "at", "give it a time zone"),
    ("one-shot of text", making(lambda: Once("2026-01-01")), "at", "timezone-aware datetime"),  # type: ignore[arg-type]  # refused
    ("naive start", making(lambda: Interval(hours=1, start=NAIVE)), "start", "give it a time zone"),
    ("no start", making(lambda: StartAtInterval(ANY, hours=1)), "start", "give a moment"),
    ("zero interval", making(lambda: Interval(hours=0)), "every", "from 1 millisecond"),
    ("no interval", making(Interval), "every", "from 1 millisecond"),
    ("zero timedelta", making(lambda: Interval(timedelta(0))), "every", "from 1 millisecond"),
    ("negative interval", making(lambda: Interval(seconds=-1)), "every", "from 1 millisecond"),
    ("tiny interval", making(lambda: Interval(MS / 2)), "every", "from 1 millisecond"),
    ("absurd interval", making(lambda: Interval(timedelta.max)), "every", "to 100 years"),
    ("infinite interval", making(lambda: Interval(days=float("inf"))), "days", "to 100 years"),
    ("interval of nan", making(lambda: Interval(days=float("nan"))), "days", "to 100 years"),
    ("interval of text", making(lambda: Interval(hours="1")), "hours", "must be a number"),  # type: ignore[arg-type]  # refused
    ("interval of int", making(lambda: Interval(60)), "every", "timedelta(seconds=...)"),  # type: ignore[arg-type]  # refused
    ("given twice", making(lambda: Interval(MS, hours=1)), "every", "give one of them"),
    ("zero delay", making(lambda: FixedDelay(seconds=0)), "every", "from 1 millisecond"),
    ("unknown zone", making(lambda: Cron("0 3 * * *", tz="Mars/Base")), "tz", "Mars/Base"),
    ("bad expression", making(lambda: Cron("61 * * * *")), "expression", "61"),
    ("never fires", making(lambda: Cron("0 0 30 2 *")), "expression", "never"),
    ("schedule of text", ensure(schedule="0 3 * * *"), "schedule", "Cron('0 3 * * *')"),
    ("schedule class", ensure(schedule=Interval), "schedule", "Interval(hours=1)"),
    ("no schedule", ensure(schedule=None), "schedule", "must be a schedule"),
    ("metadata value", ensure(metadata={"a": 1}), "metadata", "use str(...)"),
    ("metadata key", ensure(metadata={1: "a"}), "metadata", "use str(...)"),
    ("metadata list", ensure(metadata=[("a", "b")]), "metadata", "must map strings to strings"),
    ("metadata empty list", ensure(metadata=[]), "metadata", "must map strings to strings"),
    ("metadata size", ensure(metadata={"a": "x" * 65536}), "metadata", "keep a reference here"),
    ("metadata bytes", ensure(metadata={"": "ä" * 32769}), "metadata", "at most 65536 bytes"),
    ("metadata surrogate", ensure(metadata={"a": "\ud800"}), "metadata", "no valid Unicode"),
    ("policy of dict", ensure(policy={}), "policy", "must be a Policy"),
    ("misfire", policy(lambda: Policy(misfire=ANY)), "policy.misfire", "Coalesce()"),
    ("retry", policy(lambda: Policy(retry=ANY)), "policy.retry", "Retry("),
    ("limit", policy(lambda: Policy(misfire=CatchUp(limit=0))), "policy.misfire.limit", "from 1"),
    ("big limit", policy(lambda: CatchUp(limit=10_001)), "policy.misfire.limit", "to 10000"),
    ("window", policy(lambda: CatchUp(window=timedelta(0))), "policy.misfire.window", "more than"),
    ("grace", policy(lambda: Drop(grace=-MS)), "policy.misfire.grace", "more than zero"),
    ("no grace", policy(lambda: Drop(grace=0 * MS)), "policy.misfire.grace", "more than zero"),
    ("grace of int", policy(lambda: Drop(grace=5)), "policy.misfire.grace", "timedelta"),  # type: ignore[arg-type]  # refused
    ("attempts", policy(lambda: Retry(attempts=0)), "policy.retry.attempts", "from 1"),
    ("bool attempts", policy(lambda: Retry(attempts=True)), "policy.retry.attempts", "whole"),
    ("backoff", policy(lambda: Retry(backoff=-MS)), "policy.retry.backoff", "zero or more"),
    ("factor", policy(lambda: Retry(factor=0.5)), "policy.retry.factor", "from 1"),
    ("nan factor", policy(lambda: Retry(factor=float("nan"))), "policy.retry.factor", "number"),
    ("inf factor", policy(lambda: Retry(factor=float("inf"))), "policy.retry.factor", "to 1000"),
    ("maximum", policy(lambda: Retry(maximum=ANY)), "policy.retry.maximum", "timedelta"),
    ("delays", policy(lambda: Retry(delays=ANY)), "policy.retry.delays", "tuple of timedeltas"),
    ("never", policy(lambda: Retry(never=ANY)), "policy.retry.never", "exception types"),
    ("only", policy(lambda: Retry(only=ANY)), "policy.retry.only", "exception types"),
    ("overdue", policy(lambda: Policy(overdue=5)), "policy.overdue", "or None"),  # type: ignore[arg-type]  # refused
    ("retry jitter", policy(lambda: Retry(jitter=1.5)), "policy.retry.jitter", "from 0 to 1"),
    ("timeout", policy(lambda: Policy(timeout=timedelta(0))), "policy.timeout", "more than zero"),
    ("timeout of int", policy(lambda: Policy(timeout=5)), "policy.timeout", "or None"),  # type: ignore[arg-type]  # refused
    ("jitter", policy(lambda: Policy(jitter=-MS)), "policy.jitter", "zero or more"),
    ("max_lost", policy(lambda: Policy(max_lost=0)), "policy.max_lost", "from 1"),
    ("finished", policy(lambda: Policy(keep_finished=-MS)), "policy.keep_finished", "zero or more"),
    ("executions", policy(lambda: Policy(keep_executions=-MS)), "policy.keep_executions", "zero"),
    ("naive until", lambda s: s.pause_job("kept", until=NAIVE), "until", "give it a time zone"),
    ("past until", lambda s: s.pause_job("kept", until=EPOCH), "until", "after the present"),
    ("until of text", lambda s: s.pause_job("kept", until="now"), "until", "datetime"),  # type: ignore[arg-type]  # refused
    ("naive prune", lambda s: s.prune(NAIVE), "before", "timezone-aware"),
    ("prune of None", lambda s: s.prune(ANY), "before", "timezone-aware"),
    ("update schedule", lambda s: s.update_job("kept", ANY), "schedule", "must be a schedule"),
    ("update metadata", lambda s: s.update_job("kept", metadata={"a": ANY}), "metadata", "str"),
    ("update policy", lambda s: s.update_job("kept", policy=ANY), "policy", "must be a Policy"),
    ("update name", lambda s: s.update_job("kept", name="\n"), "name", "remove it"),
    (
        "the same id twice",
        lambda s: s.submit_jobs([JobSpec("a", HOURLY), JobSpec("a", HOURLY)]),
        "specs",
        "'a' occurs twice",
    ),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("act", "field", "remedy"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_bad_input_is_refused_and_harms_nothing(
    act: Act, field: str, remedy: str, kind: str, tmp_path: Path
) -> None:
    async def main() -> None:
        async with Scheduler(fresh_store(kind, tmp_path)(), clock=FakeClock()) as scheduler:
            await scheduler.ensure_job("kept", HOURLY, metadata={"a": "b"})
            before = [job async for job in scheduler.list_jobs()]
            with pytest.raises(InvalidDefinition) as caught:
                await act(scheduler)
            assert isinstance(caught.value, ValueError)
            assert caught.value.field == field
            assert str(caught.value).startswith(f"{field}: ")
            assert remedy in str(caught.value)
            assert [job async for job in scheduler.list_jobs()] == before

    anyio.run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_and_strangest_that_is_allowed_comes_back_as_it_was(
    kind: str, tmp_path: Path
) -> None:
    specs = [
        JobSpec("x" * 255, HOURLY, name="y" * 255, group="z" * 255),
        JobSpec(" 'quoted\"; DROP TABLE jobs; -- ", HOURLY),
        JobSpec("ünïcödé/☃/🕰/*.>", HOURLY, metadata={"": "", "\0": "a\nb", "🕰": "☃"}),
        JobSpec("big", HOURLY, metadata={"k": "x" * 65535}),
        JobSpec("none", HOURLY, metadata=ANY),
        JobSpec(
            "extreme",
            Interval(milliseconds=1),
            policy=Policy(
                misfire=Drop(grace=timedelta.max),
                retry=Retry(
                    attempts=1_000_000,
                    backoff=timedelta.max,
                    factor=1000,
                    maximum=timedelta.max,
                    jitter=1,
                ),
                timeout=timedelta.max,
                jitter=timedelta.max,
                max_lost=1_000_000,
                keep_finished=timedelta.max,
                keep_executions=timedelta.max,
            ),
        ),
        JobSpec("late", Once(datetime.max.replace(tzinfo=EPOCH.tzinfo))),
        JobSpec("early", Once(datetime.min.replace(tzinfo=EPOCH.tzinfo))),
    ]

    async def main() -> None:
        open_store = fresh_store(kind, tmp_path)
        async with Scheduler(open_store(), clock=FakeClock()) as scheduler:
            await scheduler.submit_jobs(specs)
        async with Scheduler(open_store(), clock=FakeClock()) as scheduler:
            for spec in specs:
                assert (await scheduler.get_job(spec.id)).spec == spec

    anyio.run(main)


def test_a_mutable_mapping_is_copied() -> None:
    metadata = {"a": "b"}
    spec = JobSpec("job", HOURLY, metadata=metadata)
    metadata["a"] = "changed"
    assert spec.metadata == {"a": "b"}
    with pytest.raises(TypeError):
        spec.metadata["a"] = "changed"  # type: ignore[index]  # that is what is tested


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"max_concurrency": 1.5}, "max_concurrency"),
        ({"max_concurrency": True}, "max_concurrency"),
        ({"worker": ""}, "worker"),
        ({"worker": "a\nb"}, "worker"),
        ({"handler": "not callable"}, "handler"),
    ],
)
def test_a_scheduler_names_what_it_cannot_use(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        Scheduler(MemoryBackend(), **arguments)
    assert caught.value.field == field
