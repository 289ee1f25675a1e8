"""Whether a harness and its backend fit the port, so that there is something to examine."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sched_core import Backend, Capabilities
from sched_core.ports import JobStore
from sched_testkit.harness import Harness, Unfit

LOOPS = ("asyncio", "trio")

METHODS = tuple(
    name
    for protocol in (JobStore, Backend)
    for name, value in vars(protocol).items()
    if inspect.iscoroutinefunction(value)
)
"""The coroutine methods of the port."""

OFFERS: dict[str, str] = {"due_since": "0.1", "live_workers": "0.1"}
"""Methods that a backend may leave out, with the version of sched-core that first had them.

What calls them does the same with the older ones where they are missing; so a backend that was
written for an earlier version stays whole. A law of such a method names it in its needs:
``law(needs=offers("due_since"))``; without the method it is skipped, as not offered.
"""


@contextmanager
def fresh(harness: Harness) -> Iterator[Any]:
    """Enter a fresh place of the harness.

    Raises:
        Unfit: ``place()`` returned something that cannot be entered.
    """
    manager = harness.place()
    if not (hasattr(type(manager), "__enter__") and hasattr(type(manager), "__exit__")):
        raise Unfit(
            f"{harness.name}: place() must return a context manager, not {type(manager).__name__}: "
            "write @contextmanager above it, and yield the place"
        )
    with manager as place:
        yield place


def inspect_backend(backend: object, harness_name: str) -> Capabilities:
    """Return the capabilities of a backend that has every method of the port.

    Raises:
        Unfit: Methods are missing or no coroutine functions, or the capabilities contradict
            themselves; the message names all of it.
    """
    kind = type(backend).__name__
    if inspect.iscoroutine(backend):
        backend.close()
        raise Unfit(
            f"{harness_name}: backend() must return the backend itself: write `def`, not `async "
            "def`; the suite opens it"
        )
    if problems := list(_misfits(backend, kind)):
        raise Unfit(f"{harness_name}: {kind} is not the port:\n  " + "\n  ".join(problems))
    capabilities: Capabilities = backend.capabilities  # type: ignore[attr-defined]  # just asked
    problems = list(_contradictions(capabilities))
    if problems:
        raise Unfit(f"{harness_name}: the capabilities of {kind} contradict: {'; '.join(problems)}")
    return capabilities


def _misfits(backend: object, kind: str) -> Iterator[str]:
    """Yield everything that is missing: an author mends it in one go."""
    for name in METHODS:
        method = getattr(backend, name, None)
        if method is None:
            yield f"it misses the method {name}() of the port"
    for name in (*METHODS, *OFFERS):
        method = getattr(backend, name, None)
        if method is not None and not inspect.iscoroutinefunction(method):
            yield f"{kind}.{name} must be a coroutine function: write `async def {name}`"
    declared = getattr(backend, "capabilities", None)
    if not isinstance(declared, Capabilities):
        yield f"{kind}.capabilities must be a Capabilities, not {declared!r}"
    elif declared.transactions:
        for name in ("within", "transaction"):  # its own: not what __getattr__ hands on
            if inspect.getattr_static(backend, name, None) is None:
                yield f"it declares transactions, and misses the method {name}()"


def _contradictions(capabilities: Capabilities) -> Iterator[str]:
    zero = timedelta(0)
    if capabilities.lease <= zero:
        yield f"lease must be more than zero, not {capabilities.lease}"
    if capabilities.granularity <= zero:
        yield f"granularity must be more than zero, not {capabilities.granularity}"
    if capabilities.granularity >= capabilities.lease:
        yield "granularity must be finer than the lease"
    if capabilities.bulk_limit is not None and capabilities.bulk_limit < 1:
        yield f"bulk_limit must be at least 1, not {capabilities.bulk_limit}"
    if not capabilities.loops:
        yield "loops must name at least one event loop"
    if strange := sorted(capabilities.loops - set(LOOPS)):
        yield f"loops names {', '.join(strange)}, and may name {' and '.join(LOOPS)}"
    if capabilities.time != "clock":
        yield (
            'time is "store": the suite moves time by hand, so build the backend with time="clock" '
            "in the harness"
        )
