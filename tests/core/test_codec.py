"""Values ⇄ versioned JSON: exact both ways, and what cannot be read says so."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from sched_core import (
    CancelMark,
    CatchUp,
    Coalesce,
    Cron,
    Drop,
    DstRule,
    Execution,
    FixedDelay,
    Gap,
    Hold,
    Interval,
    InvalidDefinition,
    Job,
    JobSpec,
    Kind,
    Once,
    Pause,
    Pending,
    Policy,
    Progress,
    Retry,
    Schedule,
    Standing,
    Status,
    codec,
)

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
types = st.lists(st.sampled_from([ValueError, "a.B", "a.f.<locals>.C"]), max_size=2)
policies = st.builds(
    Policy,
    misfire=st.one_of(
        st.just(Coalesce()),
        st.builds(CatchUp, st.integers(1, 10_000), st.none() | positive),
        st.builds(Drop, positive),
    ),
    overlap=st.sampled_from(["late", "skip", "cancel"]),
    retry=st.builds(
        Retry,
        st.integers(1, 100),
        durations,
        st.floats(1, 1000),
        durations,
        st.floats(0, 1),
        never=types,
    )
    | st.builds(Retry, jitter=st.floats(0, 1), delays=st.lists(durations), only=types),
    timeout=positive | st.none(),
    jitter=durations,
    max_lost=st.integers(1, 100),
    max_snoozes=st.integers(0, 100),
    pause_after=st.none() | st.integers(1, 100),
    keep_finished=durations | st.none(),
    keep_executions=durations | st.none() | st.just("default"),
    overdue=positive | st.none(),
)
maybe = st.none() | moments
pendings = st.builds(
    Pending,
    whole,
    moments,
    moments,
    st.sampled_from(Kind),
    attempts=whole,
    failures=whole,
    lost=whole,
    snoozes=whole,
    began_at=maybe,
    coalesced=whole,
    coalesced_until=maybe,
    key=st.none() | texts,
    origin=whole,
    until=maybe,
    args=st.none() | st.dictionaries(texts, texts, max_size=3),
    derived_from=texts,
    retry_at=maybe,
    actor=st.none() | texts,
    moments=st.lists(moments, max_size=5).map(tuple),
)
progresses = st.builds(
    Progress, st.floats(0, 1e9), st.none() | st.floats(0, 1e9), st.none() | texts, maybe
)
marks = st.builds(CancelMark, whole, st.none() | texts, st.none() | texts)
standings = st.builds(
    Standing,
    whole,
    st.none() | pendings,
    maybe,
    requests=st.lists(pendings, max_size=3).map(tuple),
    pause=st.none() | st.builds(Pause, moments, whole, maybe, st.none() | texts, st.none() | texts),
    gaps=st.lists(st.builds(Gap, moments, moments), max_size=3).map(tuple),
    spare=maybe,
    skip=maybe,
    cancels=st.lists(marks, max_size=3).map(tuple),
    failing=whole,
    last_scheduled_at=maybe,
    last_finished_at=maybe,
    last_status=st.none() | st.sampled_from(Status),
    expires_at=maybe,
    skip_actor=st.none() | texts,
)
holds = st.builds(
    Hold,
    names,
    names,
    whole,
    texts,
    moments,
    moments,
    moments,
    st.none() | pendings,
    st.none() | durations,
    maybe,
    queue=names,
    progress=st.none() | progresses,
    cancel=st.none() | marks,
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
        names.filter(lambda name: name != "*"),
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
    whole,
    st.sampled_from(Kind),
    moments,
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
    whole,
    maybe,
    queue=names,
    traceback=st.none() | texts,
    log=st.none() | texts,
    progress=st.none() | progresses,
    metadata=st.none() | st.dictionaries(texts, texts, max_size=3),
    actor=st.none() | texts,
    args=st.none() | st.dictionaries(texts, texts, max_size=3),
)


@given(jobs)
def test_a_job_comes_back_as_it_was(job: Job) -> None:
    record = codec.encode_job(job)
    assert codec.readable(record.format, record.tag) is None
    assert codec.decode_job(record) == job
    json.loads(record.body)


@given(holds)
def test_a_stored_claim_comes_back_as_it_was(hold: Hold) -> None:
    record = codec.encode_hold(hold)
    assert codec.readable(record.format, record.tag) is None
    assert codec.decode_hold(record) == hold


@given(executions)
def test_an_execution_comes_back_as_it_was(execution: Execution) -> None:
    assert codec.decode_execution(codec.encode_execution(execution)) == execution


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
def test_what_is_stored_stays_readable(schedule: Schedule, tag: str, text: str) -> None:
    """Change an expectation here only together with FORMAT."""
    assert (codec.tag_of(schedule), codec.encode_schedule(schedule)) == (tag, text)
    assert codec.decode_schedule(tag, text) == schedule


def test_what_is_left_out_is_the_default() -> None:
    assert codec.FORMAT == 2
    assert codec.encode_policy(DEFAULT) == codec.encode_metadata({}) == ""
    assert codec.decode_policy("") is codec.decode_policy(None)
    assert codec.decode_policy("{}") == DEFAULT
    policy = Policy(misfire=CatchUp(3), timeout=timedelta(seconds=90), keep_finished=None)
    assert codec.encode_policy(policy) == (
        '{"misfire":{"kind":"catch_up","limit":3},"timeout":90,"keep_finished":null}'
    )
    policy = Policy(overlap="skip", max_snoozes=1, pause_after=2, keep_executions=None)
    assert codec.encode_policy(policy) == (
        '{"overlap":"skip","max_snoozes":1,"pause_after":2,"keep_executions":null}'
    )
    plain = Standing(2, Pending(2, NOW, NOW), NOW)
    text = codec.encode_job(Job(JobSpec("a", Once(NOW)), "u", False, NOW, plain)).body.decode()
    assert text.partition('"standing":')[2].startswith(
        '{"last_number":2,"scheduled":{"number":2,"scheduled_at":"2026-02-28T23:59:59.999999Z",'
        '"due_at":"2026-02-28T23:59:59.999999Z"},"due_at":"2026-02-28T23:59:59.999999Z"}'
    )


@pytest.mark.parametrize(
    ("text", "misfire"),
    [
        ('{"misfire":{"kind":"run_all"}}', CatchUp(100, timedelta(days=1))),
        ('{"misfire":{"kind":"run_all","limit":3}}', CatchUp(3, timedelta(days=1))),
        ('{"misfire":{"kind":"run_all","window":60}}', CatchUp(100, timedelta(minutes=1))),
        ('{"misfire":{"kind":"catch_up"}}', CatchUp(100, None)),
    ],
)
def test_policies_of_older_versions_are_read(text: str, misfire: CatchUp) -> None:
    """``catch_up`` was called ``run_all`` once, and its window was a day unless given."""
    policy = codec.decode_policy(text)
    assert policy == Policy(misfire=misfire)
    assert "run_all" not in codec.encode_policy(policy)
    assert codec.decode_policy(codec.encode_policy(policy)) == policy


def test_headers_say_what_can_be_read() -> None:
    assert codec.readable(2, "cron") is None
    assert "newer" in str(codec.readable(3, "cron"))
    assert "'lunar'" in str(codec.readable(2, "lunar"))
    assert "not read by this version" in str(codec.readable(1, "cron"))
    assert set(codec.known_tags()) >= {"cron", "interval", "fixed_delay", "once"}


@frozen
class Lunar:
    """Another package's kind."""

    phase: str

    def first(self, anchor: datetime) -> datetime | None:
        return anchor

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        return None


