"""What depends on whose clock decides: the server's, or one that a test sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sched_core.clock import Clock
from sched_jetstream._runtime.background import Work
from sched_jetstream._runtime.hints import Hints
from sched_jetstream._runtime.reconciler import Reconciler
from sched_jetstream._store.history import History
from sched_jetstream._store.reader import Reader
from sched_jetstream._store.records import Records


class Timing(Protocol):
    """The clock that decides, and what follows from it."""

    @property
    def clock(self) -> Clock:
        """The clock that decides what is due and which leases have ended."""
        ...

    @property
    def server_expires(self) -> bool:
        """Whether the server deletes what has expired."""
        ...

    @property
    def may_take_over(self) -> bool:
        """Whether this worker may end claims of others whose lease has ended."""
        ...

    def history(self, reader: Reader) -> History:
        """Return the history of the deployment."""
        ...

    async def begin(self) -> None:
        """Get the clock ready, before anything is decided by it."""
        ...

    def lasting(self, reconcile: Work) -> Sequence[Work]:
        """Return what is to be done for as long as the backend is open.

        Args:
            reconcile: Repairs what hints have missed, over and over.
        """
        ...

    async def find_due(self, reconciler: Reconciler, hints: Hints) -> bool:
        """Look for what is due where no hint tells; return whether all records were read."""
        ...

    async def delete_expired(self, reconciler: Reconciler, records: Records) -> int:
        """Delete finished jobs that have expired; return how many."""
        ...
