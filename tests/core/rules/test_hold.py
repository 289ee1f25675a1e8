"""Claims that end without a word: what they count, what they leave, and what is left to them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from attrs import evolve
from tests.core.rules.steps import (
    DAY,
    FAILURE,
    HOUR,
    HOURLY,
    LEASE,
    MINUTE,
    SECOND,
    T0,
    admit,
    begun,
    changed,
    claimed,
    edit,
    held_by_worker,
    lose,
    passed_over,
    pause,
    run,
    running,
    scheduled,
    statuses,
    told,
)

from sched_core._model.claim import SUCCESS, Hold, Settlement
from sched_core._model.execution import Execution, Kind, Status
from sched_core._model.job import Job
from sched_core._model.policy import Policy, Retry
from sched_core._rules import define, operate, request
from sched_core._rules.finish import finish
from sched_core._rules.hold import (
    QUARANTINE,
    as_left,
    freed,
    is_held_by,
    is_left_to_claim,
    is_repeat,
    is_to_be_cancelled,
    lapse,
    leaves_pending,
    renewed,
)
from sched_core._rules.standing import current
from sched_core.schedule import Cron, Interval

RETRY = Policy(retry=Retry(attempts=3, backoff=10 * MINUTE))
AT_HALF = Cron("30 * * * *")


class TestRenewed:
    def test_the_lease_is_extended_and_never_shortened(self) -> None:
        hold = held_by_worker(admit(HOURLY), T0 + HOUR)
        later = renewed(hold, T0 + HOUR + 10 * SECOND, LEASE)
        assert (later.renewed_at, later.expires_at) == (
            T0 + HOUR + 10 * SECOND,
            T0 + HOUR + 10 * SECOND + LEASE,
        )
        back = renewed(later, T0, LEASE)
        assert (back.renewed_at, back.expires_at) == (T0, later.expires_at)
        assert (back.token, back.claimed_at, back.pending) == (
            hold.token,
            hold.claimed_at,
            hold.pending,
        )

    def test_it_tells_since_when_nothing_else_ran(self) -> None:
        hold = held_by_worker(admit(HOURLY), T0 + HOUR)
        alone = renewed(hold, T0 + HOUR, LEASE, alone=True)
        still = renewed(alone, T0 + HOUR + MINUTE, LEASE, alone=True)
        assert (hold.alone_at, alone.alone_at, still.alone_at) == (None, T0 + HOUR, T0 + HOUR)
        assert renewed(still, T0 + HOUR + MINUTE, LEASE).alone_at is None


class TestLapse:
    def test_it_is_an_attempt_that_counts_and_is_due_again_after_a_wait(self) -> None:
        job, (execution,) = lose(admit(HOURLY, RETRY), T0 + HOUR)
        assert (execution.id, execution.status, execution.final) == (
            "uid:1:1",
            Status.ABANDONED,
            False,
        )
        assert (execution.worker, execution.claimed_at) == ("worker", T0 + HOUR)
        assert (execution.started_at, execution.finished_at) == (None, T0 + HOUR + LEASE)
        one = scheduled(job)
        assert (one.number, one.attempts, one.failures, one.lost) == (1, 1, 0, 1)
        assert one.began_at == T0 + HOUR
        assert SECOND / 2 <= one.due_at - (T0 + HOUR + LEASE) <= SECOND
        assert job.standing.due_at == one.due_at

    def test_the_wait_grows_to_a_minute_and_is_the_same_on_every_worker(self) -> None:
        job, now, waits = admit(HOURLY, Policy(max_lost=100)), T0 + HOUR, []
        for _ in range(12):
            job, _ = lose(job, now)
            waits.append(scheduled(job).due_at - (now + LEASE))
            now = scheduled(job).due_at
        for number, wait in enumerate(waits):
            longest = min(SECOND * 2**number, MINUTE)
            assert longest / 2 <= wait <= longest
        assert lose(admit(HOURLY), T0 + HOUR) == lose_again(T0 + HOUR)

    def test_an_occurrence_that_was_to_wait_longer_still_does(self) -> None:
        hold = held_by_worker(admit(HOURLY), T0 + HOUR)
        later = evolve(scheduled(admit(HOURLY)), due_at=T0 + DAY)
        job = evolve(admit(HOURLY), standing=evolve(admit(HOURLY).standing, scheduled=later))
        after, _ = lapse(job, hold, now=T0 + HOUR + LEASE)
        assert after is not None
        assert scheduled(after).due_at == T0 + DAY

    def test_others_of_the_job_do_not_wait_for_it(self) -> None:
        job = request.trigger(admit(HOURLY), now=T0 + HOUR + SECOND).job
        job, _ = lose(job, T0 + HOUR + SECOND)
        assert begun(job, T0 + HOUR + SECOND + LEASE)[1].number == 2

    def test_one_that_is_to_be_cancelled_does_not_wait(self) -> None:
        job = operate.cancel(running(admit(HOURLY), T0 + HOUR), now=T0 + HOUR)
        stored = evolve(job, held=None, held_at=None)
        job, _ = lose(admit(HOURLY), T0 + HOUR, stored=stored)
        job, executions = passed_over(job, T0 + HOUR + LEASE)
        assert statuses(executions) == [Status.CANCELLED]

    def test_a_success_or_a_failure_ends_the_row(self) -> None:
        job, _ = lose(admit(HOURLY, RETRY), T0 + HOUR)
        job, execution = run(job, T0 + 2 * HOUR, FAILURE)
        assert (execution.attempt, scheduled(job).lost) == (2, 0)

    def test_a_pause_meanwhile_holds_it(self) -> None:
        stored = pause(admit(HOURLY), T0 + HOUR)
        job, executions = lose(admit(HOURLY), T0 + HOUR, stored=stored)
        assert statuses(executions) == [Status.ABANDONED]
        assert (scheduled(job).attempts, job.standing.due_at) == (1, None)

    @pytest.mark.parametrize("stored", ["edited", "removed", "added again"])
    def test_what_was_edited_away_ends_with_it(self, stored: str) -> None:
        job = admit(HOURLY)
        there = {
            "edited": edit(job, T0 + HOUR, schedule=AT_HALF).job,
            "removed": None,
            "added again": evolve(job, uid="another"),
        }[stored]
        after, executions = lapse(there, held_by_worker(job, T0 + HOUR), now=T0 + 2 * HOUR)
        assert after is there
        assert told(executions) == [("abandoned", 1, 0), ("superseded", 1, 0)]
        assert [each.final for each in executions] == [False, True]

    def test_a_claim_that_was_to_end_a_pause_costs_nothing(self) -> None:
        job = pause(admit(HOURLY), T0, until=T0 + MINUTE)
        hold = held_by_worker(job, T0 + MINUTE)
        assert hold.pending is None
        assert lapse(job, hold, now=T0 + 2 * MINUTE) == (job, ())


def lose_again(now: object) -> tuple[Job, tuple[Execution, ...]]:
    """Lose the same claim as another worker sees it: with another token."""
    job, (execution,) = lose(admit(HOURLY), T0 + HOUR)
    return job, (evolve(execution, token=execution.token - 1),)


class TestQuarantine:
    """The last claim but one must be lost while nothing else runs, or it does not count."""

    def suspect(self, lost: int, max_lost: int = 3) -> Job:
        return changed(admit(HOURLY, Policy(max_lost=max_lost)), lost=lost, began_at=T0 + HOUR)

    @pytest.mark.parametrize(("lost", "counted"), [(0, 1), (1, 2), (2, 2)])
    def test_alongside_others_losses_count_no_further_than_one_below(
        self, lost: int, counted: int
    ) -> None:
        job, _ = lose(self.suspect(lost), T0 + HOUR)
        assert scheduled(job).lost == counted
        assert begun(job, T0 + 2 * HOUR)[1].alone == (counted == 2)

    def test_alone_it_is_the_last_and_the_next_claim_says_so_at_once(self) -> None:
        job, _ = lose(self.suspect(2), T0 + HOUR, alone=True)
        assert scheduled(job).lost == 3
        job, (execution,) = passed_over(job, T0 + HOUR + LEASE)
        assert (execution.status, execution.reason) == (
            Status.FAILED,
            "lost: 3 claims in a row were never settled",
        )

    @pytest.mark.parametrize(
        ("renewed_after", "counted"),
        [(QUARANTINE - SECOND, 3), (QUARANTINE, 2), (QUARANTINE + MINUTE, 2)],
    )
    def test_a_sign_of_life_after_half_a_minute_clears_it(
        self, renewed_after: timedelta, counted: int
    ) -> None:
        job = self.suspect(2)
        hold = renewed(held_by_worker(job, T0 + HOUR), T0 + HOUR, LEASE, alone=True)
        hold = renewed(hold, T0 + HOUR + renewed_after, LEASE, alone=True)
        after, _ = lapse(job, hold, now=T0 + 2 * HOUR)
        assert after is not None
        assert scheduled(after).lost == counted

    def test_others_that_began_during_it_clear_it(self) -> None:
        job = self.suspect(2)
        hold = renewed(held_by_worker(job, T0 + HOUR), T0 + HOUR, LEASE, alone=True)
        after, _ = lapse(job, renewed(hold, T0 + HOUR + SECOND, LEASE), now=T0 + 2 * HOUR)
        assert after is not None
        assert scheduled(after).lost == 2

    def test_where_one_is_the_last_nothing_is_to_be_found_out(self) -> None:
        job, _ = lose(self.suspect(0, max_lost=1), T0 + HOUR)
        assert scheduled(job).lost == 1
        _, (execution,) = passed_over(job, T0 + HOUR + LEASE)
        assert execution.status is Status.FAILED

    def test_a_bound_that_was_lowered_meanwhile_ends_it(self) -> None:
        job = changed(self.suspect(4, max_lost=9))
        lowered = edit(job, T0 + HOUR, policy=Policy(max_lost=2)).job
        assert statuses(passed_over(lowered, T0 + HOUR)[1]) == [Status.FAILED]

    def test_a_bound_that_was_raised_meanwhile_goes_on(self) -> None:
        job, _ = lose(self.suspect(2), T0 + HOUR, alone=True)
        raised = edit(job, T0 + 2 * HOUR, policy=Policy(max_lost=9)).job
        assert not begun(raised, T0 + 2 * HOUR)[1].alone


class TestFreed:
    """The call that frees a claim writes the end of what an edit or a removal has left to it."""

    @pytest.mark.parametrize("ended", [Status.INTERRUPTED, Status.FAILED, None])
    @pytest.mark.parametrize("stored", ["the same", "edited", "removed"])
    def test_the_end_is_added_where_it_is_owed_and_not_written(
        self, stored: str, ended: Status | None
    ) -> None:
        job = admit(HOURLY)
        hold = held_by_worker(job, T0 + HOUR)
        there = {
            "the same": job,
            "edited": edit(job, T0 + HOUR, schedule=AT_HALF).job,
            "removed": None,
        }[stored]
        found: tuple[Execution, ...] = ()
        if ended is not None:
            own = lose(job, T0 + HOUR)[1][0]
            found = (evolve(own, status=ended, final=ended is Status.FAILED),)
        executions = freed(there, hold, found, now=T0 + 2 * HOUR)
        is_owed = stored != "the same" and ended is not Status.FAILED
        assert executions[: len(found)] == found
        assert statuses(executions[len(found) :]) == [Status.SUPERSEDED] * is_owed

    def test_it_says_how_many_an_edit_had_added_to_it(self) -> None:
        job = changed(admit(HOURLY), coalesced=2, coalesced_until=T0 + 3 * HOUR)
        (execution,) = freed(None, held_by_worker(job, T0 + HOUR), now=T0 + 4 * HOUR)
        assert (execution.coalesced, execution.coalesced_until) == (2, T0 + 3 * HOUR)

    def test_it_is_kept_as_long_as_was_said_at_the_claim(self) -> None:
        job = admit(HOURLY, Policy(keep_executions=DAY))
        hold = held_by_worker(job, T0 + HOUR)
        (execution,) = freed(None, hold, now=T0 + 2 * HOUR)
        assert execution.expires_at == T0 + 2 * HOUR + DAY

    def test_a_claim_for_nothing_owes_nothing(self) -> None:
        hold = held_by_worker(pause(admit(HOURLY), T0, until=T0 + MINUTE), T0 + MINUTE)
        assert freed(None, hold, now=T0 + MINUTE) == ()


class TestWhoseItIs:
    def hold(self) -> Hold:
        return held_by_worker(admit(HOURLY), T0 + HOUR)

    @pytest.mark.parametrize("other", [{"token": 0}, {"worker": "another"}])
    def test_the_fence_is_token_and_worker(self, other: dict[str, object]) -> None:
        hold = self.hold()
        claim = evolve(claimed(admit(HOURLY), T0 + HOUR), token=hold.token)
        assert is_held_by(hold, claim)
        assert not is_held_by(hold, evolve(claim, **other))  # type: ignore[arg-type]  # names of fields
        assert not is_held_by(None, claim)

    def test_a_mark_reaches_the_holder_of_what_is_marked(self) -> None:
        hold, job = self.hold(), running(admit(HOURLY), T0 + HOUR)
        marked = operate.cancel(job, now=T0 + HOUR)
        assert is_to_be_cancelled(marked, hold)
        for other in (job, None, evolve(marked, uid="another")):
            assert not is_to_be_cancelled(other, hold)
        asked = request.trigger(marked, now=T0 + HOUR).job
        assert not is_to_be_cancelled(asked, evolve(hold, pending=asked.standing.requests[0]))

    def test_executions_of_what_is_held_are_left_to_its_claim(self) -> None:
        hold = self.hold()
        (execution,) = freed(None, hold, now=T0 + HOUR)
        assert is_left_to_claim(hold, execution)
        assert not is_left_to_claim(hold, evolve(execution, number=2))
        assert not is_left_to_claim(hold, evolve(execution, uid="another"))
        assert not is_left_to_claim(None, execution)
        assert not is_left_to_claim(evolve(hold, pending=None), execution)


class TestWhatIsLeftToAClaim:
    """A job that covers four more is edited or removed while it runs, and its worker dies."""

    NOW = T0 + 5 * HOUR + 30 * MINUTE

    @pytest.mark.parametrize("how", ["edited", "removed"])
    def test_its_end_covers_what_it_began_to_cover(self, how: str) -> None:
        job = running(admit(HOURLY), self.NOW)
        hold = held_by_worker(job, self.NOW)
        if how == "edited":
            change = edit(job, self.NOW, schedule=Cron("15 * * * *"))
            left, executions = change.job, change.executions
        else:
            left, executions = None, define.final_executions(job, now=self.NOW)
        after = as_left(hold, executions)
        assert after is not None
        _, lost = lapse(left, after, now=after.expires_at)
        assert told(lost) == [("abandoned", 1, 0), ("superseded", 1, 4)]
        assert lost[-1].coalesced_until == T0 + 5 * HOUR
        assert told(freed(left, after, now=self.NOW)) == [("superseded", 1, 4)]

    @pytest.mark.parametrize("succeeds", [True, False])
    def test_the_rest_of_a_backfill_has_its_end_whatever_becomes_of_the_run(
        self, succeeds: bool
    ) -> None:
        now = T0 + 3 * HOUR
        job = request.backfill(admit(HOURLY), since=T0, until=now, now=now).job
        job, _ = run(job, now)
        claim, start = begun(job, now)
        removed = define.final_executions(running(job, now), now=now)
        hold = as_left(held_by_worker(job, now), removed)
        assert hold is not None
        decision = finish(claim, start, SUCCESS, started_at=now, now=now, stored=None)
        own = freed(None, hold, decision.executions if succeeds else (), now=now)
        assert told(own) == [("succeeded" if succeeds else "superseded", 1, 0)]
        rest = tuple(each for each in removed if not is_left_to_claim(hold, each))
        assert told(rest) == [("superseded", 2, 1)]
        assert [(each.number, each.kind) for each in rest] == [(4, Kind.BACKFILLED)]

    def test_executions_of_others_and_of_attempts_change_nothing(self) -> None:
        hold = held_by_worker(admit(HOURLY), T0 + HOUR)
        (end,) = freed(None, hold, now=T0 + HOUR)
        more = evolve(end, coalesced=2, coalesced_until=T0)
        for other in (evolve(more, number=2), evolve(more, final=False)):
            assert as_left(hold, [other]) is hold
        assert as_left(None, [more]) is None


class TestRepeatsAndConflicts:
    def settlement(self) -> Settlement:
        job, execution = run(admit(HOURLY), T0 + HOUR)
        claim = evolve(claimed(admit(HOURLY), T0 + HOUR), token=execution.token)
        return Settlement(claim, 1, job.standing, (execution,))

    def test_a_repeat_is_known_by_fence_and_status_of_all_that_it_wrote(self) -> None:
        settlement = self.settlement()
        (execution,) = settlement.executions
        assert is_repeat(settlement, [execution])
        for found in (
            None,
            evolve(execution, token=0),
            evolve(execution, worker="another"),
            evolve(execution, status=Status.ABANDONED),
        ):
            assert not is_repeat(settlement, [found])
        both = evolve(settlement, executions=(execution, execution))
        assert not is_repeat(both, [execution, None])

    def test_a_settlement_without_executions_is_known_by_nothing(self) -> None:
        assert not is_repeat(evolve(self.settlement(), executions=()), [])

    def test_an_end_that_would_leave_its_occurrence_pending_is_a_conflict(self) -> None:
        """It was decided on a job that was gone, and has been added again since."""
        job, settlement = admit(HOURLY), self.settlement()
        hold, gone = held_by_worker(job, T0 + HOUR), evolve(settlement, standing=None)
        assert leaves_pending(job, hold, gone)
        assert not leaves_pending(job, hold, settlement)
        assert not leaves_pending(None, hold, gone)
        assert not leaves_pending(evolve(job, uid="another"), hold, gone)
        (execution,) = gone.executions
        interrupted = evolve(execution, status=Status.INTERRUPTED, final=False)
        assert not leaves_pending(job, hold, evolve(gone, executions=(interrupted,)))


class TestCurrent:
    """What a claim is for: of what may run, the earliest, and among these the smallest number."""

    def test_the_earliest_is_first_and_of_the_same_moment_the_smallest_number(self) -> None:
        job = request.trigger(admit(HOURLY), now=T0 + HOUR, key="a").job
        assert current(job.standing) == scheduled(job)
        earlier = request.trigger(admit(HOURLY), now=T0 + MINUTE).job
        assert current(earlier.standing) == earlier.standing.requests[0]

    def test_the_end_of_a_pause_comes_before_what_is_due_with_it(self) -> None:
        job = pause(admit(HOURLY), T0, until=T0 + HOUR)
        job = request.trigger(job, now=T0 + HOUR).job
        assert current(job.standing) is None
        assert job.standing.due_at == T0 + HOUR

    def test_a_finished_job_has_nothing(self) -> None:
        job, _ = run(admit(Interval(hours=1, start=T0)), T0)
        standing = evolve(job.standing, scheduled=None)
        assert current(standing) is None
