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

import os
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

from sched_core import Backend


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


__all__ = ["Harness", "Unfit"]
