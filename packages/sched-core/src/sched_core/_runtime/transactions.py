"""Transactions in which a handler's own writes and its outcome are committed together."""

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
    """Begins transactions for the runs in flight.

    Args:
        in_flight: The runs in flight.
        backend: The backend that handed out their claims.
    """

    def __init__(self, in_flight: InFlight, backend: Backend) -> None:
        self._in_flight = in_flight
        self._backend = backend

    def begin(self, event: JobEvent) -> Transaction:
        """Return a transaction that settles the event's occurrence. Any thread may call this."""
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
            run.claim,
            start,
            run.with_notes(SUCCESS),
            started_at=run.started_at or now,
            now=now,
            stored=stored,
        )
        leave = decision.standing is None or stored is None
        expected = None if leave or stored is None else stored.revision
        return run.offer(Settlement(run.claim, expected, decision.standing, decision.executions))


def within(backend: Backend, connection: Any) -> JobStore:
    """Return a store of jobs that writes inside the caller's transaction.

    Raises:
        BackendError: The backend has no transactions, or does not say how it takes part in one.
        InvalidDefinition: The backend cannot use the connection; the message says why.
    """
    if not backend.capabilities.transactions:
        raise BackendError("this backend has no transactions: use the scheduler's own methods")
    return _own(backend, "within").within(connection)


def _own(backend: Backend, method: Literal["within", "transaction"]) -> Transactional:
    """Return the backend if it defines a method of transactions itself.

    A backend that wraps another one may pass the call on by ``__getattr__``. The job would then be
    written past the wrapper: past its audit, its quota or its encryption.

    Raises:
        BackendError: The backend does not define the method.
    """
    if inspect.getattr_static(backend, method, None) is None:
        kind = type(backend).__qualname__
        raise BackendError(
            f"{kind} declares transactions and does not define {method}() itself: the job would be "
            f"written past {kind}; define {kind}.{method}(), or declare transactions=False"
        )
    return cast("Transactional", backend)
