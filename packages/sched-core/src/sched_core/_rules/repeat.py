"""Which moments of a history are to be run again: those whose newest outcome is the wanted one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from sched_core._model.execution import Execution, Kind
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
        wanted: Whether an execution is one of those to be repeated.
        covered: Yields the further moments that an execution stands for and that are to be
            repeated, too.
    """

    def __init__(
        self,
        field: str,
        wanted: Callable[[Execution], bool],
        covered: Callable[[Execution], Iterator[datetime]] = lambda _: iter(()),
    ) -> None:
        self._field, self._wanted, self._covered = field, wanted, covered
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
        is_wanted = self._wanted(one)
        self._decide(one.scheduled_at, args, is_wanted)
        if one.coalesced_until is not None and args is None:
            for moment in self._covered(one) if is_wanted else ():
                self._decide(moment, args, True)
            self._ranges.append((one.scheduled_at, one.coalesced_until))

    def _decide(self, moment: datetime, args: Arguments, is_wanted: bool) -> None:
        name = moment, args
        if name in self._decided:
            return
        self._decided.add(name)
        is_covered = args is None and any(since < moment <= end for since, end in self._ranges)
        if not is_wanted or is_covered:
            return
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


def is_of_schedule(job: Job, one: Execution) -> bool:
    """Whether an execution is about a moment of the job's schedule, as that is now."""
    if one.kind is Kind.TRIGGERED or one.args is not None:
        return False
    moment = one.scheduled_at
    return requestable_grid(job, moment).after(moment - TICK) == moment


def moments_behind(
    job: Job, one: Execution, since: datetime, until: datetime
) -> Iterator[datetime]:
    """Yield the further moments of a range that an execution stands for."""
    end = one.coalesced_until
    moment: datetime | None = max(one.scheduled_at, since - TICK)
    while moment is not None and end is not None:
        moment = requestable_grid(job, moment).after(moment)
        if moment is None or moment > min(end, until):
            return
        yield moment
