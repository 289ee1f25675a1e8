"""Journals that survive whoever writes them: one line, one ``write`` to a file opened to append."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ENDS = ("end", "failed", "cancelled")
"""What a handler writes last, one of them."""


def now() -> datetime:
    """Return the machine's time, whatever the clocks are that workers are given."""
    return datetime.now(UTC)


class Journal:
    """An append-only file of what one process did.

    Args:
        path: Of the file.
        worker: The number of the process; the system gives its own numbers again before long.
    """

    def __init__(self, path: str | Path, worker: int) -> None:
        self._worker = worker
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, what: str, **details: Any) -> None:
        """Append a line with the time, by the wall clock and by one that nobody sets."""
        line = {"what": what, "at": now().isoformat(), "mono": time.monotonic()}
        os.write(
            self._file, json.dumps({**line, "worker": self._worker, **details}).encode() + b"\n"
        )


def read(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines; a process may have died while it wrote the last."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]
