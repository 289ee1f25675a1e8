"""Claims: taking them, keeping them, and giving them back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

import anyio

from sched_core import Claim, Claimed, Execution, Renewal
from sched_core._support.logger import Logger
from sched_core.clock import monotonic_seconds, pause
from sched_core.errors import BackendError
from sched_jetstream._model import protocol
from sched_jetstream._model.layout import AtomicWrite
from sched_jetstream._model.protocol import StoredRecord, Write
from sched_jetstream._model.record import Record
from sched_jetstream._model.subjects import token_of
from sched_jetstream._runtime.due_queue import Hint
from sched_jetstream._runtime.hints import SHORTEST_NAK
from sched_jetstream._runtime.session import Mine, Session, written
from sched_jetstream._store.writer import RevisionMismatch
from sched_jetstream.errors import OutcomeUnknown

logger = Logger("sched_jetstream")

PATIENCE = 0.25
"""The part of a lease for which claims that are written wait for those that are not yet."""
LATE = 0.1
"""The part of a lease after which a look ends no claims any more: those of this worker might be
among them, and are to be renewed first."""
LOOKS_AGAIN = 0.1
"""Seconds between two looks for a claim whose answer is missing."""


class Claiming:
    """What a session claims.

    Args:
        session: It.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def due(self, limit: int, *, asked_at: datetime) -> Claimed:
        """End claims whose lease has ended, and claim what is due.

        Args:
            limit: Most claims.
            asked_at: When the caller asked for it.

        Raises:
            BackendError: Nothing could be claimed.
        """
        hints, clock = self._session.hints, self._session.clock
        if hints.failure is not None:
            raise hints.failure
        if self._session.late and limit > 0:
            return Claimed(self._take_late(limit))
        claims: list[Claim] = []
        lapsed: list[Execution] = []
        lease = self._session.options.lease
        until = clock.now() + lease * PATIENCE
        looked = False
        while clock.now() < until:
            try:
                due, looked = await self._look(limit - len(claims), looked=looked)
                now = clock.now()
                ended = hints.take_ended(now) if now < asked_at + lease * LATE else []
                if ended:
                    for hint in due:
                        hints.put(hint)  # what is ended now may be due, and older
                    lapsed += await self._end(ended)
                    continue
                if not due:
                    break
                claims += await self._claim(due)
                if len(claims) >= limit:
                    break
            except BackendError:
                if not claims:
                    raise
                break  # what is claimed is not to wait, or be lost, because of what is not
        return Claimed(claims + self._take_late(limit - len(claims)), lapsed)

    async def _look(self, most: int, *, looked: bool) -> tuple[list[Hint], bool]:
        """Return what can be claimed, and whether the store was asked; once in a claim is enough.

        It is asked where less is here than is wanted, also because others have claimed it.
        """
        hints, clock = self._session.hints, self._session.clock
        if self._session.store_clock is None and not looked:
            await self._session.scan()
            return hints.take(clock.now(), most), True
        due = hints.take(clock.now(), most)
        if len(due) == most or looked:
            return due, looked
        for hint in due:
            hints.put(hint)  # what is found now may be older
        await self._session.wire.ready()
        await hints.pull_available(most - len(due))
        return hints.take(clock.now(), most), True

    async def _claim(self, due: Sequence[Hint]) -> list[Claim]:
        now = self._session.clock.now()
        taken: list[tuple[Hint, Claim, AtomicWrite, asyncio.Future[list[int]]]] = []
        again: list[Hint] = []
        for hint in due:
            decided = protocol.claim(
                hint.found, now, worker=self._session.worker, lease=self._session.options.lease
            )
            if decided is None:
                again.append(hint)
                continue
            step = self._session.step(hint.found, decided.write)
            taken.append((hint, decided.claim, step, self._session.writer.submit(step)))
        claims: list[Claim] = []
        failure: BackendError | None = None
        if taken:
            await asyncio.wait([future for *_, future in taken], timeout=self._patience)
        for hint, claim, step, future in taken:
            if not future.done():
                decided_late = partial(self._decided_late, hint, claim, step)
                future.add_done_callback(decided_late)
                continue
            try:
                made = self._made(hint, claim, step, future)
            except RevisionMismatch:
                again.append(hint)
            except BackendError as error:
                failure = error
                self._not_made(hint, error)
            else:
                claims += made
        if again:
            self._session.do_beside(self._judge_again(again, self._patience))
        if failure is not None and not claims:
            raise failure
        return claims

    def _made(
        self,
        hint: Hint,
        claim: Claim,
        step: AtomicWrite,
        future: asyncio.Future[list[int]],
    ) -> list[Claim]:
        """Take in that a claim is decided; return it, now that it was written.

        Raises:
            RevisionMismatch, BackendError: As the writer's.
        """
        try:
            (sequence,) = future.result()
        except OutcomeUnknown:
            # A second try of the same claim may have been written, and handed out, before this one
            # is given up.
            if self._session.ours(hint.token, claim) is None:
                self._session.orphans.add(claim.token)
            raise
        self._session.mine[hint.token] = Mine(
            claim, written(hint.token, sequence, step), hint.reply
        )
        # An earlier try with the same token, on the same revision, was not stored then.
        self._session.orphans.discard(claim.token)
        return [claim]

    def _decided_late(
        self,
        hint: Hint,
        claim: Claim,
        step: AtomicWrite,
        future: asyncio.Future[list[int]],
    ) -> None:
        try:
            made = self._made(hint, claim, step, future)
            self._session.late += made
            self._session.alarm.nudge()
            loop = asyncio.get_running_loop()
            loop.call_later(self._patience, self._give_back_unfetched, made)
        except RevisionMismatch:
            self._session.hints.postpone(hint.reply, SHORTEST_NAK)
        except BackendError as error:
            self._not_made(hint, error)

    def _not_made(self, hint: Hint, error: BackendError) -> None:
        """See to a hint whose claim failed: others may have it, unless it may be ours all the same.

        A claim that was written though its answer is missing keeps everybody else away for a whole
        lease. So it is this worker who looks for it, and then begins the job.
        """
        if isinstance(error, OutcomeUnknown):
            self._session.do_beside(self._look_for(hint))
        else:
            self._session.hints.postpone(hint.reply, timedelta(seconds=1))

    async def _look_for(self, hint: Hint) -> None:
        session = self._session
        ends = monotonic_seconds() + session.options.lease.total_seconds()
        while monotonic_seconds() < ends and not session.closing:
            try:
                found = await session.reader.read_leader(hint.token)
            except BackendError:
                await pause(LOOKS_AGAIN)
                continue
            if not session.hints.judge(found, hint.reply):
                session.hints.done(hint.reply)
            session.alarm.nudge()
            return
        session.hints.postpone(hint.reply, SHORTEST_NAK)

    def _take_late(self, limit: int) -> list[Claim]:
        """Hand out what was decided late; what has little left of its lease is given back.

        Beside it: a store that decides late may also take back late, and leases run meanwhile.
        """
        claims, self._session.late = self._session.late[:limit], self._session.late[limit:]
        since = self._session.clock.now() + self._session.options.lease / 2
        spent = [claim for claim in claims if claim.expires_at < since]
        if spent:
            self._session.do_beside(self.give_back(spent))
        return [claim for claim in claims if claim.expires_at >= since]

    def _give_back_unfetched(self, claims: Sequence[Claim]) -> None:
        """Give back what was decided late and nobody asked for: all handlers are busy, perhaps."""
        waiting = {(claim.job.id, claim.token) for claim in claims}
        left = [each for each in self._session.late if (each.job.id, each.token) in waiting]
        if left and not self._session.closing:
            self._session.late = [each for each in self._session.late if each not in left]
            self._session.do_beside(self.give_back(left))

    # -- ending

    async def _end(self, ended: Sequence[Hint]) -> list[Execution]:
        """End claims whose lease has ended, and those that were never handed out.

        Returns:
            What was written about claims that were lost.
        """
        written = await asyncio.gather(*map(self._end_one, ended), return_exceptions=True)
        failures = [each for each in written if isinstance(each, BaseException)]
        if failures:
            raise failures[0]
        return [one for each in written if not isinstance(each, BaseException) for one in each]

    async def _end_one(self, hint: Hint) -> Sequence[Execution]:
        session, content = self._session, hint.found.content
        hold = content.hold if isinstance(content, Record) else None
        is_orphan = session.is_orphan(hint.token, hold)
        if not is_orphan and not self._may_take_over():
            session.hints.postpone(hint.reply, timedelta(seconds=1))
            return ()
        decide = protocol.end_unknown if is_orphan else protocol.end_of_lease
        write = decide(hint.found, session.clock.now())
        try:
            if write is None:
                raise RevisionMismatch("nothing is to be ended")  # noqa: TRY301 -- it is as if changed
            step = session.step(hint.found, write, await session.new_executions(write))
            (sequence,) = await session.writer.write(step)
        except RevisionMismatch:
            session.do_beside(self._judge_again([hint], self._patience))
            return ()
        except BackendError:
            # Where it was written, whoever is told next sees that.
            session.hints.postpone(hint.reply, timedelta(seconds=1))
            raise
        if hold is not None and is_orphan:
            session.orphans.discard(hold.token)
        if not session.hints.judge(written(hint.token, sequence, step), hint.reply):
            session.hints.done(hint.reply)
        return () if is_orphan else write.executions

    @property
    def _patience(self) -> float:
        return (self._session.options.lease * PATIENCE).total_seconds()

    async def _judge_again(self, hints: Sequence[Hint], patience: float) -> None:
        """Read what was not as a hint said; what cannot be read in time is looked at later."""

        async def judge(hint: Hint) -> None:
            try:
                with anyio.fail_after(patience):
                    found = await self._session.reader.read_leader(hint.token)
            except (BackendError, TimeoutError):
                self._session.hints.postpone(hint.reply, timedelta(seconds=1))
            else:
                if not self._session.hints.judge(found, hint.reply):
                    self._session.hints.done(hint.reply)

        await asyncio.gather(*map(judge, hints))
        self._session.alarm.nudge()

    def _may_take_over(self) -> bool:
        return self._session.store_clock is None or self._session.store_clock.may_take_over

    # -- holding

    async def renew(self, renewals: Sequence[Renewal]) -> list[Claim]:
        """Extend leases; return the claims that are still held."""
        renewed = await asyncio.gather(*(self._renew(renewal) for renewal in renewals))
        return [claim for claim in renewed if claim is not None]

    async def _renew(self, renewal: Renewal) -> Claim | None:
        session, token = self._session, token_of(renewal.claim.job.id)
        mine = session.ours(token, renewal.claim)
        found = await session.reader.read_leader(token) if mine is None else mine.found
        while True:
            extended = protocol.renew(found, renewal, session.clock.now(), session.options.lease)
            if extended is None:
                return None
            step = session.step(found, extended.write)
            try:
                (sequence,) = await session.writer.write(step)
            except RevisionMismatch:
                found = await session.reader.read_leader(token)
                continue
            if mine is not None:
                mine.found = written(token, sequence, step)
                session.hints.working(mine.reply)
            return extended.claim

    async def release(self, claims: Sequence[Claim]) -> None:
        """Give claims back: what they held is due again at once."""
        await asyncio.gather(*(self._release(claim) for claim in claims))

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """Release claims that nobody was handed, if that is possible."""
        try:
            await self.release(claims)
        except BackendError as error:
            logger.warning("claims could not be released, their leases must run out: %s", error)

    async def _release(self, claim: Claim) -> None:
        token = token_of(claim.job.id)
        mine = self._session.ours(token, claim)

        def decide(found: StoredRecord, _unsure: bool) -> Write | None:
            return protocol.release(found, claim, self._session.clock.now())

        # Until its lease ends nobody else can have it, so that trying on is worth it.
        left = max(claim.expires_at - self._session.clock.now(), timedelta(0))
        await self._session.change(token, decide, left)
        if mine is not None:
            self._session.let_go(token, mine)
