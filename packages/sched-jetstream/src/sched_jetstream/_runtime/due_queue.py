"""A queue of jobs that may be due, by their moment."""

from __future__ import annotations

import heapq
import itertools
from datetime import datetime

from attrs import define

from sched_jetstream._model.protocol import StoredRecord
from sched_jetstream._model.record import Record


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


class DueQueue:
    """Hints by their moment, one for each job."""

    def __init__(self) -> None:
        self.hints: dict[str, Hint] = {}
        self._heap: list[tuple[datetime, int, Hint]] = []
        self._order = itertools.count()

    def earliest(self) -> datetime | None:
        """Return when the first one is due."""
        while self._heap and self.hints.get(self._heap[0][2].token) is not self._heap[0][2]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

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
