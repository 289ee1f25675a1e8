"""Hypothesis strategies for everything that a backend must keep: moments, schedules, jobs.

Each is made once: hypothesis examines every new one, which takes longer than drawing from it.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any

from attrs import evolve
from hypothesis import strategies as st

from sched_core import (
    AnyOf,
    Between,
    CancelMark,
    CatchUp,
    Coalesce,
    Cron,
    Drop,
    DstRule,
    Excluding,
    Execution,
    FixedDelay,
    Gap,
    Interval,
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
)

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")

NASTY = (
    "",
    "\0",
    "a\0b",
    "\r\n",
    " x ",
    "'",
    '"',
    "\\",
    "%_",
    "null",
    "e\u0301",
    "\u2028",
    "\U0001f600",
)
"""What stores get wrong more often than other text."""

_ERRORS: tuple[type[BaseException] | str, ...] = (
    *(ValueError, TimeoutError, SystemExit, LookupError),
    *("a_module.Outer.Inner", "b.f.<locals>.Gone", "ünï.Cödé"),
)
"""Exception types as policies name them."""

LONG = ("k" * 255, "é" * 255, "\U0001f600" * 255)
"""Texts of the greatest length, which chance seldom makes: characters of one to four bytes."""


@cache
def moments() -> st.SearchStrategy[datetime]:
    """Moments in UTC with microseconds, of this century and the next."""
    return st.datetimes(
        min_value=datetime(1999, 1, 1),  # noqa: DTZ001 -- hypothesis adds the zone
        max_value=datetime(2199, 12, 31),  # noqa: DTZ001 -- see above
        timezones=st.just(UTC),
    )


@cache
def durations(least: timedelta = timedelta(microseconds=1)) -> st.SearchStrategy[timedelta]:
    """Durations up to a year, with microseconds."""
    return st.timedeltas(min_value=least, max_value=timedelta(days=366))


@cache
def texts(max_size: int = 40) -> st.SearchStrategy[str]:
    """Ids and names: any characters but control characters and surrogates."""
    allowed = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])
    return st.text(allowed, min_size=1, max_size=max_size)


@cache
def metadata() -> st.SearchStrategy[dict[str, str]]:
    """Any Unicode text but lone surrogates, NUL and line ends included."""
    anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    anything |= st.sampled_from(NASTY)
    return st.dictionaries(anything, anything, max_size=4)


@cache
def schedules() -> st.SearchStrategy[Schedule]:
    """Every kind of schedule that core has."""
    whole = timedelta(milliseconds=1)
    fields = st.sampled_from(
        ("* * * * *", "*/5 * * * *", "0 3 * * *", "30 2 * * mon-fri", "0 0 29 2 *", "*/7 * * * * *")
    )
    rules = st.sampled_from(
        ("debian", DstRule(gap="skip", fold="both"), DstRule(gap="once-after", fold="last"))
    )
    crons = st.builds(Cron, fields, tz=st.sampled_from(ZONES), dst=rules)
    single = st.one_of(
        st.builds(Interval, durations(whole), start=st.none() | moments()),
        st.builds(Once, moments()),
        crons,
    )
    combined = st.recursive(single, combinations, max_leaves=4)
    return st.builds(FixedDelay, durations(whole)) | single | combined


def combinations(part: st.SearchStrategy[Schedule]) -> st.SearchStrategy[Schedule]:
    """Schedules made of others."""
    dates = st.lists(st.dates(date(1999, 1, 1), date(2199, 12, 31)), max_size=4)
    bounds = st.lists(moments(), min_size=2, max_size=2, unique=True).map(sorted)
    return st.one_of(
        st.lists(part, min_size=1, max_size=3).map(lambda some: AnyOf(*some)),
        st.builds(lambda inner, pair: Between(inner, *pair), part, bounds),
        st.builds(Between, part, moments()),
        st.builds(Excluding, part, dates, st.sampled_from(ZONES)),
    )


@cache
def policies() -> st.SearchStrategy[Policy]:
    """Every kind of policy."""
    misfires = st.one_of(
        st.just(Coalesce()),
        st.builds(CatchUp, st.integers(1, 10_000), st.none() | durations()),
        st.builds(Drop, durations(timedelta(microseconds=1))),
    )
    errors = st.lists(st.sampled_from(_ERRORS), min_size=1, max_size=3)
    which: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
        st.sampled_from(("never", "only")), errors, max_size=1
    )
    waits = st.fixed_dictionaries(
        {},
        optional={
            "attempts": st.integers(1, 1_000_000),
            "backoff": durations(timedelta(0)),
            "factor": st.floats(1, 1000),
            "maximum": durations(timedelta(0)),
        },
    )
    waits |= st.fixed_dictionaries(
        {"delays": st.lists(durations(timedelta(0)), min_size=1, max_size=3)},
        optional={"attempts": st.integers(4, 1_000_000)},
    )
    retries = st.builds(
        lambda waits, jitter, which: Retry(jitter=jitter, **waits, **which),
        waits,
        st.floats(0, 1),
        which,
    )
    return st.builds(
        Policy,
        misfire=misfires,
        overlap=st.sampled_from(("late", "skip", "cancel")),
        retry=retries,
        timeout=st.none() | durations(),
        jitter=durations(timedelta(0)),
        max_lost=st.integers(1, 1_000_000),
        max_snoozes=st.integers(0, 1_000_000),
        pause_after=st.none() | st.integers(1, 1_000_000),
        keep_finished=st.none() | durations(timedelta(0)),
        keep_executions=st.none() | st.just("default") | durations(timedelta(0)),
        overdue=st.none() | durations(),
    )


@cache
def specs() -> st.SearchStrategy[JobSpec]:
    """Any legal definition."""
    return st.builds(
        JobSpec,
        id=texts() | texts(255),
        schedule=schedules(),
        name=st.none() | texts(),
        metadata=metadata(),
        policy=st.just(Policy()) | policies(),
        group=st.none() | texts(),
        queue=queues(),
    )


@cache
def queues() -> st.SearchStrategy[str]:
    """Names of queues: the default one, and any other."""
    return st.just("default") | (texts() | texts(255)).filter(lambda name: name != "*")


@cache
def progresses() -> st.SearchStrategy[Progress]:
    """Any progress that a handler may tell."""
    amounts = st.integers(0, 2**53) | st.floats(0, allow_nan=False, allow_infinity=False)
    sayable = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.builds(
        Progress,
        amounts,
        st.none() | amounts,
        st.none() | st.text(sayable, max_size=100),
        st.none() | moments(),
    )


ASKED = (Kind.TRIGGERED, Kind.RERUN, Kind.BACKFILLED)


@cache
def pendings() -> st.SearchStrategy[Pending]:
    """Any occurrence that has not ended, sensible or not."""
    return scheduled() | requests()


@cache
def scheduled() -> st.SearchStrategy[Pending]:
    """Any occurrence of a schedule, with what only such a one has."""
    return _pendings(
        st.just(Kind.SCHEDULED),
        derived_from=st.just("") | texts(150),
        retry_at=st.none() | moments(),
    )


@cache
def requests() -> st.SearchStrategy[Pending]:
    """Any occurrence that was asked for."""
    return _pendings(
        st.sampled_from(ASKED),
        moments=st.just(()) | st.lists(moments(), max_size=5).map(tuple),
    )


@cache
def arguments() -> st.SearchStrategy[dict[str, str] | None]:
    """Any arguments of a request, or none."""
    anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    return st.none() | st.dictionaries(anything, anything, max_size=3)


def _pendings(
    kinds: st.SearchStrategy[Kind], **more: st.SearchStrategy[Any]
) -> st.SearchStrategy[Pending]:
    optional = st.none() | moments()
    return st.builds(
        Pending,
        number=st.integers(1, 2**53),
        scheduled_at=moments(),
        due_at=moments(),
        kind=kinds,
        attempts=st.integers(0, 1_000_000),
        failures=st.integers(0, 1_000_000),
        lost=st.integers(0, 1_000_000),
        snoozes=st.integers(0, 1_000_000),
        began_at=optional,
        coalesced=st.integers(0, 2**53),
        coalesced_until=optional,
        key=st.none() | texts() | st.sampled_from(LONG),
        origin=st.integers(0, 2**53),
        until=optional,
        args=arguments(),
        actor=st.none() | texts(255),
        **more,
    )


@cache
def standings() -> st.SearchStrategy[Standing]:
    """Any combination of fields: a backend has no business knowing which make sense."""
    optional, words = st.none() | moments(), st.none() | texts(255)
    pauses = st.builds(Pause, moments(), st.integers(0, 2**53), optional, words, words)
    marks = st.builds(CancelMark, st.integers(1, 2**53), words, words)
    return st.builds(
        Standing,
        last_number=st.integers(1, 2**53),
        scheduled=st.none() | scheduled(),
        due_at=optional,
        requests=st.just(()) | st.lists(requests(), max_size=3).map(tuple),
        pause=st.none() | pauses,
        gaps=st.lists(st.builds(Gap, moments(), moments()), max_size=3).map(tuple),
        spare=optional,
        skip=optional,
        cancels=st.lists(marks, max_size=3).map(tuple),
        failing=st.integers(0, 1_000_000),
        last_scheduled_at=optional,
        last_finished_at=optional,
        last_status=st.none() | st.sampled_from(Status),
        expires_at=optional,
        skip_actor=words,
    )


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Any job that a backend may be asked to keep."""
    spec: Any = draw(specs())
    job = Job(
        spec,
        draw(st.text("0123456789abcdef", min_size=1, max_size=32)),
        False,
        draw(moments()),
        draw(standings()),
    )
    return evolve(job, declared=draw(st.booleans()), actor=draw(st.none() | texts(255)))


