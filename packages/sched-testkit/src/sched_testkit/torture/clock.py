"""A clock that is set from outside, for workers on stores whose own clock decides."""

from __future__ import annotations

import mmap
import os
import struct
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio

SLICE = 1.0
_SECONDS = struct.Struct("d")


def set_clock(path: Path, seconds: float) -> None:
    """Let the clock on this file differ from the machine's by so many seconds from now on."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(file, _SECONDS.pack(seconds), 0)
    finally:
        os.close(file)


class SetClock:
    """The machine's clock, set forward or back by what a file says at each look.

    Args:
        path: A file that :func:`set_clock` has made.
    """

    def __init__(self, path: str) -> None:
        with Path(path).open("rb") as file:
            self._seconds = mmap.mmap(file.fileno(), _SECONDS.size, access=mmap.ACCESS_READ)

    def now(self) -> datetime:
        """Return the time, as wrong as it is."""
        (seconds,) = _SECONDS.unpack_from(self._seconds)
        return datetime.now(UTC) + timedelta(seconds=seconds)

    def elapsed(self) -> float:
        """Return monotonic seconds, which no step of the clock changes."""
        return time.monotonic()

    async def sleep_until(self, moment: datetime) -> None:
        """Sleep until then by this clock; early where it is set back, as the port has it."""
        before = self.now()
        while (remaining := moment - before) > timedelta(0):
            await anyio.sleep(min(remaining.total_seconds(), SLICE))
            now = self.now()
            if now < before:
                return
            before = now
