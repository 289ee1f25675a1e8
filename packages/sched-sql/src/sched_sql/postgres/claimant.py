"""Claims of one worker: it claims what is due, renews what it holds, and releases the rest."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from psycopg.errors import LockNotAvailable

from sched_core import Claim, Renewal
from sched_core._support.logger import Logger
from sched_core.clock import FIRST, boot_seconds
from sched_core.errors import BackendUnavailable
from sched_sql._shared.moments import micros, nearest_moment
from sched_sql._shared.table import ClaimBatch, Now
from sched_sql.postgres.announcements import Announcements
from sched_sql.postgres.claims import BEGINNING, ENDED, Claims, micros_of
from sched_sql.postgres.connections import Connections
from sched_sql.postgres.due_index import DueIndex
from sched_sql.postgres.heartbeat import Heartbeat
from sched_sql.postgres.partitions import Partitions
from sched_sql.postgres.renewals import Fence, fence_of
from sched_sql.postgres.server_time import ServerTime

logger = Logger("sched_sql")


class Claimant:
    """Claims, renews and releases for one worker.

    Args:
        connections: The backend's connections.
        claims: The statements on claims.
        time: The time of the store.
        announcements: What the worker has settled and not announced yet.
        partitions: The partitions that executions need.
        lease: The time for which claims live.
        translate: Turns the driver's errors into the port's.
    """

    def __init__(
        self,
        connections: Connections,
        claims: Claims,
        time: ServerTime,
        announcements: Announcements,
        partitions: Partitions,
        lease: timedelta,
        translate: Callable[[Exception], Exception],
    ) -> None:
        self._connections = connections
        self._lanes = connections.lanes
        self._claims = claims
        self._time = time
        self._announcements = announcements
        self._partitions = partitions
        self._lease = lease
        self._translate = translate
        self._renewing_failed: Exception | None = None
        self.heartbeat = Heartbeat(self._beat)
        self.due_index = DueIndex(lease)

    def open(self, worker: str) -> None:
        """Begin again as this worker."""
        self._claims.worker = worker
        self.due_index = DueIndex(self._lease)
        self._renewing_failed = None

    def earliest(self, now: Now, horizon: datetime) -> datetime | None:
        """Return when to claim next; what lies after the horizon may be left out."""
        self._announcements.make("claim")
        index, at = self.due_index, self._time.fixed(now)
        sweep = at is not None or index.looks_everywhere(micros(now()))
        floor = BEGINNING if sweep else index.floor
        above = index.empty_at if at is None else BEGINNING
        until = micros(horizon)
        probes = []

        def ask() -> int:
            probes.append(
                self._lanes["claim"].run(
                    lambda: self._claims.probe(
                        at, until, floor=floor, above=max(above, floor), sweep=sweep
                    ),
                    transaction=False,
                )
            )
            return probes[0].at

        if at is not None:
            ask()
            moments = [found for found in (probes[0].free, probes[0].held) if found is not None]
        else:
            began = boot_seconds()
            self._time.observe(ask)
            moments = index.probed(probes[0], sweep=sweep, cost=boot_seconds() - began)
        return nearest_moment(min(moments)) if moments else None

    def claim(self, batch: ClaimBatch, now: Now) -> None:
        """End claims whose leases have ended, then claim."""
        if now() - batch.at > self._lease / 10:
            # The loop was blocked or the clock set: the caller renews first, or what it holds
            # itself would be ended.
            return
        self._assure_renewals(now)
        while self._claim(batch, micros_of(self._lease), self._time.fixed(now), micros(now())):
            # As many rows as were asked for, and some of them were only cleared away.
            pass

    def _assure_renewals(self, now: Now) -> None:
        """Refuse to claim while nothing can be renewed.

        Raises:
            BackendUnavailable: The connection for it is missing, or does not answer.
        """
        failed, renew = self._renewing_failed, self._lanes["renew"]
        if not renew.connect(self._connections.renewal_takes):
            raise BackendUnavailable(
                f"{self._connections.address}: a renewal gets no answer, so nothing is claimed"
            )
        if failed is not None:
            held = self.heartbeat.held()
            if held:
                self._renew(held, self._time.fixed(now), named=False)
            else:
                renew.processes()
                self._renewing_failed = None

    def _claim(self, batch: ClaimBatch, lease: int, at: int | None, believed: int) -> bool:
        """Append claims; return whether there may be more, and something has moved."""
        index, lane, claims = self.due_index, self._lanes["claim"], batch.claims
        begun, limit = len(claims), batch.limit - len(claims)
        request = index.ask(limit, lease, at, believed)
        if request is None:
            self._time.ask()
            return False
        sent = boot_seconds()
        claimed = lane.run(lambda: self._claims.claim(claims, request), transaction=False)
        received = boot_seconds()
        self.heartbeat.hold(claims[begun:], sent, named=True)
        self._time.take(claimed.at, sent, received)
        index.claimed(request, claimed, received - sent)
        if claimed.undecodable:
            self._free(claimed.undecodable, at)
        moved = len(claimed.undecodable)
        if claimed.ended:
            moved += self._lapse(batch, claimed.ended, at)
        more = len(claims) < batch.limit or len(claimed.ended) >= ENDED
        if 0 < begun < len(claims):
            claims.sort(key=lambda claim: claim.job.standing.due_at or FIRST)
        if not index.is_conclusive(request):
            return more
        return more and moved > 0

    def _lapse(self, batch: ClaimBatch, ids: list[str], at: int | None) -> int:
        """End claims whose leases have ended; return how many."""
        lane, claims = self._lanes["claim"], self._claims
        try:
            executions, ended = self._partitions.retry(
                lambda: lane.run(lambda: claims.lapse(ids, at))
            )
        except Exception as error:
            if not batch.claims:
                raise
            # What is claimed already must not be lost with it; this is tried again.
            logger.warning("lost claims could not be ended: %s", self._translate(error))
            return 0
        batch.lapsed.extend(executions)
        return ended

    def renew(self, renewals: Sequence[Renewal], now: Now) -> Sequence[Claim]:
        """Extend leases; return what is still held."""
        return self._renew(renewals, self._time.fixed(now), named=True)

    def _beat(self, renewals: Sequence[Renewal]) -> None:
        self._renew(renewals, None, named=False)

    def _renew(self, renewals: Sequence[Renewal], at: int | None, *, named: bool) -> list[Claim]:
        if not renewals:
            return []
        renewed: list[Claim] = []
        lane, extending, lease = self._lanes["renew"], self._claims.renewals, micros_of(self._lease)

        def ask() -> int | None:
            try:
                found = lane.run(lambda: extending.renew(renewals, lease, at), transaction=False)
            except LockNotAvailable:
                # The table as a whole is locked: for CREATE INDEX, say.
                found = lane.run(
                    lambda: extending.renew_unlocked(renewals, lease, at), transaction=False
                )
            renewed.extend(found.claims)
            return found.at

        sent = boot_seconds()
        try:
            self._time.observe(ask)
        except Exception as error:
            self._renewing_failed = error
            raise
        self._renewing_failed = None
        alone = {each.claim.token for each in renewals if each.alone}
        self.heartbeat.hold(renewed, sent, named=named, alone=alone)
        held = {claim.token for claim in renewed}
        self.drop([each.claim for each in renewals if each.claim.token not in held])
        return renewed

    def drop(self, claims: Sequence[Claim]) -> None:
        """Forget claims that have ended."""
        self.heartbeat.drop(claims)
        self._claims.locations.forget(claims)

    def release(self, claims: Sequence[Claim], now: Now) -> None:
        """Release claims whose handlers were never called."""
        if claims:
            self.drop(claims)
            fences = [fence_of(claim) for claim in claims]
            self._free(fences, self._time.fixed(now))
            self.due_index.invalidate()

    def _free(self, fences: Sequence[Fence], at: int | None) -> None:
        lane = self._lanes["claim"]
        left = self._partitions.retry(lambda: lane.run(lambda: self._claims.release(fences, at)))
        # Another call writes there, and is done in a moment. A row that is locked for longer stays
        # claimed until its lease ends.
        with suppress(LockNotAvailable):
            for fence in left:
                lane.run(functools.partial(self._claims.release, [fence], at, wait=True))
