"""Schedules: values that list moments.

Read in this order: ``base`` (what a schedule is), ``interval`` (measured time), ``cron_fields``,
``cron_calendar``, ``cron_dst``, ``cron`` (the calendar, in a time zone).
"""

from sched_core.schedule.base import (
    Countable,
    Counted,
    Newest,
    Schedule,
    count_occurrences,
    last_occurrence,
    utc,
)
from sched_core.schedule.cron import Cron, dst_warnings
from sched_core.schedule.cron_dst import DstRule
from sched_core.schedule.interval import FixedDelay, Interval, Once, StartAtInterval

__all__ = [
    "Countable",
    "Counted",
    "Cron",
    "DstRule",
    "FixedDelay",
    "Interval",
    "Newest",
    "Once",
    "Schedule",
    "StartAtInterval",
    "count_occurrences",
    "dst_warnings",
    "last_occurrence",
    "utc",
]
