"""``conformance(harness)`` builds the exam for one backend: a fresh test class.

Plain functions that run ``anyio.run`` themselves: no async pytest plugin is needed, and none gets
in the way. A fresh class for each backend, because hypothesis refuses ``@given`` methods that
several classes inherit.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from sched_core import Capabilities
from sched_testkit.bench import Bench
from sched_testkit.elsewhere import elsewhere
from sched_testkit.harness import LOOPS, Harness, Unfit, fresh, inspect_backend
from sched_testkit.laws import GENERATED_LAWS, LAWS, GeneratedLaw, Law
from sched_testkit.machine import run_histories

DEEP = os.environ.get("SCHED_DEEP", "") not in {"", "0"}
EXAMPLES = 400 if DEEP else 60
"""Of each law that is examined with generated values."""
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
    methods: dict[str, Any] = {"__doc__": f"The conformance exam of {harness.name}."}
    methods["test_the_harness_is_fit"] = _fitness_test(harness)
    for law in LAWS:
        methods[f"test_{law.name}"] = _law_test(harness, law)
    for generated in GENERATED_LAWS:
        methods[f"test_{generated.name}"] = _generated_test(harness, generated)
    methods["test_histories"] = _histories_test(harness)
    return type(f"Test{re.sub(r'[^a-zA-Z0-9]', '', harness.name.title())}", (), methods)


# -- whether there is something to examine -----------------------------------


def _fitness_test(harness: Harness) -> Callable[[Any], None]:
    def test(self: Any) -> None:
        anyio.run(check_fitness, harness)

    text = "The harness supplies fresh, whole backends."
    return _marked(test, harness, "the_harness_is_fit", text)


async def check_fitness(harness: Harness) -> None:
    """Refuse a harness whose fresh places are not fresh, or whose second backend sees other data.

    Raises:
        Unfit: It cannot be examined; the message says what to mend.
    """
    with fresh(harness) as place:
        bench = Bench(harness, place)
        try:
            backend = await bench.open()
            await _expect_fresh(harness, bench)
            second = await bench.open()
            await bench.added(backend, bench.job())
            if await second.get("job") is None:
                raise Unfit(f"{harness.name}: a second backend on the same place sees other data")
        finally:
            await bench.close()
    with fresh(harness) as place:
        bench = Bench(harness, place)
        try:
            await bench.open()
            await _expect_fresh(harness, bench)
        finally:
            await bench.close()


async def _expect_fresh(harness: Harness, bench: Bench) -> None:
    if await bench.backends[0].get("job") is not None:
        raise Unfit(
            f"{harness.name}: place() returned a place that has the data of an earlier one: "
            "make a new folder, database or store each time"
        )


def declared(harness: Harness) -> Capabilities:
    """Return what a backend of the harness declares.

    Raises:
        Unfit: It has not every method of the port, or contradicts itself.
    """
    known = _DECLARED.get(id(harness))
    if known is None:
        with fresh(harness) as place:
            found = inspect_backend(harness.backend(place), harness.name)
        _DECLARED[id(harness)] = known = (harness, found)
    return known[1]


_DECLARED: dict[int, tuple[Harness, Capabilities]] = {}


# -- one law -----------------------------------------------------------------


def _law_test(harness: Harness, law: Law) -> Callable[..., None]:
    def test(self: Any, loop: str) -> None:
        reason = not_applicable(harness, law, loop)
        if reason is not None:
            pytest.skip(reason)
        run_law(harness, law, loop)

    marked = _marked(test, harness, law.name, law.text)
    parametrized: Callable[..., None] = pytest.mark.parametrize("loop", LOOPS)(marked)
    return parametrized


def not_applicable(harness: Harness, law: Law, loop: str = "asyncio") -> str | None:
    """Return why a law is not asked of a backend, ``None`` if it is."""
    capabilities = declared(harness)
    if loop not in capabilities.loops:
        return f"{loop} is not declared in capabilities.loops"
    return law.needs(capabilities, harness)


def run_law(harness: Harness, law: Law, loop: str = "asyncio") -> None:
    """Hold a backend to one law; whatever it raises where the law is broken names the law."""
    capabilities = declared(harness)
    shared = capabilities.shared or capabilities.durable
    forks = law.elsewhere and harness.can_fork and shared
    _run(harness, law.name, law.text, law.check, loop, forks=forks)


def _run(
    harness: Harness,
    name: str,
    text: str,
    check: Callable[[Bench], Awaitable[None]],
    loop: str = "asyncio",
    *,
    forks: bool = False,
) -> None:
    async def main(bench: Bench) -> None:
        try:
            with anyio.move_on_after(3 * harness.patience) as scope:
                await check(bench)
            assert not scope.cancelled_caught, "a call did not return"
        finally:
            with anyio.move_on_after(harness.patience, shield=True):
                await bench.close()

    try:
        with contextlib.ExitStack() as stack:
            bench = Bench(harness, stack.enter_context(fresh(harness)))
            bench.whole = loop == min(declared(harness).loops)
            if forks:
                bench.other = stack.enter_context(elsewhere(harness, bench.place, loop))
            anyio.run(main, bench, backend=loop)
    except BaseException as error:
        error.add_note(f"{harness.name} breaks the law {name}: {text}")
        raise


def _generated_test(harness: Harness, law: GeneratedLaw) -> Callable[..., None]:
    @settings(
        max_examples=_part(EXAMPLES, harness),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        phases=[phase for phase in Phase if phase is not Phase.explain],
    )
    @given(value=law.values())
    def test(self: Any, value: Any) -> None:
        run_generated_law(harness, law, value)

    return _marked(test, harness, law.name, law.text)


def run_generated_law(harness: Harness, law: GeneratedLaw, value: Any) -> None:
    """Hold a backend to one law with one value."""

    async def check(bench: Bench) -> None:
        await law.check(bench, value)

    _run(harness, law.name, law.text, check, min(declared(harness).loops))


def _histories_test(harness: Harness) -> Callable[[Any], None]:
    def test(self: Any) -> None:
        loop = min(declared(harness).loops)
        examples, steps = HISTORIES
        examples = _part(examples, harness)
        run_histories(harness, examples=examples, steps=steps, derandomize=not DEEP, loop=loop)

    text = "Whole histories of two schedulers, with crashes and lost leases, end as they must."
    return _marked(test, harness, "histories", text)


def _part(examples: int, harness: Harness) -> int:
    return max(round(examples * harness.share), 1)


def _marked(
    test: Callable[..., None], harness: Harness, name: str, text: str
) -> Callable[..., None]:
    test.__name__ = test.__qualname__ = f"test_{name}"
    test.__doc__ = text
    mark = pytest.mark.sched_law(backend=harness.name, law=name, harness=harness)
    marked: Callable[..., None] = mark(test)
    return marked
