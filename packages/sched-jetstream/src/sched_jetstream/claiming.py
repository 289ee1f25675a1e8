"""Claims: taking them, keeping them, and giving them back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from functools import partial

import anyio
from attrs import evolve

from sched_core.clock import cpu_seconds, pause
from sched_core.errors import BackendError
from sched_core.job import Claim
from sched_core.logger import Logger
from sched_jetstream import protocol
from sched_jetstream.batch import Mismatch
from sched_jetstream.errors import OutcomeUnknown
from sched_jetstream.hints import SHORTEST_NAK, Hint
from sched_jetstream.layout import Step
from sched_jetstream.protocol import Found, Write
from sched_jetstream.record import Record
from sched_jetstream.session import Mine, Session, written
from sched_jetstream.subjects import token_of

logger = Logger("sched_jetstream")

PATIENCE = 0.25
"""The part of a lease for which claims that are written wait for those that are not yet."""
LOOKS_AGAIN = 0.1
"""Seconds between two looks for a claim whose answer is missing."""


class Claiming:
    """What a session claims.

    Args:
        session: It.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def due(self, limit: int) -> list[Claim]:
        """Claim what is due.

        Raises:
            BackendError: Nothing could be claimed.
        """
        hints, clock = self._session.hints, self._session.clock
        if hints.failure is not None:
            raise hints.failure
        if limit <= 0:
            return []
        if self._session.late:
            return self._take_late(limit)
        claims: list[Claim] = []
        until = clock.now() + self._session.options.lease * PATIENCE
        looked = False
        while clock.now() < until and len(claims) < limit:
            try:
                due, looked = await self._look(limit - len(claims), looked=looked)
                if not due:
                    break
                claims += await self._claim(due)
            except BackendError:
                if not claims:
                    raise
                break  # what is claimed is not to wait, or be lost, because of what is not
        return claims + self._take_late(limit - len(claims))

    async def _look(self, most: int, *, looked: bool) -> tuple[list[Hint], bool]:
        """Return what is due, and whether the store was asked; once in a claim is enough.

        It is asked where less is here than is wanted, also because others have claimed it.
        """
        hints, clock = self._session.hints, self._session.clock
        due = hints.take(clock.now(), most)
        if len(due) == most or looked:
            return due, looked
        for hint in due:
            hints.put(hint)  # what is found now may be older
        await self._session.wire.ready()
        await hints.sweep(most - len(due))
        if self._session.store_clock is None:
            await self._session.scan()
        return hints.take(clock.now(), most), True

    async def _claim(self, due: Sequence[Hint]) -> list[Claim]:
        now = self._session.clock.now()
        taken: list[tuple[Hint, Claim | None, Step, asyncio.Future[list[int]]]] = []
        again: list[Hint] = []
        for hint in due:
            record = hint.found.content
            hold = record.hold if isinstance(record, Record) else None
            orphaned = self._session.is_orphan(hint.token, hold)
            if hold is not None and not orphaned and not self._may_take_over():
                self._session.hints.postpone(hint.reply, timedelta(seconds=1))
                continue
            decided = protocol.claim(
                hint.found,
                now,
                worker=self._session.worker,
                lease=self._session.options.lease,
                orphaned=orphaned,
            )
            if decided is None:
                again.append(hint)
                continue
            step = self._session.step(hint.found, decided.write)
            taken.append((hint, decided.claim, step, self._session.committer.submit(step)))
        claims: list[Claim] = []
        failure: BackendError | None = None
        patience = (self._session.options.lease * PATIENCE).total_seconds()
        if taken:
            await asyncio.wait([future for *_, future in taken], timeout=patience)
        for hint, claim, step, future in taken:
            if not future.done():
                decided_late = partial(self._decided_late, hint, claim, step)
                future.add_done_callback(decided_late)
                continue
            try:
                made = self._made(hint, claim, step, future)
            except Mismatch:
                again.append(hint)
            except BackendError as error:
                failure = error
                self._not_made(hint, error)
            else:
                claims += made
        if again:
            self._session.do_beside(self._judge_again(again, patience))
        if failure is not None and not claims:
            raise failure
        return claims

    def _made(
        self,
        hint: Hint,
        claim: Claim | None,
        step: Step,
        future: asyncio.Future[list[int]],
    ) -> list[Claim]:
        """Take in that a claim is decided; return it if it was written.

        Raises:
            Mismatch, BackendError: As the committer's.
        """
        try:
            (sequence,) = future.result()
        except OutcomeUnknown:
            # A second try of the same claim may have been written, and handed out, before this one
            # is given up.
            if claim is not None and self._session.ours(hint.token, claim) is None:
                self._session.orphans.add(claim.token)
            raise
        if claim is None:
            self._session.hints.done(hint.reply)
            return []
        self._session.mine[hint.token] = Mine(
            claim, written(hint.token, sequence, step), hint.reply
        )
        # An earlier try with the same token, on the same revision, was not stored then.
        self._session.orphans -= {claim.token, _held(hint.found)}
        return [claim]

    def _decided_late(
        self,
        hint: Hint,
        claim: Claim | None,
        step: Step,
        future: asyncio.Future[list[int]],
    ) -> None:
        try:
            made = self._made(hint, claim, step, future)
            self._session.late += made
            self._session.alarm.nudge()
            patience = (self._session.options.lease * PATIENCE).total_seconds()
            asyncio.get_running_loop().call_later(patience, self._give_back_unfetched, made)
        except Mismatch:
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
        ends = cpu_seconds() + session.options.lease.total_seconds()
        while cpu_seconds() < ends and not session.closing:
            try:
                found = await session.reader.one(hint.token)
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

    async def _judge_again(self, hints: Sequence[Hint], patience: float) -> None:
        """Read what was not as a hint said; what cannot be read in time is looked at later."""

        async def judge(hint: Hint) -> None:
            try:
                with anyio.fail_after(patience):
                    found = await self._session.reader.one(hint.token)
            except (BackendError, TimeoutError):
                self._session.hints.postpone(hint.reply, timedelta(seconds=1))
            else:
                if not self._session.hints.judge(found, hint.reply):
                    self._session.hints.done(hint.reply)

        await asyncio.gather(*map(judge, hints))
        self._session.alarm.nudge()

    def _may_take_over(self) -> bool:
        return self._session.store_clock is None or self._session.store_clock.stands

    # -- holding

    async def renew(self, claims: Sequence[Claim]) -> list[Claim]:
        """Extend leases; return the claims that are still held."""
        renewed = await asyncio.gather(*(self._renew(claim) for claim in claims))
        return [claim for claim in renewed if claim is not None]

    async def _renew(self, claim: Claim) -> Claim | None:
        token = token_of(claim.job.id)
        mine = self._session.ours(token, claim)
        found = await self._session.reader.one(token) if mine is None else mine.found
        while True:
            until = self._session.clock.now() + self._session.options.lease
            write = protocol.renew(found, claim, until)
            if write is None:
                return None
            step = self._session.step(found, write)
            try:
                (sequence,) = await self._session.committer.write(step)
            except Mismatch:
                found = await self._session.reader.one(token)
                continue
            if mine is not None:
                mine.found = written(token, sequence, step)
                self._session.hints.working(mine.reply)
            record = found.content
            lost = record.hold.lost if isinstance(record, Record) and record.hold else claim.lost
            return evolve(claim, expires_at=until, lost=lost)

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

        def decide(found: Found, _unsure: bool) -> Write | None:
            return protocol.release(found, claim, self._session.clock.now())

        # Until its lease ends nobody else can have it, so that trying on is worth it.
        left = max(claim.expires_at - self._session.clock.now(), timedelta(0))
        await self._session.change(token, decide, left)
        if mine is not None:
            self._session.let_go(token, mine)


def _held(found: Found) -> int:
    """Return the token of the hold that was read, 0 for none."""
    record = found.content
    return record.hold.token if isinstance(record, Record) and record.hold is not None else 0
