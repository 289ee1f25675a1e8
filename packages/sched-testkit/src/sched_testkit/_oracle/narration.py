"""How a history is told: definitions in the words that a person would use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from sched_core import CatchUp, Cron, Drop, FixedDelay, Interval, JobSpec, Once, Policy, Retry
from sched_testkit._suite.bench import START


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
            said(getattr(value, name))
            for name, said in POLICY.items()
            if getattr(value, name) != getattr(Policy(), name)
        ]
        return ", ".join(changed) or "the default policy"
    if isinstance(value, Retry):
        waits = [seconds(each) for each in value.delays or (value.backoff,)]
        more = f", {value.jitter:.0%} jitter" if value.jitter else ""
        more += "".join(f", never after {name}" for name in value.never)
        more += "".join(f", only after {name}" for name in value.only)
        return f"{value.attempts} attempts {', '.join(waits)} apart{more}"
    if isinstance(value, CatchUp):
        within = "" if value.window is None else f" within {seconds(value.window)}"
        return f"CatchUp({value.limit}{within})"
    if isinstance(value, Drop):
        return f"Drop(grace {seconds(value.grace)})"
    return repr(dict(value)) if isinstance(value, Mapping) else repr(value)


POLICY: dict[str, Callable[[Any], str]] = {
    "misfire": show,
    "overlap": lambda value: f"overlap {value}",
    "retry": show,
    "timeout": lambda value: f"at most {seconds(value)}",
    "jitter": lambda value: f"jitter {seconds(value)}",
    "max_lost": lambda value: f"max_lost {value}",
    "max_snoozes": lambda value: f"max_snoozes {value}",
    "pause_after": lambda value: f"paused after {value}",
    "overdue": lambda value: f"overdue after {seconds(value)}",
    "keep_finished": lambda value: "always kept" if value is None else f"kept {seconds(value)}",
}


def describe(spec: JobSpec) -> str:
    """Return a definition in words."""
    policy = "" if spec.policy == Policy() else f", {show(spec.policy)}"
    return f"job {spec.id!r} {show(spec.schedule)}{policy}"
