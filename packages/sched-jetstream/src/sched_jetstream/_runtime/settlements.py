"""Settlements: how claims end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from sched_core import Settled, Settlement
from sched_core.errors import BackendError
from sched_core.row import is_repeat
from sched_jetstream._model import protocol
from sched_jetstream._model.protocol import (
    CLAIM_LOST,
    WRITTEN,
    AskHistory,
    StoredRecord,
    Write,
)
from sched_jetstream._model.subjects import token_of
from sched_jetstream._runtime.acknowledgements import Acknowledgements
from sched_jetstream._runtime.live_claims import LiveClaim, LiveClaims
from sched_jetstream._store.history import History
from sched_jetstream._store.records import Records
from sched_jetstream._store.writer import RevisionMismatch


class Settlements:
    """Ends the claims of this worker.

    Args:
        live: The claims in flight.
        acks: Acknowledges the hints of claims.
        records: The records of the deployment.
        history: Knows which settlements were written before.
        now: Tells the time that decides.
    """

    def __init__(
        self,
        live: LiveClaims,
        acks: Acknowledgements,
        records: Records,
        history: History,
        now: Callable[[], datetime],
    ) -> None:
        self._live, self._acks, self._records = live, acks, records
        self._history, self._now = history, now

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled | BackendError]:
        """Send all of them at once by what is known here; read records only where that fails."""
        sent: list[tuple[Settlement, str, LiveClaim | None, asyncio.Future[list[int]] | None]] = []
        now = self._now()
        for settlement in settlements:
            token = token_of(settlement.claim.job.id)
            live = self._live.find(token, settlement.claim)
            future = None
            if live is not None:
                decided = protocol.settle(live.found, settlement, now)
                if isinstance(decided, Write) and not decided.may_exist:
                    _, future = self._records.submit(live.found, decided)
            sent.append((settlement, token, live, future))
        looked = await asyncio.gather(
            *(self._answer(token, settlement, future) for settlement, token, _, future in sent)
        )
        answers: list[Settled | BackendError] = []
        for (_, _, live, _), answer in zip(sent, looked, strict=True):
            if live is not None and answer is WRITTEN:
                self._live.drop(live)
                self._acks.done(live.reply)
            elif live is not None and answer is CLAIM_LOST:
                self._live.drop(live)
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

        def decide(found: StoredRecord, _: bool) -> Write | Settled | AskHistory:
            return protocol.settle(found, settlement, self._now())

        answer = (await self._records.change(token, decide)).answer
        if answer is None:
            return WRITTEN
        if isinstance(answer, Settled):
            return answer
        return await self._by_the_history(settlement)

    async def _by_the_history(self, settlement: Settlement) -> Settled:
        """Whether an earlier try of the same settlement wrote its executions."""
        executions, claim = settlement.executions, settlement.claim
        if not executions:
            return CLAIM_LOST
        known = await self._history.of_claim(executions, claim.claimed_at)
        found = [known.get(each.id) for each in executions]
        return WRITTEN if is_repeat(settlement, found) else CLAIM_LOST
