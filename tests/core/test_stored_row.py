"""A row as a value to store: exact both ways, and what cannot be read stays as it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sched_core import (
    Hold,
    Interval,
    JobSpec,
    Undecodable,
)
from sched_core._rules import define
from sched_core.codec import FORMAT, Record
from sched_core.row import Row
from sched_testkit import strategies


@st.composite
def rows(draw: st.DrawFn) -> Row:
    optional = st.none() | strategies.moments()
    holds = st.builds(
        Hold,
        strategies.texts(),
        strategies.texts(),
        st.integers(1, 2**53),
        strategies.texts(),
        strategies.moments(),
        strategies.moments(),
        strategies.moments(),
        st.none() | strategies.pendings(),
        st.none() | strategies.durations(),
        optional,
    )
    settled = st.none() | st.tuples(st.integers(1, 9), strategies.texts())
    return Row(draw(st.none() | strategies.jobs()), draw(st.none() | holds), draw(settled))


@given(rows())
def test_a_row_survives_being_stored(row: Row) -> None:
    if row.is_empty():
        with pytest.raises(ValueError, match="deleted"):
            row.encode()
        return
    assert Row.decode("a", row.encode()) == row


NOW = datetime(2026, 1, 1, tzinfo=UTC)
JOB = define.admit(JobSpec("a", Interval(hours=1)), uid="u", declared=False, now=NOW)
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
    record = Row(JOB).encode()
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
