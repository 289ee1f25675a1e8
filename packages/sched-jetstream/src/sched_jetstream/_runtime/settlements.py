"""Settlements: how claims end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sched_core import Settled, Settlement
from sched_core.errors import BackendError
from sched_core.row import is_repeat
from sched_jetstream._model import protocol
from sched_jetstream._model.protocol import ASK_HISTORY, CLAIM_LOST, WRITTEN, Write
from sched_jetstream._model.subjects import token_of
from sched_jetstream._runtime.session import Mine, Session
from sched_jetstream._store.writer import RevisionMismatch


class Settling:
    """Ends a session's claims.

    Args:
        session: It.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled | BackendError]:
        """Send all of them at once by what is known here; look closer only where that fails."""
        sent: list[tuple[Settlement, str, Mine | None, asyncio.Future[list[int]] | None]] = []
        now = self._session.clock.now()
        for settlement in settlements:
            token = token_of(settlement.claim.job.id)
            mine = self._session.ours(token, settlement.claim)
            future = None
            if mine is not None:
                decided = protocol.settle(mine.found, settlement, now)
                if isinstance(decided, Write) and not decided.may_exist:
                    future = self._session.writer.submit(self._session.step(mine.found, decided))
            sent.append((settlement, token, mine, future))
        looked = await asyncio.gather(
            *(self._answer(token, settlement, future) for settlement, token, _, future in sent)
        )
        answers: list[Settled | BackendError] = []
        for (_, token, mine, _), answer in zip(sent, looked, strict=True):
            if mine is not None and answer is WRITTEN:
                self._session.let_go(token, mine)
            elif mine is not None and answer is CLAIM_LOST:
                self._session.mine.pop(token, None)
            answers.append(answer)
        return answers

    async def _answer(
        self, token: str, settlement: Settlement, future: asyncio.Future[list[int]] | None
    ) -> Settled | BackendError:
        try:
            if future is not None:
                await future
                return WRITTEN
        except RevisionMismatch:
            pass
        except BackendError as error:
            return error
        try:
            return await self._settle(token, settlement)
        except BackendError as error:
            return error

    async def _settle(self, token: str, settlement: Settlement) -> Settled:
        """Settle by what the leader says."""
        while True:
            found = await self._session.reader.read_leader(token)
            decided = protocol.settle(found, settlement, self._session.clock.now())
            if isinstance(decided, Settled):
                return decided
            if decided == ASK_HISTORY:
                return await self._by_the_history(settlement)
            executions = await self._session.new_executions(decided)
            try:
                await self._session.writer.write(self._session.step(found, decided, executions))
            except RevisionMismatch:
                continue
            return WRITTEN

    async def _by_the_history(self, settlement: Settlement) -> Settled:
        """Whether an earlier try of the same settlement wrote its executions."""
        executions, claim = settlement.executions, settlement.claim
        if not executions:
            return CLAIM_LOST
        known = await self._session.history.of_claim(executions, claim.claimed_at)
        found = [known.get(each.id) for each in executions]
        return WRITTEN if is_repeat(settlement, found) else CLAIM_LOST
