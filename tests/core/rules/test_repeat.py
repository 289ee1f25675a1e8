"""Requests that name their moments one by one, and the choice of moments from a history."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from attrs import evolve
from tests.core.rules.steps import (
    FAILURE,
    HOUR,
    HOURLY,
    T0,
    admit,
    begun,
    end,
    held_by_worker,
    run,
    running,
)

from sched_core._model.execution import Execution, Kind, Status
from sched_core._model.job import Job
from sched_core._model.occurrence import CancelMark
from sched_core._model.policy import Policy, Retry
from sched_core._rules import define, operate
from sched_core._rules.hold import as_left, freed, is_to_be_cancelled
from sched_core._rules.repeat import Selection, moments_of
from sched_core._rules.request import repeat
from sched_core.errors import InvalidDefinition, NothingToCancel

NOW = T0 + 9 * HOUR
MOMENTS = [T0 + hours * HOUR for hours in (1, 4, 5)]
RETRY = Policy(retry=Retry(attempts=2))


def asked(policy: Policy = Policy()) -> Job:  # noqa: B008 -- immutable
    """Return a job without a schedule's occurrence, and with one request for three moments."""
    job = admit(HOURLY, policy)
    job = evolve(job, standing=evolve(job.standing, scheduled=None, last_number=6))
    return repeat(job, MOMENTS, now=NOW, kind=Kind.RERUN, args={"a": "1"}, actor="ann").job


def executed(moment: datetime, status: Status, **more: object) -> Execution:
    """Return a final execution of a moment."""
    one = Execution(
        *("u:1:1", "a", "u", 1, 1, Kind.SCHEDULED, moment, status, True, 1, "w"),
        *(moment, moment, moment),
    )
    return evolve(one, **more)  # type: ignore[arg-type]  # any of its fields


class TestRequest:
    def test_its_moments_run_in_order_under_numbers_of_their_own(self) -> None:
        job, found = asked(), []
        while job.standing.requests:
            job, each = run(job, NOW)
            assert (each.kind, each.actor, each.args) == (Kind.RERUN, "ann", {"a": "1"})
            found.append((each.number, each.scheduled_at))
        assert found == list(zip((7, 8, 9), MOMENTS, strict=True))

    def test_each_has_its_own_retries_and_a_final_failure_ends_none_of_the_others(self) -> None:
        job = asked(RETRY)
        for _ in range(2):
            (one,) = job.standing.requests
            job, _ = end(*begun(job, one.due_at), one.due_at, FAILURE)
        (one,) = job.standing.requests
        assert (one.number, one.failures, one.scheduled_at) == (8, 0, MOMENTS[1])

    def test_the_number_it_was_asked_for_under_names_all_of_it(self) -> None:
        job, _ = run(asked(), NOW)
        assert operate.present_number(job, 7) == 8
        assert operate.present_number(job, 8) == 8
        assert operate.present_number(job, 5) == 5
        marked = operate.cancel(job, now=NOW, number=8, reason="why", actor="bob")
        assert marked.standing.cancels == (CancelMark(8, "why", "bob"),)

    def test_what_others_of_its_kind_have_not_run_is_not_asked_for_twice(self) -> None:
        job = asked()
        args = {"a": "1"}
        same = repeat(job, MOMENTS[1:], now=NOW, kind=Kind.RERUN, args=args)
        assert (same.job, same.number) == (job, 7)
        more = repeat(job, [*MOMENTS, NOW], now=NOW, kind=Kind.RERUN, args=args)
        one = more.job.standing.find(more.number)
        assert one is not None
        assert (one.scheduled_at, one.moments) == (NOW, ())
        for other in ({"kind": Kind.BACKFILLED, "args": args}, {"kind": Kind.RERUN, "args": None}):
            new = repeat(job, MOMENTS, now=NOW, **other)
            assert new.number == 8

    def test_a_removal_ends_it_with_its_rest_and_a_held_one_has_two_ends(self) -> None:
        (execution,) = define.final_executions(asked(), now=NOW, actor="bob")
        assert (execution.status, execution.actor) == (Status.SUPERSEDED, "bob")
        assert (execution.coalesced, execution.coalesced_until) == (2, MOMENTS[2])
        own, rest = define.final_executions(running(asked(), NOW), now=NOW, cancel=True)
        assert (own.number, own.status, own.coalesced) == (7, Status.CANCELLED, 0)
        assert (rest.number, rest.status) == (8, Status.SUPERSEDED)
        assert (rest.scheduled_at, rest.coalesced, rest.coalesced_until) == (
            *MOMENTS[1:2],
            1,
            MOMENTS[2],
        )


