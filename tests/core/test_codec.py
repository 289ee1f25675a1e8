"""Values ⇄ versioned JSON: exact both ways, and what cannot be read says so."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from sched_core import codec
from sched_core.errors import InvalidDefinition
from sched_core.job import Backlog, Execution, Job, JobSpec, Standing, State, Status
from sched_core.policy import Coalesce, Drop, Policy, Retry, RunAll
from sched_core.ports import UndecodableExecution
from sched_core.schedule import Cron, DstRule, FixedDelay, Interval, Once, Schedule

NOW = datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)
DEFAULT = Policy()

moments = st.datetimes(timezones=st.just(UTC))
durations = st.timedeltas(timedelta(0), timedelta.max)
positive = st.timedeltas(timedelta(microseconds=1), timedelta.max)
periods = st.timedeltas(timedelta(milliseconds=1), timedelta(days=36525))
whole = st.integers(0, 10**6)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1)
rules = st.builds(
    DstRule, st.sampled_from(["once-after", "skip"]), st.sampled_from(["first", "both", "last"])
)
schedules: st.SearchStrategy[Schedule] = st.one_of(
    st.builds(
        Cron,
        st.sampled_from(["0 3 * * *", "*/5 * * * *", "@daily", "0 0 29 2 *", "5 0 9 * * MON-FRI"]),
        st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
        rules | st.just("debian"),
    ),
    st.builds(Interval, periods, start=moments | st.none()),
    st.builds(FixedDelay, periods),
    st.builds(Once, moments),
)
policies = st.builds(
    Policy,
    misfire=st.one_of(
        st.just(Coalesce()),
        st.builds(RunAll, st.integers(1, 10_000), positive),
        st.builds(Drop, positive),
    ),
    retry=st.builds(
        Retry,
        st.integers(1, 100),
        durations,
        st.floats(1, 1000),
        durations,
        st.floats(0, 1),
    ),
    timeout=positive | st.none(),
    jitter=durations,
    max_lost=st.integers(1, 100),
    keep_finished=durations | st.none(),
    keep_executions=durations | st.none(),
)
maybe = st.none() | moments
standings = st.builds(
    Standing,
    st.sampled_from(State),
    whole,
    maybe,
    maybe,
    triggered_at=maybe,
    attempts=whole,
    failures=whole,
    skipped_run=maybe,
    paused_until=maybe,
    pause_reason=st.none() | texts,
    last_scheduled_at=maybe,
    last_finished_at=maybe,
    last_status=st.none() | st.sampled_from(Status),
    expires_at=maybe,
    manual=st.booleans(),
    paused_at=maybe,
    backlog=st.none() | st.builds(Backlog, moments, whole, maybe, maybe),
)
jobs = st.builds(
    Job,
    st.builds(
        JobSpec,
        names,
        schedules,
        names | st.none(),
        st.dictionaries(texts, texts, max_size=3),
        policies,
        names | st.none(),
    ),
    names,
    st.booleans(),
    moments,
    standings,
    whole,
)
executions = st.builds(
    Execution,
    names,
    names,
    names,
    whole,
    moments,
    st.booleans(),
    whole,
    st.sampled_from(Status),
    st.booleans(),
    whole,
    texts,
    moments,
    maybe,
    moments,
    st.none() | texts,
    whole,
    maybe,
    maybe,
)


@given(jobs)
def test_a_job_comes_back_as_it_was(job: Job) -> None:
    record = codec.encode_job(job)
    assert codec.readable(record.format, record.tag) is None
    assert codec.decode_job(record) == job
    json.loads(record.body)


@given(executions)
def test_a_ledger_line_comes_back_as_it_was(line: Execution) -> None:
    assert codec.decode_execution(codec.encode_execution(line)) == line


LINE = Execution(
    *("u:1:1", "job", "u", 1, NOW, False, 1, Status.SUCCEEDED, True, 1, "worker", NOW, NOW, NOW)
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
        ({"finished_at": "9999-12-31T23:59:59-14:00"}, False),
        ({"finished_at": 1_700_000_000}, False),
        ({"finished_at": None}, False),
    ],
    ids=str,
)
def test_a_line_that_cannot_be_read_tells_what_it_can(changed: dict[str, Any], known: bool) -> None:
    body = json.dumps(json.loads(codec.encode_execution(LINE)) | changed).encode()
    found = codec.read_execution(body, "line 5")
    assert isinstance(found, UndecodableExecution)
    assert (found.id, found.job_id, found.record) == ("u:1:1", "job", body)
    assert found.finished_at == (NOW if known else None)
    assert found.reason


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff", b"[1]", b"null", b'{"id":', b"[" * 100_000, b'{"id":"\\udcff"}'],
    ids=repr,
)
def test_a_line_that_is_none_has_the_name_that_its_store_gives_it(body: bytes) -> None:
    found = codec.read_execution(body, "line 5", "job")
    assert isinstance(found, UndecodableExecution)
    assert (found.id, found.job_id, found.record) == ("line 5", "job", body)
    assert (found.finished_at, found.expires_at) == (None, None)


def test_a_line_that_can_be_read_is_one() -> None:
    assert codec.read_execution(codec.encode_execution(LINE), "line 5") == LINE


@given(schedules, policies)
def test_the_parts_of_a_definition_come_back(schedule: Schedule, policy: Policy) -> None:
    text = codec.encode_schedule(schedule)
    assert codec.decode_schedule(codec.tag_of(schedule), text) == schedule
    assert json.loads(text)
    assert codec.decode_policy(codec.encode_policy(policy)) == policy


@given(st.timedeltas())
def test_durations_are_exact(duration: timedelta) -> None:
    written = json.loads(json.dumps(codec.encode_duration(duration)))
    assert codec.decode_duration(written) == duration


@pytest.mark.parametrize(
    ("schedule", "tag", "text"),
    [
        (Cron("0  3 * * *"), "cron", '{"expression":"0 3 * * *"}'),
        (
            Cron("0 3 * * *", tz="Europe/Berlin", dst=DstRule("skip", "last")),
            "cron",
            '{"expression":"0 3 * * *","tz":"Europe/Berlin","dst":{"gap":"skip","fold":"last"}}',
        ),
        (Interval(hours=1), "interval", '{"every":3600}'),
        (
            Interval(milliseconds=1, start=NOW),
            "interval",
            '{"every":0.001,"start":"2026-02-28T23:59:59.999999Z"}',
        ),
        (FixedDelay(seconds=1.5), "fixed_delay", '{"every":1.5}'),
        (Once(NOW), "once", '{"at":"2026-02-28T23:59:59.999999Z"}'),
        (
            Once(datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))),
            "once",
            '{"at":"2026-01-01T00:00:00Z"}',
        ),
    ],
)
def test_what_is_stored_stays_readable_for_ever(schedule: Schedule, tag: str, text: str) -> None:
    """Change an expectation here only together with FORMAT."""
    assert (codec.tag_of(schedule), codec.encode_schedule(schedule)) == (tag, text)
    assert codec.decode_schedule(tag, text) == schedule


def test_what_is_left_out_is_the_default() -> None:
    assert codec.FORMAT == 1
    assert codec.encode_policy(DEFAULT) == codec.encode_metadata({}) == ""
    assert codec.decode_policy("") is codec.decode_policy(None)
    assert codec.decode_policy("{}") == DEFAULT
    policy = Policy(misfire=RunAll(3), timeout=timedelta(seconds=90), keep_finished=None)
    assert codec.encode_policy(policy) == (
        '{"misfire":{"kind":"run_all","limit":3},"timeout":90,"keep_finished":null}'
    )


def test_headers_say_what_can_be_read() -> None:
    assert codec.readable(1, "cron") is None
    assert "newer" in str(codec.readable(2, "cron"))
    assert "'lunar'" in str(codec.readable(1, "lunar"))
    assert "does not exist" in str(codec.readable(0, "cron"))
    assert set(codec.known_tags()) >= {"cron", "interval", "fixed_delay", "once"}


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


def test_malformed_jobs_and_lines_are_refused() -> None:
    standing = Standing(State.ACTIVE, 1, NOW, NOW)
    record = codec.encode_job(Job(JobSpec("a", Once(NOW)), "u", False, NOW, standing))
    body: dict[str, Any] = json.loads(record.body)
    wrong: tuple[dict[str, Any], ...] = (
        {"id": ""},
        {"uid": 1},
        {"anchor": None},
        {"standing": {}},
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
        record._replace(format=2),
        record._replace(tag="lunar"),
        record._replace(body=b"\xff"),
    ):
        with pytest.raises(codec.Malformed):
            codec.decode_job(broken)
    with pytest.raises(codec.Malformed):
        codec.decode_execution(b"{}")


@frozen
class Lunar:
    """A kind of somebody else."""

    phase: str

    def first(self, anchor: datetime) -> datetime | None:
        return anchor

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        return None


def test_other_kinds_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_KINDS", dict(codec._KINDS))
    monkeypatch.setattr(codec, "_TAGS", dict(codec._TAGS))
    with pytest.raises(InvalidDefinition, match="register"):
        codec.tag_of(Lunar("full"))
    codec.register("lunar", Lunar, lambda one: one.phase, Lunar)
    codec.register("lunar", Lunar, lambda one: one.phase, Lunar)
    assert codec.readable(1, "lunar") is None
    assert codec.decode_schedule("lunar", codec.encode_schedule(Lunar("full"))) == Lunar("full")
    standing = Standing(State.ACTIVE, 1, NOW, NOW)
    job = Job(JobSpec("a", Lunar("new")), "u", False, NOW, standing)
    assert codec.decode_job(codec.encode_job(job)) == job
    with pytest.raises(InvalidDefinition, match="registered already"):
        codec.register("cron", Lunar, lambda one: one.phase, Lunar)
    with pytest.raises(InvalidDefinition, match="registered already"):
        codec.register("other", Cron, lambda one: one.expression, Cron)
    codec.known_tags.cache_clear()


def test_the_usual_way_needs_no_converter() -> None:
    """To import cattrs takes as long as to import all the rest."""
    script = (
        "import sys; from sched_core import codec; from sched_core.schedule import Cron, Once;"
        "from sched_core.job import Policy;"
        "cron = Cron('0 3 * * *'); codec.decode_schedule('cron', codec.encode_schedule(cron));"
        "codec.decode_policy(codec.encode_policy(Policy()));"
        "sys.exit('cattrs' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
