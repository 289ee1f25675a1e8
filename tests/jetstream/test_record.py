"""The bytes of a record."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from sched_core import Job, JobSpec, LostClaim, Once, Standing, State, Undecodable
from sched_jetstream.record import (
    Held,
    Hold,
    Record,
    Released,
    apart_of,
    decode,
    definition_of,
    encode,
    held_claim,
    record_of,
    remember,
)
from sched_testkit import strategies

NOW = datetime(2031, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 -- as it wants them
losses = st.builds(LostClaim, st.integers(1, 99), st.none() | st.text(max_size=9), moments)
helds = st.builds(
    Held,
    st.text(max_size=9),
    st.integers(1, 99),
    st.integers(0, 9),
    st.none() | moments,
    st.booleans(),
    st.none() | st.timedeltas(timedelta(0), timedelta(days=400)),
)
holds = st.builds(
    Hold,
    st.integers(0, 2**63),
    st.text(max_size=40),
    moments,
    moments,
    st.none() | losses,
    st.none() | helds,
)


@st.composite
def records(draw: Any) -> Record:
    job: Job = draw(strategies.jobs())
    return Record(
        job.id,
        evolve(job, revision=draw(st.integers(1, 2**60))),
        definition_of(job.spec),
        draw(st.none() | holds),
        draw(st.none() | st.tuples(st.integers(0, 2**60), st.text(max_size=9))),
        draw(st.none() | st.builds(Released, st.text(max_size=9), st.integers(1, 9), losses)),
        draw(st.none() | st.text("abc", min_size=1)),
        draw(st.integers(0, 99)),
    )


def text_of(record: Record) -> bytes | None:
    return None if record.definition is None else record.definition.text.encode()


@pytest.mark.parametrize(
    "changed",
    [
        {"uid": None},
        {"declared": "yes"},
        {"anchor": "9999-12-31T23:59:59-14:00"},
        {"anchor": 1_700_000_000},
        {"standing": []},
        {"standing": {"state": "deferred", "number": 1}},
        {"standing": {"state": "active", "number": "many"}},
        {"standing": {"state": "active", "number": 2**60}},
        {"standing": {"state": "active", "number": 1, "attempts": -1}},
        {"standing": {"state": "active", "number": 1, "due_at": "10000-01-01T00:00:00Z"}},
        {"standing": {"state": "active", "number": 1, "mood": "a field of the next version"}},
        {"hold": {"token": 1, "at": "2031-01-01T00:00:00Z", "until": "2031-01-01T00:00:00Z"}},
        {"hold": {"token": 1, "worker": None, "at": "2031-01-01T00:00:00Z", "until": "soon"}},
        {"hold": "somebody"},
        {"ended": [1]},
        {"released": {}},
        {"closed": None},
        {"schedule": 5},
        {"deeper": [[[]]]},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_undecodable_and_never_half_a_job(changed: dict[str, Any]) -> None:
    record = record_of(
        Job(
            JobSpec("job", Once(NOW)),
            "u",
            declared=False,
            anchor=NOW,
            standing=Standing(State.ACTIVE, 1, NOW, NOW),
        )
    )
    first, _, definition = encode(record).partition(b"\n")
    body = json.dumps(json.loads(first) | changed, separators=(",", ":")).encode()
    found = decode(body + b"\n" + definition, 7, "job")
    assert isinstance(found, Undecodable)
    assert (found.id, found.record) == ("job", body + b"\n" + definition)
    assert found.reason


def test_an_id_that_no_subject_can_have_is_undecodable() -> None:
    body = b'{"format":1,"tag":"once","id":"\\udcff"}'
    found = decode(body, 7, "job")
    assert isinstance(found, Undecodable)
    assert found.id == "job"


@given(records())
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    body = encode(record)
    definition = text_of(record) if apart_of(body) else None
    assert decode(body, 7, None, definition) == record


@given(records())
def test_the_first_line_is_json_and_begins_with_its_header(record: Record) -> None:
    fields = json.loads(encode(record).split(b"\n")[0])
    assert list(fields)[:3] == ["format", "tag", "id"]


BLANK = Record("\xa0", None)


@given(records(), st.integers(0, 10**6), st.integers(0, 255))
@example(BLANK, encode(BLANK).index("\xa0".encode()), 1)  # no UTF-8 any more
@example(BLANK, encode(BLANK).index("\xa0".encode()), ord("\\"))  # no JSON, either
def test_a_damaged_record_is_undecodable_and_nothing_else(
    record: Record, place: int, byte: int
) -> None:
    body = bytearray(encode(record))
    body[place % len(body)] = byte
    found = decode(bytes(body), 7, record.id, text_of(record))
    assert isinstance(found, Record | Undecodable)


def test_a_revision_that_was_left_open_is_the_sequence() -> None:
    job = Job(JobSpec("a", Once(NOW)), "uid", False, NOW, strategies_standing())
    found = decode(encode(Record("a", job, definition_of(job.spec))), 42, "a")
    assert isinstance(found, Record)
    assert found.job is not None
    assert found.job.revision == 42


def test_a_newer_format_is_shown_with_its_header_and_bytes() -> None:
    body = b'{"format":99,"tag":"x","id":"a","whatever":[]}'
    found = decode(body, 1, "a")
    assert isinstance(found, Undecodable)
    assert (found.id, found.format, found.tag, found.record) == ("a", 99, "x", body)


def test_what_somebody_else_wrote_is_undecodable() -> None:
    for body in (b"hello", b"{}", b'{"id":"a"}', b"\xff"):
        found = decode(body, 1, "a")
        assert isinstance(found, Undecodable)
        assert found.id == "a"


def test_a_hold_remembers_what_it_holds_when_the_job_is_edited() -> None:
    job = Job(JobSpec("a", Once(NOW)), "uid", False, NOW, strategies_standing())
    record = Record("a", job, definition_of(job.spec), Hold(5, "w", NOW, NOW + timedelta(1)))
    before = held_claim(record)
    hold = remember(record)
    moved = evolve(job, uid="other", standing=evolve(job.standing, number=9))
    after = held_claim(evolve(record, job=moved, hold=hold))
    assert before is not None
    assert after is not None
    assert (after.job.uid, after.job.standing.number) == ("uid", 1)
    assert (after.token, after.worker, after.attempt) == (before.token, "w", before.attempt)


def strategies_standing() -> Any:
    from sched_core import Standing, State

    return Standing(State.ACTIVE, 1, NOW, NOW)
