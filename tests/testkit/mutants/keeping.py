"""Retention, closing, crashing."""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.testkit.mutants.base import NOTHING, TICK, Sound, breaks

from sched_core import (
    BackendError,
    Execution,
)


@breaks("prune_deletes_what_is_old_and_nothing_else")
class PrunesTooMuch(Sound):
    """Prune deletes what ended at the moment, too."""

    async def prune(self, before: datetime) -> int:
        return await super().prune(before + TICK)


@breaks("prune_deletes_what_is_old_and_nothing_else")
class PrunesByTheClaim(Sound):
    """Prune deletes what began before the moment, and ended after it."""

    async def prune(self, before: datetime) -> int:
        began = [
            one.finished_at + TICK
            for _, one in self.store.history
            if isinstance(one, Execution) and one.claimed_at < before
        ]
        return await super().prune(max([before, *began]))


@breaks("prune_deletes_what_is_old_and_nothing_else")
class PrunesIdleJobs(Sound):
    """Prune deletes jobs that are not due any more."""

    async def prune(self, before: datetime) -> int:
        deleted = await super().prune(before)
        for job_id, row in list(self.store.rows.items()):
            if row.job is not None and row.hold is None and row.job.standing.due_at is None:
                del self.store.rows[job_id]
        return deleted


@breaks("prune_deletes_what_is_old_and_nothing_else")
class PrunesUncounted(Sound):
    """Prune does not say how much it deleted."""

    async def prune(self, before: datetime) -> int:
        await super().prune(before)
        return 0


@breaks("what_has_expired_is_deleted")
class ExpiresTooEarly(Sound):
    """What expires within the second is deleted."""

    pruning = False

    def _now(self) -> datetime:
        return super()._now() + (timedelta(seconds=1) if self.pruning else NOTHING)

    async def prune(self, before: datetime) -> int:
        self.pruning = True
        try:
            return await super().prune(before)
        finally:
            self.pruning = False


@breaks("what_has_expired_is_deleted")
class NothingExpires(Sound):
    """Prune looks at the history only."""

    async def prune(self, before: datetime) -> int:
        rows, self.store.rows = self.store.rows, {}
        try:
            return await super().prune(before)
        finally:
            self.store.rows = rows


@breaks("prune_leaves_what_is_claimed")
class PrunesWhatIsClaimed(Sound):
    """Prune deletes expired jobs whether they are claimed or not."""

    async def prune(self, before: datetime) -> int:
        now = self._now()
        for job_id, row in list(self.store.rows.items()):
            ends = None if row.job is None else row.job.standing.expires_at
            if row.hold is not None and ends is not None and ends <= now:
                del self.store.rows[job_id]
        return await super().prune(before)


@breaks("prune_leaves_what_is_claimed")
class PrunesTombstones(Sound):
    """Prune sweeps up what removed jobs have left."""

    async def prune(self, before: datetime) -> int:
        for job_id, row in list(self.store.rows.items()):
            if row.job is None:
                del self.store.rows[job_id]
        return await super().prune(before)


@breaks("everything_survives_reopening")
class ClaimsDieWithTheirProcess(Sound):
    """Claims are kept in the process, and are gone with it, leaving no trace."""

    def died(self) -> None:
        for job_id, row in self.store.rows.items():
            if row.hold is not None and row.hold.worker == self._worker:
                row.hold = None
                self.store.save(job_id, row)


@breaks("everything_survives_reopening")
class SettlementsAreBuffered(Sound):
    """What was settled last is still in a buffer when the process dies."""

    def died(self) -> None:
        if self.store.history:
            self.store.history.pop()


@breaks("everything_survives_reopening")
class TokensAreInMemory(Sound):
    """The counter of tokens starts again with the process."""

    def died(self) -> None:
        self.store.serial = 0


@breaks("closing_keeps_what_was_written")
class CloseClears(Sound):
    """Close empties the store."""

    async def close(self) -> None:
        await super().close()
        self.store.rows.clear()


@breaks("closing_keeps_what_was_written")
class ClosesOnce(Sound):
    """Closing what is closed is an error."""

    async def close(self) -> None:
        if self._clock is None and self._worker:
            raise BackendError("closed already")
        await super().close()


@breaks("closing_leaves_claims_to_their_lease")
class CloseFreesClaims(Sound):
    """Close frees what is claimed, as if no handler could still be running."""

    async def close(self) -> None:
        for job_id, row in self.store.rows.items():
            if row.hold is not None and row.hold.worker == self._worker:
                row.hold = None
                self.store.save(job_id, row)
        await super().close()
