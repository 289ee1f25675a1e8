"""What a backend author supplies for the torture: a place, a backend on it, and its own faults."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from sched_core import Backend, Scheduler

Fault = Callable[[float], None]
"""Makes the fault for so many seconds; returns when the store is whole again. Runs in a thread."""


class TortureHarness(ABC):
    """Subclass it. Every worker process makes its own instance.

    Attributes:
        name: How the report calls the backend.
        processes: Worker processes at a time.
        lease: The lease of its backends; short, so that much is taken over.
        recovery: How long after a fault of the store it may take until something runs again.
        dead_are_free: Whether a claim may be taken over before its lease ends once its process is
            known to be dead.
        stopped_may_lock: Whether a process that is stopped may hold a lock that all others need,
            as that of a file: then no process is blamed for what it keeps waiting.
        owns_file: Whether the worker processes themselves write the store's file, so that a full
            disk is theirs.
    """

    name: str = ""
    processes: int = 3
    lease: timedelta = timedelta(seconds=2)
    recovery: timedelta = timedelta(seconds=5)
    dead_are_free: bool = False
    stopped_may_lock: bool = False
    owns_file: bool = False

    @abstractmethod
    def place(self, folder: str) -> AbstractContextManager[str]:
        """Enter a fresh place for one run: start a server, make a database; yield its address.

        Args:
            folder: An empty one, for whatever the place needs.
        """

    @abstractmethod
    def backend(self, address: str) -> Backend:
        """Return a backend at the address, with ``lease``; called in each process.

        The run itself uses one, too, to issue commands and to read what came of them. A worker
        knows nothing but the address: ``place`` was entered in the run's process, not in its own.
        """

    def scheduler(self, backend: Backend, **options: Any) -> Scheduler:
        """Return the scheduler that a worker runs; exchanged to plant faults."""
        return Scheduler(backend, **options)

    def faults(self, address: str) -> Mapping[str, Fault]:
        """Return the faults that only this store can have, by name: a server killed, a line cut.

        Asked of the instance whose ``place`` was entered, inside of it. Those that every process
        can have (kill, stop, termination, a clock that is set) are not asked for.
        """
        return {}

    def delays(self, address: str) -> Mapping[str, Fault]:
        """Return those of the store's faults that cost no claim, by name: a row that is locked.

        As ``faults``, but they excuse lateness only. What is claimed stays claimed, however long
        they last: a takeover, or a second run, is accused as if nothing had been done.
        """
        return {}

    def meddle(self, address: str) -> bool:
        """Do in a worker's process what a handler of a user's might do to the store.

        Called by handlers, in the event loop. It excuses nothing.

        Args:
            address: The address of the place.

        Returns:
            Whether there is such a thing.
        """
        return False
