"""What is counted of the history: the newest executions, each read once.

A count reads what was written since the last one, and goes on backwards from where that had
stopped, until a time has passed. What was read is kept as columns: some twenty bytes for each.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any

from nats.aio.msg import Msg

from sched_core import Execution, Status
from sched_core.clock import FIRST, monotonic_seconds, pause
from sched_core.codec import decode_moment
from sched_core.row import Tally, error_kind
from sched_jetstream._store.history import STORED_AT, History
from sched_jetstream._store.removals import Extent, Removals

WINDOW = 2000
"""Sequences that are read at a time."""
MOST = 1_000_000
"""Executions that are kept at most."""
FAR_BEHIND = 50_000
"""How much may have been written since the last count, for what was read to be kept."""
PATIENCE = 0.5
"""Seconds to wait for what is written and not copied yet."""
TURN = 20_000
"""Executions that are counted before other tasks have their turn."""

_FIELDS = frozenset(each.name for each in Execution.__attrs_attrs__)
_NEEDED = frozenset(
    ("id", "job_id", "uid", "number", "attempt", "kind", "scheduled_at", "status", "final", "token")
) | {"worker", "claimed_at", "finished_at"}
_STATUSES = {status.value: number for number, status in enumerate(Status)}
_ALL = tuple(Status)
_TEXTS = ("id", "job_id", "uid", "worker")
_STEP = timedelta(microseconds=1)
_HOUR = 3600 * 10**6


class _Columns:
    """Executions, in the order in which they were read."""

    def __init__(self) -> None:
        self.moments, self.statuses = array("q"), array("b")
        self.jobs, self.reasons = array("i"), array("i")

    def __len__(self) -> int:
        return len(self.moments)


class _Names:
    """Texts as numbers."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        found = self._numbers.setdefault(text, len(self.texts))
        if found == len(self.texts):
            self.texts.append(text)
        return found


class HistoryIndex:
    """Counts the executions of one deployment.

    Args:
        history: The history.
        removals: Reads its stream, and tells what was deleted.
    """

    def __init__(self, history: History, removals: Removals) -> None:
        self._history, self._removals = history, removals
        self._extent: Extent | None = None
        self._begin()

    def _begin(self) -> None:
        self._newer, self._older = _Columns(), _Columns()
        self._names = _Names()
        self._low = self._high = 0
        """The sequences of what was read, the second one excluded."""
        self._messages = 0
        """How many there were between them."""
        self._oldest = ""
        """The moment at which the oldest of them was stored."""

    async def count(self, tally: Tally, until: float) -> bool:
        """Count executions, the newest first; return whether all were that are asked for.

        Args:
            tally: What counts.
            until: The ``monotonic_seconds`` at which to stop reading.
        """
        await self._history.catch_up(PATIENCE)
        await self._check()
        complete = await self._read_on(until) and await self._read_back(tally, until)
        await self._show(tally)
        return complete

    async def _check(self) -> None:
        """Begin again where something of what was read has been deleted since."""
        extent, known = await self._removals.extent(), self._extent
        is_known = (
            known is not None
            and known.made == extent.made
            and self._high <= extent.last + 1
            and extent.last - self._high < FAR_BEHIND
            and len(self._newer) + len(self._older) < MOST + FAR_BEHIND
        )
        if is_known and known is not None and known.removed != extent.removed:
            missing = self._high - self._low - self._messages
            counted = await self._removals.after(self._low - 1, missing)
            is_known = counted is not None and counted[1] <= missing
            extent = extent if counted is None else counted[0]
        if not is_known:
            self._begin()
            self._low = self._high = extent.last + 1
        self._extent = extent

    async def _read_on(self, until: float) -> bool:
        """Read what was written since; return whether that is all."""
        extent = self._extent
        while extent is not None and self._high <= extent.last:
            end = min(self._high + WINDOW, extent.last + 1)
            for msg in await self._removals.between(self._high, end):
                self._take(msg, self._newer)
            self._high = end
            if monotonic_seconds() > until:
                return self._high > extent.last
        return True

    async def _read_back(self, tally: Tally, until: float) -> bool:
        """Read older ones; return whether nothing older is asked for."""
        extent = self._extent
        too_old = self._history.too_old(tally.query.since)
        while extent is not None and self._low > extent.first:
            if self._is_older(too_old):
                break
            start = max(extent.first, self._low - WINDOW)
            found = await self._removals.between(start, self._low)
            for msg in reversed(found):
                self._take(msg, self._older)
            if found:
                self._oldest = (found[0].headers or {}).get(STORED_AT, "")
            self._low = start
            if monotonic_seconds() > until or len(self._newer) + len(self._older) >= MOST:
                break
        return extent is None or self._low <= extent.first or self._is_older(too_old)

    def _is_older(self, too_old: str) -> bool:
        """Whether what was read goes back beyond a moment."""
        return bool(self._oldest) and self._oldest[: len(too_old)] < too_old

    def _take(self, msg: Msg, columns: _Columns) -> None:
        self._messages += 1
        found = _quickly(msg.data)
        if found is None:
            one = self._history.copy(msg).execution
            if not isinstance(one, Execution):
                return
            found = one.job_id, one.status.value, one.finished_at, one.reason
        job_id, status, finished_at, reason = found
        columns.moments.append((finished_at - FIRST) // _STEP)
        columns.statuses.append(_STATUSES[status])
        columns.jobs.append(self._names.number(job_id))
        columns.reasons.append(self._names.number(error_kind(reason)))

    async def _show(self, tally: Tally) -> None:
        """Show the tally what is there, all that it does not tell apart together."""
        query, texts = tally.query, self._names.texts
        since = (query.since.astimezone(UTC) - FIRST) // _STEP
        until = None if query.until is None else (query.until.astimezone(UTC) - FIRST) // _STEP
        for columns in (self._newer, self._older):
            for start in range(0, len(columns), TURN):
                end = start + TURN
                moments = columns.moments[start:end]
                keys: Iterable[int]
                if query.by == "hour":
                    keys = (at // _HOUR for at in moments)
                elif query.by is None:
                    keys = repeat(0, len(moments))
                else:
                    of = columns.jobs if query.by == "job" else columns.reasons
                    keys = of[start:end]
                rows = zip(moments, columns.statuses[start:end], keys, strict=True)
                found = Counter(
                    (status, key)
                    for at, status, key in rows
                    if at >= since and (until is None or at < until)
                )
                for (status, key), times in found.items():
                    at = max(since, key * _HOUR) if query.by == "hour" else since
                    text = texts[key] if query.by in {"job", "error"} else ""
                    moment = FIRST + timedelta(microseconds=at)
                    tally.add_finished(moment, _ALL[status], text, text, times)
                await pause(0)


def _quickly(body: bytes) -> tuple[str, str, datetime, str | None] | None:
    """Return what is counted of an execution; ``None`` for what the decoder must look at.

    The decoder takes ten times as long.
    """
    try:
        fields: Any = json.loads(body)
        if type(fields) is not dict or not _NEEDED <= fields.keys() <= _FIELDS:
            return None
        status, reason = fields["status"], fields.get("reason")
        if status not in _STATUSES or not (reason is None or type(reason) is str):
            return None
        if not all(type(fields[name]) is str for name in _TEXTS):
            return None
        return fields["job_id"], status, decode_moment(fields["finished_at"]), reason
    except (TypeError, ValueError, RecursionError, OverflowError):
        return None
