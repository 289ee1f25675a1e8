"""Selects the moments of a history that are to be run again: by the newest outcome of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime

from sched_core._model.execution import Execution
from sched_core._model.job import Job
from sched_core._rules.grid import TICK, requestable_grid
from sched_core.errors import InvalidDefinition
from sched_core.schedule.encoding import MOST_MOMENTS

Arguments = tuple[tuple[str, str], ...] | None
"""The arguments of a request, by which moments are told apart."""


def arguments_of(args: Mapping[str, str] | None) -> Arguments:
    """Return arguments as a value that can be compared and hashed."""
    return None if args is None else tuple(sorted(args.items()))


class Selection:
    """Collects moments from executions that come newest first: a moment's newest one decides.

    A moment that has succeeded since it failed is therefore left alone.

    Args:
        field: The argument of the caller that is too wide where there are too many moments.
        wanted: Yields the moments that an execution has to be repeated for; none where it has not.
    """

    def __init__(self, field: str, wanted: Callable[[Execution], Iterable[datetime]]) -> None:
        self._field, self._wanted = field, wanted
        self._decided: set[tuple[datetime, Arguments]] = set()
        self._ranges: list[tuple[datetime, datetime]] = []
        self._found: dict[Arguments, list[datetime]] = {}
        self._count = 0

    def take(self, one: Execution) -> None:
        """Take the next older execution.

        Raises:
            InvalidDefinition: There are more than 10,000 moments.
        """
        if not one.final:
            return
        args = arguments_of(one.args)
        for moment in self._wanted(one):
            if (moment, args) not in self._decided and not self._is_covered(moment, args):
                self._add(moment, args)
            self._decided.add((moment, args))
        self._decided.add((one.scheduled_at, args))
        if one.coalesced_until is not None and args is None:
            self._ranges.append((one.scheduled_at, one.coalesced_until))

    def _is_covered(self, moment: datetime, args: Arguments) -> bool:
        return args is None and any(since < moment <= end for since, end in self._ranges)

    def _add(self, moment: datetime, args: Arguments) -> None:
        self._count += 1
        if self._count > MOST_MOMENTS:
            raise InvalidDefinition(
                self._field,
                f"more than {MOST_MOMENTS} moments of one job are to be run again: ask for a "
                "shorter time at once",
            )
        self._found.setdefault(args, []).append(moment)

    def moments(self) -> Iterator[tuple[Mapping[str, str] | None, list[datetime]]]:
        """Yield the moments in order, those with the same arguments together."""
        for args, moments in self._found.items():
            yield (None if args is None else dict(args)), sorted(moments)


def moments_of(job: Job, one: Execution, since: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the moments of a range that an execution covers, if the schedule has them now."""
    grid, last = requestable_grid(job, one.scheduled_at), one.coalesced_until or one.scheduled_at
    moment = grid.after(max(one.scheduled_at, since) - TICK)
    while moment is not None and moment <= min(last, until):
        yield moment
        moment = grid.after(moment)