@pytest.mark.usefixtures("own_kinds")
def test_other_kinds_can_be_registered() -> None:
    with pytest.raises(InvalidDefinition, match="register"):
        codec.tag_of(Lunar("full"))
    codec.register("lunar", Lunar, lambda one: one.phase, Lunar)
    codec.register("lunar", Lunar, lambda one: one.phase, Lunar)
    assert codec.readable(codec.FORMAT, "lunar") is None
    assert codec.decode_schedule("lunar", codec.encode_schedule(Lunar("full"))) == Lunar("full")
    standing = Standing(1, Pending(1, NOW, NOW), NOW)
    job = Job(JobSpec("a", Lunar("new")), "u", False, NOW, standing)
    assert codec.decode_job(codec.encode_job(job)) == job
    with pytest.raises(InvalidDefinition, match="registered already"):
        codec.register("cron", Lunar, lambda one: one.phase, Lunar)
    with pytest.raises(InvalidDefinition, match="registered already"):
        codec.register("other", Cron, lambda one: one.expression, Cron)


def test_the_usual_way_needs_no_converter() -> None:
    """Importing cattrs takes as long as importing all the rest."""
    script = (
        "import sys; from sched_core import codec; from sched_core.schedule import Cron, Once;"
        "from sched_core import Policy;"
        "cron = Cron('0 3 * * *'); codec.decode_schedule('cron', codec.encode_schedule(cron));"
        "codec.decode_policy(codec.encode_policy(Policy()));"
        "sys.exit('cattrs' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
