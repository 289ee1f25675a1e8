"""Declares a whole set of jobs, in a way that an older deployment cannot undo.

Every write compares and sets one record; no transaction covers several. The *marker* of the group
(see ``marker``) holds the newest version that has synced, and so orders deployments. These steps
make that enough:

1. The sync ends if the marker is newer. Otherwise it moves the marker to its own
   version.
2. The sync reads the group, then the marker again, which must still not be newer. Whatever a newer
   deployment wrote after it had moved the marker has another revision than the one read here. So
   the writes of an older deployment that was held up in between fail.
3. Therefore the first sync of a version writes every record of its set, changed or not.
4. A job that is added has no revision to compare. The sync *announces* it first: it stores the job
   without a due moment. Then it reads the marker, and only if that is not newer it activates the
   job, by a compare-and-set. A newer deployment that moved the marker in between finds the
   announced job and removes it. An announced job that a crash leaves behind never runs.

Without versions no deployment is older than another, and the last sync wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import evolve, field, frozen

from sched_core._model.claim import Change
from sched_core._model.job import Job, JobSpec, check_text
from sched_core._rules import define
from sched_core._service.definitions import Edited, taken, unreserved, written_by
from sched_core._service.marker import GroupMarker, Superseded, Version, version_text
from sched_core._support.logger import Logger
from sched_core.clock import Clock
from sched_core.errors import (
    GroupConflict,
    InvalidDefinition,
    JobAlreadyExists,
    JobNotFound,
    RevisionConflict,
)
from sched_core.ports import Backend, JobQuery, Undecodable

logger = Logger("sched_core")

PAGE = 200
CHUNK = 500
"""The most jobs that one call adds."""


@frozen
class Synced:
    """The ids of the jobs that ``sync_jobs`` changed, or with ``dry_run`` would change, in order.

    Attributes:
        added: Jobs that were not stored before.
        changed: Jobs whose definition differed.
        kept: Jobs that stay as they were, with their next occurrence.
        removed: Jobs of the group that are not in the set.
        unreadable: Jobs of the set whose record this version cannot read; they were left alone.
        superseded_by: The version of a newer deployment that has synced the group: from then on
            this sync changed nothing. ``None`` if there is no newer deployment.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    superseded_by: str | None = None


@frozen
class _Plan:
    """The wanted set, and the jobs that are stored."""

    wanted: dict[str, JobSpec]
    stored: dict[str, Job]
    unreadable: tuple[str, ...]


@frozen
class _Done:
    added: list[str] = field(factory=list)
    changed: list[str] = field(factory=list)
    kept: list[str] = field(factory=list)
    removed: list[str] = field(factory=list)