@st.composite
def executions(draw: st.DrawFn) -> Execution:
    """Any execution that a history may be asked to keep."""
    uid = draw(st.text("0123456789abcdef", min_size=1, max_size=32))
    number, attempt = draw(st.integers(1, 2**53)), draw(st.integers(0, 1_000_000))
    sayable = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return Execution(
        id=f"{uid}:{number}:{attempt}",
        job_id=draw(texts() | texts(255)),
        uid=uid,
        number=number,
        scheduled_at=draw(moments()),
        attempt=attempt,
        kind=draw(st.sampled_from(Kind)),
        status=draw(st.sampled_from(Status)),
        final=draw(st.booleans()),
        token=draw(st.integers(1, 2**53)),
        worker=draw(texts()),
        claimed_at=draw(moments()),
        started_at=draw(st.none() | moments()),
        finished_at=draw(moments()),
        reason=draw(st.none() | st.text(sayable, min_size=1, max_size=500)),
        coalesced=draw(st.integers(0, 2**53)),
        coalesced_until=draw(st.none() | moments()),
        snoozes=draw(st.integers(0, 1_000_000)),
        expires_at=draw(st.none() | moments()),
        queue=draw(queues()),
        traceback=draw(st.none() | st.text(sayable, min_size=1, max_size=500)),
        log=draw(st.none() | st.text(sayable, max_size=500)),
        progress=draw(st.none() | progresses()),
        metadata=draw(st.none() | metadata().filter(bool)),
        actor=draw(st.none() | texts(255)),
        args=draw(arguments()),
    )
