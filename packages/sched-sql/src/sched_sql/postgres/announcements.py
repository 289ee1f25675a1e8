"""Announcements of what workers settled: they wake other workers where a run is due again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from sched_core import Settlement
from sched_core.clock import boot_seconds
from sched_core.ports import MAX_POLL
from sched_sql._shared.moments import micros_or_none, moment
from sched_sql.postgres.definitions import Definitions
from sched_sql.postgres.server_time import ServerTime
from sched_sql.postgres.session import LaneConnection

ANNOUNCE_EVERY = 0.1
"""The least seconds between announcements of what has been settled."""


class Announcements:
    """Announces the settled runs of one worker, several at once.

    Args:
        definitions: Writes an announcement.
        lanes: The connections by the names of their lanes.
        time: The time of the store.
    """

    def __init__(
        self, definitions: Definitions, lanes: Mapping[str, LaneConnection], time: ServerTime
    ) -> None:
        self._definitions = definitions
        self._lanes = lanes
        self._time = time
        self.worker = ""
        """The worker that announces: it need not be woken."""
        self._announced_at = 0.0
        self._unannounced: int | None = None
        """The moment at which the first job is due that was settled and not announced."""

    def make(self, lane: str, runs: Iterable[Settlement] = ()) -> None:
        """Wake other workers where a run is due again before they look; not each time.

        What is left out here goes with the next one, or before this worker waits.
        """
        due = [self._unannounced, *(micros_or_none(_due_again(run)) for run in runs)]
        self._unannounced = min((moment for moment in due if moment is not None), default=None)
        seconds, soonest = boot_seconds(), self._unannounced
        if soonest is None or seconds - self._announced_at < ANNOUNCE_EVERY:
            return
        self._unannounced, self._announced_at = None, seconds
        if self._time.clock is None or moment(soonest) <= self._time.clock.now() + MAX_POLL:
            self._lanes[lane].run(
                lambda: self._definitions.announce([soonest], self.worker), transaction=False
            )


def _due_again(run: Settlement) -> datetime | None:
    return None if run.standing is None else run.standing.due_at
