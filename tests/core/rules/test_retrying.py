"""Which failures are attempted again, and when: delays one by one, and types of errors."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from tests.core.rules.steps import HOUR, HOURLY, MINUTE, SECOND, T0, admit, run, scheduled

from sched_core import InvalidDefinition, codec
from sched_core._model.claim import Ended
from sched_core._model.execution import Status
from sched_core._model.policy import Policy, Retry, backoff, retried
from sched_core._support.error_types import names_of


class Ours(LookupError):
    """An error of a user's package."""


class Inner:
    class Nested(Ours):
        """An error that lies in a class."""


OURS, NESTED = f"{__name__}.Ours", f"{__name__}.Inner.Nested"


def failed(error: type[BaseException], **fields: Any) -> Ended:
    return Ended(Status.FAILED, "no", error_types=names_of(error), **fields)


class TestDelays:
    def test_they_are_the_waits_one_by_one_and_their_number_that_of_the_attempts(self) -> None:
        retry = Retry(delays=(SECOND, MINUTE, HOUR / 2))
        assert retry.attempts == 4
        job, now = admit(HOURLY, Policy(retry=retry)), T0 + HOUR
        for wait in retry.delays:
            job, execution = run(job, now, failed(ValueError))
            assert not execution.final
            assert scheduled(job).due_at == now + wait
            now = scheduled(job).due_at
        assert run(job, now, failed(ValueError))[1].final

    def test_the_last_one_repeats_where_there_are_more_attempts(self) -> None:
        retry = Retry(5, delays=(SECOND, MINUTE))
        waits = [backoff(retry, failures, "key") for failures in (1, 2, 3, 4, 999_999)]
        assert waits == [SECOND, MINUTE, MINUTE, MINUTE, MINUTE]

    def test_jitter_lengthens_them_alike_for_everyone(self) -> None:
        retry = Retry(delays=(MINUTE, HOUR), jitter=0.5)
        waits = {backoff(retry, 1, f"key {number}") for number in range(50)}
        assert all(MINUTE <= wait <= 1.5 * MINUTE for wait in waits)
        assert len(waits) > 40
        assert backoff(retry, 2, "key") == backoff(retry, 2, "key") >= HOUR
        assert backoff(Retry(delays=(timedelta.max,), jitter=1), 1, "key") == timedelta.max

    def test_one_of_zero_is_no_wait(self) -> None:
        retry = Retry(delays=(timedelta(0), HOUR), jitter=1)
        assert backoff(retry, 1, "key") == timedelta(0)
        assert backoff(retry, 2, "key") >= HOUR

    def test_a_list_makes_the_same_policy_and_none_the_default_one(self) -> None:
        assert Retry(delays=[SECOND, HOUR]) == Retry(delays=(SECOND, HOUR))
        assert Retry(delays=()) == Retry()
        assert hash(Retry(delays=[SECOND])) == hash(Retry(delays=(SECOND,)))

    def test_a_handler_that_says_when_is_asked_before_them(self) -> None:
        policy = Policy(retry=Retry(delays=(SECOND,)))
        job, _ = run(admit(HOURLY, policy), T0 + HOUR, failed(ValueError, delay=7 * MINUTE))
        assert scheduled(job).due_at == T0 + HOUR + 7 * MINUTE