class Sync:
    """One sync of one group.

    Args:
        backend: The backend that stores the jobs.
        clock: The clock that decides.
        new_id: Makes the uids of jobs.
        edited: Called with the executions that edits have written.
        advise: Called with definitions that are new or changed.
        group: The group's name.
        version: The deployment's version, from ``marker.version_of``.
        renamed_from: The earlier ids of jobs of the set, by their present ids.
        actor: Who declares the set.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        *,
        new_id: Callable[[], str],
        edited: Edited,
        advise: Callable[[JobSpec], None],
        group: str,
        version: Version,
        renamed_from: Mapping[str, str],
        actor: str | None = None,
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._marker = GroupMarker(backend, clock, new_id=new_id, group=group, version=version)
        self._new_id = new_id
        self._edited = edited
        self._advise = advise
        self._group = group
        self._version = version
        self._renamed_from = renamed_from
        self._actor = actor
        self._done = _Done()

    async def run(self, specs: Iterable[JobSpec], *, prune: bool, dry_run: bool) -> Synced:
        """Make the group what the specs say.

        Raises:
            GroupConflict: An id is another group's; nothing was written.
        """
        wanted = _checked(specs, self._group)
        _check_renames(self._renamed_from, wanted)
        try:
            complete = await self._marker.take_lead(dry_run=dry_run)
            plan = await self._read(wanted)
            await self._marker.check()
            if dry_run:
                self._preview(plan, prune=prune)
            else:
                await self._apply(plan, prune=prune, touch=not complete)
                if not complete:
                    await self._marker.complete()
        except Superseded as error:
            logger.warning(
                "group %r was synced by version %s: version %s changes nothing",
                self._group,
                error,
                version_text(self._version) or "(none)",
            )
            return self._report(superseded_by=str(error))
        return self._report(plan.unreadable)

    def _report(self, unreadable: tuple[str, ...] = (), superseded_by: str | None = None) -> Synced:
        done = self._done
        return Synced(
            added=tuple(sorted(done.added)),
            changed=tuple(sorted(done.changed)),
            kept=tuple(sorted(done.kept)),
            removed=tuple(sorted(done.removed)),
            unreadable=unreadable,
            superseded_by=superseded_by,
        )

    # -- reading

    async def _read(self, wanted: dict[str, JobSpec]) -> _Plan:
        stored: dict[str, Job] = {}
        unreadable: set[str] = set()
        after: str | None = None
        query = JobQuery(group=self._group)
        while True:
            page = await self._backend.jobs(query, after=after, limit=PAGE)
            for job in page.items:
                if isinstance(job, Job):
                    stored[job.id] = job
                elif job.id in wanted:
                    unreadable.add(job.id)
            if (after := page.next) is None:
                break
        for job_id in wanted.keys() - stored.keys() - unreadable:
            found = await self._backend.get(job_id)
            if isinstance(found, Undecodable):
                unreadable.add(job_id)
            elif found is not None:
                self._refuse_others(found)
                stored[job_id] = found
        return _Plan(wanted, stored, tuple(sorted(unreadable)))

    def _refuse_others(self, job: Job) -> None:
        """Refuse another group's job, and a submitted one; a declared one without group joins."""
        group = job.spec.group
        if group != self._group and (group is not None or not job.declared):
            raise GroupConflict(job.id, self._group, group)

    def _preview(self, plan: _Plan, *, prune: bool) -> None:
        done, now = self._done, self._clock.now()
        for job_id, spec in plan.wanted.items():
            job = plan.stored.get(job_id)
            if job is None:
                if job_id not in plan.unreadable:
                    done.added.append(job_id)
            elif define.redefine(job, spec, declared=True, now=now) is None:
                done.kept.append(job_id)
            else:
                done.changed.append(job_id)
        if prune:
            done.removed.extend(plan.stored.keys() - plan.wanted.keys())

    # -- writing

    async def _apply(self, plan: _Plan, *, prune: bool, touch: bool) -> None:
        new = []
        for job_id, spec in plan.wanted.items():
            job, old = plan.stored.get(job_id), self._earlier(plan, job_id)
            if old is not None and (job is None or job.uid == old.uid):
                await self._rename(plan.stored.pop(old.id), spec)
            elif job is not None:
                await self._define(job, spec, touch=touch)
            elif job_id not in plan.unreadable:
                new.append(spec)
        size = min(self._backend.capabilities.bulk_limit or CHUNK, CHUNK)
        for start in range(0, len(new), size):
            await self._add(new[start : start + size])
        if prune:
            for job_id in sorted(plan.stored.keys() - plan.wanted.keys()):
                if self._is_copy(plan, job_id):
                    # A move was interrupted, and is taken back: the work is under the old id.
                    await self._withdraw(plan.stored[job_id])
                    self._done.removed.append(job_id)
                else:
                    await self._remove(plan.stored[job_id])

    def _earlier(self, plan: _Plan, job_id: str) -> Job | None:
        """Return the stored job, of an earlier id, that a job of the set is renamed from."""
        old = plan.stored.get(self._renamed_from.get(job_id, ""))
        return None if old is None or old.spec.group != self._group else old

    def _is_copy(self, plan: _Plan, job_id: str) -> bool:
        """Whether a job is the copy of a move from another id, where it is still stored."""
        job = plan.stored[job_id]
        names = [each.id for each in plan.stored.values() if each.uid == job.uid]
        return len(names) > 1 and define.is_moving(job, now=self._clock.now())

    async def _rename(self, old: Job, spec: JobSpec) -> None:
        """Move a job's work to another id.

        This adds a copy that is not due, removes the original, and makes the copy due. If it is
        interrupted, the next sync of the set continues: the copy has the original's uid.
        """
        tries = 0
        while True:
            moved = define.renamed(old, spec.id, now=self._clock.now())
            try:
                (copy,) = await self._backend.add([moved])
            except JobAlreadyExists:
                found = await self._again(spec.id)
                if found is not None:
                    # It was declared in the meantime, without the work under the old id.
                    await self._define(found, spec, touch=False)
                    await self._remove(old)
                    return
                tries += 1
                await taken(spec.id, tries)
                continue
            try:
                await self._marker.check()
            except Superseded:
                await self._withdraw(copy)
                raise
            try:
                if copy.standing != moved.standing:
                    copy = await self._backend.replace(evolve(copy, standing=moved.standing))
                await self._backend.remove(old)
            except (JobNotFound, RevisionConflict):
                found = await self._again(old.id)
                if found is not None and found.uid == old.uid:
                    old = found
                    continue
            break
        stored = await self._again(spec.id)
        if stored is not None:
            await self._define(stored, spec, touch=True)

    async def _define(self, job: Job, spec: JobSpec, *, touch: bool, new: bool = False) -> None:
        """Write a definition over a job that was read before the marker was checked."""
        while True:
            change = define.redefine(job, spec, declared=True, now=self._clock.now())
            if change is None and not touch:
                self._done.kept.append(spec.id)
                return
            changed = Change(job) if change is None else written_by(self._actor, job, change)
            try:
                await self._backend.replace(changed.job, changed.executions)
            except (RevisionConflict, JobNotFound):
                found = await self._again(spec.id)
                if found is None:
                    await self._add([spec])
                    return
                self._refuse_others(found)
                # Another process wrote it, after the marker had been moved.
                job, touch = found, False
                continue
            await self._edited(spec.id, changed.executions)
            if change is None:
                self._done.kept.append(spec.id)
                return
            if new:
                self._done.added.append(spec.id)
            else:
                self._done.changed.append(spec.id)
            if new or job.spec.schedule != spec.schedule or job.spec.policy != spec.policy:
                self._advise(spec)
            return

    async def _add(self, specs: Sequence[JobSpec], tries: int = 1) -> None:
        now = self._clock.now()
        jobs = [
            evolve(define.placeholder(spec, uid=self._new_id(), now=now), actor=self._actor)
            for spec in specs
        ]
        try:
            announced = list(await self._backend.add(jobs))
        except JobAlreadyExists:
            # Another process has added some of them. One by one, this finds out which.
            for spec in specs:
                found = await self._again(spec.id)
                if found is not None:
                    self._refuse_others(found)
                    await self._define(found, spec, touch=False)
                else:
                    await taken(spec.id, tries)
                    await self._add([spec], tries + 1)
            return
        try:
            await self._marker.check()
        except Superseded:
            for job in announced:
                await self._withdraw(job)
            raise
        for job, spec in zip(announced, specs, strict=True):
            await self._define(job, spec, touch=False, new=True)

    async def _withdraw(self, job: Job) -> None:
        try:
            await self._backend.remove(job)
        except (JobNotFound, RevisionConflict):
            pass  # another process has changed or removed it

    async def _remove(self, job: Job) -> None:
        while True:
            executions = define.final_executions(job, now=self._clock.now(), actor=self._actor)
            try:
                await self._backend.remove(job, executions)
            except (JobNotFound, RevisionConflict):
                found = await self._again(job.id)
                if found is None:
                    break
                if found.spec.group != self._group:
                    return
                job = found
                continue
            await self._edited(job.id, executions)
            break
        self._done.removed.append(job.id)

    async def _again(self, job_id: str) -> Job | None:
        """Read a record again, and the marker after it."""
        found = await self._backend.get(job_id)
        await self._marker.check()
        if isinstance(found, Undecodable):
            # A newer version of this package wrote it, in a sync without a version.
            raise Superseded("unreadable")
        return found


