"""Claims of one worker: it claims what is due, renews what it holds, and releases the rest."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from psycopg.errors import LockNotAvailable

from sched_core import Claim, Renewal, Room
from sched_core._support.logger import Logger
from sched_core.clock import FIRST, boot_seconds
from sched_core.errors import BackendUnavailable
from sched_sql._shared.lanes import Lanes
from sched_sql._shared.moments import micros, nearest_moment
from sched_sql._shared.table import ClaimBatch, Now
from sched_sql.postgres.announcements import Announcements
from sched_sql.postgres.claims import Claims, micros_of
from sched_sql.postgres.connections import Connections
from sched_sql.postgres.due_index import DueIndex
from sched_sql.postgres.heartbeat import Heartbeat
from sched_sql.postgres.partitions import Partitions
from sched_sql.postgres.parts import BEGINNING, ENDED, ClaimRequest, ClaimResult, DueProbe
from sched_sql.postgres.renewals import Fence, fence_of
from sched_sql.postgres.server_time import ServerTime

logger = Logger("sched_sql")

REMEMBERED = 5.0
"""Seconds for which a worker remembers that there are other queues, or jobs that it refuses."""


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
        self._many_until = 0.0
        """The moment until which there are believed to be further queues than the default one."""
        self._refuses_until = 0.0
        """The moment until which there are believed to be due jobs that the worker refuses."""
        self.heartbeat = Heartbeat(self._beat)
        self.due_index = DueIndex(lease)

    def open(self, worker: str) -> None:
        """Begin again as this worker."""
        self._claims.worker = worker
        self.due_index = DueIndex(self._lease)
        self._renewing_failed = None

    # -- what is due

    def earliest(self, room: Room, now: Now, horizon: datetime) -> datetime | None:
        """Return when to claim next; what lies after the horizon may be left out."""
        self._announcements.make("claim")
        # Who takes any job is woken by any, however many it has room for.
        lanes = Lanes(Room(1) if room.takes_any else room)
        index, at = self.due_index, self._time.fixed(now)
        index.serve(lanes)
        sweep = at is not None or index.looks_everywhere(micros(now()))
        floor = BEGINNING if sweep else index.floor
        above = max(index.above(lanes) if at is None else BEGINNING, floor)
        began, until = boot_seconds(), micros(horizon)
        probe = self._probe(lanes, at, until, floor=floor, above=above, sweep=sweep)
        if at is not None:
            moments = [found for found in (probe.free, probe.held) if found is not None]
        else:
            moments = index.probed(probe, sweep=sweep, cost=boot_seconds() - began)
        return nearest_moment(min(moments)) if moments else None

    def _probe(
        self, lanes: Lanes, at: int | None, until: int, *, floor: int, above: int, sweep: bool
    ) -> DueProbe:
        found: list[DueProbe] = []

        def ask(by: Lanes | None) -> int:
            found.append(
                self._lanes["claim"].run(
                    lambda: self._claims.probe(
                        at, until, floor=floor, above=above, sweep=sweep, lanes=by
                    ),
                    transaction=False,
                )
            )
            return found[-1].at

        for by in (None, lanes) if self._is_alone(lanes) and lanes.left else (lanes,):
            if at is None:
                self._time.observe(functools.partial(ask, by))
            else:
                ask(by)
            if not self._has_others(found[-1].others):
                break
        probe, accepts = found[-1], lanes.room.accepts
        if accepts is None or all(map(accepts, probe.ids)):
            return probe
        return self._lanes["claim"].run(
            lambda: self._claims.first(lanes, at, until, above, probe), transaction=False
        )

    def _is_alone(self, lanes: Lanes) -> bool:
        """Whether to begin with the statement for a store with no other queue than the default."""
        return lanes.room.queues is None and boot_seconds() >= self._many_until

    def _has_others(self, others: bool) -> bool:
        if others:
            self._many_until = boot_seconds() + REMEMBERED
        return others

    # -- claiming

    def claim(self, batch: ClaimBatch, now: Now) -> None:
        """End claims whose leases have ended, then claim."""
        if now() - batch.at > self._lease / 10:
            # The loop was blocked or the clock set: the caller renews first, or what it holds
            # itself would be ended.
            return
        self._assure_renewals(now)
        lanes, lost = Lanes(batch.room), set[str]()
        self.due_index.serve(lanes)
        at, believed = self._time.fixed(now), micros(now())
        while self._claim(batch, lanes, lost, at, believed):
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

    def _claim(
        self, batch: ClaimBatch, lanes: Lanes, lost: set[str], at: int | None, believed: int
    ) -> bool:
        """Append claims; return whether there may be more, and something has moved.

        Args:
            batch: Where to append them.
            lanes: What is left of the room.
            lost: Ids of jobs that this call does not ask for again: it was refused what others have
                locked or claimed, or has refused it.
            at: The moment, where not the server decides.
            believed: The moment, as far as it is known.
        """
        index, claims, begun = self.due_index, batch.claims, len(batch.claims)
        request = index.ask(lanes.left, micros_of(self._lease), at, believed)
        if request is None:
            self._time.ask()
            return False
        sent = boot_seconds()
        chooses = lanes.room.accepts is not None and sent < self._refuses_until
        mine: list[Claim] = []
        if chooses:
            claimed, chosen = self._choose(mine, lanes, request, lost)
            by: Lanes | None = lanes
        else:
            by = None if self._is_alone(lanes) else lanes
            claimed, chosen = self._ask(mine, request, by), 0
        received = boot_seconds()
        if self._has_others(claimed.others):
            return True
        kept, refused = self._judged(mine, lanes.room, at)
        # What is kept is given back with the others, should anything below fail.
        claims += kept
        for claim in kept:
            lanes.take(claim.job.spec.queue)
        self.heartbeat.hold(kept, sent, named=True)
        if refused:
            lost.update(claim.job.spec.id for claim in refused)
            self._refuse(refused, at)
        self._time.take(claimed.at, sent, received)
        index.claimed(
            request,
            claimed,
            received - sent,
            lanes=by,
            refused=boot_seconds() < self._refuses_until,
        )
        if claimed.undecodable:
            self._free(claimed.undecodable, at)
        moved = len(claimed.undecodable) + len(refused) + max(0, chosen - len(mine))
        if claimed.ended:
            moved += self._lapse(batch, claimed.ended, at)
        more = lanes.left > 0 or len(claimed.ended) >= ENDED
        if 0 < begun < len(claims):
            claims.sort(key=lambda claim: claim.job.standing.due_at or FIRST)
        if not index.is_conclusive(request):
            return more
        return more and moved > 0

    def _ask(self, claims: list[Claim], request: ClaimRequest, lanes: Lanes | None) -> ClaimResult:
        return self._lanes["claim"].run(
            lambda: self._claims.claim(claims, request, lanes), transaction=False
        )

    # -- what the worker refuses

    def _judged(
        self, claims: list[Claim], room: Room, at: int | None
    ) -> tuple[list[Claim], list[Claim]]:
        """Return the claims that the worker takes, and those that it refuses.

        A predicate that raises takes none: all are given back first.
        """
        accepts, kept, refused = room.accepts, list[Claim](), list[Claim]()
        if accepts is None:
            return claims, []
        try:
            for claim in claims:
                (kept if accepts(claim.job.spec.id) else refused).append(claim)
        except BaseException:
            self._refuse(claims, at)
            raise
        return kept, refused

    def _refuse(self, claims: Sequence[Claim], at: int | None) -> None:
        """Free claims at once that the worker does not take, and choose by id from now on."""
        self._refuses_until = boot_seconds() + REMEMBERED
        self._claims.locations.forget(claims)
        self._free([fence_of(claim) for claim in claims], at)

    def _choose(
        self, claims: list[Claim], lanes: Lanes, request: ClaimRequest, lost: set[str]
    ) -> tuple[ClaimResult, int]:
        """Append claims of what the worker takes; return how many were chosen, too."""
        lane = self._lanes["claim"]
        found = lane.run(lambda: self._claims.choose(lanes, request, lost), transaction=False)
        if found.refused:
            self._refuses_until = boot_seconds() + REMEMBERED
        result = ClaimResult(found.at, found.ended, [], None)
        if found.jobs:
            result = lane.run(
                lambda: self._claims.claim_chosen(claims, request, found.jobs), transaction=False
            )._replace(ended=found.ended)
            got = {claim.job.spec.id for claim in claims}
            lost.update(job_id for job_id, _ in found.jobs if job_id not in got)
        return result, len(found.jobs)

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

    def has_marked(self) -> bool:
        """Whether a claim that this worker holds is marked to be cancelled; it never raises."""
        held, renewals = self.heartbeat.held(), self._claims.renewals
        if not held:
            return False
        try:
            return self._lanes["renew"].run(lambda: renewals.has_marked(held), transaction=False)
        except Exception:  # noqa: BLE001 -- a renewal tells, and raises what there is to raise
            return True

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
