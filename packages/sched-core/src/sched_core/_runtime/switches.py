"""What a worker knows of maintenance: what of the store is to wait, and what it passes over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sched_core._model.job import Job, JobSpec
from sched_core._model.maintenance import RECORD, Maintenance, from_metadata
from sched_core._support.logger import Logger
from sched_core.clock import Clock, instant_after
from sched_core.ports import Backend, Undecodable

logger = Logger("sched_core")

PASSED_OVER = timedelta(minutes=5)
"""How long a job of a group under maintenance is passed over; then it may be in another group."""
REMEMBERED = 100_000
"""The most jobs that are remembered. Where more of them are due, the rest is claimed and given back
again and again, and may keep other jobs waiting."""

Stored = Job | Undecodable | None
"""The record of maintenance as it was read."""


class Switches:
    """The maintenance switches of the store, as this process has read them last.

    A backend cannot leave a group out. So the worker gives a claimed job of such a group back, and
    passes its id over for some minutes, or until the switch is off.

    Args:
        backend: The store.
        clock: The clock that decides.
        set_notice: Called with a topic and what people should know of it, ``None`` once that is
            over.
        changed: Called when what is to wait may have changed.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        set_notice: Callable[[str, str | None], None],
        changed: Callable[[], None],
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._set_notice = set_notice
        self._changed = changed
        self._known: tuple[Maintenance, ...] = ()
        self._told: tuple[Maintenance, ...] = ()
        self._taken = 0
        self._passed: dict[str, datetime] = {}

    # -- reading

    async def look(self) -> None:
        """Read what is to wait. If the store cannot be reached, what was known stays."""
        taken = self._taken
        stored = await self._backend.get(RECORD)
        if taken == self._taken:  # else this process has switched it in the meantime
            self.take(stored)
        else:
            self._tell()

    def take(self, stored: Stored) -> None:
        """Go by a record that was read or written."""
        self._taken += 1
        self._known = switches_of(stored)
        self._tell()

    def _tell(self) -> None:
        """Act on a change: of the record, or because the end of a switch has come."""
        on = self.on
        if on == self._told:
            return
        for one in on:
            if one not in self._told:
                logger.info("maintenance: nothing begins of %s", one)
        for one in self._told:
            if one not in on:
                logger.info("maintenance has ended, or has changed: %s", one)
        self._told = on
        self._passed.clear()
        self._set_notice("maintenance", "; ".join(map(str, on)) or None)
        self._changed()

    def left(self) -> timedelta | None:
        """Return how long it is until the first switch ends on its own; ``None`` if none does."""
        now = self._clock.now()
        ends = [one.until - now for one in self._told if one.until is not None]
        return max(min(ends), timedelta(0)) if ends else None

    # -- what is to wait

    @property
    def on(self) -> tuple[Maintenance, ...]:
        """The switches that are on."""
        if not self._known:
            return ()
        now = self._clock.now()
        return tuple(one for one in self._known if one.is_on(now))

    @property
    def hold_store(self) -> bool:
        """Whether all jobs are to wait."""
        return any(one.of_store for one in self.on)

    @property
    def queues(self) -> frozenset[str]:
        """The queues whose jobs are to wait."""
        return frozenset(one.queue for one in self.on if one.queue is not None)

    def hold(self, spec: JobSpec) -> bool:
        """Whether a job is to wait."""
        return any(one.covers(spec) for one in self.on)

    # -- what is passed over

    def pass_over(self, spec: JobSpec) -> None:
        """Note that a job was given back: it is not claimed again for a while."""
        if spec.group is not None and len(self._passed) < REMEMBERED:
            self._passed[spec.id] = instant_after(self._clock.now(), PASSED_OVER)

    @property
    def is_full(self) -> bool:
        """Whether no further job can be passed over."""
        return len(self._passed) >= REMEMBERED

    @property
    def pass_some(self) -> bool:
        """Whether some jobs are passed over."""
        return bool(self._passed)

    def accepts(self, job_id: str) -> bool:
        """Whether to claim a job. Any thread may ask."""
        until = self._passed.get(job_id)
        if until is None:
            return True
        if until > self._clock.now():
            return False
        self._passed.pop(job_id, None)
        return True


def switches_of(stored: Stored) -> tuple[Maintenance, ...]:
    """Return the switches that a record holds.

    One that cannot be read counts as a switch of the whole store: a newer version may have written
    it, and what begins under maintenance can do harm, while what waits runs later.
    """
    if stored is None:
        return ()
    problem = unreadable(stored)
    if problem is None and isinstance(stored, Job):
        return from_metadata(stored.spec.metadata)
    reason = f"this version cannot read the record {RECORD!r}, so all jobs wait: {problem}"
    return (Maintenance(reason=reason),)


def unreadable(stored: Job | Undecodable) -> str | None:
    """Return why a record cannot be read; ``None`` if it can."""
    if isinstance(stored, Undecodable):
        return stored.reason
    try:
        from_metadata(stored.spec.metadata)
    except ValueError as error:
        return str(error)
    return None
