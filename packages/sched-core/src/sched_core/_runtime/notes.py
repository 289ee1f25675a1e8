"""What the handler of a run tells while it runs: how far it has come, and lines for the history."""

from __future__ import annotations

import threading
from collections import deque

from sched_core._model.execution import Progress
from sched_core._support.texts import cut, storable

LONGEST_LOG = 16 * 1024
"""Bytes of UTF-8 in the log of an execution."""
_FOR_LINES = LONGEST_LOG - 64
"""The bytes for lines; the rest is for the mark that some were dropped."""


class Notes:
    """What one run's handler has told; any thread may add to it.

    Attributes:
        progress: The newest progress; ``None`` before the first.
        stored: The newest progress that was sent to the store.
    """

    __slots__ = ("_dropped", "_lines", "_lock", "_size", "progress", "stored")

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.stored: Progress | None = None
        self._lock = threading.Lock()
        self._lines: deque[tuple[str, int]] = deque()
        self._size = self._dropped = 0

    @property
    def unsent(self) -> Progress | None:
        """The newest progress, unless it was sent to the store."""
        progress = self.progress
        return None if progress is self.stored else progress

    def add(self, text: str) -> None:
        """Add lines to the log; the oldest ones make room."""
        lines = [
            (line, len(line.encode()) + 1) for line in cut(storable(text), _FOR_LINES).split("\n")
        ]
        with self._lock:
            self._lines.extend(lines)
            self._size += sum(size for _, size in lines)
            while self._size > _FOR_LINES + 1:  # the last line has no end
                self._size -= self._lines.popleft()[1]
                self._dropped += 1

    def log(self) -> str | None:
        """Return the log as it is stored; ``None`` if there is none."""
        with self._lock:
            if not self._lines:
                return None
            text = "\n".join([line for line, _ in self._lines])
            mark = f"[… {self._dropped} earlier lines are left out …]\n" if self._dropped else ""
            return mark + text
