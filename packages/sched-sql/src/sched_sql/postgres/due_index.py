"""What a process remembers of the index of due moments, so that a look there stays cheap.

Every run leaves a dead entry at the head of the index. While a transaction of any program holds an
old snapshot, the server cannot clear them away, and every scan from the beginning walks through all
of them. So scans begin at a *floor* below which nothing was left to claim. What appears below the
floor all the same (a lease that ends, a late edit) is announced, known here, or found by the next
*sweep*: a scan from the beginning, as often as its cost allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sched_core import Settlement
from sched_core._model.job import REST
from sched_core._support.logger import Logger
from sched_core.clock import boot_seconds
from sched_core.ports import MAX_POLL
from sched_sql._shared.lanes import Lanes
from sched_sql._shared.moments import micros
from sched_sql.postgres.claims import micros_of
from sched_sql.postgres.parts import BEGINNING, ClaimRequest, ClaimResult, DueProbe

logger = Logger("sched_sql")

CHEAP = 0.002
"""Seconds; a scan that takes no longer is made every time."""
SHARE = 20
"""A costlier scan is repeated after so many times its cost, or after the longest poll."""
MARGIN = 200_000
"""Microseconds by which the floor stays behind: for what others are committing just now."""
LOCKED = 0.1
"""The least seconds between looks at a row that is due and that another transaction has locked."""
JUMP = timedelta(seconds=60)
"""A server's clock that was set forward by more is not believed at once."""
SETTLING = 10.0
"""Seconds for which the new time must last before it is believed."""

_END = 2**62


