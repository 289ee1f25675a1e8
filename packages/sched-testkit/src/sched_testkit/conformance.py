"""``conformance(harness)`` builds the suite for one backend: a fresh test class.

Plain functions that run ``anyio.run`` themselves: no async pytest plugin is needed, and none gets
in the way. A fresh class for each backend, because hypothesis refuses ``@given`` methods that
several classes inherit.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from attrs import evolve
from hypothesis import HealthCheck, Phase, given, settings

from sched_core.clock import monotonic_seconds
from sched_testkit._histories.machine import run_histories
from sched_testkit._suite.bench import Bench
from sched_testkit._suite.certificate import UNSEEN
from sched_testkit._suite.failure import broken
from sched_testkit._suite.fitness import (
    HURRY,
    declared,
    examine_fitness,
    first_loop,
    loops,
    progress,
)
from sched_testkit._suite.processes import elsewhere
from sched_testkit._suite.watchdog import HeldUp, watchdog
from sched_testkit.harness import LOOPS, Harness, Unfit, fresh
from sched_testkit.laws import GENERATED_LAWS, LAWS, SEEDED_LAWS, GeneratedLaw, Law, SeededLaw

DEEP = os.environ.get("SCHED_DEEP", "") not in {"", "0"}
EXAMPLES = 400 if DEEP else 60
"""The number of examples of each law that is examined with generated values."""
SEEDS, MORE_SEEDS = (300, 5000) if DEEP else (40, 400)
"""The number of seeds of each law that is examined with seeds: at least, and at most."""
SEEDING = 60.0 if DEEP else 4.0
"""Seconds after which there are no more of them than at least."""
SOON = 2.0
"""Seconds in which a loop that is not held up ends a law whose time has run out."""
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
        unshared = _unshared(harness, law)
        run_law(harness, law, loop)
        if unshared:
            pytest.skip(
                f"in two processes {UNSEEN}, only on one and two instances: {unshared} failed"
            )

    marked = _marked(test, harness, law.name, law.text, law.examines)
    parametrized: Callable[..., None] = pytest.mark.parametrize("loop", LOOPS)(marked)
    return parametrized


def not_applicable(harness: Harness, law: Law, loop: str = "asyncio") -> str | None:
    """Return why a law is not asked of a backend, ``None`` if it is."""
    return loops(harness)[loop] or law.needs(declared(harness), harness)


def run_law(harness: Harness, law: Law, loop: str | None = None) -> None:
    """Hold a backend to one law.

    Raises:
        LawBroken: It breaks the law; the message begins with it.
    """
    __tracebackhide__ = True
    capabilities = declared(harness)
    shared = (capabilities.shared or capabilities.durable) and not _unshared(harness, law)
    forks = law.elsewhere and harness.can_fork and shared
    try:
        _run(harness, law.name, law.text, law.check, loop or first_loop(harness), forks=forks)
    except AssertionError:
        if "shared" in law.examines:
            progress(harness).unshared = law.name
        raise


def _unshared(harness: Harness, law: Law) -> str:
    """Return the failed law that makes rounds in two processes a waste of the author's time."""
    return progress(harness).unshared if "overlap" in law.examines else ""


def _run(
    harness: Harness,
    name: str,
    text: str,
    check: Callable[[Bench], Awaitable[None]],
    loop: str,
    *,
    forks: bool = False,
) -> None:
    __tracebackhide__ = True
    patience = harness.patience * progress(harness).patience

    async def main(bench: Bench) -> None:
        try:
            with anyio.move_on_after(3 * patience) as scope:
                await check(bench)
                await bench.expect_neighbours()
            if scope.cancelled_caught:
                progress(harness).patience = HURRY  # the other laws do not wait so long again
                raise AssertionError(f"a call did not return within {3 * patience:g} seconds")
        finally:
            with anyio.move_on_after(patience, shield=True):
                await bench.close()

    try:
        with contextlib.ExitStack() as stack:
            bench = Bench(harness, stack.enter_context(fresh(harness)))
            bench.whole = loop == first_loop(harness)
            if forks:
                bench.other = stack.enter_context(elsewhere(harness, bench.place, loop))
            with watchdog(4 * patience + SOON):  # closing has patience, too
                anyio.run(main, bench, backend=loop)
    except HeldUp as error:
        progress(harness).patience = HURRY
        progress(harness).holds_up = name
        failure = broken(harness.name, name, text, error)
    except Exception as error:  # noqa: BLE001 -- whatever the author's code raises
        failure = broken(harness.name, name, text, error)
    else:
        return
    raise failure


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


def run_generated_law(harness: Harness, law: GeneratedLaw | SeededLaw, value: Any) -> None:
    """Hold a backend to one law with one value."""
    __tracebackhide__ = True

    async def check(bench: Bench) -> None:
        await law.check(bench, value)

    _run(harness, law.name, law.text, check, first_loop(harness))


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


def run_seeded_law(
    harness: Harness, law: SeededLaw, seeds: int, *, seconds: float = 0.0, more: int = 0
) -> None:
    """Hold a backend to one law with what was found and with seeds; what fails is simplified.

    Args:
        harness: The harness of the backend.
        law: The law.
        seeds: How many.
        seconds: A store that has done them earlier goes on with further seeds until then.
        more: How many seeds there are at most.
    """
    __tracebackhide__ = True
    until = monotonic_seconds() + seconds

    def failure(value: Any) -> BaseException | None:
        try:
            run_generated_law(harness, law, value)
        except Exception as error:  # noqa: BLE001 -- returned
            return error
        return None

    def fails_like(kind: type[BaseException], value: Any) -> bool:
        return type(failure(value)) is kind

    for seed in range(-len(law.found), max(seeds, more)):
        if seed >= seeds and monotonic_seconds() > until:
            return
        value = law.values(seed) if seed >= 0 else law.found[seed]
        error = failure(value)
        if error is not None:
            simpler = law.shortened(value, functools.partial(fails_like, type(error)))
            raise failure(simpler) or error


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
