"""Schedules: values that list moments.

Read in this order: ``base`` (what a schedule is), ``interval`` (measured time), ``cron_fields``,
``cron_calendar``, ``cron_dst``, ``cron_keywords``, ``cron`` (the calendar, in a time zone),
``combined`` (schedules made of others).
"""

from sched_core.schedule.base import (
    Countable,
    Counted,
    Measured,
    Newest,
    Schedule,
    count_occurrences,
    counts_from_anchor,
    counts_from_end,
    first_occurrence,
    last_occurrence,
    next_occurrence,
    upcoming,
    utc,
)
from sched_core.schedule.combined import AnyOf, Between, Excluding, parts
from sched_core.schedule.cron import Cron, dst_warnings
from sched_core.schedule.cron_dst import DstRule
from sched_core.schedule.interval import FixedDelay, Interval, Once, StartAtInterval

__all__ = [
    "AnyOf",
    "Between",
    "Countable",
    "Counted",
    "Cron",
    "DstRule",
    "Excluding",
    "FixedDelay",
    "Interval",
    "Measured",
    "Newest",
    "Once",
    "Schedule",
    "StartAtInterval",
    "count_occurrences",
    "counts_from_anchor",
    "counts_from_end",
    "dst_warnings",
    "first_occurrence",
    "last_occurrence",
    "next_occurrence",
    "parts",
    "upcoming",
    "utc",
]
