"""A second opinion on Debian's rule: slow, obvious, and without a line of the package's arithmetic.

It walks through real time minute by minute and asks the wall clock.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
NAMES = {
    name: str(number)
    for names in (
        ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
        (None, "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    )
    for number, name in enumerate(names)
    if name
}
BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def values(text: str, low: int, high: int) -> set[int]:
    for name, number in NAMES.items():
        text = text.replace(name, number)

    found: set[int] = set()

    for term in text.split(","):
        body, _, step = term.partition("/")
        begin, dash, end = body.partition("-")

        if body == "*":
            first, last = low, high
        elif dash:
            first, last = int(begin), int(end)
        else:
            first, last = int(begin), high if step else int(begin)

        found.update(range(first, last + 1, int(step or 1)))

    return found


class Reference:
    def __init__(self, expression: str, zone: str) -> None:
        *first, a, b, c, d, e = expression.lower().split()
        fields = [a, b, c, d, e]
        self.seconds = sorted(values(first[0], 0, 59)) if first else [0]
        parsed = [values(text, *bounds) for text, bounds in zip(fields, BOUNDS, strict=True)]
        self.minutes, self.hours, self.days, self.months, weekdays = parsed
        self.weekdays = {day % 7 for day in weekdays}
        self.both_days = fields[2].startswith("*") or fields[4].startswith("*")
        self.elapsed = fields[0].startswith("*") or fields[1].startswith("*")
        self.zone = ZoneInfo(zone)

    def names(self, wall: datetime) -> bool:
        """Whether the fields name this wall clock time."""
        if wall.minute not in self.minutes or wall.hour not in self.hours:
            return False

        day, weekday = wall.day in self.days, wall.isoweekday() % 7 in self.weekdays
        return wall.month in self.months and (
            (day and weekday) if self.both_days else (day or weekday)
        )

    def wall(self, moment: datetime) -> datetime:
        return moment.astimezone(self.zone).replace(tzinfo=None, fold=0)

    def between(self, after: datetime, until: datetime) -> list[datetime]:
        """List the occurrences in ``(after, until]``."""
        found: list[datetime] = []
        moment = after.astimezone(UTC).replace(second=0, microsecond=0)
        # The wall clock's high-water mark tells whether a time comes for the second time.
        moment -= MINUTE
        before = moment - timedelta(days=2)
        highest = self.wall(before)

        while before < moment:
            before += MINUTE
            highest = max(highest, self.wall(before))

        while moment < until:
            moment += MINUTE
            wall = self.wall(moment)

            if self.elapsed:
                due = self.names(wall)
            else:
                due = wall > highest and self.any_named(highest, wall)

            highest = max(highest, wall)

            if due:
                # A time that a gap swallowed comes without its seconds: at the first moment after.
                named = self.elapsed or self.names(wall)
                seconds = self.seconds if named else [0]
                found.extend(moment + timedelta(seconds=second) for second in seconds)

        return [moment for moment in found if after < moment <= until]

    def any_named(self, low: datetime, high: datetime) -> bool:
        """Whether a time in ``(low, high]`` is named: more than one minute only after a gap."""
        while low < high:
            low += MINUTE

            if self.names(low):
                return True

        return False
