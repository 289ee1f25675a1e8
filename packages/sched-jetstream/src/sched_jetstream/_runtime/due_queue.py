"""Jobs that may be due, by queue and moment."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from attrs import define

from sched_core import Room
from sched_core.row import Filling
from sched_jetstream._model.protocol import StoredRecord
from sched_jetstream._model.record import Record
from sched_jetstream._model.subjects import DEFAULT

REST = "*"
"""The name in ``Room.queues`` of all queues that are not named."""


@define(eq=False)
class Hint:
    """One job that is due, or whose claim is to be ended, now or in a moment.

    Attributes:
        token: The token of the record's subject.
        at: The moment.
        found: The record as it was read.
        reply: The subject on which to acknowledge the message; empty for none.
    """

    token: str
    at: datetime
    found: StoredRecord
    reply: str = ""

    @property
    def is_held(self) -> bool:
        """Whether a claim is to be ended: before that, nothing is due."""
        content = self.found.content
        return isinstance(content, Record) and content.hold is not None

    @property
    def job_id(self) -> str:
        """The id of the job."""
        content = self.found.content
        return self.token if content is None else content.id

    @property
    def queue(self) -> str:
        """The queue of the job."""
        content = self.found.content
        return content.queue if isinstance(content, Record) else DEFAULT


class DueQueue:
    """Hints by their moment, one for each job."""

    def __init__(self) -> None:
        self.hints: dict[str, Hint] = {}
        self._heap: list[tuple[datetime, int, Hint]] = []
        self._order = itertools.count()

    def earliest(self) -> datetime | None:
        """Return when the first one is due."""
        first = self.first()
        return None if first is None else first.at

    def first(self) -> Hint | None:
        """Return the one that is due first."""
        while self._heap and self.hints.get(self._heap[0][2].token) is not self._heap[0][2]:
            heapq.heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def take(self, now: datetime, most: int) -> list[Hint]:
        """Remove and return what is due, oldest first."""
        taken: list[Hint] = []
        while len(taken) < most and (at := self.earliest()) is not None and at <= now:
            hint = heapq.heappop(self._heap)[2]
            del self.hints[hint.token]
            taken.append(hint)
        return taken

    def put(self, hint: Hint) -> None:
        """Keep a hint, in the place of an older one about the same job."""
        self.hints[hint.token] = hint
        heapq.heappush(self._heap, (hint.at, next(self._order), hint))

    def clear(self) -> list[Hint]:
        """Remove and return all of them."""
        left = list(self.hints.values())
        self.hints.clear()
        self._heap.clear()
        return left


class DueByQueue:
    """Hints about jobs that can be claimed: those of each queue by their moment."""

    def __init__(self) -> None:
        self.queues: dict[str, DueQueue] = {}
        self._queue_of: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._queue_of)

    def __contains__(self, token: object) -> bool:
        return token in self._queue_of

    def put(self, hint: Hint) -> None:
        """Keep a hint about a job that has none here."""
        queue = self._queue_of[hint.token] = hint.queue
        self.queues.setdefault(queue, DueQueue()).put(hint)

    def pop(self, token: str) -> Hint | None:
        """Remove and return the hint about a job, if there is one."""
        queue = self._queue_of.pop(token, None)
        return None if queue is None else self.queues[queue].hints.pop(token)

    def tokens(self) -> list[str]:
        """Return the jobs that there are hints about."""
        return list(self._queue_of)

    def by_lane(self, room: Room) -> Counter[str | None]:
        """Count the hints by the names under which their queues count in a room."""
        found: Counter[str | None] = Counter()
        for queue, due in self.queues.items():
            if due.hints:
                found[room.lane(queue)] += len(due.hints)
        return found

    def earliest(self, room: Room) -> datetime | None:
        """Return when the first job is due that a room takes, and has room for."""
        moments: list[datetime] = []
        for queue, due in self.queues.items():
            lane, first = room.lane(queue), due.first()
            if lane is None or first is None or room.most(lane) <= 0:
                continue
            if accepts(room, first.job_id):
                moments.append(first.at)
            else:  # few, and not for long: what comes is looked at before it is kept here
                moments += (each.at for each in due.hints.values() if accepts(room, each.job_id))
        return min(moments, default=None)

    def take(self, now: datetime, filling: Filling) -> tuple[list[Hint], list[Hint]]:
        """Remove and return what is due and fits, oldest first, and what is refused by its id.

        What the room's ``accepts`` raises comes out, and nothing is removed.

        Args:
            now: The present moment.
            filling: What has been taken of the room; what is returned first is added.
        """
        taken: list[Hint] = []
        refused: list[Hint] = []
        try:
            self._take(now, filling, taken, refused)
        except BaseException:
            for hint in (*taken, *refused):
                self.put(hint)
            raise
        return taken, refused

    def _take(
        self, now: datetime, filling: Filling, taken: list[Hint], refused: list[Hint]
    ) -> None:
        may_take = filling.room.accepts
        heads = [
            (at, queue)
            for queue, due in self.queues.items()
            if (at := due.earliest()) is not None and at <= now
        ]
        heapq.heapify(heads)
        while heads and not filling.is_full:
            _, queue = heapq.heappop(heads)
            due = self.queues[queue]
            head = due.first()
            if head is None:
                continue
            if may_take is not None and not may_take(head.job_id):
                refused.append(self._drop(queue, head))
            elif filling.fits(head.job_id, queue):
                filling.add(queue)
                taken.append(self._drop(queue, head))
            else:
                continue  # this queue has no room any more
            if (at := due.earliest()) is not None and at <= now:
                heapq.heappush(heads, (at, queue))

    def _drop(self, queue: str, hint: Hint) -> Hint:
        del self._queue_of[hint.token], self.queues[queue].hints[hint.token]
        return hint

    def take_of(self, queue: str, now: datetime) -> list[Hint]:
        """Remove and return what is due of one queue."""
        taken = self.queues[queue].take(now, len(self.queues[queue].hints))
        for hint in taken:
            del self._queue_of[hint.token]
        return taken

    def clear(self) -> list[Hint]:
        """Remove and return all of them."""
        left = [hint for due in self.queues.values() for hint in due.clear()]
        self.queues.clear()
        self._queue_of.clear()
        return left


def accepts(room: Room, job_id: str) -> bool:
    """Whether a room may take a job by its id. What it raises is for ``claim_due`` to raise."""
    try:
        return room.accepts is None or room.accepts(job_id)
    except Exception:  # noqa: BLE001 -- whatever it is
        return True


def lanes(room: Room) -> list[str]:
    """Return the names under which the jobs of a room count."""
    return [REST] if room.queues is None else list(room.queues)


def lacking(room: Room, here: Mapping[str | None, int]) -> dict[str, int]:
    """Return how many more jobs fit into a room, by the names under which they count.

    Args:
        room: The room.
        here: How many are here already, by the same names.
    """
    left = room.limit - sum(here.values())
    wants = {lane: min(room.most(lane) - here.get(lane, 0), left) for lane in lanes(room)}
    return {lane: want for lane, want in wants.items() if want > 0}
