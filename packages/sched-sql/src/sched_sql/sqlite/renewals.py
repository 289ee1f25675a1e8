"""Leases that are extended while another program has the database locked.

Such *unlocked* renewals are in a small file that only they and the ends of leases touch, each under
the file's own lock. A lease lasts until the later of the two moments, so a database that was locked
past it is no reason to end the claim. A worker that ends the claim ends its renewals before it
commits: where the owner renews at the same moment, the file's lock lets one of them win.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from attrs import evolve

from sched_core import Claim, Hold, Renewal
from sched_core.clock import monotonic_seconds
from sched_core.codec import Malformed
from sched_core.errors import BackendUnavailable
from sched_core.row import renewed
from sched_sql._shared.holds import progress_text, read_progress
from sched_sql._shared.moments import (
    EARLIEST,
    LATEST,
    micros,
    micros_or_none,
    moment,
    moment_or_none,
)
from sched_sql._shared.table import Now

PATIENCE = 0.5
"""Seconds to wait for the file; it is held for a moment, unless its holder is stopped."""

REMEMBERED = 3_600_000_000
"""Microseconds for which the end of a claim is known."""

Fence = tuple[int, str]
"""Token and worker of a claim."""


class UnlockedRenewal(NamedTuple):
    """A renewal: until when, when it was made, since when its worker ran nothing else.

    ``progress`` is the newest that was told, as its column has it; ``None`` for nothing new.
    """

    until: int
    at: int
    alone_at: int | None
    progress: str | None = None

    def of(self, hold: Hold) -> Hold:
        """Return a stored claim as it is after this renewal."""
        hold = evolve(hold, expires_at=max(hold.expires_at, moment(self.until)))
        if self.at < micros(hold.renewed_at):
            return hold  # its row was renewed since
        alone_at = None if self.alone_at is None else hold.alone_at or moment(self.alone_at)
        told = hold.progress if self.progress is None else read_progress(self.progress)
        return evolve(hold, renewed_at=moment(self.at), alone_at=alone_at, progress=told)


class Renewals:
    """The unlocked renewals of one database; usable from several threads.

    Args:
        database: Its path.
        folder: The folder of the file, which is made when it is first needed.
        lives: Tells whether a worker is alive. Nothing is renewed for one that is not.
    """

    def __init__(self, database: str, folder: str, lives: Callable[[str], bool]) -> None:
        self._database = Path(database)
        self._path = Path(folder) / "renewals"
        self._lives = lives

    def renew(self, renewals: Sequence[Renewal], lease: timedelta, now: Now) -> list[Claim]:
        """Extend leases; return the claims that were not ended.

        Raises:
            BackendUnavailable: The file is held, or others cannot see that the worker lives.
        """
        for worker in {one.claim.worker for one in renewals}:
            if not self._lives(worker):
                raise BackendUnavailable(
                    f"{self._path.parent}: the file of worker {worker!r} is gone: restart"
                )
        held: list[Claim] = []
        with self._locked() as file:
            at = now()
            oldest = micros(at) - REMEMBERED
            made, ended = _read(file)
            for renewal in renewals:
                claim = renewal.claim
                key = _key(claim.token, claim.worker)
                # What ended longer ago than is remembered may have been ended by others.
                if key not in ended and micros(claim.expires_at) > oldest:
                    before, told = made.get(key), progress_text(renewal.progress)
                    if told is None and before is not None:
                        told = before.progress
                    hold = renewed(_hold(claim, before), at, lease, alone=renewal.alone)
                    until, alone_at = micros(hold.expires_at), micros_or_none(hold.alone_at)
                    made[key] = UnlockedRenewal(until, micros(at), alone_at, told)
                    held.append(evolve(claim, expires_at=hold.expires_at))
            self._write(made, ended, oldest)
        return held

    def end(self, fences: Sequence[Fence], at: datetime) -> dict[Fence, UnlockedRenewal]:
        """End the renewals of claims that are about to be ended.

        Args:
            fences: Claims whose leases have ended in the database, which the caller has locked.
            at: The moment.

        Returns:
            The renewals; where one lasts beyond the moment, the claim must not be ended.

        Raises:
            BackendUnavailable: The file is held.
        """
        now, workers = micros(at), {worker for _, worker in fences}
        alive = {worker for worker in workers if self._lives(worker)}
        found: dict[Fence, UnlockedRenewal] = {}
        if not alive:
            made = self._made()
            for fence in fences:
                if (renewal := made.get(_key(*fence))) is not None:
                    found[fence] = renewal._replace(until=min(renewal.until, now))
            return found
        with self._locked() as file:
            made, ended = _read(file)
            for token, worker in fences:
                key = _key(token, worker)
                renewal = made.get(key)
                if renewal is not None:
                    last = renewal.until if worker in alive else min(renewal.until, now)
                    found[token, worker] = renewal._replace(until=last)
                if worker in alive and (renewal is None or renewal.until <= now):
                    ended[key] = now
            self._write(made, ended, now - REMEMBERED)
        return found

    def made(self) -> dict[Fence, UnlockedRenewal]:
        """Return all renewals, as they are at this moment."""
        found = dict[Fence, UnlockedRenewal]()
        for key, renewal in self._made().items():
            token, _, worker = key.partition(" ")
            if token.isdecimal():
                found[int(token), worker] = renewal
        return found

    def _made(self) -> dict[str, UnlockedRenewal]:
        """Return all renewals, without the lock: of workers that are dead and make no more, say."""
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return {}
        try:
            return _read(file)[0]
        finally:
            os.close(file)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        deadline, pause = monotonic_seconds() + PATIENCE, threading.Event()
        while True:
            file = _open(self._path)
            try:
                while not _lock(file):
                    if monotonic_seconds() > deadline:
                        raise BackendUnavailable(
                            f"{self._path}: another process has held it for {PATIENCE:g} s; see "
                            f"which with `fuser {self._path}`"
                        )
                    pause.wait(0.001)
                if os.fstat(file).st_nlink:  # else it was replaced
                    yield file
                    return
            finally:
                # A child that was forked in the meantime has the file open, too, and keeps no lock.
                fcntl.flock(file, fcntl.LOCK_UN)
                os.close(file)

    def _write(self, made: dict[str, UnlockedRenewal], ended: dict[str, int], oldest: int) -> None:
        """Replace the file: a process that is killed before the end leaves the old one."""
        content = [
            {key: each for key, each in made.items() if each.until > oldest},
            {key: at for key, at in ended.items() if at > oldest},
        ]
        new = self._path.with_name("renewals.new")
        new.unlink(missing_ok=True)
        with os.fdopen(_open(new, os.O_EXCL), "wb") as file:
            os.fchmod(file.fileno(), self._database.stat().st_mode & 0o666)  # as SQLite's log has
            file.write(json.dumps(content).encode())
        new.replace(self._path)


def _hold(claim: Claim, renewal: UnlockedRenewal | None) -> Hold:
    """Return a claim as it is stored, as far as it is known without the database."""
    since = claim.claimed_at
    hold = Hold(
        claim.job.spec.id,
        claim.job.uid,
        claim.token,
        claim.worker,
        since,
        since,
        claim.expires_at,
        None,
        None,
    )
    return hold if renewal is None else evolve(hold, alone_at=moment_or_none(renewal.alone_at))


def _open(path: Path, flags: int = 0) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o666)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: int) -> tuple[dict[str, UnlockedRenewal], dict[str, int]]:
    """Return what was renewed, and when other claims ended."""
    content = os.pread(file, os.fstat(file).st_size, 0)
    try:
        made, ended = json.loads(content)
    except ValueError:
        return {}, {}  # new, or a power loss took it, and all workers with it
    renewals = {
        key: UnlockedRenewal(*each) for key, each in dict(made).items() if _is_renewal(each)
    }
    return renewals, {key: at for key, at in dict(ended).items() if _is_moment(at)}


def _is_renewal(each: Any) -> bool:
    return (
        isinstance(each, list)
        and len(each) in {3, 4}
        and _is_moment(each[0])
        and _is_moment(each[1])
        and (each[2] is None or _is_moment(each[2]))
        and all(told is None or _is_progress(told) for told in each[3:])
    )


def _is_progress(text: Any) -> bool:
    try:
        return isinstance(text, str) and read_progress(text) is not None
    except Malformed:
        return False


def _is_moment(at: Any) -> bool:
    return type(at) is int and EARLIEST <= at <= LATEST


def _key(token: int, worker: str) -> str:
    return f"{token} {worker}"
