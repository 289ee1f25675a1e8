"""Journals that outlive their writers: one line, one ``write`` to a file opened to append."""

from __future__ import annotations

import errno
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sched_core import Execution

SNOOZED, DISCARDED = "snoozed", "discarded"
ENDS = ("end", "failed", "cancelled", SNOOZED, DISCARDED)
"""What a handler writes last, one of them."""


def key_of(execution: Execution) -> str:
    """Return the name of an execution's occurrence, as journals have it."""
    return f"{execution.uid}:{execution.number}"


def now() -> datetime:
    """Return the machine's time, whatever the clocks are that workers are given."""
    return datetime.now(UTC)


class Journal:
    """An append-only file of what one process did.

    Args:
        path: The file.
        worker: The number of the process; the system gives its own numbers again before long.
    """

    def __init__(self, path: str | Path, worker: int) -> None:
        self._worker, self._path, self._number = worker, Path(path), 0
        self._file = self._open()

    def _open(self) -> int:
        path = _part(self._path, self._number)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, what: str, **details: Any) -> None:
        """Append a line with the time, by the wall clock and by a monotonic one."""
        line = {"what": what, "at": now().isoformat(), "mono": time.monotonic()}
        whole = json.dumps({**line, "worker": self._worker, **details}).encode() + b"\n"
        while not self._written(whole):
            # The disk is full, as is made for the store: there is room for a file that is new.
            os.close(self._file)
            self._number += 1
            self._file = self._open()

    def _written(self, whole: bytes) -> bool:
        try:
            return os.write(self._file, whole) == len(whole)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            return False


def _part(path: Path, number: int) -> Path:
    return path if number == 0 else path.with_name(f"{path.name}.{number}")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines; the last one of each file may have been cut off."""
    entries: list[dict[str, Any]] = []
    number = 0
    while (part := _part(path, number)).exists():
        whole, _, _ = part.read_text().rpartition("\n")
        entries += [json.loads(line) for line in whole.splitlines()]
        number += 1
    return entries
