"""How much of a worker's room is left, by queue; both dialects choose jobs by it."""

from __future__ import annotations

from sched_core import Room
from sched_core._model.job import REST


class Lanes:
    """What is left of a room.

    Args:
        room: The room as the worker told it.
    """

    def __init__(self, room: Room) -> None:
        self.room = room
        self.left = room.limit
        """How many more jobs fit, of all queues together."""
        self._left = {name: room.most(name) for name in room.queues or ()}

    @classmethod
    def of(cls, lanes: Lanes) -> Lanes:
        """Return another account of the same room."""
        made = cls(lanes.room)
        made.left, made._left = lanes.left, dict(lanes._left)
        return made

    @property
    def asked(self) -> frozenset[str]:
        """The names under which jobs count: those of queues, and of all others together."""
        return frozenset([REST] if self.room.queues is None else self._left)

    @property
    def open(self) -> frozenset[str]:
        """The names in :attr:`asked` that have room."""
        return frozenset(self.named if not self.takes_rest else [*self.named, REST])

    @property
    def all_named(self) -> list[str]:
        """The queues that the room names, also those without room."""
        return [name for name in self._left if name != REST]

    @property
    def left_of_rest(self) -> int:
        """How many more jobs of queues fit that it does not name."""
        if self.room.queues is None:
            return self.left
        return max(0, min(self.left, self._left.get(REST, 0)))

    @property
    def named(self) -> list[str]:
        """The queues that the room names, and that have room."""
        return [name for name in self._left if name != REST and self.left_of(name) > 0]

    @property
    def takes_rest(self) -> bool:
        """Whether queues that it does not name have room."""
        return self.left_of_rest > 0

    def left_of(self, queue: str) -> int:
        """Return how many more jobs of a queue fit."""
        lane = self.room.lane(queue)
        if lane is None:
            return 0
        return max(0, min(self.left, self._left.get(lane, self.left)))

    def take(self, queue: str) -> None:
        """Count a job as taken."""
        lane = self.room.lane(queue)
        self.left -= 1
        if lane in self._left:
            self._left[lane] -= 1
