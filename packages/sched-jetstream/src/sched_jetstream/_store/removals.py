"""What was deleted from the history: how much, and how much of it after some place.

The stream gives consecutive sequences to what it copies. So what it lacks up to its newest sequence
was deleted. The server tells how many messages there are after a sequence, and how many in all, but
not both in one answer; where something is written in between, the question is asked again.
"""

from __future__ import annotations

import re

from attrs import frozen
from nats.aio.msg import Msg

from sched_core.clock import pause
from sched_jetstream._store.reader import NO_STREAM, Reader
from sched_jetstream._store.wire import ApiError, NoResponders
from sched_jetstream.errors import StreamLost

TRIES = 100
"""How often it is asked while a busy store writes in between."""
MOST_BYTES = 8 * 1024 * 1024
"""Bytes of one answer: what waits to be sent must stay far below what the server keeps for us."""
LAG = 0.1
"""Seconds for a copy of the stream to catch up with its leader, which told of a deletion."""


@frozen
class Extent:
    """How far the history goes.

    Attributes:
        made: When the stream was made, as digits.
        first: The sequence of the oldest message.
        last: The newest sequence that was given.
        removed: How many sequences up to there are missing.
    """

    made: str
    first: int
    last: int
    removed: int


class Removals:
    """Counts what was deleted from the history of one deployment.

    Args:
        reader: The reader of records.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader, self._wire = reader, reader.wire
        self._stream = reader.names.history_stream

    async def extent(self) -> Extent:
        """Return how far the history goes now, as the leader has it."""
        try:
            info = await self._wire.call(f"STREAM.INFO.{self._stream}")
        except ApiError as error:
            if error.err_code == NO_STREAM:
                raise StreamLost(self._stream) from error
            raise
        state = info["state"]
        last = int(state["last_seq"])
        made = re.sub(r"\D", "", str(info.get("created", ""))) or "0"
        return Extent(made, int(state["first_seq"]), last, last - int(state["messages"]))

    async def after(self, sequence: int, known: int) -> tuple[Extent, int] | None:
        """Return how many messages after a sequence were deleted, and the extent at that time.

        Args:
            sequence: The sequence.
            known: How many it had been before: it never becomes less.

        Returns:
            ``None`` where the store was too busy to tell.
        """
        if self._reader.may_lag:
            await pause(LAG)
        for number in range(TRIES):
            before = await self.extent()
            there = await self._after(sequence)
            now = await self.extent()
            least, most = before.last - sequence - there, now.last - sequence - there
            if before.removed == now.removed and (least == most or most <= known or least > known):
                return now, max(least, known)
            await pause(0.001 * min(number, 10))
        return None

    async def _after(self, sequence: int) -> int:
        """Return how many messages there are after a sequence."""
        found: list[Msg] = []
        await self.read({"seq": sequence + 1, "batch": 1}, found)
        return 1 + left_of(found[0]) if found else 0

    async def between(self, start: int, end: int) -> list[Msg]:
        """Return the messages from a sequence on and before another, in their order."""
        found: list[Msg] = []
        while start < end:
            batch: list[Msg] = []
            body: dict[str, object] = {"seq": start, "batch": end - start}
            await self.read({**body, "max_bytes": MOST_BYTES}, batch)
            found += (msg for msg in batch if sequence_of(msg) < end)
            if not batch or not left_of(batch[-1]):
                break
            start = sequence_of(batch[-1]) + 1
        return found

    async def read(self, body: dict[str, object], found: list[Msg]) -> None:
        """Read messages of the history, in the order of their sequences."""
        subject = f"{self._wire.api}.DIRECT.GET.{self._stream}"
        try:
            await self._wire.collect(subject, body, each=found.append)
        except NoResponders:
            await self._reader.stream_exists(self._stream)
            raise


def sequence_of(msg: Msg) -> int:
    """Return the sequence of a message that was read."""
    return int((msg.headers or {})["Nats-Sequence"])


def left_of(msg: Msg) -> int:
    """Return how many messages come after one that a batch brought."""
    return int((msg.headers or {}).get("Nats-Num-Pending", 0))
