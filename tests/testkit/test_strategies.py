"""No field of the model is left out of what laws write: a new one shows here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sched_core import (
    Execution,
    Gap,
    Job,
    JobSpec,
    Pause,
    Pending,
    Policy,
    Progress,
    Retry,
    Standing,
)
from sched_testkit import strategies
from sched_testkit._suite.bench import START
from sched_testkit.laws.definitions import every_field

GIVEN_BY_BACKENDS = {(Job, "revision"), (Job, "held"), (Job, "held_at")}


def parts(value: Any) -> Iterator[Any]:
    """Yield a value of the model and all that it is made of."""
    if isinstance(value, tuple):
        for each in value:
            yield from parts(each)
    elif attrs.has(type(value)):
        yield value
        for field in attrs.fields(type(value)):
            yield from parts(getattr(value, field.name))


@pytest.mark.parametrize("kind", [Standing, Pending, Pause, Gap])
def test_the_standing_of_the_laws_leaves_no_field_at_its_default(kind: type) -> None:
    values = [each for each in parts(every_field(START)) if type(each) is kind]
    left_out = [
        field.name
        for field in attrs.fields(kind)
        if all(getattr(each, field.name) == field.default for each in values)
    ]
    assert values
    assert left_out == []


def test_strategies_vary_every_field() -> None:
    seen: dict[tuple[type, str], set[str]] = defaultdict(set)

    @settings(
        max_examples=150,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    # What a standing is made of lies deep in a job: it is drawn on its own, too.
    @given(value=st.tuples(strategies.jobs(), strategies.executions(), strategies.standings()))
    def collect(value: tuple[Job, Execution, Standing]) -> None:
        for each in parts(value):
            for field in attrs.fields(type(each)):
                seen[type(each), field.name].add(repr(getattr(each, field.name)))

    collect()
    kinds = (Job, JobSpec, Policy, Retry, Standing, Pending, Pause, Gap, Execution, Progress)
    wanted = {(kind, field.name) for kind in kinds for field in attrs.fields(kind)}
    varied = {where for where, values in seen.items() if len(values) > 1}
    assert wanted - varied == GIVEN_BY_BACKENDS
