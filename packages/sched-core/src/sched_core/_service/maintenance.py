"""The maintenance switch of a store: switched on and off by a compare-and-set of one record.

The record is stored like a job. It is never due, no list shows it, and its id is reserved. Where no
switch is left on, it is removed: an older version that cannot read it does not wait without end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from attrs import evolve

from sched_core._model.job import Job, JobSpec
from sched_core._model.maintenance import (
    RECORD,
    Maintenance,
    as_metadata,
    scope,
    switched_off,
    switched_on,
)
from sched_core._model.occurrence import Standing
from sched_core._rules.operate import checked_until
from sched_core._runtime.switches import Stored, Switches, switches_of, unreadable
from sched_core._service.names import checked_actor, checked_reason
from sched_core._support.logger import Logger
from sched_core.clock import Clock
from sched_core.errors import (
    InvalidDefinition,
    JobAlreadyExists,
    JobNotFound,
    JobUndecodable,
    RevisionConflict,
    UnderMaintenance,
)
from sched_core.ports import Backend, Undecodable
from sched_core.schedule import Once

logger = Logger("sched_core")

_NEVER = Once(datetime(1970, 1, 1, tzinfo=UTC))

Edit = Callable[[Stored, datetime], tuple[Maintenance, ...] | None]
"""Returns the switches to store; ``None`` for no change."""


class MaintenanceRecord:
    """The record of the switches.

    Args:
        backend: The store.
        clock: The clock that decides.
        new_id: Makes the uid of the record.
        switches: What the worker of this process knows: it learns at once.
    """

    def __init__(
        self, backend: Backend, clock: Clock, *, new_id: Callable[[], str], switches: Switches
    ) -> None:
        self._backend = backend
        self._new_id = new_id
        self._switches = switches
        self.clock = clock

    async def read(self) -> tuple[Maintenance, ...]:
        """Return the switches that are on."""
        stored, now = await self._backend.get(RECORD), self.clock.now()
        return tuple(one for one in switches_of(stored) if one.is_on(now))

    async def edit(self, edit: Edit) -> None:
        """Change the switches, again and again until no other process was faster."""
        while True:
            stored = await self._backend.get(RECORD)
            wanted = edit(stored, self.clock.now())
            if wanted is None:
                self._switches.take(stored)
                return
            try:
                written = await self._write(stored, wanted)
            except (JobAlreadyExists, JobNotFound, RevisionConflict):
                continue
            self._switches.take(written)
            return

    async def _write(self, stored: Stored, switches: tuple[Maintenance, ...]) -> Job | None:
        if isinstance(stored, Undecodable):
            raise JobUndecodable(RECORD, stored.reason)
        if not switches:
            if stored is not None:
                await self._backend.remove(stored)
            return None
        try:
            spec = JobSpec(RECORD, _NEVER, name="maintenance", metadata=as_metadata(switches))
        except InvalidDefinition:
            raise InvalidDefinition(
                "reason",
                f"is too long: the {len(switches)} switches that are on must fit into one record; "
                "give shorter reasons, or end some of them",
            ) from None
        if stored is not None:
            return await self._backend.replace(evolve(stored, spec=spec))
        standing = Standing(1, None, None)
        job = Job(spec, self._new_id(), True, self.clock.now(), standing)
        return (await self._backend.add([job]))[0]


def refuse_covered(spec: JobSpec, switches: Sequence[Maintenance]) -> None:
    """Refuse to ask for a run of a job under maintenance.

    Raises:
        UnderMaintenance: One of the switches covers the job.
    """
    for one in switches:
        if one.covers(spec):
            raise UnderMaintenance(spec.id, str(one), reason=one.reason, actor=one.actor)


class MaintenanceSwitch(ABC):
    """The calls of a scheduler that begin, end and tell maintenance."""

    @abstractmethod
    def _maintenance(self) -> MaintenanceRecord:
        """Return the record of the open scheduler's store."""

    async def start_maintenance(
        self,
        *,
        queue: str | None = None,
        group: str | None = None,
        reason: str | None = None,
        until: datetime | None = None,
        actor: str | None = None,
    ) -> Maintenance:
        """Let nothing begin of the whole store, of a queue or of a group, until it is ended.

        Runs in flight go on, and settle. All else waits, also what is submitted meanwhile; what a
        policy says of late occurrences decides afterwards, as after any downtime. ``trigger_job``
        and all that asks for further runs is refused. No job is changed, and pauses are left alone.

        Workers of this process obey at once. Others look every 2.5 seconds: within 5 seconds all do
        that reach the store. One that does not goes on by what it has read last, but without the
        store it begins nothing new for long.

        A second call for the same gives another end, reason and actor; ``since`` stays.

        Args:
            queue: The queue whose jobs wait, and no others.
            group: The group whose jobs wait, and no others. Each of them that is due is claimed and
                given back once in five minutes by each worker: for more than 100,000 due jobs, use
                a queue.
            reason: Why, for people; the first 2 KiB are kept.
            until: When it ends on its own; ``None`` until ``end_maintenance``.
            actor: Who begins it, for people.

        Raises:
            InvalidDefinition: Both a queue and a group are given, ``until`` has no time zone or has
                passed, or an argument is out of bounds.
            JobUndecodable: A newer version has stored switches that this one cannot read.
            BackendUnavailable: The store cannot be reached; call again.
        """
        record = self._maintenance()
        wanted = evolve(
            scope(queue, group),
            until=checked_until(until, now=record.clock.now()),
            reason=checked_reason(reason),
            actor=checked_actor(actor),
        )
        begun = [wanted]

        def edit(stored: Stored, now: datetime) -> tuple[Maintenance, ...]:
            problem = None if stored is None else unreadable(stored)
            if problem is not None:
                raise JobUndecodable(RECORD, problem)
            switches = switched_on(switches_of(stored), wanted, now)
            begun[:] = switches[-1:]
            return switches

        await record.edit(edit)
        return begun[0]

    async def end_maintenance(
        self, *, queue: str | None = None, group: str | None = None, actor: str | None = None
    ) -> Maintenance | None:
        """End what ``start_maintenance`` has begun, with the same queue or group, or neither.

        Other switches stay on: ``list_maintenance`` tells them. In this process, what is due runs
        at once; other workers see it within 5 seconds. Without queue and group, switches that this
        version cannot read end, too.

        Args:
            queue: The queue whose switch ends.
            group: The group whose switch ends.
            actor: Who ends it, for the log.

        Returns:
            What has ended; ``None`` where it was not on.

        Raises:
            InvalidDefinition: Both a queue and a group are given, or an argument is out of bounds.
            JobUndecodable: A newer version has written the record so that this one cannot write it.
            BackendUnavailable: The store cannot be reached; call again.
        """
        record, old, by = self._maintenance(), scope(queue, group), checked_actor(actor)
        ended: list[Maintenance] = []

        def edit(stored: Stored, now: datetime) -> tuple[Maintenance, ...] | None:
            there = switches_of(stored)
            left = switched_off(there, old, now)
            ended[:] = [one for one in there if one.is_on(now) and one not in left]
            return left if ended else None

        await record.edit(edit)
        if ended and by is not None:
            logger.info("maintenance was ended by %s: %s", by, ended[0])
        return ended[0] if ended else None

    async def list_maintenance(self) -> Sequence[Maintenance]:
        """Return the maintenance switches that are on, as the store has them now.

        A record that this version cannot read is told as a switch of the whole store, as workers
        treat it; its ``reason`` says so.
        """
        return await self._maintenance().read()
