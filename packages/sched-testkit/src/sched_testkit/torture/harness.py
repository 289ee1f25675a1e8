"""What a backend author supplies for the torture: a place, a backend on it, and its own faults."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from sched_core import Backend, Scheduler

Fault = Callable[[float], None]
"""Does harm for so many seconds, and undoes it before it returns; called in a thread."""


class TortureHarness(ABC):
    """Subclass it. It is made anew in every worker process, so it keeps nothing.

    Attributes:
        name: How the report calls the backend.
        processes: Worker processes at a time.
        lease: Of the backends it makes; short, so that much is taken over.
    """

    name: str = ""
    processes: int = 3
    lease: timedelta = timedelta(seconds=2)

    @abstractmethod
    def place(self, folder: str) -> AbstractContextManager[str]:
        """Enter a fresh place for one run: start a server, make a database; yield its address.

        Args:
            folder: An empty one, for whatever the place needs.
        """

    @abstractmethod
    def backend(self, address: str) -> Backend:
        """Return a backend at the address, with ``lease``; called in each process."""

    def scheduler(self, backend: Backend, **options: Any) -> Scheduler:
        """Return the scheduler that a worker runs; exchanged to plant faults."""
        return Scheduler(backend, **options)

    def faults(self, address: str) -> Mapping[str, Fault]:
        """Return the faults that only this store can have, by name: a server killed, a full disk.

        Those that every process can have (kill, stop, termination) are not asked for.
        """
        return {}
