"""Moments, texts and numbers that are taken for others."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve
from tests.testkit.mutants.base import LEASE, Sound, Store, WritesOtherwise, breaks

from sched_core import Claim, Execution, ExecutionQuery, Job, JobQuery, Page, Undecodable
from sched_core.ports import UndecodableExecution


def as_text(moment: datetime) -> str:
    """Return it as many programs write it: without a fraction where that is zero."""
    return moment.isoformat().replace("+00:00", "Z")


class Due(Sound):
    """Base: what is due is told in another way, and sorted in another way."""

    def is_due(self, due: datetime, now: datetime) -> bool:
        return due <= now

    def age(self, due: datetime) -> Any:
        return due

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        now, store = self._now(), self.store
        await super().hand_out(0)
        found = [
            (self.age(due), job_id)
            for job_id, row in store.rows.items()
            if row.hold is None and (due := row.due())
        ]
        claims: list[Claim] = []
        for _, job_id in sorted(found):
            row = store.rows[job_id]
            if len(claims) < limit and self.is_due(row.due(), now) and row.due() <= now + LEASE:
                claim = row.claim(store.next_serial(), self._worker, now, LEASE)
                store.save(job_id, row)
                claims += [] if claim is None else [claim]
        return claims


@breaks("moments_are_compared_as_moments")
class MomentsAreTexts(Due):
    """Moments are kept and compared as texts, that have a fraction or have none."""

    def is_due(self, due: datetime, now: datetime) -> bool:
        return as_text(due) <= as_text(now)


@breaks("what_is_due_within_a_second_comes_in_order")
class OrderedAsTexts(Due):
    """What is due is sorted by texts, that have a fraction or have none."""

    def age(self, due: datetime) -> str:
        return as_text(due)


@breaks("what_is_due_within_a_second_comes_in_order")
class OrderedBySeconds(Due):
    """What is due is sorted by whole seconds, and then by id."""

    def age(self, due: datetime) -> datetime:
        return due.replace(microsecond=0)


@breaks("any_moment_can_be_kept")
class OldMomentsAreDueLast(Due):
    """Moments before 1970 have a minus in front, and come after others as texts."""

    def age(self, due: datetime) -> str:
        seconds = int(due.timestamp())
        return str(seconds).replace("-", "~").rjust(20, "0")


@breaks("leases_end_at_whole_seconds_and_between")
class LeasesEndAtSeconds(Sound):
    """Leases are kept in whole seconds, rounded up."""

    async def hand_out(self, limit: int) -> Sequence[Claim]:
        claims = await super().hand_out(limit)
        for claim in claims:
            if claim.expires_at.microsecond:
                row = self.store.rows[claim.job.id]
                ends = claim.expires_at.replace(microsecond=0) + timedelta(seconds=1)
                row.hold = evolve(row.hold, expires_at=ends)
                self.store.save(claim.job.id, row)
        return claims


class SelectsOtherwise(Sound):
    """Base: executions are selected in another way."""

    def selects(self, execution: Execution, query: ExecutionQuery) -> bool:
        raise NotImplementedError

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        self._now()
        below = len(self.store.history) if after is None else int(after)
        found = [
            (place, execution)
            for place, (_, execution) in enumerate(self.store.history[:below])
            if self.selects(execution, query)
        ][::-1]
        more = len(found) > limit
        items = [execution for _, execution in found[:limit]]
        return Page(items, str(found[limit - 1][0]) if more else None)


@breaks("records_are_selected_to_the_microsecond")
class SinceIsAText(SelectsOtherwise):
    """The end of an execution is compared as text, that has a fraction or has none."""

    def selects(self, execution: Execution, query: ExecutionQuery) -> bool:
        ended = as_text(execution.finished_at)
        return (
            evolve(query, since=None, until=None).matches(execution)
            and (query.since is None or ended >= as_text(query.since))
            and (query.until is None or ended < as_text(query.until))
        )


@breaks("records_are_selected_to_the_microsecond")
class SelectsBySeconds(SelectsOtherwise):
    """The end of an execution is compared in whole seconds."""

    def selects(self, execution: Execution, query: ExecutionQuery) -> bool:
        return query.matches(
            evolve(execution, finished_at=execution.finished_at.replace(microsecond=0))
        )


@breaks("filters_of_the_history_hold_together")
class UntilForgetsTheJob(SelectsOtherwise):
    """Executions with an end are found by another index, which has no jobs in it."""

    def selects(self, execution: Execution, query: ExecutionQuery) -> bool:
        alone = query.until is not None and query.job_id is not None
        return evolve(query, job_id=None if alone else query.job_id).matches(execution)


@breaks("filters_of_the_history_hold_together")
class NoStatusIsNone(SelectsOtherwise):
    """Statuses and finality in one condition: where a status is asked for, the rest is not."""

    def selects(self, execution: Execution, query: ExecutionQuery) -> bool:
        return evolve(query, final=None if query.statuses else query.final).matches(execution)


class Keeps(Sound):
    """Base: jobs are kept in another way."""

    def kept(self, job: Job) -> Job:
        raise NotImplementedError

    def _add(self, job: Job) -> Job:
        stored = super()._add(job)
        row = self.store.rows[job.id]
        row.job = self.kept(stored)
        self.store.save(job.id, row)
        return stored


@breaks("any_moment_can_be_kept")
class OldMomentsAreOf1970(Keeps):
    """What is due before 1970 is due in 1970."""

    def kept(self, job: Job) -> Job:
        due = job.standing.due_at
        first = datetime(1970, 1, 1, tzinfo=UTC)
        early = due is not None and due < first
        return evolve(job, standing=evolve(job.standing, due_at=first)) if early else job


@breaks("any_moment_can_be_kept")
class MomentsEndIn2262(Keeps):
    """Moments are nanoseconds in 64 bits."""

    def kept(self, job: Job) -> Job:
        due = job.standing.due_at
        last = datetime(2262, 4, 11, 23, 47, 16, tzinfo=UTC)
        late = due is not None and due > last
        return evolve(job, standing=evolve(job.standing, due_at=last)) if late else job


@breaks("any_moment_can_be_kept")
class MomentsAreFloats(Keeps):
    """Moments are floating point seconds, which are coarse far from 1970."""

    def kept(self, job: Job) -> Job:
        first = datetime(1970, 1, 1, tzinfo=UTC)
        seconds = (job.anchor - first).total_seconds()
        coarse = first + timedelta(seconds=min(float(f"{seconds:.16g}"), 253402300799.0))
        return evolve(job, anchor=coarse)


@breaks("types_are_kept")
class TruthsAreNumbers(Keeps):
    """Truth values come back as the numbers that the store has for them."""

    def kept(self, job: Job) -> Job:
        number: Any = int(job.declared)
        return evolve(job, declared=number)


@breaks("types_are_kept")
class EmptyIsNothing(Keeps):
    """Empty texts are stored as NULL."""

    def kept(self, job: Job) -> Job:
        pause = job.standing.pause
        silent = pause and evolve(pause, reason=pause.reason or None)
        return evolve(job, standing=evolve(job.standing, pause=silent))


@breaks("types_are_kept")
class NumbersAreFloats(Keeps):
    """Numbers pass through JSON of a language that has floats only."""

    def kept(self, job: Job) -> Job:
        standing = job.standing
        one = standing.scheduled
        rounded = one and evolve(one, attempts=int(float(one.attempts)))
        return evolve(job, standing=evolve(standing, scheduled=rounded))


@breaks("types_are_kept")
class FinalIsANumber(Sound):
    """The history is read without a word about what is a truth value."""

    class makes(WritesOtherwise):  # noqa: N801 -- the attribute that it overrides
        """Its store."""

        def change(self, execution: Execution) -> Execution:
            number: Any = int(execution.final)
            return evolve(execution, final=number)


class Collates(Store):
    """A store whose primary key takes some texts for the same."""

    def key(self, job_id: str) -> str:
        raise NotImplementedError

    def row(self, job_id: str) -> Any:
        alike = (known for known in self.rows if self.key(known) == self.key(job_id))
        return super().row(next(alike, job_id))


def _collating(name: str, text: str, key: Callable[[str], str]) -> None:
    store = type(f"{name}Store", (Collates,), {"key": lambda self, job_id: key(job_id)})
    backend = type(name, (Sound,), {"__doc__": text, "makes": store})
    breaks("ids_that_look_alike_are_different")(backend)


_collating("IdsIgnoreCase", "Ids are compared as people compare words.", str.casefold)
_collating("IdsIgnoreBlanksAtTheEnd", "Ids are padded, and compared so.", str.rstrip)
_collating(
    "IdsAreNormal",
    "Ids are put into a normal form.",
    lambda text: unicodedata.normalize("NFC", text),
)
_collating("IdsArePaths", "Slashes of ids are dots.", lambda text: text.replace("/", "."))


class ListsOtherwise(Sound):
    """Base: jobs are selected in another way."""

    def selects(self, job: Job, query: JobQuery) -> bool:
        raise NotImplementedError

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        self._now()
        ids = sorted(job_id for job_id in self.store.rows if after is None or job_id > after)
        stored = [self.store.rows[job_id].job for job_id in ids]
        found = [
            job
            for job in stored
            if job is not None
            and (self.selects(job, query) if isinstance(job, Job) else query.matches(job))
        ]
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)


@breaks("a_prefix_may_end_at_the_last_character")
class PrefixesAreRanges(ListsOtherwise):
    """A prefix is a range up to the prefix and the last character of the basic plane."""

    def selects(self, job: Job, query: JobQuery) -> bool:
        prefix = query.id_prefix
        return prefix <= job.id < f"{prefix}\uffff" and evolve(query, id_prefix="").matches(job)


@breaks("look_alikes_are_told_apart_by_filters")
class GroupsIgnoreCase(ListsOtherwise):
    """Groups are compared as people compare words."""

    def selects(self, job: Job, query: JobQuery) -> bool:
        group = None if query.group is None else query.group.casefold()
        own = None if job.spec.group is None else job.spec.group.casefold()
        return group in {None, own} and evolve(query, group=None).matches(job)


@breaks("filters_of_jobs_hold_together")
class OneEntryOfMetadata(ListsOtherwise):
    """The first of the wanted entries of metadata that is there will do."""

    def selects(self, job: Job, query: JobQuery) -> bool:
        wanted = query.metadata.items()
        some = not wanted or any(entry in job.spec.metadata.items() for entry in wanted)
        return some and evolve(query, metadata={}).matches(job)


@breaks("filters_of_jobs_hold_together")
class GroupOfAnyState(ListsOtherwise):
    """Groups have an index of their own, which has no states in it."""

    def selects(self, job: Job, query: JobQuery) -> bool:
        return evolve(query, state=None if query.group else query.state).matches(job)


@breaks("the_longest_texts_are_kept")
class TextsAreCut(Keeps):
    """Metadata has room for 16 KiB, and is cut."""

    def kept(self, job: Job) -> Job:
        short = {key: value[:16384] for key, value in job.spec.metadata.items()}
        return evolve(job, spec=evolve(job.spec, metadata=short))


@breaks("filters_hold_when_the_clock_does_not_move")
class PagesGoOnAfterTheMoment(Sound):
    """The next page of the history begins below the moment at which the last one ended."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        last = None if after is None else datetime.fromisoformat(after)
        found = [execution for execution in self.store.readable()[::-1] if query.matches(execution)]
        found = [execution for execution in found if last is None or execution.finished_at < last]
        more = len(found) > limit
        return Page(found[:limit], found[limit - 1].finished_at.isoformat() if more else None)


