"""Leases that are extended beside the database, while others have it locked.

They are in a small file that only such renewals and takeovers touch, each under its lock. A lease
lasts until the later of the two moments, so a database that was locked past it is no reason for a
takeover. A takeover ends the renewals of a claim before it commits: where an owner and a successor
come at the same moment, that lock lets one of them win.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from sched_core.clock import cpu_seconds
from sched_core.errors import BackendUnavailable
from sched_core.job import Claim
from sched_sql.rows import micros
from sched_sql.table import Now

PATIENCE = 0.5
"""Seconds to wait for the file; it is held for a moment, unless its holder is stopped."""

REMEMBERED = 3_600_000_000
"""Microseconds for which the end of a claim is known."""

Fence = tuple[int, str]
"""Token and worker of a claim."""


class Renewals:
    """The renewals beside one database; usable from several threads.

    Args:
        database: Its path.
        folder: Of the file, which is made when it is first needed.
        lives: Tells whether a worker is alive. Nothing is renewed for one that is not.
    """

    def __init__(self, database: str, folder: str, lives: Callable[[str], bool]) -> None:
        self._database = Path(database)
        self._path = Path(folder) / "renewals"
        self._lives = lives

    def renew(self, claims: Sequence[Claim], lease: timedelta, now: Now) -> list[Claim]:
        """Extend leases; return the claims that were not taken over.

        Raises:
            BackendUnavailable: The file is held, or others cannot see that the worker lives.
        """
        for worker in {claim.worker for claim in claims}:
            if not self._lives(worker):
                raise BackendUnavailable(
                    f"{self._path.parent}: the file of worker {worker!r} is gone: restart"
                )
        with self._locked() as file:
            at = now()
            until, oldest = at + lease, micros(at) - REMEMBERED
            renewed, ended = _read(file)
            held = [
                claim
                for claim in claims
                # What ended longer ago than is remembered may have been taken over.
                if _key(claim.token, claim.worker) not in ended
                and micros(claim.expires_at) > oldest
            ]
            renewed |= {_key(claim.token, claim.worker): micros(until) for claim in held}
            self._write(renewed, ended, oldest)
        return [
            Claim(claim.job, claim.token, claim.worker, claim.claimed_at, until, claim.lost)
            for claim in held
        ]

    def end(self, fences: Sequence[Fence], at: int) -> dict[Fence, int]:
        """End the renewals of claims that are about to be taken over.

        Args:
            fences: Of claims whose leases have ended in the database, which is locked by us.
            at: The moment, in microseconds since 1970.

        Returns:
            Until when those are renewed that must not be taken over.

        Raises:
            BackendUnavailable: The file is held.
        """
        alive = {worker for worker in {worker for _, worker in fences} if self._lives(worker)}
        if not alive:
            return {}
        later: dict[Fence, int] = {}
        with self._locked() as file:
            renewed, ended = _read(file)
            for token, worker in fences:
                key = _key(token, worker)
                if renewed.get(key, at) > at and worker in alive:
                    later[token, worker] = renewed[key]
                elif worker in alive:
                    ended[key] = at
            self._write(renewed, ended, at - REMEMBERED)
        return later

    @contextmanager
    def _locked(self) -> Iterator[int]:
        deadline, pause = cpu_seconds() + PATIENCE, threading.Event()
        while True:
            file = _open(self._path)
            try:
                while not _lock(file):
                    if cpu_seconds() > deadline:
                        raise BackendUnavailable(
                            f"{self._path}: another process has held it for {PATIENCE:g} s; see "
                            f"which with `fuser {self._path}`"
                        )
                    pause.wait(0.001)
                if os.fstat(file).st_nlink:  # else it was replaced meanwhile
                    yield file
                    return
            finally:
                # A child that was forked meanwhile has the file open, too, and keeps no lock.
                fcntl.flock(file, fcntl.LOCK_UN)
                os.close(file)

    def _write(self, renewed: dict[str, int], ended: dict[str, int], oldest: int) -> None:
        """Replace the file: a process that is killed meanwhile leaves the old one."""
        content = [
            {key: at for key, at in each.items() if at > oldest} for each in (renewed, ended)
        ]
        new = self._path.with_name("renewals.new")
        new.unlink(missing_ok=True)
        with os.fdopen(_open(new, os.O_EXCL), "wb") as file:
            os.fchmod(file.fileno(), self._database.stat().st_mode & 0o666)  # as SQLite's log has
            file.write(json.dumps(content).encode())
        new.replace(self._path)


def _open(path: Path, flags: int = 0) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o666)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: int) -> tuple[dict[str, int], dict[str, int]]:
    """Return until when claims are renewed, and when others ended."""
    content = os.pread(file, os.fstat(file).st_size, 0)
    try:
        renewed, ended = json.loads(content)
    except ValueError:
        return {}, {}  # new, or a power loss took it, and all workers with it
    return _moments(renewed), _moments(ended)


def _moments(found: Any) -> dict[str, int]:
    return {key: at for key, at in dict(found).items() if type(at) is int}


def _key(token: int, worker: str) -> str:
    return f"{token} {worker}"