class TestSelection:
    @staticmethod
    def failed(one: Execution) -> tuple[datetime, ...]:
        return (one.scheduled_at,) if one.status is Status.FAILED else ()

    def chosen(self, *newest_first: Execution) -> list[datetime]:
        found = Selection("query", self.failed)
        for one in newest_first:
            found.take(one)
        return [moment for _, moments in found.moments() for moment in moments]

    def test_the_newest_outcome_of_a_moment_decides(self) -> None:
        failed, well = (executed(T0, status) for status in (Status.FAILED, Status.SUCCEEDED))
        assert self.chosen(failed, well) == [T0]
        assert self.chosen(well, failed) == []
        assert self.chosen(failed, failed) == [T0]

    def test_an_attempt_that_was_retried_decides_nothing(self) -> None:
        assert self.chosen(executed(T0, Status.FAILED, final=False)) == []

    def test_a_run_decides_for_all_that_it_covers(self) -> None:
        failed = executed(T0 + HOUR, Status.FAILED)
        well = executed(T0, Status.SUCCEEDED, coalesced=1, coalesced_until=T0 + HOUR)
        assert self.chosen(well, failed) == []
        assert self.chosen(failed, well) == [T0 + HOUR]
        later = executed(T0 + 2 * HOUR, Status.FAILED)
        assert self.chosen(well, later) == [T0 + 2 * HOUR]

    def test_arguments_tell_moments_apart(self) -> None:
        failed = executed(T0, Status.FAILED, args={"a": "1"})
        assert self.chosen(executed(T0, Status.SUCCEEDED, args={"a": "2"}), failed) == [T0]
        assert self.chosen(executed(T0, Status.SUCCEEDED, args={"a": "1"}), failed) == []

    def test_so_many_and_no_more(self) -> None:
        found = Selection("query", self.failed)
        for number in range(10_000):
            found.take(executed(T0 + timedelta(seconds=number), Status.FAILED))
        with pytest.raises(InvalidDefinition, match=r"^query: more than 10000 moments"):
            found.take(executed(T0 - HOUR, Status.FAILED))

    def test_moments_of_what_was_missed_are_those_of_the_schedule_in_the_range(self) -> None:
        job = admit(HOURLY)
        end_ = T0 + 5 * HOUR
        one = executed(T0 + 2 * HOUR, Status.MISSED, coalesced=3, coalesced_until=end_)
        assert list(moments_of(job, one, T0, NOW)) == [T0 + hours * HOUR for hours in (2, 3, 4, 5)]
        assert list(moments_of(job, one, T0 + 3 * HOUR, T0 + 4 * HOUR)) == [
            T0 + 3 * HOUR,
            T0 + 4 * HOUR,
        ]
        odd = executed(T0 + 1.5 * HOUR, Status.MISSED)
        assert list(moments_of(job, odd, T0, NOW)) == []


class TestMarksOfRemovals:
    def test_the_hold_keeps_who_and_why_and_what_it_covers(self) -> None:
        job = running(admit(HOURLY), T0 + HOUR)
        hold = held_by_worker(job, T0 + HOUR)
        removed = define.final_executions(
            job, now=T0 + HOUR, cancel=True, reason="why", actor="bob"
        )
        left = as_left(hold, removed)
        assert left is not None
        assert left.cancel == CancelMark(1, "why", "bob")
        assert is_to_be_cancelled(None, left)
        (ended,) = freed(None, left, now=T0 + HOUR)
        assert (ended.status, ended.reason, ended.actor) == (Status.CANCELLED, "why", "bob")
        returned = evolve(ended, attempt=1, reason="cancelled: its job was removed", actor=None)
        (told,) = freed(None, left, (returned,), now=T0 + HOUR)
        assert (told.reason, told.actor) == ("why", "bob")
        well = evolve(returned, status=Status.SUCCEEDED, reason=None)
        assert freed(None, left, (well,), now=T0 + HOUR) == (well,), "what returned first"

    def test_without_cancel_the_run_goes_on(self) -> None:
        job = running(admit(HOURLY), T0 + HOUR)
        left = as_left(held_by_worker(job, T0 + HOUR), define.final_executions(job, now=T0 + HOUR))
        assert left is not None
        assert not is_to_be_cancelled(None, left)


def test_a_second_mark_changes_nothing_and_what_has_ended_has_none() -> None:
    job = admit(HOURLY)
    once = operate.cancel(job, now=T0, number=1, reason="why", actor="ann")
    assert operate.cancel(once, now=T0, number=1, reason="other", actor="bob") == once
    with pytest.raises(NothingToCancel, match=":7' runs or waits"):
        operate.cancel(job, now=T0, number=7)
