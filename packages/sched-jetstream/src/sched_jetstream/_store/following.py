"""The history in the order in which it was written, from a cursor on.

The order is that of the copies: one stream is copied, in its own order, so what is copied late
comes late, and nothing comes before what it had been written after.
"""

from __future__ import annotations

from attrs import evolve, frozen
from nats.aio.msg import Msg

from sched_core.clock import pause
from sched_core.errors import CursorExpired
from sched_core.ports import Followed
from sched_jetstream._model.place import Place, place_of
from sched_jetstream._store.history import Entry, History
from sched_jetstream._store.reader import Reader
from sched_jetstream._store.removals import MOST_BYTES, Extent, Removals, left_of

TRIES = 100
"""How often a part is read again because something was deleted meanwhile."""
PATIENCE = 0.5
"""Seconds to wait for what is written and not copied yet."""


@frozen
class _Part:
    here: int
    """The origin of what is at the place itself; 0 where that is gone."""
    entries: list[Entry]
    left: int
    """How many messages came after them."""


class Following:
    """Follows the history of one deployment.

    Args:
        reader: The reader of records.
        history: The history.
        removals: What was deleted from it.
    """

    def __init__(self, reader: Reader, history: History, removals: Removals) -> None:
        self._names, self._history, self._removals = reader.names, history, removals

    async def part(self, after: str | None, limit: int) -> Followed:
        """Return the executions after a cursor; see ``Backend.follow``."""
        if after is None:
            await self._history.catch_up(PATIENCE)
            return Followed((), str(await self._end()))
        if after:
            place = place_of(after, self._names.execution_bucket)
        else:
            extent = await self._removals.extent()
            place = self._place(extent, 0, 0, extent.removed)
        while True:
            part = await self._read(place, limit)
            extent = await self._removals.extent()
            _check(place, part, extent, after)
            if extent.removed != place.removed:
                place, part = await self._again(place, limit, after)
            place = _moved(place, part.entries)
            found = [each.execution for each in part.entries if each.execution is not None]
            if found or not part.left:
                return Followed(found, str(place), None if part.left else self._history.lags_since)

    async def _end(self) -> Place:
        extent = await self._removals.extent()
        found: list[Msg] = []
        if extent.last:
            await self._removals.read({"seq": extent.last, "batch": 1}, found)
        entries = [self._history.copy(msg) for msg in found]
        origin = next((each.origin for each in entries if each.sequence == extent.last), 0)
        return self._place(extent, extent.last, origin, 0)

    def _place(self, extent: Extent, sequence: int, origin: int, ahead: int) -> Place:
        bucket = self._names.execution_bucket
        return Place(bucket, extent.made, sequence, origin, extent.removed, ahead)

    async def _again(self, place: Place, limit: int, after: str) -> tuple[Place, _Part]:
        """Read after something was deleted: was it read before?

        Raises:
            CursorExpired: It was not, or the store is too busy to tell.
        """
        for _ in range(TRIES):
            counted = await self._removals.after(place.sequence, place.ahead)
            if counted is None:
                break
            extent, ahead = counted
            if after and ahead > place.ahead:
                break
            place = evolve(place, removed=extent.removed, ahead=ahead)
            part = await self._read(place, limit)
            extent = await self._removals.extent()
            _check(place, part, extent, after)
            if extent.removed == place.removed:
                return place, part
            await pause(0.01)
        raise CursorExpired(after)

    async def _read(self, place: Place, limit: int) -> _Part:
        """Return what is at the place and after it."""
        entries, left = await self._batch(max(place.sequence, 1), limit + 1)
        if not left and len(entries) <= limit and await self._history.catch_up(PATIENCE):
            end = entries[-1].sequence if entries else place.sequence
            more, left = await self._batch(end + 1, limit + 1)
            entries += more
        here = next((each.origin for each in entries if each.sequence == place.sequence), 0)
        new = [each for each in entries if each.sequence > place.sequence]
        return _Part(here, new[:limit], left + len(new[limit:]))

    async def _batch(self, sequence: int, count: int) -> tuple[list[Entry], int]:
        """Return what comes from a sequence on, and how many messages come after that."""
        found: list[Msg] = []
        body: dict[str, object] = {"seq": sequence, "batch": count, "max_bytes": MOST_BYTES}
        await self._removals.read(body, found)
        return [self._history.copy(msg) for msg in found], left_of(found[-1]) if found else 0


def _check(place: Place, part: _Part, extent: Extent, after: str) -> None:
    """Refuse a place in another stream, or in one that was set back.

    Raises:
        CursorExpired: It is one.
    """
    if (
        extent.made != place.made
        or extent.last < place.sequence
        or extent.removed < place.removed
        or (part.here and place.origin and part.here != place.origin)
    ):
        raise CursorExpired(after)


def _moved(place: Place, entries: list[Entry]) -> Place:
    """Return the place after what was read."""
    if not entries:
        return place
    end = entries[-1]
    missing = end.sequence - place.sequence - len(entries)
    return evolve(
        place, sequence=end.sequence, origin=end.origin, ahead=max(place.ahead - missing, 0)
    )
