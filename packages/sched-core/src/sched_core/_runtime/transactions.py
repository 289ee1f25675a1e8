"""Handlers that write in the transaction that settles their occurrence."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Literal, cast

from sched_core._model.claim import SUCCESS, Settlement
from sched_core._model.event import JobEvent
from sched_core._model.job import Job
from sched_core._rules.finish import finish
from sched_core._runtime.in_flight import InFlight
from sched_core._runtime.runs import Run
from sched_core.errors import BackendError, ClaimLost
from sched_core.ports import Backend, JobStore, Transaction, Transactional


class HandlerTransactions:
    """Makes them for the runs that this process holds.

    Args:
        in_flight: What is held.
        backend: That it is held on.
    """

    def __init__(self, in_flight: InFlight, backend: Backend) -> None:
        self._in_flight = in_flight
        self._backend = backend

    def begin(self, event: JobEvent) -> Transaction:
        """Return a transaction that settles the event's occurrence; from any thread."""
        run = self._in_flight.runs.get(event.id)
        if run is None or run.claim.token != event.token or run.is_lost:
            raise ClaimLost(event.id)
        if run.phase == "committed":
            raise BackendError(
                f"this occurrence of job {event.id!r} is settled: use one transaction for each"
            )
        if not run.is_open:
            raise ClaimLost(event.id)
        return self._transactional.transaction(
            run.claim, functools.partial(self._decide, run), run.commit
        )

    @functools.cached_property
    def _transactional(self) -> Transactional:
        return _own(self._backend, "transaction")

    def _decide(self, run: Run, stored: Job | None) -> Settlement:
        start = run.start
        if run.phase == "committed":
            raise BackendError(f"this occurrence of job {run.claim.job.id!r} is settled already")
        if start is None or not run.is_open:
            raise ClaimLost(run.claim.job.id)
        now = self._in_flight.clock.now()
        decision = finish(
            run.claim, start, SUCCESS, started_at=run.started_at or now, now=now, stored=stored
        )
        leave = decision.standing is None or stored is None
        expected = None if leave or stored is None else stored.revision
        return run.offer(Settlement(run.claim, expected, decision.standing, decision.executions))


def within(backend: Backend, connection: Any) -> JobStore:
    """Return definitions that a backend writes inside the caller's transaction.

    Raises:
        BackendError: The backend has no transactions, or does not say how it takes part in one.
        InvalidDefinition: As the backend says.
    """
    if not backend.capabilities.transactions:
        raise BackendError("this backend has no transactions: use the scheduler's own methods")
    return _own(backend, "within").within(connection)


def _own(backend: Backend, method: Literal["within", "transaction"]) -> Transactional:
    """Return the backend if it defines a method of transactions itself.

    What ``__getattr__`` hands on to another backend would be written past the one in front of it:
    past its audit, its quota or its encryption.

    Raises:
        BackendError: It does not.
    """
    if inspect.getattr_static(backend, method, None) is None:
        kind = type(backend).__qualname__
        raise BackendError(
            f"{kind} declares transactions and does not define {method}() itself: the job would be "
            f"written past {kind}; define {kind}.{method}(), or declare transactions=False"
        )
    return cast("Transactional", backend)
