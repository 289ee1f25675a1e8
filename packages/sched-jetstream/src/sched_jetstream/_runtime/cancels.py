"""Cancels: the edit that marks a run wakes the worker that has it.

A plain message, which may get lost: the next renewal tells all the same.
"""

from __future__ import annotations

import anyio
from nats.aio.msg import Msg

from sched_core._support.logger import Logger
from sched_core.clock import Alarm, Clock
from sched_core.errors import BackendError
from sched_core.ports import MAX_POLL
from sched_core.row import is_to_be_cancelled
from sched_jetstream._model.protocol import StoredRecord
from sched_jetstream._model.record import Record
from sched_jetstream._model.subjects import Names
from sched_jetstream._store.wire import Wire

logger = Logger("sched_jetstream")


class Cancels:
    """Tells workers that a claim of theirs may be marked, and hears it told.

    Args:
        wire: The connection to the server.
        names: The names of the deployment.
        worker: The name of this worker.
    """

    def __init__(self, wire: Wire, names: Names, worker: str) -> None:
        self._wire, self._names, self._worker = wire, names, worker
        self._alarm = Alarm()
        self._seen = 0

    async def begin(self) -> None:
        """Hear what is told to this worker.

        Raises:
            PermissionDenied: It may not be heard.
            NotSent: The connection is lost.
        """
        await self._wire.hear(self._names.cancel(self._worker), self._told)

    def _told(self, _: Msg) -> None:
        self._alarm.nudge()

    async def wait(self, clock: Clock) -> bool:
        """Return whether something was told since the last call; wait for it until ``MAX_POLL``."""
        with anyio.move_on_after(MAX_POLL.total_seconds()):
            await self._alarm.sleep(clock, clock.now() + MAX_POLL, self._seen)
        seen, self._seen = self._seen, self._alarm.count
        return seen != self._seen

    async def tell(self, found: StoredRecord) -> None:
        """Wake the worker that holds a job, if what it holds is marked."""
        record = found.content
        if not isinstance(record, Record) or record.hold is None:
            return
        if not is_to_be_cancelled(record.job, record.hold):
            return
        if record.hold.worker == self._worker:
            self._alarm.nudge()
            return
        try:
            await self._wire.send(self._names.cancel(record.hold.worker))
        except BackendError as error:
            logger.debug("the worker hears of a cancellation when it renews: %s", error)

    def close(self) -> None:
        """End the waiting calls."""
        self._alarm.nudge()