def _check_renames(renamed_from: Mapping[str, str], wanted: Mapping[str, JobSpec]) -> None:
    for new, old in renamed_from.items():
        check_text("renamed_from", old)
        if new not in wanted:
            raise InvalidDefinition("renamed_from", f"{new!r} is none of the set")
        if old in wanted:
            raise InvalidDefinition("renamed_from", f"{old!r} is still in the set")
    if len(set(renamed_from.values())) < len(renamed_from):
        raise InvalidDefinition("renamed_from", "two jobs of the set were one job before")


def _checked(specs: Iterable[JobSpec], group: str) -> dict[str, JobSpec]:
    check_text("group", group)
    wanted: dict[str, JobSpec] = {}
    for spec in specs:
        given: object = spec  # callers may not type-check
        if not isinstance(given, JobSpec):
            raise InvalidDefinition("specs", f"must be JobSpecs, not {given!r}")
        unreserved(spec)
        if spec.id in wanted:
            raise InvalidDefinition("specs", f"the id {spec.id!r} occurs twice")
        if spec.group not in {None, group}:
            raise InvalidDefinition(
                "specs",
                f"{spec.id!r} says it is of the group {spec.group!r}, not of {group!r}: "
                "leave its group out",
            )
        wanted[spec.id] = evolve(spec, group=group)
    return wanted
