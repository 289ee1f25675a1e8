"""The free jobs that are due, in the queues that a worker serves.

The index of due moments has one range for each queue. Where only one queue is asked for, what is
claimed is read from the beginning of its range. Otherwise the ranges are merged: of each, a little
at a time is read, and only ids and moments, so that neither a long queue nor ids that the worker
refuses cost more than they must.
"""

# ruff: noqa: S608 -- statements are made of constants; values are bound

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from typing import Any

from sched_core import Room, codec
from sched_core._model.execution import DEFAULT_QUEUE
from sched_sql._shared.lanes import Lanes
from sched_sql._shared.moments import Row
from sched_sql._shared.rows import JOB_COLUMNS
from sched_sql.sqlite.database import Database

_FREE = "lease_until IS NULL AND removed = 0 AND {readable}"

_DUE = f"""
SELECT {JOB_COLUMNS}, rowid FROM sched_job INDEXED BY sched_job_due
WHERE queue = ? AND due_at <= ? AND {_FREE} ORDER BY due_at LIMIT ?
"""
_CHOSEN = f"""
SELECT {JOB_COLUMNS}, rowid FROM sched_job WHERE rowid IN (SELECT value FROM json_each(?))
"""
_NEXT = f"""
SELECT due_at, rowid, id FROM sched_job INDEXED BY sched_job_due
WHERE queue = ? AND (due_at, rowid) > (?, ?) AND due_at <= ? AND {_FREE}
ORDER BY due_at, rowid LIMIT ?
"""
_FREE_AT = f"""
SELECT due_at FROM sched_job INDEXED BY sched_job_due
WHERE queue = ? AND due_at <= ? AND {_FREE} ORDER BY due_at LIMIT 1
"""
_HAS_OTHERS = """
SELECT EXISTS (SELECT 1 FROM sched_job INDEXED BY sched_job_due
        WHERE due_at IS NOT NULL AND queue < ?1)
    OR EXISTS (SELECT 1 FROM sched_job INDEXED BY sched_job_due
        WHERE due_at IS NOT NULL AND queue > ?1)
"""
# From one queue to the next one, whatever lies between. What is no text sorts behind all texts.
_QUEUES = """
WITH RECURSIVE found(queue) AS (
    SELECT (SELECT queue FROM sched_job INDEXED BY sched_job_due
        WHERE due_at IS NOT NULL AND queue < x'' ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT queue FROM sched_job INDEXED BY sched_job_due
        WHERE due_at IS NOT NULL AND queue > found.queue AND queue < x'' ORDER BY queue LIMIT 1)
    FROM found WHERE found.queue IS NOT NULL
)
SELECT queue FROM found WHERE queue IS NOT NULL AND EXISTS (
    SELECT 1 FROM sched_job INDEXED BY sched_job_due WHERE queue = found.queue AND due_at <= ?)
"""
_MARK = "rowid || ':' || hex(revision)"
"""Names a row and its revision, whatever is in its columns."""

MOST_AT_ONCE = 5_000
"""The most rows of a queue that one statement looks for."""
_BEFORE_ALL = -(2**63)