@breaks("pages_go_on_where_the_last_one_was_deleted")
class CursorsAreLines(Sound):
    """The next page begins where the last execution is, and at the beginning where that is gone."""

    async def executions(
        self, query: ExecutionQuery, *, after: str | None, limit: int
    ) -> Page[Execution | UndecodableExecution]:
        found = [execution for _, execution in self.store.history[::-1] if query.matches(execution)]
        ids = [execution.id for execution in found]
        found = found[ids.index(after) + 1 :] if after in ids else found
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)


@breaks("pages_are_complete")
class PagesNeverEnd(Sound):
    """After the last page the listing begins again, and says each time that it has got further."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        turn, _, last = (after or "0:").partition(":")
        page = await super().jobs(query, after=last or None, limit=limit)
        return Page(page.items, f"{int(turn) + 1}:{page.next or ''}" if page.items else None)


@breaks("a_full_last_page_has_no_next")
class FullPagesGoRound(Sound):
    """After a last page that is full, the listing begins again."""

    async def jobs(
        self, query: JobQuery, *, after: str | None, limit: int
    ) -> Page[Job | Undecodable]:
        page = await super().jobs(query, after=after or None, limit=limit)
        full = page.next is None and len(page.items) == limit
        return Page(page.items, "" if full else page.next)
