"""Settlements: how claims end."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from sched_core.errors import BackendError
from sched_core.job import Execution, Job, Settled, Settlement
from sched_core.row import is_written
from sched_jetstream import protocol
from sched_jetstream.batch import Mismatch
from sched_jetstream.protocol import CLAIM_LOST, LONG_AGO, WRITTEN, Found, Write
from sched_jetstream.record import Record
from sched_jetstream.session import Mine, Session
from sched_jetstream.subjects import token_of


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
        for settlement in settlements:
            token = token_of(settlement.claim.job.id)
            mine = self._session.ours(token, settlement.claim)
            future = None
            if mine is not None:
                decided = protocol.settle(mine.found, settlement)
                if isinstance(decided, Write) and not decided.unsure:
                    future = self._session.committer.submit(self._session.step(mine.found, decided))
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
        except Mismatch:
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
            found = await self._session.reader.one(token)
            decided = protocol.settle(found, settlement)
            if isinstance(decided, Settled):
                return decided
            if decided == LONG_AGO:
                return await self._by_the_ledger(settlement)
            lines: Sequence[Execution] = decided.lines
            if decided.unsure:
                known, taken = await self._known(settlement, lines)
                if taken:
                    return Settled("conflict", _job(found))
                lines = [line for line in lines if line.id not in known]
            try:
                await self._session.committer.write(self._session.step(found, decided, lines))
            except Mismatch:
                continue
            return WRITTEN

    async def _by_the_ledger(self, settlement: Settlement) -> Settled:
        """Whether an earlier try of the same settlement wrote its lines."""
        known = await self._session.ledger.of_claim(settlement.ledger, settlement.claim.claimed_at)
        return WRITTEN if is_written(settlement, known.get) else CLAIM_LOST

    async def _known(
        self, settlement: Settlement, lines: Sequence[Execution]
    ) -> tuple[Collection[str], Collection[str]]:
        """Return the ids of lines that are stored, and of final ones that are not the first."""
        if any(line.final for line in lines):  # an edit may have ended its occurrence long ago
            return await self._session.ledger.stored(lines)
        claimed_at = settlement.claim.claimed_at
        return await self._session.ledger.of_claim(lines, claimed_at), ()


def _job(found: Found) -> Job | None:
    content = found.content
    return content.job if isinstance(content, Record) else None