class DueJobs:
    """The free jobs of a database, by queue and moment."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._malformed: set[str] = set()
        """``_MARK`` of rows whose header was fine, and something else was not."""

    # -- what can be read

    def forget(self) -> None:
        """Read again what could not be read: another process may have repaired it."""
        self._malformed.clear()

    def can_read(self) -> tuple[str, Row]:
        """Return the condition on rows that this process can read, and its values."""
        tags = codec.known_tags()
        condition = f"format = ? AND tag IN ({', '.join('?' * len(tags))})"
        if not self._malformed:
            return condition, (codec.FORMAT, *tags)
        skipped = json.dumps(sorted(self._malformed))
        condition += f" AND {_MARK} NOT IN (SELECT value FROM json_each(?))"
        return condition, (codec.FORMAT, *tags, skipped)

    def pass_over(self, rowid: int) -> None:
        """Leave a row alone until another process may have repaired it."""
        mark = f"SELECT {_MARK} FROM sched_job WHERE rowid = ?"
        self._malformed.add(self._database.connection.execute(mark, (rowid,)).fetchone()[0])

    # -- when

    def first(self, lanes: Lanes | None, until: int) -> int | None:
        """Return when the first free job is due that fits, of those up to a moment.

        Args:
            lanes: What fits; ``None``: any job.
            until: The moment.
        """
        first = None
        for queue in self._queues(lanes, until):
            found = self._first(queue, None if lanes is None else lanes.room, until)
            if found is not None and (first is None or found < first):
                first = until = found
        return first

    def _first(self, queue: str, room: Room | None, until: int) -> int | None:
        if room is not None and room.accepts is not None:
            found = next(self._walk(queue, room, until, 1), None)
            return None if found is None else found[0]
        readable, values = self.can_read()
        statement = _FREE_AT.format(readable=readable)
        row = self._database.connection.execute(statement, (queue, until, *values)).fetchone()
        return None if row is None else row[0]

    def _queues(self, lanes: Lanes | None, until: int) -> list[str]:
        """Return the queues that have room, and may have a job that is due up to a moment."""
        if lanes is not None and not lanes.takes_rest:
            return lanes.named
        execute = self._database.connection.execute
        if (lanes is None or lanes.room.queues is None) and not execute(
            _HAS_OTHERS, (DEFAULT_QUEUE,)
        ).fetchone()[0]:
            return [DEFAULT_QUEUE]
        found = [queue for (queue,) in self._database.read(_QUEUES, (until,)) if _is_sound(queue)]
        return [queue for queue in found if lanes is None or lanes.left_of(queue) > 0]

    # -- which

    def rows(self, lanes: Lanes, at: int) -> list[Row]:
        """Return the rows of jobs that are due and fit, with their ``rowid``, oldest first."""
        queues = self._queues(lanes, at)
        accepts = lanes.room.accepts
        if len(queues) == 1:
            # Nearly always no job is refused, and all are in one queue.
            readable, values = self.can_read()
            limit = lanes.left_of(queues[0])
            statement = _DUE.format(readable=readable)
            found = self._database.read(statement, (queues[0], at, *values, limit))
            if accepts is None or all(_is_accepted(row[0], accepts) for row in found):
                return found
        chosen = self._chosen(queues, lanes, at)
        rows = {row[-1]: row for row in self._database.read(_CHOSEN, (json.dumps(chosen),))}
        return [rows[rowid] for rowid in chosen]

    def _chosen(self, queues: Sequence[str], lanes: Lanes, at: int) -> list[int]:
        """Return the ``rowid`` of what is due and fits, oldest first."""
        room, wanted = lanes.room, lanes.left
        left, chosen = Lanes.of(lanes), list[int]()
        step = max(1, -(-2 * wanted // max(1, len(queues))))
        walks = {queue: self._walk(queue, room, at, step) for queue in queues}
        waiting = [(*found, queue) for queue, walk in walks.items() if (found := next(walk, None))]
        heapq.heapify(waiting)
        while waiting and left.left > 0:
            _, rowid, queue = heapq.heappop(waiting)
            if left.left_of(queue) < 1:
                continue  # and the rest of it is not looked at
            left.take(queue)
            chosen.append(rowid)
            if (found := next(walks[queue], None)) is not None:
                heapq.heappush(waiting, (*found, queue))
        return chosen

    def _walk(self, queue: str, room: Room, until: int, step: int) -> Iterator[tuple[int, int]]:
        """Yield moment and ``rowid`` of the free jobs of a queue that the room accepts."""
        readable, values = self.can_read()
        statement, accepts = _NEXT.format(readable=readable), room.accepts
        due_at = rowid = _BEFORE_ALL
        while True:
            bounds = (queue, due_at, rowid, until, *values, step)
            rows = self._database.read(statement, bounds)
            for due_at, rowid, job_id in rows:
                if accepts is None or _is_accepted(job_id, accepts):
                    yield due_at, rowid
            if len(rows) < step:
                return
            step = min(4 * step, MOST_AT_ONCE)


def _is_accepted(job_id: Any, accepts: Any) -> bool:
    """Whether a worker takes a job; what has no id is looked at, to be passed over."""
    return not _is_sound(job_id) or bool(accepts(job_id))


def _is_sound(text: Any) -> bool:
    """Whether it is a text, and not what a lenient reader made of bytes."""
    if type(text) is not str:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
