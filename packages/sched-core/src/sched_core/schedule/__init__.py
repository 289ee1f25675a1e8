"""Schedules: values that list moments.

``base`` says what a schedule is, ``interval`` measures time, ``cron`` follows a calendar in a time
zone, and ``any_of``, ``between`` and ``excluding`` are made of other schedules. Each kind brings
the format in which it is stored; ``kinds`` knows them by their tags.
"""

from sched_core.schedule.any_of import AnyOf
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
from sched_core.schedule.between import Between
from sched_core.schedule.combined import parts
from sched_core.schedule.cron import Cron, dst_warnings
from sched_core.schedule.cron_dst import DstRule
from sched_core.schedule.excluding import Excluding
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
