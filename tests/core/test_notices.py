"""What notifiers tell and remember, as pure functions: for any history, cut into any parts."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sched_core import (
    BackendError,
    Execution,
    Interval,
    Job,
    JobSpec,
    Kind,
    Pause,
    Pending,
    Policy,
    Standing,
    Status,
)
from sched_core._model.execution import OVERLAPPED
from sched_core._model.job import texts_of
from sched_core.contrib.notify import DEFAULT_KINDS, Notice, rules
from sched_core.contrib.notify.notice import KINDS
from sched_core.contrib.notify.state import (
    MOST_FAILING,
    MOST_HANDLED,
    MOST_INTERRUPTED,
    MOST_OVERDUE,
    More,
    State,
    decode,
    digest,
    encode,
)
from sched_core.testing import EPOCH

HOUR = timedelta(hours=1)


def wanted(**options: Any) -> rules.Wanted:
    given: dict[str, Any] = {
        "notifier": "ops",
        "kinds": frozenset(KINDS),
        "jobs": None,
        "interrupted_after": 2,
        "most": 3,
        **options,
    }
    return rules.Wanted(**given)


def execution(
    number: int, job: str, status: Status, *, final: bool = True, reason: str | None = None
) -> Execution:
    return Execution(
        f"{job}:{number}:1",
        job,
        job,
        number,
        1,
        Kind.SCHEDULED,
        EPOCH + number * HOUR,
        status,
        final,
        1,
        "w",
        EPOCH,
        EPOCH,
        EPOCH + number * HOUR,
        reason,
    )


ENDS = st.sampled_from(
    [
        (Status.SUCCEEDED, True, None),
        (Status.FAILED, True, "ValueError"),
        (Status.FAILED, False, "ValueError"),
        (Status.MISSED, True, None),
        (Status.SKIPPED, True, None),
        (Status.CANCELLED, True, OVERLAPPED),
        (Status.CANCELLED, True, "by hand"),
        (Status.SUPERSEDED, True, None),
        (Status.INTERRUPTED, False, None),
        (Status.ABANDONED, False, None),
    ]
)


@st.composite
def histories(draw: st.DrawFn) -> list[Execution]:
    ends = draw(st.lists(st.tuples(st.sampled_from("abcd"), ENDS), max_size=40))
    return [
        execution(number, job, status, final=final, reason=reason)
        for number, (job, (status, final, reason)) in enumerate(ends)
    ]


def tell(
    state: State, parts: list[list[Execution]], wanted: rules.Wanted
) -> tuple[State, list[Notice]]:
    """Tell a history in one run, through the store between any two parts."""
    told: list[Notice] = []
    for part in parts:
        state, found = rules.derive(state, part, cursor="c", pauses={}, wanted=wanted)
        state = decode(texts_of("metadata", encode(state)))
        told += found
    state, found = rules.summaries(state, wanted)
    return state, told + found


@given(histories(), st.lists(st.integers(0, 40), max_size=5), st.sampled_from([None, 0, 1, 3]))
def test_a_run_tells_the_same_however_its_history_comes_in_parts(
    executions: list[Execution], cuts: list[int], most: int | None
) -> None:
    bounds = [0, *sorted(cuts), len(executions)]
    parts = [executions[one:other] for one, other in itertools.pairwise(bounds)]
    choice = wanted(most=most)
    assert tell(State("c"), parts, choice) == tell(State("c"), [executions], choice)


@given(histories())
def test_each_kind_of_end_is_told_once_and_no_other(executions: list[Execution]) -> None:
    _, told = tell(State("c"), [executions], wanted(most=None))
    said = {(one.kind, one.execution_id) for one in told}
    assert len(said) == len(told) == len({one.id for one in told})
    expected: set[tuple[str, str]] = set()
    failing = set()
    for one in executions:
        if one.status is Status.FAILED and one.final:
            expected.add(("failed", one.id))
            failing.add(one.job_id)
        elif one.status is Status.SUCCEEDED:
            expected.add(("succeeded", one.id))
            if one.job_id in failing:
                failing.remove(one.job_id)
                expected.add(("recovered", one.id))
        elif one.status is Status.MISSED:
            expected.add(("missed", one.id))
        elif one.reason == OVERLAPPED:
            expected.add(("overlap", one.id))
    assert said == expected


@given(histories(), st.integers(0, 5))
def test_a_summary_counts_what_is_not_told_one_by_one(
    executions: list[Execution], most: int
) -> None:
    every = tell(State("c"), [executions], wanted(most=None))[1]
    told = tell(State("c"), [executions], wanted(most=most))[1]
    for kind in KINDS:
        several = [one for one in every if one.kind == kind]
        single = [one for one in told if one.kind == kind and one.job_id]
        assert len(single) <= most
        assert sum(one.count for one in told if one.kind == kind) == len(several)
        assert {one.id for one in single} <= {one.id for one in several}


@given(histories(), st.integers(0, 3))
def test_no_recovery_is_told_before_its_failure(executions: list[Execution], most: int) -> None:
    _, told = tell(State("c"), [executions], wanted(most=most))
    known: set[str | None] = set()
    for one in told:
        if one.kind == "failed":
            known |= {one.job_id} if one.job_id else set("abcd")
        elif one.kind == "recovered" and one.job_id:
            assert one.job_id in known


@given(histories(), st.lists(st.integers(0, 100), min_size=1))
def test_no_recovery_follows_a_failure_that_was_refused(
    executions: list[Execution], choice: list[int]
) -> None:
    state = State("c")
    after, told = rules.derive(state, executions, cursor="c", pauses={}, wanted=wanted(most=None))
    failures = [one for one in told if one.kind == "failed"]
    refused = [failures[number % len(failures)] for number in choice] if failures else []
    left = rules.without_failures(state, after, refused)
    assert left.failing.keys() == after.failing.keys() - {digest(str(o.job_id)) for o in refused}


def test_an_occurrence_is_told_when_it_is_cut_off_more_often_than_is_borne() -> None:
    cut = [
        evolve(execution(1, "a", Status.INTERRUPTED, final=False), id=f"a:1:{n}") for n in range(6)
    ]
    state, told = tell(State("c"), [cut[:2], cut[2:]], wanted())
    assert [(one.kind, one.execution_id) for one in told] == [("interrupted", "a:1:2")]
    state, _ = tell(state, [[execution(1, "a", Status.SUCCEEDED)]], wanted())
    assert state.interrupted == {}


def test_a_pause_by_failures_is_told_with_them() -> None:
    one = execution(1, "a", Status.FAILED)
    _, told = rules.derive(
        State("c"), [one], cursor="d", pauses={one.id: Pause(EPOCH, 1)}, wanted=wanted()
    )
    assert [each.kind for each in told] == ["failed", "paused"]


def test_the_jobs_of_notifiers_are_not_told() -> None:
    one = execution(1, "notify:other", Status.FAILED)
    assert tell(State("c"), [[one]], wanted())[1] == []


def test_successes_are_not_told_unless_they_are_asked_for() -> None:
    one = execution(1, "a", Status.SUCCEEDED)
    assert tell(State("c"), [[one]], wanted(kinds=DEFAULT_KINDS))[1] == []


# -- what has not begun


def job_with(
    one: Pending | None, *requests: Pending, pause: Pause | None = None, held: int | None = None
) -> Job:
    policy = Policy(overdue=HOUR, jitter=timedelta(minutes=10))
    standing = Standing(9, one, None, requests, pause)
    return Job(JobSpec("a", Interval(hours=1), policy=policy), "u", True, EPOCH, standing, 1, held)


DUE = Pending(1, EPOCH, EPOCH)
ASKED = Pending(5, EPOCH - 99 * HOUR, EPOCH, Kind.BACKFILLED)


@pytest.mark.parametrize(
    ("job", "after", "overdue"),
    [
        (job_with(DUE), timedelta(minutes=69), []),
        (job_with(DUE), timedelta(minutes=71), [DUE]),
        # What is put off again and again is judged by its moment.
        (
            job_with(evolve(DUE, due_at=EPOCH + 5 * HOUR)),
            2 * HOUR,
            [evolve(DUE, due_at=EPOCH + 5 * HOUR)],
        ),
        (job_with(evolve(DUE, began_at=EPOCH)), 9 * HOUR, []),
        (job_with(evolve(DUE, attempts=1)), 9 * HOUR, []),
        (job_with(DUE, held=1), 9 * HOUR, []),
        (job_with(DUE, held=5), 9 * HOUR, [DUE]),
        (job_with(None, ASKED), timedelta(minutes=59), []),
        (job_with(None, ASKED), timedelta(minutes=61), [ASKED]),
        (job_with(DUE, ASKED, pause=Pause(EPOCH, 4)), 9 * HOUR, [ASKED]),
        (job_with(DUE, ASKED, pause=Pause(EPOCH, 5)), 9 * HOUR, []),
    ],
)
def test_what_is_overdue(job: Job, after: timedelta, overdue: list[Pending]) -> None:
    assert rules.overdue_of(job, EPOCH + after) == overdue


def test_without_a_limit_nothing_is_overdue() -> None:
    job = job_with(DUE)
    job = evolve(job, spec=evolve(job.spec, policy=Policy()))
    assert rules.overdue_of(job, EPOCH + 99 * HOUR) == []


def test_each_overdue_occurrence_is_told_once_even_if_not_all_can_be_remembered() -> None:
    found = [
        (job_with(DUE), evolve(DUE, number=number, scheduled_at=EPOCH + number * timedelta(0, 1)))
        for number in range(MOST_OVERDUE + 50)
    ]
    state, told, choice = State("c"), [], wanted(most=None)
    for present in (found, found, found[100:], found[100:], []):
        state, notices = rules.derive_overdue(state, present, now=EPOCH + 2 * HOUR, wanted=choice)
        state = decode(encode(state))
        told += notices
    assert sorted(one.key or "" for one in told) == sorted(f"u:{one.number}" for _, one in found)
    assert state.overdue == ()


# -- what is stored


def test_the_largest_state_can_be_stored_and_comes_back() -> None:
    def digests(number: int) -> list[str]:
        return [digest(str(one)) for one in range(number)]

    more = More(10**9, "interrupted:" + "u" * 80, EPOCH, EPOCH)
    state = State(
        "c" * 100,
        dict.fromkeys(digests(MOST_FAILING), False),
        tuple(digests(MOST_OVERDUE)),
        dict.fromkeys(digests(MOST_INTERRUPTED), 1_000_000),
        dict.fromkeys(KINDS, 10**6),
        dict.fromkeys(KINDS, more),
        dict.fromkeys(digests(MOST_HANDLED), False),
        EPOCH,
    )
    assert decode(texts_of("metadata", encode(state))) == state
    too_much = evolve(state, failing=dict.fromkeys(digests(MOST_FAILING + 10), True))
    kept = decode(texts_of("metadata", encode(too_much))).failing
    assert list(kept) == digests(MOST_FAILING + 10)[10:]


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"format": "2"},
        {**encode(State("c")), "told": "failed"},
        {**encode(State("c")), "more": "{"},
        {**encode(State("c")), "more": '{"failed": [1]}'},
        {**encode(State("c")), "refused_since": "soon"},
        {name: text for name, text in encode(State("c")).items() if name != "cursor"},
    ],
)
def test_a_record_that_makes_no_sense_is_refused(broken: dict[str, str]) -> None:
    with pytest.raises(BackendError, match="the notifier's record"):
        decode(broken)


def test_a_recovery_waits_for_the_summary_that_tells_of_its_failure() -> None:
    ends = [("a", Status.FAILED), ("b", Status.FAILED), ("b", Status.SUCCEEDED)]
    executions = [execution(number, job, status) for number, (job, status) in enumerate(ends)]
    choice = wanted(most=1, kinds=DEFAULT_KINDS)
    _, told = tell(State("c"), [executions], choice)
    assert [(one.kind, one.job_id) for one in told] == [
        ("failed", "a"),
        ("failed", None),
        ("recovered", None),
    ]
    # A failure that was told one by one is known, also if a further one is in a summary.
    again = [*executions[:1], execution(3, "a", Status.FAILED), execution(4, "a", Status.SUCCEEDED)]
    _, told = tell(State("c"), [again], choice)
    assert [(one.kind, one.job_id) for one in told] == [
        ("failed", "a"),
        ("recovered", "a"),
        ("failed", None),
    ]
