"""A backend in front of another one takes part in its transactions, or is told to."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tests.testkit.mutants import Joined
from tests.testkit.mutants.joined import JoinedHarness
from tests.wrappers import HandsOn

from sched_testkit import Unfit
from sched_testkit._suite.port import inspect_backend
from sched_testkit._suite.runner import run_law
from sched_testkit.laws import LAWS

EXAMPLE = Path(__file__).parents[2] / "examples" / "audited_backend.py"
WITHIN = [law for law in LAWS if "transactions" in law.examines]


def audited(backend: Joined) -> Any:
    spec = importlib.util.spec_from_file_location("audited_backend", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.AuditedBackend(backend, lambda _: None)


class AuditedHarness(JoinedHarness):
    def backend(self, place: Any) -> Any:
        return audited(Joined(place))


@pytest.mark.parametrize("law", WITHIN, ids=lambda law: law.name)
def test_the_example_takes_part(law: Any) -> None:
    run_law(AuditedHarness(Joined), law)


class InFront(HandsOn):
    """A wrapper that knows nothing of transactions, and hands them on like all else."""


def test_what_hands_on_transactions_is_not_fit() -> None:
    with pytest.raises(Unfit, match=r"misses the method within\(\)\s.*transaction\(\)"):
        inspect_backend(InFront(Joined(Joined.makes())), "in front")
