"""The bytes of a record."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve, fields
from hypothesis import example, given
from hypothesis import strategies as st

from sched_core import (
    CancelMark,
    Gap,
    Hold,
    Job,
    JobSpec,
    Kind,
    Once,
    Pause,
    Pending,
    Policy,
    Progress,
    Standing,
    Status,
    Undecodable,
)
from sched_core.row import current, held, kept
from sched_jetstream._model.record import Record, definition_of, record_of
from sched_jetstream._model.record_codec import apart_of, decode, encode
from sched_jetstream._model.standing import (
    decode_hold,
    decode_pending,
    decode_standing,
    encode_hold,
    encode_pending,
    encode_standing,
)
from sched_testkit import strategies

NOW = datetime(2031, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LEASE = timedelta(seconds=30)
moments = strategies.moments()
keeps = st.none() | st.timedeltas(timedelta(0), timedelta(days=400))
numbers = st.integers(0, 2**53)
pendings = st.builds(
    Pending,
    numbers,
    moments,
    moments,
    st.sampled_from(Kind),
    numbers,
    numbers,
    numbers,
    numbers,
    st.none() | moments,
    numbers,
    st.none() | moments,
    st.none() | st.text(max_size=9),
    numbers,
    st.none() | moments,
    st.none() | strategies.metadata(),
)
amounts = st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 2**53)
progresses = st.builds(
    Progress, amounts, st.none() | amounts, st.none() | st.text(max_size=9), st.none() | moments
)


@st.composite
def records(draw: Any) -> Record:
    job: Job = draw(strategies.jobs())
    job = evolve(job, revision=draw(st.integers(1, 2**60)), held=None, held_at=None)
    spec = evolve(job.spec, queue=draw(st.sampled_from(("default", "bulk", "häufig"))))
    job = evolve(job, spec=spec)
    return Record(
        job.id,
        job,
        definition_of(job.spec),
        draw(st.none() | holds(job)),
        draw(st.none() | st.tuples(st.integers(0, 2**60), st.text(max_size=9))),
        draw(st.none() | st.text("abc", min_size=1)),
        draw(st.integers(0, 99)),
    )


@st.composite
def holds(draw: Any, job: Job) -> Hold:
    """A claim of what the job is at now, or of what it was at once."""
    own = (job.uid, current(job.standing), kept(job.spec.policy))
    uid, one, keep = draw(
        st.just(own) | st.tuples(st.text(max_size=9), st.none() | pendings, keeps)
    )
    token, worker = draw(st.integers(0, 2**63)), draw(st.text(max_size=40))
    at, renewed, until = draw(moments), draw(moments), draw(moments)
    alone = draw(st.none() | moments)
    queue = draw(st.sampled_from((job.spec.queue, "default", "another")))
    progress = draw(st.none() | progresses)
    return Hold(job.id, uid, token, worker, at, renewed, until, one, keep, alone, queue, progress)


ONE = {"n": 1, "at": "2031-01-01T00:00:00Z"}
HOLD = {"token": 1, "worker": "w", "at": ONE["at"], "until": ONE["at"]}


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
        {"standing": {"scheduled": {"n": 1, "at": "2031-01-01T00:00:00Z"}}},
        {"standing": {"last": "many"}},
        {"standing": {"last": 2**60}},
        {"standing": {"last": 1, "scheduled": {"n": 1}}},
        {"standing": {"last": 1, "scheduled": {"n": 1, "at": "2031-01-01", "attempts": 1}}},
        {"standing": {"last": 1, "scheduled": ONE | {"attempts": -1}}},
        {"standing": {"last": 1, "scheduled": ONE | {"kind": "whim"}}},
        {"standing": {"last": 1, "scheduled": ONE | {"args": {"a": 1}}}},
        {"standing": {"last": 1, "scheduled": ONE | {"mood": "a field of the next version"}}},
        {"standing": {"last": 1, "scheduled": ONE, "due": "10000-01-01T00:00:00Z"}},
        {"standing": {"last": 1, "requests": [{}]}},
        {"standing": {"last": 1, "pause": {"since": "2031-01-01T00:00:00Z"}}},
        {"standing": {"last": 1, "gaps": [["2031-01-01T00:00:00Z"]]}},
        {"standing": {"last": 1, "cancels": ["1"]}},
        {"standing": {"last": 1, "mood": "a field of the next version"}},
        {"hold": {"token": 1, "at": "2031-01-01T00:00:00Z", "until": "2031-01-01T00:00:00Z"}},
        {"hold": {"token": 1, "worker": None, "at": "2031-01-01T00:00:00Z", "until": "soon"}},
        {"hold": HOLD | {"was": {"uid": "u", "keep": None}}},
        {"hold": HOLD | {"mood": "a field of the next version"}},
        {"hold": "a worker"},
        {"hold": HOLD | {"queue": None}},
        {"hold": HOLD | {"progress": {"done": True}}},
        {"hold": HOLD | {"progress": {"done": 1, "of": "many"}}},
        {"hold": HOLD | {"progress": {"of": 1}}},
        {"queue": None},
        {"queue": "*"},
        {"queue": ""},
        {"ended": [1]},
        {"doubtful": None},
        {"doubtful": -1},
        {"closed": 5},
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
            standing=standing(),
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
    job = Job(JobSpec("a", Once(NOW)), "uid", False, NOW, standing())
    found = decode(encode(Record("a", job, definition_of(job.spec))), 42, "a")
    assert isinstance(found, Record)
    assert found.job is not None
    assert found.job.revision == 42


def test_what_is_as_ever_costs_nothing_and_stays_readable_by_older_versions() -> None:
    job = Job(JobSpec("a", Once(NOW), queue="bulk"), "uid", False, NOW, standing())
    hold = held(job, current(job.standing), 5, "w", NOW, LEASE)
    body = encode(Record("a", job, definition_of(job.spec), hold))
    assert body.count(b'"queue"') == 1, "the hold repeats what the job says"
    job = evolve(job, spec=evolve(job.spec, queue="default"))
    hold = evolve(hold, queue="default")
    assert b"queue" not in encode(Record("a", job, definition_of(job.spec), hold))


def test_a_newer_format_is_shown_with_its_header_and_bytes() -> None:
    body = b'{"format":99,"tag":"x","id":"a","whatever":[]}'
    found = decode(body, 1, "a")
    assert isinstance(found, Undecodable)
    assert (found.id, found.format, found.tag, found.record) == ("a", 99, "x", body)


def test_what_another_program_wrote_is_undecodable() -> None:
    for body in (b"hello", b"{}", b'{"id":"a"}', b"\xff"):
        found = decode(body, 1, "a")
        assert isinstance(found, Undecodable)
        assert found.id == "a"


def test_a_hold_remembers_what_it_holds_when_the_job_is_edited() -> None:
    job = Job(JobSpec("a", Once(NOW)), "uid", False, NOW, standing())
    hold = held(job, current(job.standing), 5, "w", NOW, LEASE)
    record = Record("a", job, definition_of(job.spec), hold)
    assert b'"was"' not in encode(record), "what the job says already is written twice"
    policy = Policy(keep_executions=timedelta(1))
    for edited in (
        evolve(job, uid="other"),
        evolve(job, standing=evolve(job.standing, scheduled=Pending(9, NOW, NOW))),
        evolve(job, standing=evolve(job.standing, scheduled=None)),
        evolve(job, spec=evolve(job.spec, policy=policy)),
        evolve(job, standing=evolve(job.standing, pause=Pause(NOW, 1))),
        None,
    ):
        definition = None if edited is None else definition_of(edited.spec)
        body = encode(evolve(record, job=edited, definition=definition))
        found = decode(body, 7, "a")
        assert isinstance(found, Record)
        assert found.hold == hold


@given(strategies.standings())
def test_a_standing_is_read_as_it_was_written(it: Standing) -> None:
    """Also one that no decision makes: its due moment is what it says."""
    assert decode_standing(json.loads(json.dumps(encode_standing(it)))) == it


ALL: dict[type, dict[str, Any]] = {
    Pending: {
        "number": 7,
        "scheduled_at": NOW,
        "due_at": NOW + LEASE,
        "kind": Kind.BACKFILLED,
        "attempts": 1,
        "failures": 2,
        "lost": 3,
        "snoozes": 4,
        "began_at": NOW,
        "coalesced": 5,
        "coalesced_until": NOW,
        "key": "k",
        "origin": 6,
        "until": NOW,
        "args": {"a": "b"},
        "derived_from": "tz 1",
        "retry_at": NOW + LEASE,
        "actor": "who",
        "moments": (NOW, NOW + LEASE),
    },
    Standing: {
        "last_number": 8,
        "scheduled": Pending(7, NOW, NOW),
        "due_at": NOW + LEASE,
        "requests": (Pending(8, NOW, NOW, Kind.TRIGGERED),),
        "pause": Pause(NOW, 3, NOW + LEASE, "why", "who"),
        "gaps": (Gap(NOW, NOW + LEASE),),
        "spare": NOW,
        "skip": NOW,
        "cancels": (CancelMark(1), CancelMark(2, "why", "who")),
        "skip_actor": "who",
        "failing": 3,
        "last_scheduled_at": NOW,
        "last_finished_at": NOW,
        "last_status": Status.CANCELLED,
        "expires_at": NOW,
    },
    Hold: {
        "job_id": "a",
        "uid": "u",
        "token": 5,
        "worker": "w",
        "claimed_at": NOW,
        "renewed_at": NOW + LEASE,
        "expires_at": NOW + 2 * LEASE,
        "pending": Pending(7, NOW, NOW),
        "keep": LEASE,
        "alone_at": NOW,
        "queue": "bulk",
        "progress": Progress(1.5, 2.0, "halfway", NOW),
        "cancel": CancelMark(7, "why", "who"),
    },
}
"""A value for each field, that no record leaves out."""


@pytest.mark.parametrize("kind", ALL)
def test_every_field_is_kept(kind: type) -> None:
    """Also those that the core gets after this was written."""
    whole = kind(**ALL[kind])
    assert {each.name for each in fields(kind)} == set(ALL[kind]), "a field is not kept"
    assert not [each for each in fields(kind) if getattr(whole, each.name) == each.default]
    parts = [len(fields(part)) for part in (Pause, Gap, CancelMark, Progress)]
    assert parts == [5, 2, 3, 4], "a field is not kept"
    if isinstance(whole, Pending):
        assert decode_pending(json.loads(json.dumps(encode_pending(whole)))) == whole
    elif isinstance(whole, Standing):
        assert decode_standing(json.loads(json.dumps(encode_standing(whole)))) == whole
    else:
        assert decode_hold(json.loads(json.dumps(encode_hold(whole, None))), "a", None) == whole


def standing() -> Standing:
    return Standing(1, Pending(1, NOW, NOW), NOW)
