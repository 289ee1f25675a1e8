"""Leases: claims are renewed while handlers run, and released unrun."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sched_core import Claim, Renewal
from sched_core._support.logger import Logger
from sched_core.errors import BackendError
from sched_jetstream._model import protocol
from sched_jetstream._model.protocol import StoredRecord, Write
from sched_jetstream._model.subjects import token_of
from sched_jetstream._runtime.acknowledgements import Acknowledgements
from sched_jetstream._runtime.live_claims import LiveClaims
from sched_jetstream._store.records import Records

logger = Logger("sched_jetstream")


class Leases:
    """Extends and frees the claims of this worker.

    Args:
        live: The claims in flight.
        acks: Acknowledges the hints of claims.
        records: The records of the deployment.
        now: Tells the time that decides.
        lease: How long a claim lives after each renewal.
    """

    def __init__(
        self,
        live: LiveClaims,
        acks: Acknowledgements,
        records: Records,
        now: Callable[[], datetime],
        lease: timedelta,
    ) -> None:
        self._live, self._acks, self._records = live, acks, records
        self._now, self._lease = now, lease

    async def renew(self, renewals: Sequence[Renewal]) -> list[Claim]:
        """Extend leases; return the claims that are still held."""
        renewed = await asyncio.gather(*(self._renew(renewal) for renewal in renewals))
        return [claim for claim in renewed if claim is not None]

    async def _renew(self, renewal: Renewal) -> Claim | None:
        token = token_of(renewal.claim.job.id)
        live = self._live.find(token, renewal.claim)
        longer: Claim | None = None

        def decide(found: StoredRecord, _: bool) -> Write | None:
            nonlocal longer
            decision = protocol.renew(found, renewal, self._now(), self._lease)
            longer = None if decision is None else decision.claim
            return None if decision is None else decision.write

        known = None if live is None else live.found
        change = await self._records.change(token, decide, known=known)
        if live is not None and longer is not None:
            live.found = change.found
            self._acks.working(live.reply)
        return longer

    async def release(self, claims: Sequence[Claim]) -> None:
        """Give claims back: what they held is due again at once."""
        await asyncio.gather(*(self._release(claim) for claim in claims))

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """Release claims that no caller got, if that is possible."""
        try:
            await self.release(claims)
        except BackendError as error:
            logger.warning("claims could not be released, their leases must run out: %s", error)

    async def _release(self, claim: Claim) -> None:
        token = token_of(claim.job.id)
        live = self._live.find(token, claim)

        def decide(found: StoredRecord, _: bool) -> Write | None:
            return protocol.release(found, claim, self._now())

        # Until the lease ends no other worker can claim the job, so that trying on is worth it.
        left = max(claim.expires_at - self._now(), timedelta(0))
        await self._records.change(token, decide, budget=left)
        if live is not None:
            self._live.drop(live)
            self._acks.done(live.reply)
