"""A backend grows green in the order of its methods."""

from __future__ import annotations

from typing import Any

import pytest
from tests.testkit.mutants import MutantHarness, Sound

from sched_testkit._suite.runner import run_law
from sched_testkit.laws import LAWS
from sched_testkit.laws.order import STEPS, step_of

LATER = {"overlap", "transactions"}
"""What is examined once the methods are there."""
ALONE = [law for law in LAWS if not law.elsewhere and not LATER & law.examines]


def unfinished(steps: int) -> type[Sound]:
    """A backend of which the first steps are written, and the others raise."""

    async def missing(self: Any, *arguments: Any, **named: Any) -> Any:
        raise NotImplementedError

    later = [name for methods in STEPS[steps:] for name in methods]
    return type("Unfinished", (Sound,), dict.fromkeys(later, missing))


@pytest.mark.parametrize("steps", [2, 4, 6])
def test_laws_hold_as_soon_as_their_methods_are_written(steps: int) -> None:
    backend = unfinished(steps)
    for law in (law for law in ALONE if step_of(law.check) < steps):
        run_law(MutantHarness(backend), law)


def test_laws_come_in_this_order() -> None:
    steps = [step_of(law.check) for law in ALONE]
    assert steps == sorted(steps)
    assert set(steps) == set(range(len(STEPS)))
