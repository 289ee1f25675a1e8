"""What calls of the port do to one stored row, apart from any backend.

The laws of the testkit examine the same through the backend in memory; here is what they cannot
see: that refused calls leave the row as it was, and that a row survives being stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sched_core import (
    Claim,
    Execution,
    Interval,
    Job,
    JobAlreadyExists,
    JobNotFound,
    JobSpec,
    JobUndecodable,
    LostClaim,
    RevisionConflict,
    Settled,
    Settlement,
    Undecodable,
    lifecycle,
)
from sched_core.clock import LAST
from sched_core.codec import FORMAT, Record, decode_claim, encode_claim
from sched_core.job import State, Status, superseded_line
from sched_core.lifecycle import admit
from sched_core.row import Row
from sched_testkit import strategies

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=30)


class Lines:
    """A ledger for one test."""

    def __init__(self) -> None:
        self.lines: list[Execution] = []

    def line(self, line_id: str) -> Execution | None:
        return next((line for line in self.lines if line.id == line_id), None)

    def has_final(self, uid: str, number: int) -> bool:
        return any(
            (line.uid, line.number, line.final) == (uid, number, True) for line in self.lines
        )

    def append(self, line: Execution) -> None:
        self.lines.append(line)

    def statuses(self) -> list[str]:
        return [line.status.value for line in self.lines]


def job(uid: str = "u") -> Job:
    spec = JobSpec("a", Interval(hours=1))
    admitted = admit(spec, uid=uid, declared=False, now=NOW)
    return evolve(admitted, standing=evolve(admitted.standing, due_at=NOW), revision=1)


def moved_on(stored: Job) -> Job:
    return evolve(stored, standing=evolve(stored.standing, number=stored.standing.number + 1))


def claimed(row: Row, token: int = 7, ledger: Lines | None = None) -> Claim:
    claim = row.claim(token, "w", NOW, LATER, ledger or Lines())
    assert claim is not None
    return claim


def held() -> Row:
    row = Row(job())
    claimed(row)
    return row


UNREADABLE = Undecodable("a", "format 99", 99, b"{}", "lunar")

REFUSED: list[tuple[type[Exception], Row, Callable[[Row, Lines], object]]] = [
    (JobAlreadyExists, Row(job()), lambda row, to: row.add(job("other"), 2)),
    (JobAlreadyExists, Row(UNREADABLE), lambda row, to: row.add(job(), 2)),
    (JobNotFound, Row(), lambda row, to: row.replace(job(), [], 2, to)),
    (RevisionConflict, held(), lambda row, to: row.replace(evolve(job(), revision=9), [], 2, to)),
    (JobUndecodable, Row(UNREADABLE), lambda row, to: row.replace(job(), [], 2, to)),
    (RevisionConflict, held(), lambda row, to: row.remove("a", [], 9, to)),
    (JobUndecodable, Row(UNREADABLE), lambda row, to: row.remove("a", [], None, to)),
]


@pytest.mark.parametrize(("error", "row", "call"), REFUSED)
def test_what_is_refused_changes_nothing(
    error: type[Exception], row: Row, call: Callable[[Row, Lines], object]
) -> None:
    before, ledger = evolve(row), Lines()
    with pytest.raises(error):
        call(row, ledger)
    assert row == before
    assert ledger.lines == []


def test_a_repeated_add_returns_what_stands() -> None:
    row = Row(moved_on(job()))
    assert row.add(job(), 2) is row.job


@pytest.mark.parametrize("edit", ["replace", "remove"])
def test_lines_about_what_is_held_are_left_to_the_end_of_the_claim(edit: str) -> None:
    row, ledger = held(), Lines()
    assert row.hold is not None
    own = superseded_line(row.hold, NOW)
    other = evolve(own, number=9, id="u:9:0")
    if edit == "replace":
        row.replace(job(), [own, other], 2, ledger)
    else:
        row.remove("a", [own, other], 1, ledger)
    assert ledger.lines == [other]
    assert row.hold is not None


TICK = timedelta(microseconds=1)


def due_at(moment: datetime | None) -> Job:
    stored = job()
    return evolve(stored, standing=evolve(stored.standing, due_at=moment))


def removed() -> Row:
    row = held()
    row.remove("a", [], None, Lines())
    return row


def put_off() -> Row:
    row = held()
    row.replace(due_at(LATER + timedelta(hours=1)), [], 2, Lines())
    return row


def paused() -> Row:
    row = held()
    row.replace(due_at(None), [], 2, Lines())
    return row


@pytest.mark.parametrize(
    ("row", "now"),
    [
        (Row(), LATER),
        (Row(job()), NOW - TICK),
        (Row(due_at(None)), LATER),
        (Row(UNREADABLE), LATER),
        (held(), LATER - TICK),
        (removed(), LATER - TICK),
        (put_off(), LATER),
        (paused(), LATER + timedelta(days=999)),
    ],
    ids=["empty", "early", "never", "unreadable", "held", "removed", "put-off", "paused"],
)
def test_what_is_not_due_or_held_by_a_living_claim_is_not_handed_out(
    row: Row, now: datetime
) -> None:
    before, ledger = evolve(row), Lines()
    assert not row.is_due(now)
    assert row.claim(8, "v", now, now + timedelta(seconds=30), ledger) is None
    assert row == before
    assert ledger.lines == []


def test_rows_that_are_due_are_ordered_by_due_at_lost_or_not() -> None:
    assert Row(job()).place_in_queue() == NOW == held().place_in_queue()
    assert removed().place_in_queue() == LATER
    assert Row().place_in_queue() == Row(due_at(None)).place_in_queue() == LAST


def test_a_tombstone_is_cleared_by_a_claim() -> None:
    row, ledger = held(), Lines()
    row.remove("a", [], None, ledger)
    assert not row.is_empty()
    assert row.due() == LATER
    assert row.claim(8, "v", LATER, LATER, ledger) is None
    assert row.is_empty()
    assert ledger.statuses() == ["abandoned", "superseded"]


def test_what_a_released_takeover_had_lost_counts_on() -> None:
    row, ledger = held(), Lines()
    second = row.claim(8, "v", LATER, LATER, ledger)
    assert second is not None
    assert row.release(second, LATER, ledger)
    assert claimed(row, 9).lost == LostClaim(1, "w", NOW)


def test_what_a_released_takeover_had_lost_ends_with_its_occurrence() -> None:
    row, ledger = held(), Lines()
    second = row.claim(8, "v", LATER, LATER, ledger)
    assert second is not None
    assert row.release(second, LATER, ledger)
    row.replace(moved_on(job()), [], 2, ledger)
    assert claimed(row, 9).lost is None


def settlement(claim: Claim, **changes: Any) -> Settlement:
    done = evolve(superseded_line(claim, NOW), id=f"u:{claim.job.standing.number}:1", attempt=1)
    line = evolve(done, status=Status.SUCCEEDED)
    standing = evolve(claim.job.standing, number=claim.job.standing.number + 1)
    return evolve(Settlement(claim, claim.job.revision, standing, (line,)), **changes)


def test_a_settlement_ends_the_claim() -> None:
    row, ledger = Row(job()), Lines()
    first = settlement(claimed(row))
    assert row.settle(first, 2, ledger).outcome == "written"
    after = evolve(row)
    assert after.hold is None
    assert row.readable("a").revision == 2
    assert row.settle(first, 3, ledger).outcome == "written"
    assert row == after
    assert ledger.statuses() == ["succeeded"]


@pytest.mark.parametrize("part", [{"token": 6}, {"worker": "v"}])
def test_the_fence_is_token_and_worker(part: dict[str, Any]) -> None:
    row = held()
    before = evolve(row)
    assert row.hold is not None
    stale = evolve(row.hold, **part)
    assert row.renew(stale, LATER) is None
    assert not row.release(stale, NOW, Lines())
    assert row.settle(settlement(stale), 2, Lines()).outcome == "claim_lost"
    assert row == before


def test_only_what_has_expired_and_is_not_held_may_be_deleted() -> None:
    ended = evolve(job().standing, state=State.FINISHED, expires_at=LATER)
    row = Row(evolve(job(), standing=ended))
    assert not row.has_expired(NOW)
    assert row.has_expired(LATER)
    claimed(row)
    assert not row.has_expired(LATER)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    stored = draw(st.none() | strategies.jobs())
    lost = st.builds(
        LostClaim,
        st.integers(1, 9),
        st.none() | st.text(max_size=5),
        st.none() | strategies.moments(),
    )
    claims = st.builds(
        Claim,
        strategies.jobs(),
        st.integers(1, 2**53),
        strategies.texts(),
        strategies.moments(),
        strategies.moments(),
        st.none() | lost,
    )
    ended = st.none() | st.tuples(st.integers(1, 9), strategies.texts())
    return Row(stored, draw(st.none() | claims), draw(ended), draw(st.none() | claims))


@given(rows())
def test_a_row_survives_being_stored(row: Row) -> None:
    if row.is_empty():
        with pytest.raises(ValueError, match="deleted"):
            row.encode()
        return
    record = row.encode()
    assert Row.decode("a", record) == row
    if row.hold is not None:
        assert decode_claim(encode_claim(row.hold)) == row.hold


NEWER = Record(FORMAT + 1, "interval", b"\x00 whatever")
STRANGE = Record(FORMAT, "lunar", b"{}")


@pytest.mark.parametrize("record", [NEWER, STRANGE])
def test_what_cannot_be_read_is_stored_again_as_it_was(record: Record) -> None:
    row = Row.decode("a", record)
    assert isinstance(row.job, Undecodable)
    assert row.due() is None
    assert not row.is_empty()
    assert row.encode() == record


def test_a_malformed_body_is_not_read_by_halves() -> None:
    record = Row(job()).encode()
    parts = json.loads(record.body)
    parts["job"][2] = parts["job"][2].replace('"anchor"', '"ankor"')
    row = Row.decode("a", record._replace(body=json.dumps(parts).encode()))
    assert isinstance(row.job, Undecodable)
    assert "ankor" in row.job.reason


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b"{}", b'{"job": 5, "hold": null}'], ids=repr
)
def test_bytes_that_are_no_row_are_kept_as_they_are(body: bytes) -> None:
    record = Record(FORMAT, "interval", body)
    row = Row.decode("a", record)
    assert isinstance(row.job, Undecodable)
    assert row.job.reason
    assert row.encode() == record


def test_an_edit_between_a_decision_and_its_write_is_noticed() -> None:
    """It leaves the line of what is held to the claim, whose end must not be written without it."""
    lines = Lines()
    row = Row(admit(JobSpec("job", Interval(hours=1)), uid="u", declared=False, now=NOW))
    due = NOW + timedelta(hours=1)
    claim = row.claim(1, "worker", due, due + timedelta(seconds=30), lines)
    assert claim is not None
    paused = lifecycle.pause(claim.job, until=None, reason=None, now=due)
    paused = row.replace(paused, (), 2, lines)
    handed_back = lifecycle.postpone(claim, until=due, now=due, stored=paused)

    spec = evolve(paused.spec, schedule=Interval(hours=2))
    change = lifecycle.redefine(paused, spec, now=due)
    assert change is not None
    edited = row.replace(change.job, change.ledger, 3, lines)

    late = Settlement(claim, paused.revision, handed_back.standing, handed_back.ledger)
    assert row.settle(late, 4, lines) == Settled("conflict", edited)
    again = lifecycle.postpone(claim, until=due, now=due, stored=edited)
    assert row.settle(Settlement(claim, None, again.standing, again.ledger), 5, lines) == Settled(
        "written"
    )
    assert lines.statuses() == ["superseded"]
