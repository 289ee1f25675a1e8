"""Handlers that write in the transaction that settles their occurrence."""

from __future__ import annotations

import functools

from sched_core import lifecycle
from sched_core.errors import BackendError, ClaimLost
from sched_core.holdings import Holdings
from sched_core.job import Job, JobEvent, Settlement
from sched_core.lifecycle import SUCCESS
from sched_core.ports import Transaction, Transactional
from sched_core.runs import Run


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
        if run.phase == "committed":
            raise BackendError(
                f"this occurrence of job {event.id!r} is settled: use one transaction for each"
            )
        if not run.is_open:
            raise ClaimLost(event.id)
        return self._backend.transaction(
            run.claim, functools.partial(self._decide, run), run.commit
        )

    def _decide(self, run: Run, stored: Job | None) -> Settlement:
        start = run.start
        if run.phase == "committed":
            raise BackendError(f"this occurrence of job {run.claim.job.id!r} is settled already")
        if start is None or not run.is_open:
            raise ClaimLost(run.claim.job.id)
        now = self._holdings.clock.now()
        decision = lifecycle.finish(
            run.claim, start, SUCCESS, started_at=run.started_at or now, now=now, stored=stored
        )
        leave = decision.standing is None or stored is None
        expected = None if leave or stored is None else stored.revision
        return run.offer(Settlement(run.claim, expected, decision.standing, decision.ledger))
