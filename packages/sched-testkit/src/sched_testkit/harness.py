"""What a backend author supplies: how to make a fresh place, and a backend on it.

The whole file that a third party writes::

    from sched_testkit import Harness, conformance


    class MyHarness(Harness):
        name = "mine"

        @contextmanager
        def place(self):
            with TemporaryDirectory() as folder:
                yield Path(folder) / "jobs"

        def backend(self, place):
            return MyBackend(place, lease=timedelta(seconds=30))


    TestMine = conformance(MyHarness())
"""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any

from sched_core import Backend, Capabilities
from sched_core.ports import JobStore

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


class Unfit(Exception):
    """The harness or the backend cannot be examined at all; says what to mend."""


class Harness(ABC):
    """Subclass it, give it a name, and say where data lives and how a backend is made on it."""

    name: str = ""
    """How the certificate calls the backend."""

    patience: float = 20.0
    """Seconds of real time after which a call that should have returned has failed."""

    share: float = 1.0
    """The share of examples, stories, histories and batches that is run: less for a slow store."""

    @abstractmethod
    def place(self) -> AbstractContextManager[Any]:
        """Return a context manager of a fresh, empty place: a folder, a database, a store."""

    @abstractmethod
    def backend(self, place: Any) -> Backend:
        """Return a backend on the place that is not open yet; the second call is a second one.

        A backend whose store has a clock of its own is made so that the clock given to ``open``
        decides (``capabilities.time == "clock"``): the suite moves time by hand.
        """

    async def crash(self, backend: Backend) -> None:  # noqa: B027 -- nothing to do is common
        """Drop the backend without goodbye: as if its process had been killed."""

    async def catch_up(self, backend: Backend) -> None:  # noqa: B027 -- as above
        """Called after time was advanced: make the store notice, where it keeps timers itself."""

    can_fork: bool = hasattr(os, "fork")
    """Whether the suite may fork a process that opens backends on the place, too. It does so before
    it opens any itself. Without, the suite cannot see whether data is durable and shared."""

    can_connect: bool = False
    """Whether :meth:`connect` does something, where ``capabilities.transactions``."""

    def connect(self, place: Any) -> AbstractContextManager[Any] | AbstractAsyncContextManager[Any]:
        """Return a context manager of an application's own connection to the place, for ``within``.

        Its transaction is committed when the block is left, and rolled back on an exception: as
        ``psycopg.connect(address)`` does.
        """
        raise NotImplementedError

    can_cut: bool = False
    """Whether :meth:`cut` and :meth:`heal` do something."""

    async def cut(self, place: Any) -> None:
        """Put the store out of reach of every backend on the place; of what writes, at least."""
        raise NotImplementedError

    async def heal(self, place: Any) -> None:
        """Make it reachable again."""
        raise NotImplementedError

    can_spoil: bool = False
    """Whether :meth:`spoil` does something."""

    async def spoil(self, place: Any, job_id: str) -> None:
        """Turn a stored job's record into one that a newer version wrote and this cannot read."""
        raise NotImplementedError

    can_lock: bool = False
    """Whether :meth:`lock` does something: whether the store lets others lock single records."""

    def lock(self, place: Any, job_id: str) -> AbstractContextManager[Any]:
        """Return a context in which another client keeps a stored job's record locked.

        Where that locks all records, ``claim_due`` may raise ``BackendUnavailable`` meanwhile, and
        should do so soon.
        """
        raise NotImplementedError

    can_spoil_execution: bool = False
    """Whether :meth:`spoil_execution` does something."""

    async def spoil_execution(self, place: Any, job_id: str) -> None:
        """Turn the newest record of a job's history into one that this version cannot read."""
        raise NotImplementedError

    can_stall: bool = False
    """Whether :meth:`stall` does something."""

    def stall(self, place: Any) -> AbstractContextManager[Any]:
        """Return a context in which the store is silent: to clients that write, at least.

        What it was asked meanwhile it does and answers afterwards, unless the client waits no more.
        """
        raise NotImplementedError

    can_refuse_writes: bool = False
    """Whether :meth:`refuse_writes` does something."""

    def refuse_writes(self, place: Any) -> AbstractContextManager[Any]:
        """Return a context in which the store answers reads, and takes nothing new.

        As one that is read-only for a while, or full.
        """
        raise NotImplementedError

    can_make_newer: bool = False
    """Whether :meth:`make_newer` does something."""

    def make_newer(self, place: Any) -> AbstractContextManager[Any]:
        """Return a context in which the store is one that a newer version of the backend wrote.

        It does so to a store that no one has open. At the end it takes back what it has done, and
        raises if that has been changed meanwhile.
        """
        raise NotImplementedError


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


__all__ = ["LOOPS", "METHODS", "OFFERS", "Harness", "Unfit", "fresh", "inspect_backend"]
