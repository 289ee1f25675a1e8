"""What calls of the port do to one stored row, apart from any backend.

The laws of the testkit examine the same through the backend in memory; here is what they cannot
see: that refused calls leave the row as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve

from sched_core import (
    Claim,
    Cron,
    Execution,
    Interval,
    Job,
    JobAlreadyExists,
    JobNotFound,
    JobSpec,
    JobUndecodable,
    Renewal,
    RevisionConflict,
    Settled,
    Settlement,
    Status,
    Undecodable,
)
from sched_core._model.claim import SUCCESS, Start
from sched_core._rules import define, operate
from sched_core._rules.begin import begin
from sched_core._rules.finish import finish, postpone
from sched_core.row import CLAIM_LOST, WRITTEN, Row, same_as_read

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE, TICK = timedelta(seconds=30), timedelta(microseconds=1)
LATER = NOW + LEASE
HALF = Cron("30 * * * *")
"""A schedule that lacks the moments of the job."""


class Written:
    """The history, for one test."""

    def __init__(self) -> None:
        self.executions: list[Execution] = []

    def stored(self, execution_id: str) -> Execution | None:
        return next((each for each in self.executions if each.id == execution_id), None)

    def append(self, execution: Execution) -> None:
        if self.stored(execution.id) is None:
            self.executions.append(execution)

    def statuses(self) -> list[str]:
        return [each.status.value for each in self.executions]


def job(uid: str = "u") -> Job:
    """Return a job that is due now."""
    spec = JobSpec("a", Interval(hours=1, start=NOW))
    return evolve(define.admit(spec, uid=uid, declared=False, now=NOW), revision=1)


def claimed(row: Row, token: int = 7, now: datetime = NOW) -> Claim:
    claim = row.claim(token, "w", now, LEASE)
    assert claim is not None
    return claim


def held() -> Row:
    row = Row(job())
    claimed(row)
    return row


def put(row: Row, change: Callable[[Job], Job], to: Written | None = None) -> Job:
    """Edit what is stored, as operators do."""
    return row.replace(change(row.readable("a")), [], 2, to or Written())


def edit(row: Row, to: Written, revision: int = 2) -> Job:
    """Give the job a schedule that lacks what is due."""
    read = row.readable("a")
    change = define.redefine(read, evolve(read.spec, schedule=HALF), now=NOW)
    assert change is not None
    return row.replace(change.job, change.executions, revision, to)


def ended(claim: Claim, **changes: Any) -> Settlement:
    """Return the settlement of a run that succeeded."""
    start = begin(claim, now=NOW)
    assert isinstance(start, Start)
    decision = finish(claim, start, SUCCESS, started_at=NOW, now=NOW, stored=claim.job)
    done = Settlement(claim, claim.job.revision, decision.standing, decision.executions)
    return evolve(done, **changes)


UNREADABLE = Undecodable("a", "format 99", 99, b"{}", "lunar")


def elsewhere(row: Row) -> Job:
    """Return the job as it was read before it was claimed, or freed."""
    read = row.readable("a")
    return evolve(read, held=None if read.held else 1, held_at=None if read.held else NOW)


REFUSED: list[tuple[type[Exception], Row, Callable[[Row, Written], object]]] = [
    (JobAlreadyExists, Row(job()), lambda row, to: row.add(job("other"), 2)),
    (JobAlreadyExists, Row(UNREADABLE), lambda row, to: row.add(job(), 2)),
    (JobNotFound, Row(), lambda row, to: row.replace(job(), [], 2, to)),
    (RevisionConflict, held(), lambda row, to: row.replace(evolve(job(), revision=9), [], 2, to)),
    (RevisionConflict, held(), lambda row, to: row.replace(elsewhere(row), [], 2, to)),
    (RevisionConflict, Row(job()), lambda row, to: row.replace(elsewhere(row), [], 2, to)),
    (RevisionConflict, Row(job()), lambda row, to: row.replace(job("other"), [], 2, to)),
    (JobUndecodable, Row(UNREADABLE), lambda row, to: row.replace(job(), [], 2, to)),
    (JobNotFound, Row(), lambda row, to: row.remove(job(), [], to)),
    (RevisionConflict, held(), lambda row, to: row.remove(evolve(job(), revision=9), [], to)),
    (RevisionConflict, held(), lambda row, to: row.remove(elsewhere(row), [], to)),
    (JobUndecodable, Row(UNREADABLE), lambda row, to: row.remove(job(), [], to)),
]


@pytest.mark.parametrize(("error", "row", "call"), REFUSED)
def test_what_is_refused_changes_nothing(
    error: type[Exception], row: Row, call: Callable[[Row, Written], object]
) -> None:
    before, to = evolve(row), Written()
    with pytest.raises(error):
        call(row, to)
    assert row == before
    assert to.executions == []


def test_a_repeated_add_returns_what_is_stored() -> None:
    row = Row(evolve(job(), revision=5))
    assert row.add(job(), 6) is row.job


def test_what_is_held_is_told_at_every_read_and_stored_at_no_write() -> None:
    row = held()
    for read in (row.read(), row.readable("a"), row.add(job(), 2), put(row, lambda one: one)):
        assert isinstance(read, Job)
        assert (read.held, read.held_at) == (1, NOW)
    assert isinstance(row.job, Job)
    assert (row.job.held, row.job.held_at) == (None, None)
    assert same_as_read(row.readable("a"), row.readable("a"))
    again = Row(job("second"), row.hold)
    assert again.readable("a").held is None  # it is another incarnation's


def test_a_claim_that_is_to_end_a_pause_holds_no_occurrence() -> None:
    row = Row(operate.pause(job(), until=NOW + TICK, reason=None, now=NOW))
    claimed(row, now=NOW + TICK)
    assert row.readable("a").held is None
    assert row.hold is not None
    assert row.hold.pending is None


@pytest.mark.parametrize("how", ["replace", "remove"])
def test_executions_about_what_is_held_are_left_to_the_end_of_the_claim(how: str) -> None:
    row, to = held(), Written()
    read = row.readable("a")
    own = define.final_executions(read, now=NOW)
    other = evolve(own[0], number=9, id="u:9:0")
    if how == "replace":
        row.replace(read, [*own, other], 2, to)
    else:
        row.remove(read, [*own, other], to)
    assert to.executions == [other]
    assert row.hold is not None


def removed() -> Row:
    row = held()
    row.remove(row.readable("a"), [], Written())
    return row


def paused() -> Row:
    row = Row(job())
    put(row, lambda one: operate.pause(one, until=None, reason=None, now=NOW))
    return row


@pytest.mark.parametrize(
    ("row", "now"),
    [
        (Row(), LATER),
        (Row(job()), NOW - TICK),
        (Row(UNREADABLE), LATER),
        (held(), LATER - TICK),
        (held(), LATER + LEASE),  # its lapse comes first
        (removed(), LATER),
        (paused(), LATER + timedelta(days=999)),
    ],
    ids=["empty", "early", "unreadable", "held", "lapsed", "removed", "paused"],
)
def test_what_is_not_due_or_held_is_not_handed_out(row: Row, now: datetime) -> None:
    before = evolve(row)
    assert row.claim(8, "v", now, LEASE) is None
    assert row == before


def test_a_row_is_looked_at_when_it_is_due_or_when_its_lease_ends() -> None:
    assert Row(job()).due() == NOW
    assert held().due() == removed().due() == LATER
    assert paused().due() is Row().due() is Row(UNREADABLE).due() is None
    row = held()
    put(row, lambda one: operate.pause(one, until=None, reason=None, now=NOW))
    assert row.due() == LATER  # whether or not its job is due


class TestLapse:
    @pytest.mark.parametrize(
        ("row", "now"), [(Row(job()), LATER), (held(), LATER - TICK), (Row(), LATER)]
    )
    def test_nothing_happens_where_no_lease_has_ended(self, row: Row, now: datetime) -> None:
        before, to = evolve(row), Written()
        assert row.lapse(now, 9, to) == ()
        assert (row, to.executions) == (before, [])

    def test_the_claim_ends_and_the_job_is_due_later_under_a_new_revision(self) -> None:
        row, to = held(), Written()
        (execution,) = row.lapse(LATER, 9, to)
        assert (execution.status, to.executions) == (Status.ABANDONED, [execution])
        assert row.hold is None
        stored = row.readable("a")
        assert (stored.revision, stored.held) == (9, None)
        assert LATER < (stored.standing.due_at or LATER) <= LATER + timedelta(seconds=1)

    def test_a_tombstone_is_cleared_with_the_end_of_what_it_holds(self) -> None:
        row, to = removed(), Written()
        assert not row.is_empty()
        row.lapse(LATER, 9, to)
        assert row.is_empty()
        assert to.statuses() == ["abandoned", "superseded"]

    def test_a_job_that_was_added_meanwhile_keeps_its_revision(self) -> None:
        row = removed()
        row.add(job("second"), 5)
        row.lapse(LATER, 9, Written())
        assert row.readable("a").revision == 5

    def test_the_old_claim_holds_nothing_afterwards(self) -> None:
        row, to = Row(job()), Written()
        claim = claimed(row)
        row.lapse(LATER, 9, to)
        assert row.renew(Renewal(claim), LATER, LEASE) is None
        assert not row.release(claim, LATER, to)
        assert row.settle(ended(claim), LATER, 10, to) == CLAIM_LOST
        assert to.statuses() == ["abandoned"]


class TestRenew:
    def test_it_tells_that_the_run_is_to_be_cancelled(self) -> None:
        row = Row(job())
        claim = claimed(row)
        renewed = row.renew(Renewal(claim), NOW + TICK, LEASE)
        assert renewed == evolve(claim, expires_at=LATER + TICK)
        put(row, lambda one: operate.cancel(one, now=NOW))
        renewed = row.renew(Renewal(claim), NOW + TICK, LEASE)
        assert renewed is not None
        assert renewed.cancel

    def test_it_notes_since_when_the_run_is_alone(self) -> None:
        row = Row(job())
        claim = claimed(row)
        for alone, since in ((True, NOW), (True, NOW), (False, None)):
            row.renew(Renewal(claim, alone), NOW, LEASE)
            assert row.hold is not None
            assert row.hold.alone_at == since

    def test_a_claim_whose_lease_has_ended_is_held_until_a_call_ends_it(self) -> None:
        row = Row(job())
        claim = claimed(row)
        assert row.renew(Renewal(claim), LATER + LEASE, LEASE) is not None
        assert row.due() == LATER + 2 * LEASE

    def test_a_tombstone_is_renewed(self) -> None:
        row = Row(job())
        claim = claimed(row)
        row.remove(row.readable("a"), [], Written())
        assert row.renew(Renewal(claim), LATER, LEASE) is not None


class TestRelease:
    def test_the_occurrence_is_due_as_if_it_had_not_been_claimed(self) -> None:
        row, to = Row(job()), Written()
        assert row.release(claimed(row), NOW, to)
        assert (row, to.executions) == (Row(job()), [])

    def test_what_was_edited_away_ends(self) -> None:
        row, to = Row(job()), Written()
        claim = claimed(row)
        edit(row, to)
        assert to.statuses() == []
        assert row.release(claim, NOW, to)
        assert to.statuses() == ["superseded"]


class TestSettle:
    def test_it_ends_the_claim_and_again_it_is_a_repeat(self) -> None:
        row, to = Row(job()), Written()
        first = ended(claimed(row))
        assert row.settle(first, NOW, 2, to) == WRITTEN
        after = evolve(row)
        assert (after.hold, after.readable("a").revision) == (None, 2)
        assert row.settle(first, NOW, 3, to) == WRITTEN
        assert row == after
        assert to.statuses() == ["succeeded"]

    def test_a_repeat_is_known_by_its_executions_once_another_was_settled(self) -> None:
        row, to = Row(job()), Written()
        first = ended(claimed(row))
        row.settle(first, NOW, 2, to)
        hour = timedelta(hours=1)
        row.settle(ended(claimed(row, 8, NOW + hour)), NOW + hour, 3, to)
        assert row.settle(first, NOW, 4, to) == WRITTEN
        assert row.settle(evolve(first, executions=()), NOW, 5, to) == CLAIM_LOST

    def test_an_edit_since_the_decision_is_a_conflict(self) -> None:
        row, to = Row(job()), Written()
        claim = claimed(row)
        edited = edit(row, to)
        assert row.settle(ended(claim), NOW, 3, to) == Settled("conflict", edited)
        assert row.hold is not None
        assert to.executions == []

    def test_a_removal_since_the_decision_is_a_conflict(self) -> None:
        row = Row(job())
        claim = claimed(row)
        row.remove(row.readable("a"), [], Written())
        assert row.settle(ended(claim), NOW, 3, Written()) == Settled("conflict", None)

    def test_what_leaves_the_job_alone_is_written_whatever_became_of_it(self) -> None:
        row, to = Row(job()), Written()
        claim = claimed(row)
        row.remove(row.readable("a"), [], to)
        done = ended(claim, expected=None, standing=None)
        assert row.settle(done, NOW, 3, to) == WRITTEN
        assert row.is_empty()
        assert to.statuses() == ["succeeded"]

    def test_an_edit_between_a_decision_and_its_write_is_noticed(self) -> None:
        """It leaves the end of what is held to the claim, which must not go without it."""
        row, to = Row(job()), Written()
        claim = claimed(row)
        paused = put(row, lambda one: operate.pause(one, until=None, reason=None, now=NOW))
        handed_back = postpone(claim, until=NOW, now=NOW, stored=paused)
        late = Settlement(claim, paused.revision, handed_back.standing, handed_back.executions)
        edited = edit(row, to, revision=3)
        assert row.settle(late, NOW, 4, to) == Settled("conflict", edited)
        again = postpone(claim, until=NOW, now=NOW, stored=edited)
        done = Settlement(claim, None, again.standing, again.executions)
        assert row.settle(done, NOW, 5, to) == WRITTEN
        assert to.statuses() == ["superseded"]

    def test_a_claim_of_what_cannot_be_read_any_more_is_lost(self) -> None:
        row = Row(job())
        claim = claimed(row)
        row.job = UNREADABLE
        assert row.settle(ended(claim), NOW, 3, Written()) == CLAIM_LOST


@pytest.mark.parametrize("part", [{"token": 6}, {"worker": "v"}])
def test_the_fence_is_token_and_worker(part: dict[str, Any]) -> None:
    row = Row(job())
    stale = evolve(claimed(row), **part)
    before = evolve(row)
    assert row.renew(Renewal(stale), LATER, LEASE) is None
    assert not row.release(stale, NOW, Written())
    assert row.settle(ended(stale), NOW, 2, Written()) == CLAIM_LOST
    assert row == before


def test_only_what_has_expired_and_is_not_held_may_be_deleted() -> None:
    over = evolve(job().standing, scheduled=None, due_at=None, expires_at=LATER)
    row = Row(evolve(job(), standing=over))
    assert not row.has_expired(NOW)
    assert row.has_expired(LATER)
    row.hold = held().hold
    assert not row.has_expired(LATER)
