"""What cannot be read says so, and says what it can."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from sched_core import (
    Execution,
    Hold,
    Job,
    JobSpec,
    Kind,
    Once,
    Pending,
    Standing,
    Status,
    UndecodableExecution,
    codec,
)

NOW = datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)
EXECUTION = Execution(
    *("u:1:1", "job", "u", 1, 1, Kind.SCHEDULED, NOW, Status.SUCCEEDED, True),
    *(1, "worker", NOW, NOW, NOW),
)


@pytest.mark.parametrize(
    ("changed", "known"),
    [
        ({"status": "deferred"}, True),
        ({"host": "a field of the next version"}, True),
        ({"claimed_at": "10000-01-01T00:00:00Z"}, True),
        ({"scheduled_at": "0001-01-01T00:00:00+14:00"}, True),
        ({"number": None}, True),
        ({"final": 1}, True),
        ({"kind": "somehow"}, True),
        ({"finished_at": "9999-12-31T23:59:59-14:00"}, False),
        ({"finished_at": 1_700_000_000}, False),
        ({"finished_at": None}, False),
    ],
    ids=str,
)
def test_an_execution_that_cannot_be_read_tells_what_it_can(
    changed: dict[str, Any], known: bool
) -> None:
    body = json.dumps(json.loads(codec.encode_execution(EXECUTION)) | changed).encode()
    found = codec.read_execution(body, "record 5")
    assert isinstance(found, UndecodableExecution)
    assert (found.id, found.job_id, found.record) == ("u:1:1", "job", body)
    assert found.finished_at == (NOW if known else None)
    assert found.reason


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff", b"[1]", b"null", b'{"id":', b"[" * 100_000, b'{"id":"\\udcff"}'],
    ids=repr,
)
def test_bytes_that_are_none_have_the_name_that_its_store_gives_it(body: bytes) -> None:
    found = codec.read_execution(body, "record 5", "job")
    assert isinstance(found, UndecodableExecution)
    assert (found.id, found.job_id, found.record) == ("record 5", "job", body)
    assert (found.finished_at, found.expires_at) == (None, None)


def test_an_execution_that_can_be_read_is_one() -> None:
    assert codec.read_execution(codec.encode_execution(EXECUTION), "record 5") == EXECUTION


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("cron", ""),
        ("cron", "{"),
        ("cron", "[]"),
        ("cron", "{}"),
        ("cron", '{"expression":"0 0 31 2 *"}'),
        ("cron", '{"expression":"* * * * *","tz":"Mars/Olympus"}'),
        ("cron", '{"expression":"* * * * *","dst":{}}'),
        ("cron", '{"expression":"* * * * *","later":1}'),
        ("interval", '{"every":0}'),
        ("interval", '{"every":true}'),
        ("interval", '{"every":NaN}'),
        ("interval", '{"every":1e400}'),
        ("interval", '{"every":60,"start":"2026-01-01T00:00:00"}'),
        ("interval", "[" * 100_000),
        ("once", '{"at":"2026-01-01T00:00:00"}'),
        ("once", '{"at":"tomorrow"}'),
        ("once", '{"at":1}'),
        ("once", '{"at":"2026-01-01T00:00:00Z","x":1}'),
        ("once", '{"at":"'),
    ],
)
def test_malformed_schedules_are_refused(tag: str, text: str) -> None:
    with pytest.raises(codec.Malformed):
        codec.decode_schedule(tag, text)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '"x"',
        '{"later":1}',
        '{"max_lost":0}',
        '{"max_lost":"5"}',
        '{"max_lost":true}',
        '{"overlap":"wait"}',
        '{"overlap":null}',
        '{"max_snoozes":-1}',
        '{"pause_after":0}',
        '{"pause_after":"2"}',
        '{"keep_executions":"later"}',
        '{"misfire":{"kind":"catch_up","window":-1}}',
        '{"misfire":{"kind":"later"}}',
        '{"misfire":{}}',
        '{"misfire":{"kind":"drop"}}',
        '{"retry":{"factor":NaN}}',
        '{"retry":{"jitter":2}}',
        '{"timeout":-1}',
        '{"timeout":"1:00"}',
    ],
)
def test_malformed_policies_are_refused(text: str) -> None:
    with pytest.raises(codec.Malformed, match="policy"):
        codec.decode_policy(text)


@pytest.mark.parametrize("text", ["[]", '{"a":1}', "{", '{"a":null}'])
def test_malformed_metadata_is_refused(text: str) -> None:
    with pytest.raises(codec.Malformed, match="metadata"):
        codec.decode_metadata(text)


def test_malformed_jobs_claims_and_executions_are_refused() -> None:
    standing = Standing(1, Pending(1, NOW, NOW), NOW)
    record = codec.encode_job(Job(JobSpec("a", Once(NOW)), "u", False, NOW, standing))
    body: dict[str, Any] = json.loads(record.body)
    wrong: tuple[dict[str, Any], ...] = (
        {"id": ""},
        {"uid": 1},
        {"anchor": None},
        {"standing": {}},
        {"standing": {"last_number": 1, "scheduled": None}},
        {"standing": {"last_number": 1, "scheduled": {"number": 1}, "due_at": None}},
        {"standing": {"last_number": 1, "scheduled": None, "due_at": None, "held": 1}},
        {"revision": 1.0},
        {"more": 1},
        {"schedule": {"every": 1}},
        {"metadata": {"a": 1}},
    )
    for changed in wrong:
        broken = record._replace(body=json.dumps(body | changed).encode())
        with pytest.raises(codec.Malformed):
            codec.decode_job(broken)
    for broken in (
        record._replace(format=1),
        record._replace(format=3),
        record._replace(tag="lunar"),
        record._replace(body=b"\xff"),
    ):
        with pytest.raises(codec.Malformed):
            codec.decode_job(broken)
    with pytest.raises(codec.Malformed):
        codec.decode_execution(b"{}")
    claim = codec.encode_hold(Hold("a", "u", 1, "w", NOW, NOW, NOW, None, None))
    for broken in (
        claim._replace(format=1),
        claim._replace(body=b"{}"),
        claim._replace(body=claim.body.replace(b'"token":1', b'"token":true')),
    ):
        with pytest.raises(codec.Malformed):
            codec.decode_hold(broken)
