"""Holds a backend to one law, on a fresh place and within the harness's patience."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from sched_core.clock import monotonic_seconds
from sched_testkit._suite.bench import Bench
from sched_testkit._suite.failure import broken
from sched_testkit._suite.fitness import HURRY, declared, first_loop, loops, progress
from sched_testkit._suite.port import fresh
from sched_testkit._suite.processes import elsewhere
from sched_testkit._suite.watchdog import HeldUp, watchdog
from sched_testkit.harness import Harness
from sched_testkit.laws import GeneratedLaw, Law, SeededLaw

SOON = 2.0
"""Seconds in which a loop that is not held up ends a law whose time has run out."""


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
    shared = (capabilities.shared or capabilities.durable) and not unshared_by(harness, law)
    forks = law.elsewhere and harness.can_fork and shared
    try:
        _run(harness, law.name, law.text, law.check, loop or first_loop(harness), forks=forks)
    except AssertionError:
        if "shared" in law.examines:
            progress(harness).unshared = law.name
        raise


def run_generated_law(harness: Harness, law: GeneratedLaw | SeededLaw, value: Any) -> None:
    """Hold a backend to one law with one value."""
    __tracebackhide__ = True

    async def check(bench: Bench) -> None:
        await law.check(bench, value)

    _run(harness, law.name, law.text, check, first_loop(harness))


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


def unshared_by(harness: Harness, law: Law) -> str:
    """Return the failed law that makes rounds in two processes a waste of the author's time."""
    return progress(harness).unshared if "overlap" in law.examines else ""
