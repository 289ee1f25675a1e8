"""Leases renewed from a thread of their own while the event loop cannot.

A handler that blocks the loop would lose every lease of the process. But a loop that is blocked for
good must lose them, or a hung process would hold its jobs for ever: so the thread renews only as
long as the loop has shown itself within the last two leases.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta

from sched_core.clock import boot_seconds
from sched_core.job import Claim

logger = logging.getLogger("sched_sql")

STALLED = 2
"""Leases without a sign of life of the loop, after which nothing is renewed any more."""


class Heartbeat:
    """Knows what this process holds, and until when.

    Args:
        renew: Renews claims; called from the thread, and may raise.
    """

    def __init__(self, renew: Callable[[Sequence[Claim]], object]) -> None:
        self._renew = renew
        self._lease = 0.0
        self._held: dict[tuple[str, int], tuple[Claim, float]] = {}
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._alive_at = boot_seconds()
        self._stalled = False

    def start(self, lease: timedelta) -> None:
        """Begin to renew what is held whenever less than a third of its lease is left."""
        self._lease = lease.total_seconds()
        self._end.clear()
        self._alive_at = boot_seconds()
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

    def alive(self) -> None:
        """Note a sign of life of the loop."""
        self._alive_at = boot_seconds()

    def hold(self, claims: Sequence[Claim], since: float) -> None:
        """Note what is held.

        Args:
            claims: New ones, or renewed.
            since: When the request was sent that made them so: leases are counted from before it.
        """
        with self._lock:
            for claim in claims:
                self._held[claim.job.spec.id, claim.token] = (claim, since + self._lease)

    def drop(self, claims: Sequence[Claim]) -> None:
        """Forget what is no longer held."""
        with self._lock:
            for claim in claims:
                self._held.pop((claim.job.spec.id, claim.token), None)

    def _serve(self) -> None:
        pause = min(max(self._lease / 10, 0.02), 1.0)
        while not self._end.wait(pause):
            now = boot_seconds()
            if now - self._alive_at > STALLED * self._lease:
                if not self._stalled and self._held:
                    logger.error(
                        "the event loop has not moved for %.0f s: leases are left to run out",
                        now - self._alive_at,
                    )
                self._stalled = True
                continue
            self._stalled = False
            with self._lock:
                due = [c for c, until in self._held.values() if until - now < 0.3 * self._lease]
            if due:
                try:
                    self._renew(due)
                except Exception as error:  # noqa: BLE001 -- tried again; the loop's own attempt tells
                    logger.warning("leases could not be renewed: %s", error)
