"""How a history is told: definitions in the words that a person would use."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from sched_core import Cron, Drop, FixedDelay, Interval, JobSpec, Once, Policy, Retry, RunAll
from sched_testkit.bench import START


def seconds(span: timedelta) -> str:
    """Return a span in words."""
    return f"{span.total_seconds():g} s"


def show(value: object) -> str:
    """Return a schedule, a policy or metadata as short as it can be said."""
    if isinstance(value, Interval):
        return f"every {seconds(value.every)}"
    if isinstance(value, FixedDelay):
        return f"{seconds(value.every)} after each run"
    if isinstance(value, Once):
        return f"once at +{seconds(value.at - START)}"
    if isinstance(value, Cron):
        return f"cron {value.expression!r}"
    if isinstance(value, Policy):
        changed = [
            getattr(value, name)
            for name in ("misfire", "retry", "max_lost", "keep_finished")
            if getattr(value, name) != getattr(Policy(), name)
        ]
        return ", ".join(map(show, changed)) or "the default policy"
    if isinstance(value, Retry):
        return f"{value.attempts} attempts {seconds(value.backoff)} apart"
    if isinstance(value, RunAll):
        return f"RunAll({value.limit} within {seconds(value.window)})"
    if isinstance(value, Drop):
        return f"Drop(grace {seconds(value.grace)})"
    if isinstance(value, int):
        return f"max_lost {value}"
    if isinstance(value, timedelta):
        return f"kept {seconds(value)}"
    return repr(dict(value)) if isinstance(value, Mapping) else repr(value)


def describe(spec: JobSpec) -> str:
    """Return a definition in words."""
    policy = "" if spec.policy == Policy() else f", {show(spec.policy)}"
    return f"job {spec.id!r} {show(spec.schedule)}{policy}"
