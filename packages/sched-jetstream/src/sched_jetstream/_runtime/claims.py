"""Claims: due jobs are claimed, and claims whose lease has ended are ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

import anyio

from sched_core import Claim, Claimed, Execution, Room
from sched_core.clock import Alarm, monotonic_seconds, pause
from sched_core.errors import BackendError
from sched_core.row import Filling
from sched_jetstream._model import protocol
from sched_jetstream._model.layout import AtomicWrite
from sched_jetstream._model.record import Record
from sched_jetstream._runtime.acknowledgements import Acknowledgements
from sched_jetstream._runtime.background import Background
from sched_jetstream._runtime.due_queue import Hint, lacking
from sched_jetstream._runtime.hints import Hints
from sched_jetstream._runtime.leases import Leases
from sched_jetstream._runtime.live_claims import LiveClaims
from sched_jetstream._runtime.sources import SHORTEST_NAK
from sched_jetstream._runtime.timing import Timing
from sched_jetstream._store.records import Records, written
from sched_jetstream._store.writer import RevisionMismatch
from sched_jetstream.errors import OutcomeUnknown

PATIENCE = 0.25
"""The part of a lease for which claims that are written wait for those that are not yet."""
LATE = 0.1
"""The part of a lease after which a call ends no claims any more: those of this worker might be
among them, and are to be renewed first."""
READS_AGAIN = 0.1
"""Seconds between two reads for a claim whose answer is missing."""
LATER = timedelta(seconds=1)
"""After how long another worker gets a hint that this one could not act on."""


class Claims:
    """Claims for one worker.

    Args:
        live: The claims in flight.
        hints: What may be due.
        acks: Acknowledges the hints of claims.
        records: The records of the deployment.
        timing: The clock that decides.
        find_due: Looks for what is due where no hint tells; returns whether all records were read.
        leases: Gives back claims that no caller takes.
        background: Runs what no call waits for.
        alarm: Nudged when something has become due.
        lease: How long a claim lives unless it is renewed.
    """

    def __init__(
        self,
        live: LiveClaims,
        hints: Hints,
        acks: Acknowledgements,
        records: Records,
        *,
        timing: Timing,
        find_due: Callable[[], Awaitable[bool]],
        leases: Leases,
        background: Background,
        alarm: Alarm,
        lease: timedelta,
    ) -> None:
        self._live, self._hints, self._acks = live, hints, acks
        self._records, self._find_due = records, find_due
        self._timing, self._now = timing, timing.clock.now
        self._leases, self._background, self._alarm = leases, background, alarm
        self._lease = lease
        self._patience = (lease * PATIENCE).total_seconds()

    async def due(self, room: Room, *, asked_at: datetime) -> Claimed:
        """End claims whose lease has ended, and claim what is due.

        Args:
            room: The jobs to claim, and how many.
            asked_at: When the caller asked for it.

        Raises:
            BackendError: Nothing could be claimed.
        """
        hints = self._hints
        if hints.failure is not None:
            raise hints.failure
        late = self._take_late(Filling(room))
        if late:
            return Claimed(late)
        hints.look(room)
        claims: list[Claim] = []
        lapsed: list[Execution] = []
        until = self._now() + self._lease * PATIENCE
        looked = await self._find_due()
        while self._now() < until:
            try:
                due, looked = await self._look(room, claims, looked=looked)
                now = self._now()
                ended = hints.take_ended(now) if now < asked_at + self._lease * LATE else []
                if ended:
                    for hint in due:
                        hints.put(hint)  # what is ended now may be due, and older
                    lapsed += await self._end(ended)
                    continue
                if not due:
                    break
                claims += await self._claim(due)
                if len(claims) >= room.limit:
                    break
            except BackendError:
                if not claims:
                    raise
                break  # what is claimed must not wait, or be lost, because of what is not
        return Claimed(claims + self._take_late(_filled(room, claims)), lapsed)

    async def _look(
        self, room: Room, claims: Sequence[Claim], *, looked: bool
    ) -> tuple[list[Hint], bool]:
        """Return what can be claimed, and whether the server was asked; once in a call is enough.

        It is asked where fewer hints are here than are wanted, also because other workers have
        claimed their jobs.
        """
        hints = self._hints
        due = hints.take(self._now(), _filled(room, claims))
        if looked:
            return due, looked
        queues = [claim.job.spec.queue for claim in claims] + [hint.queue for hint in due]
        wants = lacking(room, Counter(map(room.lane, queues)))
        if not wants:
            return due, looked
        for hint in due:
            hints.put(hint)  # what is found now may be older
        await hints.pull_available(room, wants)
        return hints.take(self._now(), _filled(room, claims)), True

    async def _claim(self, due: Sequence[Hint]) -> list[Claim]:
        now = self._now()
        decided: list[tuple[Hint, Claim, AtomicWrite, asyncio.Future[list[int]]]] = []
        again: list[Hint] = []
        for hint in due:
            decision = protocol.claim(hint.found, now, worker=self._live.worker, lease=self._lease)
            if decision is None:
                again.append(hint)
                continue
            built, future = self._records.submit(hint.found, decision.write)
            decided.append((hint, decision.claim, built, future))
        claims: list[Claim] = []
        failure: BackendError | None = None
        if decided:
            await asyncio.wait([future for *_, future in decided], timeout=self._patience)
        for hint, claim, built, future in decided:
            if not future.done():
                future.add_done_callback(partial(self._decided_late, hint, claim, built))
                continue
            try:
                self._confirm(hint, claim, built, future)
            except RevisionMismatch:
                again.append(hint)
            except BackendError as error:
                failure = error
                self._not_confirmed(hint, error)
            else:
                claims.append(claim)
        if again:
            self._background.spawn(self._reassess(again))
        if failure is not None and not claims:
            raise failure
        return claims

    def _confirm(
        self, hint: Hint, claim: Claim, built: AtomicWrite, future: asyncio.Future[list[int]]
    ) -> None:
        """Keep a claim, now that its write is decided.

        Raises:
            RevisionMismatch, BackendError: As the writer's.
        """
        try:
            (sequence,) = future.result()
        except OutcomeUnknown:
            self._live.doubt(hint.token, claim)
            raise
        self._live.confirm(claim, written(hint.token, sequence, built), hint.reply)

    def _decided_late(
        self, hint: Hint, claim: Claim, built: AtomicWrite, future: asyncio.Future[list[int]]
    ) -> None:
        try:
            self._confirm(hint, claim, built, future)
        except RevisionMismatch:
            self._acks.postpone(hint.reply, SHORTEST_NAK)
        except BackendError as error:
            self._not_confirmed(hint, error)
        else:
            self._live.decided_late.append(claim)
            self._alarm.nudge()
            loop = asyncio.get_running_loop()
            loop.call_later(self._patience, self._give_back_unfetched, claim)

    def _not_confirmed(self, hint: Hint, error: BackendError) -> None:
        """Pass on the hint of a claim that failed, unless the claim may be stored all the same.

        A claim that was stored though its answer is missing keeps every other worker away for a
        whole lease. So this worker looks for it, and then begins the job.
        """
        if isinstance(error, OutcomeUnknown):
            self._background.spawn(self._look_for(hint))
        else:
            self._acks.postpone(hint.reply, LATER)

    async def _look_for(self, hint: Hint) -> None:
        ends = monotonic_seconds() + self._lease.total_seconds()
        while monotonic_seconds() < ends and not self._background.closing:
            try:
                found = await self._records.read(hint.token)
            except BackendError:
                await pause(READS_AGAIN)
                continue
            self._hints.judge_or_drop(found, hint.reply)
            self._alarm.nudge()
            return
        self._acks.postpone(hint.reply, SHORTEST_NAK)

    # -- claims that were decided late

    def _take_late(self, filling: Filling) -> list[Claim]:
        """Hand out what was decided late; what has little left of its lease is given back.

        In the background: a store that decides late may also take back late, and leases run
        meanwhile.
        """
        claims = self._live.take_late(filling)
        since = self._now() + self._lease / 2
        spent = [claim for claim in claims if claim.expires_at < since]
        if spent:
            self._background.spawn(self._leases.give_back(spent))
        return [claim for claim in claims if claim.expires_at >= since]

    def _give_back_unfetched(self, claim: Claim) -> None:
        """Give back what was decided late and no caller has taken: handlers may all be busy."""
        if self._background.closing:
            return
        left = self._live.withdraw_late(claim)
        if left:
            self._background.spawn(self._leases.give_back(left))

    # -- ending

    async def _end(self, ended: Sequence[Hint]) -> list[Execution]:
        """End claims whose lease has ended, and those that were never handed out.

        Returns:
            What was written about claims that were lost.
        """
        ends = await asyncio.gather(*map(self._end_one, ended), return_exceptions=True)
        failures = [each for each in ends if isinstance(each, BaseException)]
        if failures:
            raise failures[0]
        return [one for each in ends if not isinstance(each, BaseException) for one in each]

    async def _end_one(self, hint: Hint) -> Sequence[Execution]:
        content = hint.found.content
        hold = content.hold if isinstance(content, Record) else None
        is_unconfirmed = self._live.is_unconfirmed(hint.token, hold)
        if not is_unconfirmed and not self._timing.may_take_over:
            self._acks.postpone(hint.reply, LATER)
            return ()
        decide = protocol.end_unconfirmed if is_unconfirmed else protocol.end_of_lease
        write = decide(hint.found, self._now())
        try:
            if write is None:
                raise RevisionMismatch("nothing is to be ended")  # noqa: TRY301 -- as if changed
            found = await self._records.write(hint.found, write)
        except RevisionMismatch:
            self._background.spawn(self._reassess([hint]))
            return ()
        except BackendError:
            # Where it was written, the next worker that gets the hint sees that.
            self._acks.postpone(hint.reply, LATER)
            raise
        if hold is not None and is_unconfirmed:
            self._live.resolve(hold)
        self._hints.judge_or_drop(found, hint.reply)
        return () if is_unconfirmed else write.executions

    async def _reassess(self, hints: Sequence[Hint]) -> None:
        """Read what was not as a hint said; what cannot be read in time is looked at later."""

        async def reassess(hint: Hint) -> None:
            try:
                with anyio.fail_after(self._patience):
                    found = await self._records.read(hint.token)
            except (BackendError, TimeoutError):
                self._acks.postpone(hint.reply, LATER)
            else:
                self._hints.judge_or_drop(found, hint.reply)

        await asyncio.gather(*map(reassess, hints))
        self._alarm.nudge()


def _filled(room: Room, claims: Sequence[Claim]) -> Filling:
    """Return what is left of a room after claims."""
    filling = Filling(room)
    for claim in claims:
        filling.add(claim.job.spec.queue)
    return filling
