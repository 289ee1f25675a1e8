"""A thread that renews leases while the event loop cannot.

Without it, a handler that blocks the loop would lose every lease of the process. But a loop that is
blocked for good must lose its leases, or a hung process would hold its jobs without end; and so
must a claim that the loop has given up. So the thread renews a claim only for two leases after the
loop last named it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Sequence
from datetime import timedelta
from typing import NamedTuple

from sched_core import Claim, Renewal
from sched_core._support.logger import Logger
from sched_core.clock import boot_seconds

logger = Logger("sched_sql")

STALLED = 2
"""The leases after which the thread stops renewing a claim that the loop has not named."""


class _Held(NamedTuple):
    claim: Claim
    until: float
    """The end of its lease, counted from before the request that renewed it."""
    named_at: float
    """The moment at which the loop last claimed it, or asked for its renewal."""
    alone: bool
    """Whether it was the only run at that moment."""


class Heartbeat:
    """Knows what this process holds, and until when.

    Args:
        renew: Renews claims; called from the thread, and may raise.
    """

    def __init__(self, renew: Callable[[Sequence[Renewal]], object]) -> None:
        self._renew = renew
        self._lease = 0.0
        self._held: dict[tuple[str, int], _Held] = {}
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, lease: timedelta) -> None:
        """Begin to renew what is held whenever less than a third of its lease is left."""
        self._lease = lease.total_seconds()
        self._end.clear()
        self._thread = threading.Thread(target=self._serve, name="sched heartbeat", daemon=True)
        self._thread.start()

    def stop(self, patience: float) -> None:
        """End the thread."""
        self._end.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(patience)
        self._held.clear()

    def forget(self) -> None:
        """Forget the parent's thread in a forked child, where it does not run."""
        self._lock, self._thread = threading.Lock(), None
        self._held.clear()

    def hold(
        self,
        claims: Sequence[Claim],
        since: float,
        *,
        named: bool,
        alone: Container[int] = frozenset(),
    ) -> None:
        """Note what is held.

        Args:
            claims: New ones, or renewed.
            since: The moment at which the request for them was sent.
            named: Whether the loop asked for it.
            alone: The tokens of claims that are the process's only run, where the loop has asked.
        """
        with self._lock:
            for claim in claims:
                key = (claim.job.spec.id, claim.token)
                known = self._held.get(key)
                until = since + self._lease
                if named:
                    self._held[key] = _Held(claim, until, since, claim.token in alone)
                elif known is not None:
                    self._held[key] = known._replace(claim=claim, until=until)

    def drop(self, claims: Sequence[Claim]) -> None:
        """Forget what is no longer held."""
        with self._lock:
            for claim in claims:
                self._held.pop((claim.job.spec.id, claim.token), None)

    def held(self) -> list[Renewal]:
        """Return what is held, to be renewed."""
        with self._lock:
            return [Renewal(held.claim, held.alone) for held in self._held.values()]

    def _due(self) -> list[Renewal]:
        """Return what to renew now; forget what the loop has not named for too long."""
        now = boot_seconds()
        with self._lock:
            given_up = [
                key
                for key, held in self._held.items()
                if now - held.named_at > STALLED * self._lease
            ]
            for key in given_up:
                del self._held[key]
            due = [
                Renewal(held.claim, held.alone)
                for held in self._held.values()
                if held.until - now < 0.3 * self._lease
            ]
        if given_up:
            logger.warning(
                "%s claims are left to their leases: the event loop has not asked for them for "
                "%s leases",
                len(given_up),
                STALLED,
            )
        return due

    def _serve(self) -> None:
        pause = min(max(self._lease / 10, 0.02), 1.0)
        while not self._end.wait(pause):
            due = self._due()
            if due:
                try:
                    self._renew(due)
                except Exception as error:  # noqa: BLE001 -- tried again; the loop's attempt tells
                    logger.warning("leases could not be renewed: %s", error)
