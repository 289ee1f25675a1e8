"""Ids as tokens of subjects, and names."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sched_core import InvalidDefinition
from sched_jetstream import Options
from sched_jetstream._model.subjects import LONGEST_TOKEN, Names, id_of, token_of

LEGAL_KEY = re.compile(r"[-/_=a-zA-Z0-9]+\Z")
ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=255)


@given(ids)
@example("*")
@example(">")
@example("a.b c")
@example("=2A")
@example("==")
@example("😀" * 255)
@example("x" * 255)
def test_any_id_is_one_legal_token_and_can_be_told_from_it(job_id: str) -> None:
    token = token_of(job_id)
    assert LEGAL_KEY.match(token)
    assert len(token) <= LONGEST_TOKEN
    assert id_of(token) in {job_id, None}
    if id_of(token) is None:
        assert token.startswith("==")


@given(ids, ids)
@example("*", "=2A")
@example("=2A", "=3D2A")
@example("é", "e\u0301")
@example("x" * 254 + "a", "x" * 254 + "b")
def test_two_ids_never_share_a_token(one: str, two: str) -> None:
    assert (token_of(one) == token_of(two)) is (one == two)


def test_plain_ids_stay_readable() -> None:
    assert token_of("daily_cleanup") == "daily_cleanup"
    assert token_of("daily.cleanup") == "daily=2Ecleanup"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"job_bucket": "a.b"}, "job_bucket"),
        ({"job_bucket": ""}, "job_bucket"),
        ({"execution_bucket": "jobs"}, "execution_bucket"),
        ({"consumer_name": "*"}, "consumer_name"),
        ({"subject_prefix": "a..b"}, "subject_prefix"),
        ({"subject_prefix": "a.>"}, "subject_prefix"),
    ],
)
def test_names_that_cannot_be_subjects_are_refused(settings: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        _ = Options(**settings).names  # type: ignore[arg-type]  # strings for some fields
    assert caught.value.field == field


def test_subjects_of_one_deployment() -> None:
    names = Names("jobs", "executions", "sched.jobs", "workers")
    assert names.record_token(names.record("a")) == "a"
    assert names.fire_token(names.fire("a")) == names.fire_token(names.fire("a", "bulk")) == "a"
    assert names.fire_token("sched.jobs.fire.a") == "a", "as older versions armed it"
    assert [names.consumer(), names.consumer("bulk")] == ["workers-all", "workers-queue-bulk"]
    assert names.stream == "KV_jobs"