class DueIndex:
    """The index of due moments as one process knows it; only where the server's clock decides.

    Args:
        lease: The time for which claims live.
    """

    def __init__(self, lease: timedelta) -> None:
        self._lease = lease.total_seconds()
        self._tolerance = max(micros_of(lease) // 4, 250_000)
        self.floor = BEGINNING
        self.empty_at = BEGINNING
        """The moment of the last claim that found all: what was due by then is locked or new."""
        self._empty_for = frozenset[str]()
        """The lanes of that claim which had room in the end."""
        self._asked: frozenset[str] | None = None
        self._held: int | None = None
        self._invalid = True
        self._swept = 0.0
        self._looked = 0.0
        self._more = False
        """Whether the newest claim got as much as it asked for."""
        self._locked_until = 0.0
        self._cost = 0.0
        self._unlooked = False
        """Whether a sweep has claimed, and no probe has found yet what it had to pass over."""
        self._ends_from = boot_seconds() + self._lease
        self._claims_from = 0.0
        self.steps = 0

    # -- the server's clock

    def clock_stepped(self, by: timedelta) -> None:
        """Take in how far the server's clock was away from where it was expected."""
        if abs(micros_of(by)) <= self._tolerance:
            return
        self.steps += 1
        now = boot_seconds()
        # Owners renew first, by the clock as it is now.
        self._ends_from = now + self._lease
        self._claims_from = now + SETTLING if by > JUMP else 0.0
        self.invalidate()
        logger.warning(
            "the server's clock was set by %s: no claim is ended for its lease for %.0f s%s",
            by,
            self._lease,
            f", and nothing is claimed for {SETTLING:.0f} s" if by > JUMP else "",
        )

    # -- claiming

    def invalidate(self) -> None:
        """Note that something may have appeared anywhere: look at everything."""
        self._invalid = True

    def serve(self, lanes: Lanes) -> None:
        """Take in for which queues claims are made: for others, there may be more to claim."""
        if self._asked != lanes.asked:
            self._asked = lanes.asked
            self._invalid = True
            self.empty_at = BEGINNING

    def above(self, lanes: Lanes) -> int:
        """Return the moment up to which nothing was left that fits."""
        return self.empty_at if lanes.open <= self._empty_for else BEGINNING

    def wants_sweep(self, now: int) -> bool:
        """Whether to look from the beginning."""
        seconds = boot_seconds()
        since, longest = seconds - self._swept, MAX_POLL.total_seconds()
        return (
            self._invalid
            or not (self._more or self._is_listening(seconds))
            or 0.0 < self._locked_until <= seconds
            or self._cost <= CHEAP
            or since > min(SHARE * self._cost, longest)
            or (self._held is not None and self._held <= now)
        )

    def looks_everywhere(self, now: int) -> bool:
        """Whether the next probe begins at the beginning, too: one does after each sweep."""
        return self._unlooked or self.wants_sweep(now)

    def ask(self, limit: int, lease: int, at: int | None, now: int) -> ClaimRequest | None:
        """Return what to ask for, ``None`` for nothing yet.

        Args:
            limit: Most claims.
            lease: The lease in microseconds.
            at: The moment, where not the server decides.
            now: The moment, as far as it is known.
        """
        if at is not None:
            return ClaimRequest(limit, lease, at, (-_END, _END), BEGINNING, ends=True)
        seconds = boot_seconds()
        if seconds < self._claims_from:
            return None
        floor = BEGINNING if self.wants_sweep(now) else self.floor
        if floor == BEGINNING and limit > 0:  # or nothing is looked at that is due
            self._invalid = False
        within = (now - self._tolerance, now + self._tolerance)
        return ClaimRequest(limit, lease, None, within, floor, ends=seconds >= self._ends_from)

    def claimed(
        self,
        request: ClaimRequest,
        claimed: ClaimResult,
        cost: float,
        *,
        lanes: Lanes | None = None,
        refused: bool = False,
    ) -> None:
        """Take in what a claim found.

        Args:
            request: The bounds of the claim.
            claimed: What it found.
            cost: Seconds that it took.
            lanes: What of the room is left, where it was not the default queue alone.
            refused: Whether it has left jobs that the worker may take another time.
        """
        if request.now is not None:
            return
        least, most = request.within
        if not least <= claimed.at <= most:
            self._invalid = True  # nothing was looked at
            return
        if request.limit < 1:
            return  # nor was what is due
        if request.floor == BEGINNING:
            self._swept, self._cost = boot_seconds(), cost
            self._locked_until = 0.0
            self._unlooked = True
        self._more = claimed.last is not None
        self._empty_for = frozenset([REST]) if lanes is None else lanes.open
        if claimed.last is None:
            self.empty_at = claimed.at
            self.floor = claimed.at - MARGIN
        else:
            self.empty_at = BEGINNING
            self.floor = claimed.last - MARGIN
        if refused or (lanes is not None and lanes.open != lanes.asked):
            self.floor = BEGINNING  # some is left below any other moment

    def _is_listening(self, seconds: float) -> bool:
        """Whether there is a loop that waits, and hears what appears; ``run_due`` has none."""
        return seconds - self._looked <= MAX_POLL.total_seconds()

    def is_conclusive(self, request: ClaimRequest) -> bool:
        """Whether what a claim did not find is not there, or will be heard of."""
        return request.floor == BEGINNING or self._more or self._is_listening(boot_seconds())

    def probed(self, probe: DueProbe, *, sweep: bool, cost: float) -> list[int]:
        """Take in what a look found; return when it is worth to claim, one way or another."""
        seconds = self._looked = boot_seconds()
        if sweep:
            self._swept, self._cost = seconds, cost
            self._unlooked = False
            self._held = probe.held
        moments = [] if probe.free is None else [probe.free]
        if self._held is not None:
            blocked = self._ends_from - seconds
            moments.append(max(self._held, probe.at + max(0, round(blocked * 1e6))))
        if probe.passed_over:
            # Unless it is new, the last claim did not get it: it is locked.
            pause = 0.0 if self._invalid else max(LOCKED, 5 * self._cost)
            self._locked_until = seconds + pause
            moments.append(probe.at + round(pause * 1e6))
        claims_from = probe.at + max(0, round((self._claims_from - seconds) * 1e6))
        return [max(found, claims_from) for found in moments]

    def settled(self, settlements: Sequence[Settlement]) -> None:
        """Take in what was settled: it may be due again, in the past even."""
        for settlement in settlements:
            standing = settlement.standing
            due_at = None if standing is None else standing.due_at
            if standing is None or (due_at is not None and micros(due_at) <= self.empty_at):
                self._invalid = True
                return
