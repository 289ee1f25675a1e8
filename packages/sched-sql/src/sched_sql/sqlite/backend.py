"""The backend for a SQLite file: one connection, so one thread for nearly every call."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

from sched_core import Capabilities, Claim, Renewal
from sched_core.clock import Clock, monotonic_seconds, pause
from sched_core.errors import InvalidDefinition
from sched_sql._shared.address import Sqlite, address_of
from sched_sql._shared.table import Locked
from sched_sql._shared.threads import Lane
from sched_sql.backend import LEASE, TIMEOUT, DatabaseBackend, check_duration
from sched_sql.sqlite.table import SqliteTable

LOOK_FOR_CANCELS_EVERY = 0.1
"""Seconds between looks whether another process has marked a claim to be cancelled."""

LOOK_FOR_DEAD_EVERY = 1.0
"""Seconds between looks whether another worker has died."""


class SqliteBackend(DatabaseBackend):
    """Jobs in a SQLite file that the processes of one machine may share.

    Args:
        where: ``"sqlite:///relative.db"``, ``"sqlite:////absolute.db"``, or a path.
        lease: How long a claim lives unless it is renewed.
        timeout: How long to wait for a lock.
        synchronous: ``"FULL"``: adds, edits and settles survive a power loss. ``"NORMAL"``: they
            survive the death of every process; a power loss may take back the last ones.
        create: False: open a store that is there, and make none; opening raises
            :class:`~sched_core.errors.StoreNotFound` where there is none, and a
            :class:`~sched_core.errors.BackendError` where an older version's is.

    Raises:
        InvalidDefinition: The address or an option cannot be.
    """

    _table: SqliteTable

    def __init__(
        self,
        where: str | os.PathLike[str],
        *,
        lease: timedelta = LEASE,
        timeout: timedelta = TIMEOUT,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        create: bool = True,
    ) -> None:
        check_duration("lease", lease, least=timedelta(milliseconds=1))
        check_duration("timeout", timeout, least=timedelta(0))
        address = address_of(where)
        if not isinstance(address, Sqlite):
            raise InvalidDefinition("where", "names a server: use PostgresBackend")
        if synchronous not in {"FULL", "NORMAL"}:
            raise InvalidDefinition(
                "synchronous", f"must be 'FULL' or 'NORMAL', not {synchronous!r}"
            )
        table = SqliteTable(
            _absolute(address.path),
            synchronous=synchronous,
            timeout=timeout.total_seconds(),
            lease=lease,
            create=create,
        )
        capabilities = Capabilities(
            durable=True,
            shared=True,
            time="clock",
            granularity=timedelta(microseconds=1),
            lease=lease,
        )
        super().__init__(table, capabilities)
        self._looked_for_dead = 0.0
        self._cancels_heard = 0

    def _joined(self, lane: Lane) -> Lane:
        return lane if lane is Lane.RENEW_UNLOCKED else Lane.EDIT

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        decides = await super().open(clock, worker=worker)
        self._looked_for_dead = monotonic_seconds()
        return decides

    async def live_workers(self) -> Sequence[str]:
        return await self._call(Lane.EDIT, self._table.live_workers)

    async def _before_wait(self) -> None:
        await self._release_dead()

    async def _has_changed(self) -> bool:
        released = await self._release_dead()
        return await super()._has_changed() or released

    async def _until_cancelled(self) -> None:
        await self._call(Lane.LISTEN, self._table.look_for_cancels)
        while self._table.cancels == self._cancels_heard:
            await pause(LOOK_FOR_CANCELS_EVERY)
            await self._call(Lane.LISTEN, self._table.look_for_cancels)
        self._cancels_heard = self._table.cancels

    async def _release_dead(self) -> bool:
        """End the claims of workers that have died, if it is time to look; return whether any."""
        if monotonic_seconds() - self._looked_for_dead <= LOOK_FOR_DEAD_EVERY:
            return False
        self._looked_for_dead = monotonic_seconds()
        return await self._call(Lane.EDIT, self._table.release_dead, self._now)

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[Claim]:
        arguments = (renewals, self._now)
        patience = (self.capabilities.lease / 4).total_seconds()
        call = functools.partial(self._translated, self._table.renew, arguments)
        try:
            return await self._thread(Lane.RENEW).call_within(call, patience)
        except (TimeoutError, Locked):
            return await self._call(Lane.RENEW_UNLOCKED, self._table.renew_unlocked, *arguments)


def _absolute(path: str) -> str:
    absolute = Path(path).absolute()
    if os.path.isdir(absolute):  # noqa: PTH112 -- False where it may not be looked at
        raise InvalidDefinition("where", f"{absolute} is a directory: name a file in it")
    return str(absolute)
