"""All connections of one backend: one for each lane, one that listens, and those of handlers."""

from __future__ import annotations

from datetime import timedelta

import psycopg

from sched_core._support.logger import Logger
from sched_core.errors import BackendError, BackendUnavailable
from sched_sql.postgres.failures import MORE_SLOTS, first_line, is_full
from sched_sql.postgres.pool import HandlerConnections
from sched_sql.postgres.pooler import shares_sessions
from sched_sql.postgres.server import SETTINGS, Address
from sched_sql.postgres.session import Epoch, LaneConnection

logger = Logger("sched_sql")


class Connections:
    """Makes the connections together, and drops them together when one leads to the wrong server.

    Args:
        where: The address, as libpq understands it.
        lease: The time for which claims live: a renewal must get its answer well within it.
        timeout: Seconds to wait for an answer, and for a lock.
        pooled: Whether a pooler may give each transaction another session.
        handlers: The most connections for handlers.
    """

    def __init__(
        self, where: str, *, lease: timedelta, timeout: float, pooled: bool, handlers: int
    ) -> None:
        settings = {
            **SETTINGS,
            "lock_timeout": f"{max(1, round(timeout * 900))}ms",
            "statement_timeout": f"{max(1, round(timeout * 1000))}ms",
        }
        self.address = address = Address(where, timeout=timeout, settings=settings)
        self._pooled, self._handlers = pooled, handlers
        epoch = Epoch(self._leave_old)
        # A renewal needs time left to be made unlocked, where it gets no lock.
        patient = max(1, min(round(timeout * 900), lease // timedelta(milliseconds=4)))
        renewing = {**settings, "lock_timeout": f"{patient}ms"}
        # And to be made again on another connection, where this one gets no answer.
        self.renewal_takes = max(1.0, min(timeout, lease.total_seconds() / 6))
        renew = LaneConnection(
            Address(where, timeout=self.renewal_takes, settings=renewing), epoch, pooled=pooled
        )
        # Without the first of them, what is claimed would be lost: it is made first, and again.
        self.lanes = {"renew": renew} | {
            name: LaneConnection(address, epoch, pooled=pooled, first=renew)
            for name in ("settle", "claim", "edit")
        }
        self.listening = LaneConnection(address, epoch, pooled=pooled, first=renew)
        self.all = [*self.lanes.values(), *([] if pooled else [self.listening])]
        self.pool = HandlerConnections(address, epoch, size=handlers, first=renew, pooled=pooled)

    def open(self) -> None:
        """Make all connections that a claim depends on: it could not be renewed or settled else."""
        self.pool.open()
        for lane in self.all:
            lane.open()
        processes: list[tuple[int, int]] = []
        for lane in self.all:
            try:
                processes.append(lane.processes())
            except psycopg.OperationalError as error:
                if not processes and not is_full(error):
                    raise
                raise BackendUnavailable(
                    f"{self.address}: this backend needs {len(self.all)} connections at all "
                    f"times, and up to {self._handlers} more for event.transaction() "
                    f"(handler_connections); it got {len(processes)}: {first_line(error)}: "
                    f"{MORE_SLOTS}"
                ) from error
        if not self._pooled and shares_sessions(self.all, processes):
            raise BackendError(
                f"{self.address}: this is a pooler that gives each transaction another session: "
                "pass pooled=True (`pooled = true` in a configuration file), or the address of "
                "the server itself"
            )

    def _leave_old(self) -> None:
        """Drop all idle connections, because one has led to the wrong server."""
        logger.info("all connections to the database are made again")
        for lane in self.all:
            lane.leave_old()
        self.pool.leave_old()

    def cut_off(self) -> None:
        """Make all calls that hang in a connection fail."""
        for lane in self.all:
            lane.cut_off()
        self.pool.close()

    def close(self) -> None:
        """Disconnect the lanes; the pool belongs to the event loop."""
        for lane in self.lanes.values():
            lane.close()

    def forget(self) -> None:
        """Let go of the parent's connections in a forked child."""
        for lane in self.lanes.values():
            lane.forget()
