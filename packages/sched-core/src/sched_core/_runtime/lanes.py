"""How many runs of each queue a worker has, and how many more it can take."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sched_core._model.claim import Room
from sched_core._model.job import REST, check_queue
from sched_core.errors import InvalidDefinition, shown


class Lanes:
    """The queues that a worker serves, and the runs of each that are queued or under way.

    Args:
        queues: How many runs of each queue at a time; ``None`` for all queues without such numbers.
            ``"*"`` means all queues that are not named.
        accepts: Tells by a job's id whether this worker may take it; ``None`` for any job.
        shut: The queues of which nothing may begin.
    """

    def __init__(
        self,
        queues: Mapping[str, int] | None,
        accepts: Callable[[], Callable[[str], bool] | None],
        shut: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self.queues = queues
        self._accepts = accepts
        self._shut = shut
        self._busy = dict.fromkeys(queues or (), 0)

    def _lane(self, queue: str) -> str:
        return queue if queue in self._busy else REST

    def begin(self, queue: str) -> None:
        """Count a run that was queued."""
        if self._busy:
            lane = self._lane(queue)
            self._busy[lane] = self._busy.get(lane, 0) + 1

    def end(self, queue: str) -> None:
        """Count a run that has ended, or was given back."""
        if self._busy:
            self._busy[self._lane(queue)] -= 1

    def clear(self) -> None:
        """Forget all runs."""
        self._busy = dict.fromkeys(self._busy, 0)

    def room(self, limit: int) -> Room:
        """Return what to ask the backend for: the queues with room, and so many jobs at most."""
        accepts, shut = self._accepts(), self._shut()
        if self.queues is None:
            queues = {**dict.fromkeys(shut, 0), REST: limit} if shut else None
            return Room(limit, queues, accepts)
        # A full queue stays in it: without its name, its jobs would count under "*".
        left = {lane: max(most - self._busy[lane], 0) for lane, most in self.queues.items()}
        if shut:
            left.update(dict.fromkeys(shut if REST in left else shut & left.keys(), 0))
        return Room(min(limit, sum(left.values())), left, accepts)

    def are_shut(self) -> bool:
        """Whether nothing may begin of any queue that this worker serves."""
        return self.queues is not None and self.queues.keys() <= self._shut()

    @staticmethod
    def has_full(room: Room) -> bool:
        """Whether a queue that this worker serves has no place in the room."""
        return room.queues is not None and not all(room.queues.values())


def checked_queues(queues: object) -> dict[str, int] | None:
    """Return the queues that a worker serves, as they were given.

    Raises:
        InvalidDefinition: It is no mapping of queues to whole numbers from 1 on, or is empty.
    """
    if queues is None:
        return None
    if not isinstance(queues, Mapping) or not queues:
        raise InvalidDefinition(
            "queues",
            "must map names of queues to how many of their jobs run at a time, such as "
            f"{{'alerts': 20, '*': 80}}, not {shown(queues)}",
        )
    for queue, most in queues.items():
        if queue != REST:
            check_queue(queue, "queues")
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InvalidDefinition(
                f"queues[{queue!r}]", f"must be a whole number from 1 on, not {shown(most)}"
            )
    return dict(queues)
