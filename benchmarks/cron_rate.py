"""How fast the next cron occurrence is found, next to croniter; and what ten-year gaps cost.

Run it as ``python -m benchmarks.cron_rate``. Every figure is the median of interleaved rounds, so
that a busy machine hurts both sides alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median
from zoneinfo import ZoneInfo

from croniter import croniter

from sched_core.schedule import Cron

EXPRESSIONS = ("*/5 * * * *", "0 3 * * *", "0 9 * * 1-5", "0 0 29 2 *")
ZONES = ("UTC", "America/New_York")
GAPS = ("* * * * * *", "*/5 * * * *", "0 3 * * *", "0 0 29 2 *")
START = datetime(2026, 1, 1, tzinfo=UTC)
TEN_YEARS_LATER = datetime(2036, 1, 1, tzinfo=UTC)
ROUNDS = 9
STEPS = 200


def ours(expression: str, zone: str) -> float:
    """Return ``next_after`` calls per second."""
    schedule = Cron(expression, tz=zone)
    moment = START
    begun = time.perf_counter()

    for _ in range(STEPS):
        following = schedule.next_after(moment, START)
        assert following is not None
        moment = following

    return STEPS / (time.perf_counter() - begun)


def theirs(expression: str, zone: str) -> float:
    """Return ``get_next`` calls per second; construction is not counted."""
    iterator = croniter(expression, START.astimezone(ZoneInfo(zone)))
    begun = time.perf_counter()

    for _ in range(STEPS):
        iterator.get_next(datetime)

    return STEPS / (time.perf_counter() - begun)


def milliseconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def main() -> None:
    print(f"{'expression':14} {'zone':18} {'ours/s':>9} {'croniter/s':>11} {'ratio':>6}")

    for expression in EXPRESSIONS:
        for zone in ZONES:
            rounds = [(ours(expression, zone), theirs(expression, zone)) for _ in range(ROUNDS)]
            rate = median(mine for mine, _ in rounds)
            other = median(other for _, other in rounds)
            ratio = median(mine / other for mine, other in rounds)
            print(f"{expression:14} {zone:18} {rate:9,.0f} {other:11,.0f} {ratio:5.1f}x")

    print(
        f"\n{'a gap of ten years':33} {'next ms':>9} {'count ms':>9} {'last ms':>9} {'count':>12}"
    )

    for expression in GAPS:
        for zone in ZONES:
            schedule = Cron(expression, tz=zone)
            works = (
                lambda schedule=schedule: schedule.next_after(TEN_YEARS_LATER, START),
                lambda schedule=schedule: schedule.count(START, TEN_YEARS_LATER, START),
                lambda schedule=schedule: schedule.last_until(TEN_YEARS_LATER, START),
            )
            figures = [median(milliseconds(work) for _ in range(ROUNDS)) for work in works]
            columns = " ".join(f"{figure:9.3f}" for figure in figures)
            number = schedule.count(START, TEN_YEARS_LATER, START)
            print(f"{expression:14} {zone:18} {columns} {number:12,}")


if __name__ == "__main__":
    main()
