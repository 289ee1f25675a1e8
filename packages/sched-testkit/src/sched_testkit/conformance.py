"""``conformance(harness)`` builds the suite for one backend: a fresh test class.

Plain functions that run ``anyio.run`` themselves: no async pytest plugin is needed, and none gets
in the way. A fresh class for each backend, because hypothesis refuses ``@given`` methods that
several classes inherit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve
from hypothesis import HealthCheck, Phase, given, settings

from sched_testkit._histories.machine import run_histories
from sched_testkit._suite.certificate import UNSEEN
from sched_testkit._suite.failure import broken
from sched_testkit._suite.fitness import (
    examine_fitness,
    first_loop,
    progress,
)
from sched_testkit._suite.port import LOOPS
from sched_testkit._suite.runner import (
    not_applicable,
    run_generated_law,
    run_law,
    run_seeded_law,
    unshared_by,
)
from sched_testkit.harness import Harness, Unfit
from sched_testkit.laws import GENERATED_LAWS, LAWS, SEEDED_LAWS, GeneratedLaw, Law, SeededLaw

DEEP = os.environ.get("SCHED_DEEP", "") not in {"", "0"}
EXAMPLES = 400 if DEEP else 60
"""The number of examples of each law that is examined with generated values."""
SEEDS, MORE_SEEDS = (300, 5000) if DEEP else (40, 400)
"""The number of seeds of each law that is examined with seeds: at least, and at most."""
SEEDING = 60.0 if DEEP else 4.0
"""Seconds after which there are no more of them than at least."""
HISTORIES = (400, 60) if DEEP else (40, 30)
"""How many histories, and of how many steps."""


def conformance(harness: Any) -> type:
    """Return a test class that holds a backend to every law.

    Assign it to a name that pytest collects: ``TestMine = conformance(MyHarness())``.

    Args:
        harness: An instance of your :class:`~sched_testkit.harness.Harness`.

    Raises:
        Unfit: It is no harness, or has no name.
    """
    if not isinstance(harness, Harness):
        given_class = isinstance(harness, type) and issubclass(harness, Harness)
        remedy = f"write conformance({harness.__name__}())" if given_class else "subclass Harness"
        raise Unfit(f"conformance() takes an instance of a Harness, not {harness!r}: {remedy}")
    if not str(harness.name or "").strip():
        raise Unfit(f'{type(harness).__name__} needs a name: set `name = "..."` in the class')
    if not 0 < harness.share <= 1:
        raise Unfit(f"{harness.name}: share must be above 0 and at most 1, not {harness.share!r}")
    methods: dict[str, Any] = {"__doc__": f"The conformance suite of {harness.name}."}
    methods["test_the_harness_is_fit"] = _fitness_test(harness)
    for law in LAWS:
        methods[f"test_{law.name}"] = _law_test(harness, law)
    for generated in GENERATED_LAWS:
        methods[f"test_{generated.name}"] = _generated_test(harness, generated)
    for seeded in SEEDED_LAWS:
        methods[f"test_{seeded.name}"] = _seeded_test(harness, seeded)
    methods["test_histories"] = _histories_test(harness)
    return type(f"Test{re.sub(r'[^a-zA-Z0-9]', '', harness.name.title())}", (), methods)


# -- whether there is something to examine -----------------------------------


def _fitness_test(harness: Harness) -> Callable[[Any], None]:
    def test(self: Any) -> None:
        __tracebackhide__ = True
        progress(harness).told = True
        examine_fitness(harness)

    text = "The harness supplies fresh, whole backends."
    return _marked(test, harness, "the_harness_is_fit", text)


def _expect_fit(harness: Harness) -> None:
    """Examine nothing before the fit is right: one test says what to mend, the others skip."""
    __tracebackhide__ = True
    try:
        examine_fitness(harness)
    except Exception:
        if progress(harness).told:
            pytest.skip("not examined: test_the_harness_is_fit says what to mend first")
        progress(harness).told = True  # it is not among the tests of this process
        raise


# -- one law -----------------------------------------------------------------


def _law_test(harness: Harness, law: Law) -> Callable[..., None]:
    def test(self: Any, loop: str) -> None:
        __tracebackhide__ = True
        _expect_fit(harness)
        reason = not_applicable(harness, law, loop)
        if reason is not None:
            pytest.skip(reason)
        unshared = unshared_by(harness, law)
        run_law(harness, law, loop)
        if unshared:
            pytest.skip(
                f"in two processes {UNSEEN}, only on one and two instances: {unshared} failed"
            )

    marked = _marked(test, harness, law.name, law.text, law.examines)
    parametrized: Callable[..., None] = pytest.mark.parametrize("loop", LOOPS)(marked)
    return parametrized


def _generated_test(harness: Harness, law: GeneratedLaw) -> Callable[..., None]:
    @settings(
        max_examples=_part(EXAMPLES, harness),
        deadline=None,
        derandomize=not DEEP,  # a verdict repeats
        suppress_health_check=[HealthCheck.too_slow],
        phases=[phase for phase in Phase if phase is not Phase.explain],
    )
    @given(value=law.values())
    def test(self: Any, value: Any) -> None:
        __tracebackhide__ = True
        _expect_fit(harness)
        run_generated_law(harness, law, value)

    return _marked(test, harness, law.name, law.text)


def _seeded_test(harness: Harness, law: SeededLaw) -> Callable[[Any], None]:
    def test(self: Any) -> None:
        __tracebackhide__ = True
        _expect_fit(harness)
        run_seeded_law(
            harness,
            evolve(law, found=law.found[-_part(len(law.found), harness) :]),
            _part(SEEDS, harness),
            seconds=SEEDING * harness.share,
            more=MORE_SEEDS,
        )

    return _marked(test, harness, law.name, law.text)


def _histories_test(harness: Harness) -> Callable[[Any], None]:
    text = "Whole histories of two schedulers, with crashes and lost leases, end as they must."

    def test(self: Any) -> None:
        __tracebackhide__ = True

        _expect_fit(harness)
        if progress(harness).holds_up:  # its loop runs in a thread, out of the watchdog's reach
            pytest.skip(f"not played: the loop was held up in {progress(harness).holds_up}")
        loop = first_loop(harness)
        examples, steps = HISTORIES
        examples = _part(examples, harness)
        try:
            run_histories(harness, examples=examples, steps=steps, derandomize=not DEEP, loop=loop)
        except Exception as error:  # noqa: BLE001 -- as in a law
            failure = broken(harness.name, "histories", text, error)
        else:
            return
        raise failure

    return _marked(test, harness, "histories", text)


def _part(examples: int, harness: Harness) -> int:
    return max(round(examples * harness.share), 1)


def _marked(
    test: Callable[..., None],
    harness: Harness,
    name: str,
    text: str,
    examines: frozenset[str] = frozenset(),
) -> Callable[..., None]:
    test.__name__ = test.__qualname__ = f"test_{name}"
    test.__doc__ = text
    mark = pytest.mark.sched_law(
        backend=harness.name, law=name, harness=harness, examines=sorted(examines)
    )
    marked: Callable[..., None] = mark(test)
    return marked