class TestTypes:
    @pytest.mark.parametrize(
        ("retry", "error", "again"),
        [
            (Retry(9, never=[ValueError]), ValueError, False),
            (Retry(9, never=[ValueError]), UnicodeDecodeError, False),
            (Retry(9, never=[UnicodeDecodeError]), ValueError, True),
            (Retry(9, never=["ValueError", OURS]), Ours, False),
            (Retry(9, never=["builtins.ValueError"]), ValueError, False),
            (Retry(9, never=[OURS]), Inner.Nested, False),
            (Retry(9, never=[NESTED]), Inner.Nested, False),
            (Retry(9, never=[NESTED]), Ours, True),
            (Retry(9, never=["elsewhere.Ours"]), Ours, True),
            (Retry(9, never=["BaseException"]), SystemExit, False),
            (Retry(9, only=[OSError]), ConnectionResetError, True),
            (Retry(9, only=[OSError]), ValueError, False),
            (Retry(9, only=[OURS, "TimeoutError"]), asyncio.TimeoutError, True),
            (Retry(9, only=[Inner.Nested]), Ours, False),
        ],
    )
    def test_they_and_their_subclasses_decide(
        self, retry: Retry, error: type[BaseException], again: bool
    ) -> None:
        assert retried(retry, names_of(error)) == again
        job = admit(HOURLY, Policy(retry=retry))
        assert run(job, T0 + HOUR, failed(error))[1].final == (not again)

    def test_a_failure_without_an_error_is_in_neither(self) -> None:
        unknown = Ended(Status.FAILED, "no")
        never, only = Retry(2, never=["Exception"]), Retry(2, only=["Exception"])
        assert not run(admit(HOURLY, Policy(retry=never)), T0 + HOUR, unknown)[1].final
        assert run(admit(HOURLY, Policy(retry=only)), T0 + HOUR, unknown)[1].final

    def test_a_handler_that_asks_for_another_attempt_gets_it(self) -> None:
        policy = Policy(retry=Retry(2, never=[ValueError]))
        said = failed(ValueError, delay=MINUTE)
        job, execution = run(admit(HOURLY, policy), T0 + HOUR, said)
        assert not execution.final
        assert run(job, T0 + HOUR + MINUTE, said)[1].final, "attempts bound that, too"

    def test_a_snooze_too_many_asks_for_none(self) -> None:
        policy = Policy(max_snoozes=0, retry=Retry(2, only=[ValueError]))
        snoozed = Ended(Status.SNOOZED, delay=MINUTE)
        assert run(admit(HOURLY, policy), T0 + HOUR, snoozed)[1].final

    def test_they_change_nothing_of_how_often(self) -> None:
        policy = Policy(retry=Retry(2, only=[ValueError]))
        job, execution = run(admit(HOURLY, policy), T0 + HOUR, failed(ValueError))
        assert not execution.final
        assert run(job, scheduled(job).due_at, failed(ValueError))[1].final

    def test_one_order_however_they_are_given(self) -> None:
        """A set has another order in each process, which must not look like an edit."""
        given: list[Any] = ["b.B", ValueError, "a.A", "ValueError", Ours]
        assert Retry(never=given) == Retry(never=set(given)) == Retry(never=tuple(given[::-1]))
        assert Retry(never=given).never == tuple(sorted({"ValueError", "a.A", "b.B", OURS}))

    def test_a_class_without_a_name_is_refused_and_matches_nothing(self) -> None:
        nameless = type("Odd", (ValueError,), {})
        nameless.__module__ = 7  # type: ignore[assignment]  # as odd as a class can be
        assert names_of(nameless) == names_of(ValueError)
        with pytest.raises(InvalidDefinition, match=r"policy\.retry\.never: must hold exception"):
            Retry(never=[nameless])


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"delays": (SECOND,), "attempts": 1}, "attempts", "must be at least 2, for 1 delays"),
        ({"delays": (SECOND, SECOND), "attempts": 2}, "attempts", "leave it out"),
        ({"delays": (SECOND,), "backoff": MINUTE}, "backoff", "no effect with delays"),
        ({"delays": (SECOND,), "factor": 3}, "factor", "no effect with delays"),
        ({"delays": (SECOND,), "maximum": MINUTE}, "maximum", "no effect with delays"),
        ({"delays": SECOND}, "delays", "must be a tuple of timedeltas"),
        ({"delays": None}, "delays", "must be a tuple of timedeltas"),
        ({"delays": (5,)}, "delays", "must be a timedelta, not 5"),
        ({"delays": (-SECOND,)}, "delays", "zero or more"),
        ({"delays": (SECOND,) * 101}, "delays", "at most 100"),
        ({"never": [ValueError], "only": [OSError]}, "only", "give it or never, not both"),
        ({"never": ValueError}, "never", "must be a tuple of exception types"),
        ({"only": "ValueError"}, "only", "must be a tuple of exception types"),
        ({"never": None}, "never", "must be a tuple of exception types"),
        ({"never": [int]}, "never", "must hold exception types"),
        ({"never": [ValueError("an instance")]}, "never", "must hold exception types"),
        ({"never": [""]}, "never", "must hold exception types"),
        ({"never": ["m." + "x" * 254]}, "never", "255 characters"),
        ({"only": ["ValuError"]}, "only", "write its module, too, or give the class"),
        ({"only": ["int"]}, "only", "no built-in exception"),
        ({"only": ["a module.Error"]}, "only", "no name of a type"),
        ({"only": [".Error"]}, "only", "no name of a type"),
        ({"only": [f"m.E{number}" for number in range(101)]}, "only", "at most 100 types"),
    ],
)
def test_what_makes_no_policy_names_the_field(
    fields: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(InvalidDefinition) as refused:
        Retry(**fields)
    assert refused.value.field == f"policy.retry.{field}"
    assert says in str(refused.value)


waits = st.lists(st.timedeltas(timedelta(0)), max_size=5)
types = st.lists(st.sampled_from([ValueError, Ours, "a.B", "a.f.<locals>.C"]), max_size=3)


@given(delays=waits, more=st.none() | st.integers(0, 9), never=types)
def test_it_is_stored_as_names_and_seconds(
    delays: list[timedelta], more: int | None, never: list[Any]
) -> None:
    given: dict[str, Any] = {} if more is None else {"attempts": len(delays) + 1 + more}
    policy = Policy(retry=Retry(delays=delays, never=never, **given), overdue=MINUTE)
    text = codec.encode_policy(policy)
    assert codec.decode_policy(text) == policy
    left_out = {"attempts"} if not more else set()
    left_out |= set() if delays else {"delays"}
    left_out |= set() if never else {"never"}
    stored = json.loads(text).get("retry", {})
    assert stored.keys() == {"attempts", "delays", "never"} - left_out


def test_what_uses_none_of_it_is_stored_as_before() -> None:
    assert codec.encode_policy(Policy(retry=Retry(3))) == '{"retry":{"attempts":3}}'
    assert codec.decode_policy('{"retry":{"attempts":3}}') == Policy(retry=Retry(3))


@pytest.mark.parametrize(
    "text",
    [
        '{"retry":{"never":"ValueError"}}',
        '{"retry":{"only":[1]}}',
        '{"retry":{"delays":["x"]}}',
        '{"retry":{"delays":[1],"attempts":1}}',
        '{"retry":{"never":["KeyError"],"only":["OSError"]}}',
        '{"overdue":0}',
    ],
)
def test_what_cannot_be_understood_is_malformed(text: str) -> None:
    with pytest.raises(codec.Malformed):
        codec.decode_policy(text)


@pytest.mark.parametrize("overdue", [timedelta(0), -SECOND, 60])
def test_overdue_is_a_duration_and_is_named(overdue: Any) -> None:
    with pytest.raises(InvalidDefinition, match=r"^policy\.overdue: must be"):
        Policy(overdue=overdue)


def test_overdue_changes_nothing_of_a_run() -> None:
    plain, told = admit(HOURLY, Policy()), admit(HOURLY, Policy(overdue=MINUTE))
    one, execution = run(plain, T0 + HOUR + 30 * MINUTE)
    other, same = run(told, T0 + HOUR + 30 * MINUTE)
    assert (other.standing, evolve(same, token=0)) == (one.standing, evolve(execution, token=0))
