"""How runs become lines: decided one by one, written in batches.

What ends while a batch is being written goes into the next one; nobody waits for a write.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

import anyio

from sched_core import lifecycle
from sched_core.clock import backoff_pause
from sched_core.errors import BackendUnavailable
from sched_core.holdings import Holdings, Run
from sched_core.job import Execution, Job, Settled, Settlement, describe
from sched_core.lifecycle import Decision

logger = logging.getLogger("sched_core")

BATCH = 500
"""Most settlements written at once."""
UNDECIDED = timedelta(seconds=60)
"""For how long a job is set aside whose schedule raised an exception."""
CONFLICTS = 100
"""After so many conflicts in a row something is wrong with the backend, not with the timing."""


class Settler:
    """Decides what the ends of runs mean, and writes it.

    Args:
        holdings: What is held; a run leaves it when it is written.
        forget: Called with a run that is over, unless its line was written and nobody waits for it.
        on_line: Called with each ledger line once it is written.
    """

    def __init__(
        self,
        holdings: Holdings,
        *,
        forget: Callable[[Run], None],
        on_line: Callable[[Execution], None] | None,
    ) -> None:
        self._holdings = holdings
        self._forget = forget
        self._on_line = on_line
        self._waiting: list[Run] = []
        self._wanted = anyio.Event()
        self._undecided: dict[str, datetime] = {}

    # -- deciding

    def begin(self, run: Run, now: datetime) -> bool:
        """Decide what a claim means; return whether the handler is to be called."""
        try:
            what = lifecycle.begin(run.claim, now=now)
        except Exception as error:  # noqa: BLE001 -- a third party's schedule may raise anything
            self._cannot_decide(run, error, now)
            run.postponed = now + UNDECIDED
            what = lifecycle.postpone(run.claim, until=run.postponed, now=now, stored=run.claim.job)
        if isinstance(what, Decision):
            run.decision = what
            self._enqueue(run)
            return False
        run.start = what
        return True

    def finish(self, run: Run, stored: Job | None, now: datetime) -> None:
        """Decide what the end of a run means for what is stored, and write it soon."""
        claim, start, ended = run.claim, run.start, run.ended
        run.expected = None if stored is None else stored.revision
        try:
            if run.postponed is not None or start is None or ended is None:
                until = run.postponed or now
                run.decision = lifecycle.postpone(claim, until=until, now=now, stored=stored)
            else:
                run.decision = lifecycle.finish(
                    claim, start, ended, started_at=run.started_at or now, now=now, stored=stored
                )
        except Exception as error:  # noqa: BLE001 -- as above
            self._cannot_decide(run, error, now)
            run.decision = lifecycle.postpone(claim, until=now + UNDECIDED, now=now, stored=stored)
        self._enqueue(run)

    def _cannot_decide(self, run: Run, error: Exception, now: datetime) -> None:
        job_id = run.claim.job.spec.id
        logger.error("job %r: what comes next cannot be decided", job_id, exc_info=error)
        problem = f"cannot be decided: {describe(error)}"
        self._holdings.on_trouble(f"job {job_id}", problem)
        self._undecided[job_id] = now + 2 * UNDECIDED

    def forget_undecided(self) -> None:
        """Turn healthy again where the trouble with a schedule did not come back."""
        now = self._holdings.clock.now()
        for job_id in [job_id for job_id, until in self._undecided.items() if until <= now]:
            del self._undecided[job_id]
            self._holdings.on_trouble(f"job {job_id}", None)

    # -- writing

    def start(self) -> None:
        """Begin anew."""
        self._wanted = anyio.Event()

    def clear(self) -> None:
        """Forget what is not written: it is left to its leases."""
        self._waiting.clear()

    def _enqueue(self, run: Run) -> None:
        self._waiting.append(run)
        self._wanted.set()

    async def write_all(self, *, begun: Callable[[], None]) -> None:
        """Write what was decided until cancelled.

        Args:
            begun: Called before each batch is written.
        """
        while True:
            if not self._waiting:
                self._wanted = anyio.Event()
                await self._wanted.wait()
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            begun()
            await self._write(batch)

    async def _write(self, batch: list[Run]) -> None:
        settlements = [_settlement(run) for run in batch]
        failures = 0
        while True:
            try:
                outcomes = await self._holdings.backend.settle(settlements)
                break
            except BackendUnavailable as error:
                # The outcome is unknown. The same settlement again is harmless.
                failures += 1
                self._holdings.trouble("settling", error)
                await backoff_pause(failures)
            except Exception as error:  # noqa: BLE001 -- a third party's backend may raise anything
                self._holdings.trouble("settling", error)
                if len(batch) > 1:
                    middle = len(batch) // 2
                    await self._write(batch[:middle])
                    await self._write(batch[middle:])
                    return
                job_id = batch[0].claim.job.spec.id
                logger.error("job %r: its end cannot be written, its lease must run out", job_id)
                self._forget(batch[0])
                return
        self._holdings.on_trouble("settling", None)
        busy = 0
        for run, settlement, settled in zip(batch, settlements, outcomes, strict=True):
            busy += self._written(run, settlement, settled)
        self._holdings.signal()
        if busy == len(batch):
            await backoff_pause(1)

    def _written(self, run: Run, settlement: Settlement, settled: Settled) -> bool:
        """Act on what became of a settlement; return whether it has to be tried again later."""
        outcome = settled.outcome
        if outcome == "written":
            if self._holdings.successors:
                self._forget(run)
            else:
                self._holdings.forget(run)
            self.tell(settlement)
        elif outcome == "busy":
            self._enqueue(run)
            return True
        elif outcome == "conflict":
            self._conflict(run, settled.job)
        else:
            self._holdings.claims_lost += 1
            logger.warning(
                "job %r: claim %s was taken over by another worker; its end was not written",
                run.claim.job.id,
                run.claim.token,
            )
            self._forget(run)
        return False

    def tell(self, settlement: Settlement) -> None:
        """Tell of lines that a handler has committed itself."""
        if self._on_line is not None:
            for line in settlement.ledger:
                self._on_line(line)

    def _conflict(self, run: Run, stored: Job | None) -> None:
        """Decide again on what is stored now: the edit stands."""
        run.conflicts += 1
        now = self._holdings.clock.now()
        if run.conflicts > CONFLICTS:
            logger.error("job %r: conflicts for ever; its lease must run out", run.claim.job.id)
            self._forget(run)
        elif run.ended is None and run.postponed is None:
            # A fate was decided on a definition that is no more: hand back, and claim anew.
            run.decision = lifecycle.postpone(run.claim, until=now, now=now, stored=stored)
            run.expected = None if stored is None else stored.revision
            self._enqueue(run)
        else:
            self.finish(run, stored, run.finished_at or now)


def _settlement(run: Run) -> Settlement:
    decision = run.decision or Decision(None, ())
    expected = None if decision.standing is None else run.expected
    return Settlement(run.claim, expected, decision.standing, decision.ledger)
