"""How many jobs and executions there are, counted otherwise."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from attrs import evolve
from tests.testkit.mutants.base import Sound, breaks

from sched_core import (
    CountQuery,
    Counts,
    Execution,
    Hold,
    Job,
    Room,
    State,
    Status,
    Undecodable,
)
from sched_core.row import Tally


class CountsOtherwise(Sound):
    """Base: counts what it is shown, and is shown something else."""

    def asked(self, query: CountQuery) -> CountQuery:
        return query

    def row(self, job: Job | None, hold: Hold | None) -> tuple[Job | None, Hold | None]:
        return job, hold

    def execution_of(self, one: Any) -> Execution | None:
        return one if isinstance(one, Execution) else None

    def unreadable(self, tally: Tally, hold: Hold | None) -> None:
        tally.add_undecodable()

    def after(self, query: CountQuery, counts: Counts) -> Counts:
        return counts

    async def counts(self, query: CountQuery) -> Counts:
        tally = Tally(self.asked(query), self._now())
        for row in self.store.rows.values():
            if isinstance(row.job, Undecodable):
                self.unreadable(tally, row.hold)
            else:
                tally.add_row(*self.row(row.job, row.hold))
        for _, one in self.store.history:
            execution = self.execution_of(one)
            if execution is not None:
                tally.add_execution(execution)
        return self.after(query, tally.counts())


def due_at(job: Job, moment: datetime | None) -> Job:
    """Return the job, due at a moment."""
    return evolve(job, standing=evolve(job.standing, due_at=moment))


@breaks("jobs_are_counted_by_state")
class FinishedIsWhatIsNeverDue(CountsOtherwise):
    """The state is read off due_at: what is never due is finished."""

    def after(self, query: CountQuery, counts: Counts) -> Counts:
        jobs = [row.job for row in self.store.rows.values() if isinstance(row.job, Job)]
        ended = sum(job.standing.due_at is None for job in jobs)
        return evolve(counts, jobs={State.FINISHED: ended, State.ACTIVE: len(jobs) - ended})


@breaks("jobs_are_counted_by_state")
class ClaimedJobsAreNotCounted(CountsOtherwise):
    """What is running is counted as running, and as no job."""

    def row(self, job: Job | None, hold: Hold | None) -> tuple[Job | None, Hold | None]:
        return (job, None) if hold is None else (None, hold)


@breaks("the_schedulers_own_records_are_not_counted")
class RecordsOfItsOwnAreJobs(CountsOtherwise):
    """SELECT count(*): whatever has a row is a job."""

    def row(self, job: Job | None, hold: Hold | None) -> tuple[Job | None, Hold | None]:
        if job is not None and job.id.startswith("sched:"):
            job = evolve(job, spec=evolve(job.spec, id="a job"))
        return job, hold


@breaks("due_is_what_no_claim_has")
class ClaimedJobsAreDue(CountsOtherwise):
    """WHERE due_at <= now: who has them is not asked."""

    def after(self, query: CountQuery, counts: Counts) -> Counts:
        rows = self.store.rows.values()
        held = [row for row in rows if row.hold is not None and isinstance(row.job, Job)]
        return evolve(counts, due=counts.due + len(held))


@breaks("due_is_what_no_claim_has")
class DueIsWhatIsLate(CountsOtherwise):
    """WHERE due_at < now: what is due at this very moment is not."""

    def row(self, job: Job | None, hold: Hold | None) -> tuple[Job | None, Hold | None]:
        if job is not None and job.standing.due_at == self._now():
            job = due_at(job, None)
        return job, hold


@breaks("requests_make_a_paused_job_due")
class PausedJobsAreNeverDue(CountsOtherwise):
    """Only active jobs are looked at for what is due."""

    def row(self, job: Job | None, hold: Hold | None) -> tuple[Job | None, Hold | None]:
        paused = job is not None and job.standing.pause is not None
        return (due_at(job, None) if paused and job is not None else job), hold


@breaks("the_end_of_a_pause_is_due")
class OnlyOccurrencesAreDue(CountsOtherwise):
    """A pause that ends is nothing that is due: only requests run beside a pause."""

    def row(self, job: Job | None, hold: Hold | None) -> tuple[Job | None, Hold | None]:
        if job is not None and job.standing.pause is not None and not job.standing.requests:
            job = due_at(job, None)
        return job, hold


@breaks("overdue_is_longer_than_was_asked")
class OverdueFromTheBoundOn(CountsOtherwise):
    """What is due for just as long as was asked is overdue."""

    def asked(self, query: CountQuery) -> CountQuery:
        return evolve(query, overdue=query.overdue - timedelta(microseconds=1))


@breaks("a_claim_that_was_not_ended_is_running")
class OnlyLiveLeasesRun(CountsOtherwise):
    """A claim whose lease has ended is not counted, and its job is due."""

    def row(self, job: Job | None, hold: Hold | None) -> tuple[Job | None, Hold | None]:
        return job, None if hold is not None and hold.expires_at <= self._now() else hold


@breaks("queues_are_counted_apart")
class RunsCountForTheJobsQueue(CountsOtherwise):
    """A claim counts for the queue that its job has now."""

    def row(self, job: Job | None, hold: Hold | None) -> tuple[Job | None, Hold | None]:
        if hold is not None and job is not None:
            hold = evolve(hold, queue=job.spec.queue)
        return job, hold


@breaks("executions_are_counted_in_a_time")
class UntilIsCounted(CountsOtherwise):
    """BETWEEN since AND until."""

    def asked(self, query: CountQuery) -> CountQuery:
        until = query.until
        return query if until is None else evolve(query, until=until + timedelta(microseconds=1))


@breaks("executions_are_counted_in_a_time")
class SinceIsNotCounted(CountsOtherwise):
    """WHERE finished_at > since."""

    def asked(self, query: CountQuery) -> CountQuery:
        return evolve(query, since=query.since + timedelta(microseconds=1))


@breaks("executions_are_counted_by_hour_and_job")
class HoursHaveNoZone(CountsOtherwise):
    """An hour is named without its zone."""

    def after(self, query: CountQuery, counts: Counts) -> Counts:
        if query.by != "hour":
            return counts
        return evolve(counts, groups={key[:19]: some for key, some in counts.groups.items()})


@breaks("executions_are_counted_by_hour_and_job")
class GroupsAreOfAllTime(CountsOtherwise):
    """The groups are counted by a second statement, which forgets since."""

    def after(self, query: CountQuery, counts: Counts) -> Counts:
        if query.by != "job":
            return counts
        groups: dict[str, Counter[Status]] = {}
        for one in self.store.readable():
            groups.setdefault(one.job_id, Counter())[one.status] += 1
        return evolve(counts, groups=groups)


@breaks("failures_are_counted_by_their_kind")
class EveryReasonIsAnError(CountsOtherwise):
    """By error everything with a reason is grouped, whatever its status."""

    def after(self, query: CountQuery, counts: Counts) -> Counts:
        if query.by != "error":
            return counts
        groups: dict[str, Counter[Status]] = {}
        for one in self.store.readable():
            groups.setdefault((one.reason or "").split(":")[0][:100], Counter())[one.status] += 1
        return evolve(counts, groups=groups)


@breaks("failures_are_counted_by_their_kind")
class KindsAreWholeReasons(CountsOtherwise):
    """GROUP BY reason: each message is a kind of its own."""

    def after(self, query: CountQuery, counts: Counts) -> Counts:
        if query.by != "error":
            return counts
        failed = [one for one in self.store.readable() if one.status is Status.FAILED]
        kinds = Counter(one.reason or "" for one in failed)
        return evolve(counts, groups={key: {Status.FAILED: n} for key, n in kinds.items()})


@breaks("what_was_deleted_is_not_counted")
class TotalsOnlyGrow(CountsOtherwise):
    """Executions are counted as they are written; what prune deletes is not taken off."""

    async def prune(self, before: datetime) -> int:
        gone = self.store.__dict__.setdefault("gone", [])
        gone += [one for one in self.store.readable() if one.finished_at < before]
        return await super().prune(before)

    def after(self, query: CountQuery, counts: Counts) -> Counts:
        gone = Counter(one.status for one in self.store.__dict__.get("gone", ()))
        return evolve(counts, executions=Counter(counts.executions) + gone)


@breaks("to_count_changes_nothing")
class CountingEndsClaims(CountsOtherwise):
    """To count what is due it first ends what was lost."""

    async def counts(self, query: CountQuery) -> Counts:
        await self.claim_due(Room(0))
        return await super().counts(query)


@breaks("an_unreadable_job_is_counted_as_such_alone")
class CountsClaimsOfWhatItCannotRead(CountsOtherwise):
    """The claim of a job that cannot be read is counted as running, too."""

    def unreadable(self, tally: Tally, hold: Hold | None) -> None:
        tally.add_undecodable()
        tally.add_row(None, hold)


@breaks("an_unreadable_job_is_counted_as_such_alone")
class CountsNothingThatItCannotRead(CountsOtherwise):
    """What cannot be read is left out."""

    def unreadable(self, tally: Tally, hold: Hold | None) -> None: ...


@breaks("an_unreadable_execution_is_not_counted")
class CountsUnreadableExecutionsAsFailed(CountsOtherwise):
    """An execution that cannot be read counts as a failure of its job."""

    def after(self, query: CountQuery, counts: Counts) -> Counts:
        odd = sum(not isinstance(one, Execution) for _, one in self.store.history)
        return evolve(counts, executions=Counter(counts.executions) + Counter({Status.FAILED: odd}))
