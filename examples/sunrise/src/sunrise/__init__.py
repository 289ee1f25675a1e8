"""A kind of schedule from another package: every sunrise at a place.

It inherits nothing. Two methods make it a schedule; ``KIND`` says how it is stored, and the entry
point in ``pyproject.toml`` makes every process find it that has this package installed. A process
that has not leaves such jobs alone, and lists them as undecodable.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from attrs import frozen

from sched_core import InvalidDefinition, ScheduleKind

_NOON_2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)
_DAY = timedelta(days=1)


@frozen
class Sunrise:
    """Every sunrise at a place, to about a minute; days without one are left out.

    Args:
        latitude: Degrees, north is positive; from -90 to 90.
        longitude: Degrees, east is positive; from -180 to 180.
    """

    latitude: float
    longitude: float

    def __attrs_post_init__(self) -> None:
        if not -90 <= self.latitude <= 90:
            raise InvalidDefinition("latitude", f"must be from -90 to 90, not {self.latitude}")
        if not -180 <= self.longitude <= 180:
            raise InvalidDefinition("longitude", f"must be from -180 to 180, not {self.longitude}")

    def first(self, anchor: datetime) -> datetime | None:
        """Return the first sunrise after the anchor."""
        return self.next_after(anchor, anchor)

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the first sunrise strictly after the moment, and after the anchor."""
        moment = max(moment, anchor)
        day = (moment - _NOON_2000) // _DAY - 1
        for _ in range(400):
            sunrise = self._sunrise(day)
            if sunrise is not None and sunrise > moment:
                return sunrise
            day += 1
        return None

    def _sunrise(self, day: int) -> datetime | None:
        """Return the sunrise of a day, counted from 2000-01-01, by the sunrise equation."""
        solar_time = day - self.longitude / 360
        anomaly = math.radians((357.5291 + 0.98560028 * solar_time) % 360)
        centre = (
            1.9148 * math.sin(anomaly)
            + 0.0200 * math.sin(2 * anomaly)
            + 0.0003 * math.sin(3 * anomaly)
        )
        ecliptic = math.radians((math.degrees(anomaly) + centre + 180 + 102.9372) % 360)
        transit = solar_time + 0.0053 * math.sin(anomaly) - 0.0069 * math.sin(2 * ecliptic)
        declination = math.asin(math.sin(ecliptic) * math.sin(math.radians(23.4397)))
        latitude = math.radians(self.latitude)
        cosine = (
            math.sin(math.radians(-0.833)) - math.sin(latitude) * math.sin(declination)
        ) / max(math.cos(latitude) * math.cos(declination), 1e-12)
        if not -1 <= cosine <= 1:
            return None  # the sun does not rise, or does not set
        half_day = math.degrees(math.acos(cosine)) / 360
        seconds = round((transit - half_day) * 86_400)  # whole: the same on every machine
        return _NOON_2000 + timedelta(seconds=seconds)


KIND = ScheduleKind(
    Sunrise,
    encode=lambda sunrise: {"latitude": sunrise.latitude, "longitude": sunrise.longitude},
    decode=lambda body: Sunrise(**body),
)
