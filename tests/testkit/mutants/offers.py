"""Methods that a backend may leave out, and that must be right where it has them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tests.testkit.mutants.base import AFTER, Sound, breaks

from sched_core import Clock, Job, Room


@breaks("due_since_tells_of_what_no_claim_holds")
class DueSinceCountsWhatIsHeld(Sound):
    """SELECT min(due_at), whichever claim holds the job."""

    async def due_since(self) -> datetime | None:
        now, rows = self._now(), self.store.rows.values()
        jobs = [row.job for row in rows if isinstance(row.job, Job)]
        earliest = min((job.standing.due_at or AFTER for job in jobs), default=AFTER)
        return earliest if earliest <= now else None


@breaks("due_since_tells_of_what_no_claim_holds")
class DueSinceClaims(Sound):
    """Claims what is due to see what it is."""

    async def due_since(self) -> datetime | None:
        claims = await self.claim_due(Room(1))
        return claims.claims[0].job.standing.due_at if claims.claims else None


@breaks("due_since_tells_of_what_was_lost")
class DueSinceLeavesOutWhatWasLost(Sound):
    """SELECT min(due_at) WHERE no worker has claimed it, however long ago."""

    async def due_since(self) -> datetime | None:
        now, rows = self._now(), self.store.rows.values()
        jobs = [row.job for row in rows if row.hold is None and isinstance(row.job, Job)]
        earliest = min((job.standing.due_at or AFTER for job in jobs), default=AFTER)
        return earliest if earliest <= now else None


@breaks("live_workers_are_the_others")
class LiveWorkersAreAllThatEverCame(Sound):
    """Workers are written down when they open, and stay there."""

    async def open(self, clock: Clock, *, worker: str) -> Clock:
        self.store.came = [*getattr(self.store, "came", ()), worker]
        return await super().open(clock, worker=worker)

    async def live_workers(self) -> Sequence[str] | None:
        return [worker for worker in self.store.came if worker != self._worker]
