"""Whether there is something to examine: asked once for each harness, before any law."""

from __future__ import annotations

import importlib.util
from typing import Any

import anyio
from attrs import define

from sched_core import Capabilities
from sched_testkit._suite.bench import Bench
from sched_testkit._suite.port import LOOPS, fresh, inspect_backend
from sched_testkit.harness import Harness, Unfit

HURRY = 0.1
"""The part of its patience that a run of the suite keeps once a call did not return."""


@define
class Progress:
    """What is known about a harness in this process.

    Attributes:
        harness: The harness that is examined.
        capabilities: What its backends declare; ``None`` until they are asked.
        problem: Why it cannot be examined: empty if it can, ``None`` until that is known.
        told: Whether a test has failed with the problem.
        patience: The part of the harness's patience that is left.
        unshared: The law about several processes that has failed; empty as long as none has.
        holds_up: The law in which a call held up the event loop; empty as long as none has.
    """

    harness: Harness
    capabilities: Capabilities | None = None
    problem: str | None = None
    told: bool = False
    patience: float = 1.0
    unshared: str = ""
    holds_up: str = ""


_KNOWN: dict[int, Progress] = {}


def progress(harness: Harness) -> Progress:
    """Return what is known about a harness."""
    known = _KNOWN.get(id(harness))
    if known is None or known.harness is not harness:
        _KNOWN[id(harness)] = known = Progress(harness)
    return known


def declared(harness: Harness) -> Capabilities:
    """Return what a backend of the harness declares.

    Raises:
        Unfit: It has not every method of the port, or contradicts itself.
    """
    known = progress(harness)
    if known.capabilities is None:
        with fresh(harness) as place:
            known.capabilities = inspect_backend(harness.backend(place), harness.name)
    return known.capabilities


def loops(harness: Harness) -> dict[str, str]:
    """Return for each event loop why it is not examined; empty where it is.

    Raises:
        Unfit: See :func:`declared`.
    """
    return {loop: _why_not(harness, loop) for loop in LOOPS}


def _why_not(harness: Harness, loop: str) -> str:
    if loop not in declared(harness).loops:
        return f"{loop} is not declared in capabilities.loops"
    if importlib.util.find_spec(loop) is None:
        return (
            f"{loop} is not installed: NOT examined; pip install {loop}, or leave it out of loops"
        )
    return ""


def first_loop(harness: Harness) -> str:
    """Return the event loop that is examined in full.

    Raises:
        Unfit: None of the declared event loops is installed.
    """
    examined = [loop for loop, why_not in loops(harness).items() if not why_not]
    if not examined:
        names = " ".join(sorted(declared(harness).loops))
        raise Unfit(f"{harness.name}: none of the declared loops is installed: pip install {names}")
    return examined[0]


def examine_fitness(harness: Harness) -> None:
    """Refuse a harness that cannot be examined; whatever is wrong is raised each time.

    Raises:
        Unfit: The message says what to mend.
    """
    known = progress(harness)
    if known.problem is None:
        known.problem = "the suite could not begin"
        try:
            anyio.run(check_fitness, harness, backend=first_loop(harness))
        except Exception as error:
            known.problem = str(error) if isinstance(error, Unfit) else f"{error!r}"
            raise
        known.problem = ""
    elif known.problem:
        raise Unfit(known.problem)


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


def about(harness: Harness) -> dict[str, Any]:
    """Return what the certificate says about a harness, whatever the author's code raises."""
    try:
        return {
            "capabilities": _as_json(declared(harness)),
            "loops": loops(harness),
            "forks": harness.can_fork,
        }
    except Exception:  # noqa: BLE001 -- its test says it
        return {"capabilities": {}, "loops": {}, "forks": False}


def _as_json(capabilities: Capabilities) -> dict[str, Any]:
    """Return what a backend declares as JSON values: they cross processes under pytest-xdist."""
    return {
        "durable": capabilities.durable,
        "shared": capabilities.shared,
        "ordered": capabilities.ordered,
        "transactions": capabilities.transactions,
        "notified": capabilities.notified,
        "bulk_limit": capabilities.bulk_limit,
        "time": capabilities.time,
        "granularity_seconds": capabilities.granularity.total_seconds(),
        "lease_seconds": capabilities.lease.total_seconds(),
        "loops": sorted(capabilities.loops),
    }
