"""Handlers that write in the transaction that settles their occurrence."""

from __future__ import annotations

import functools

from sched_core import lifecycle
from sched_core.errors import BackendError, ClaimLost
from sched_core.holdings import Holdings, Run
from sched_core.job import Job, JobEvent, Settlement
from sched_core.lifecycle import SUCCESS, Decision
from sched_core.ports import Transaction, Transactional


class Transactions:
    """Makes them for the runs that this process holds.

    Args:
        holdings: What is held.
        backend: That it is held on.
    """

    def __init__(self, holdings: Holdings, backend: Transactional) -> None:
        self._holdings = holdings
        self._backend = backend

    def begin(self, event: JobEvent) -> Transaction:
        """Return a transaction that settles the event's occurrence; from any thread."""
        run = self._holdings.runs.get(event.id)
        if run is None or run.claim.token != event.token or run.why == "lost":
            raise ClaimLost(event.id)
        if run.written is not None:
            raise BackendError(
                f"this occurrence of job {event.id!r} is settled: use one transaction for each"
            )
        return self._backend.transaction(
            run.claim, functools.partial(self._decide, run), functools.partial(_committed, run)
        )

    def _decide(self, run: Run, stored: Job | None) -> Settlement:
        start = run.start
        if start is None or run.written is not None:
            raise BackendError(f"this occurrence of job {run.claim.job.id!r} is settled already")
        now = self._holdings.clock.now()
        decision = lifecycle.finish(
            run.claim, start, SUCCESS, started_at=run.started_at or now, now=now, stored=stored
        )
        leave = decision.standing is None or stored is None
        expected = None if leave or stored is None else stored.revision
        return Settlement(run.claim, expected, decision.standing, decision.ledger)


def _committed(run: Run, settlement: Settlement) -> None:
    # In this order: with a decision the run is neither cancelled nor given up any more.
    run.decision = Decision(settlement.standing, settlement.ledger)
    run.written = settlement
