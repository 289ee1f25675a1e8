"""What workers report of themselves: one message for each, which the server deletes after a day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from nats.aio.msg import Msg

from sched_core import WorkerState, codec
from sched_core.ports import FORGOTTEN
from sched_jetstream._model.layout import TTL, Message
from sched_jetstream._store.reader import Reader


class Reports:
    """The reports of the workers of one deployment.

    Args:
        reader: The reader of records.
        worker: The name of the worker whose backend this is.
    """

    def __init__(self, reader: Reader, worker: str) -> None:
        self._reader, self._wire, self._names = reader, reader.wire, reader.names
        self._worker, self._has_reported = worker, False

    async def store(self, state: WorkerState) -> None:
        """Store a report in the place of the worker's earlier one."""
        headers = {TTL: str(int(FORGOTTEN.total_seconds()))}
        body = codec.encode_value(state).encode()
        self._has_reported = self._has_reported or state.name == self._worker
        await self._wire.store(Message(self._names.report(state.name), body, headers))

    async def all(self) -> Sequence[WorkerState]:
        """Return all reports, by the names of the workers."""
        return sorted((state for _, state in await self._all()), key=lambda state: state.name)

    async def _all(self) -> list[tuple[Msg, WorkerState]]:
        found: dict[str, tuple[Msg, WorkerState]] = {}
        async for batch in self._reader.messages(self._names.reports):
            for msg in batch:
                try:
                    state = codec.decode_value(msg.data.decode(errors="replace"), WorkerState)
                except codec.Malformed:
                    continue  # a newer version's, and only to be looked at
                found[state.name] = msg, state
        return list(found.values())

    async def prune(self, now: datetime) -> None:
        """Delete the reports that are older than a day by the clock that decides."""
        for msg, state in await self._all():
            if state.seen_at < now - FORGOTTEN:
                sequence = int((msg.headers or {})["Nats-Sequence"])
                await self._purge(self._names.report(state.name), {"seq": sequence + 1})

    async def withdraw(self) -> None:
        """Delete what this backend's worker has reported."""
        if self._has_reported:
            await self._purge(self._names.report(self._worker), {})

    async def _purge(self, subject: str, more: dict[str, int]) -> None:
        await self._wire.call(f"STREAM.PURGE.{self._names.stream}", {"filter": subject, **more})
