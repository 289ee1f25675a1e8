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
    def named(self) -> list[str]:
        """The queues that the room names, and that have room."""
        return [name for name in self._left if name != REST and self.left_of(name) > 0]

    @property
    def takes_rest(self) -> bool:
        """Whether queues that it does not name have room."""
        return self.left > 0 and (self.room.queues is None or self._left.get(REST, 0) > 0)

    def left_of(self, queue: str) -> int:
        """Return how many more jobs of a queue fit."""
        lane = self.room.lane(queue)
        if lane is None:
            return 0
        return min(self.left, self._left.get(lane, self.left))

    def take(self, queue: str) -> None:
        """Count a job as taken."""
        lane = self.room.lane(queue)
        self.left -= 1
        if lane in self._left:
            self._left[lane] -= 1
