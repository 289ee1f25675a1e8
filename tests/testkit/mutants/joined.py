"""The sound backend with transactions.

What a transaction writes is a staged copy: it is read through to the store, and saved there by the
commit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio.from_thread
from attrs import evolve
from tests.testkit.mutants.base import MutantHarness, Sound, Store, examined_by, holds

from sched_core import (
    BackendUnavailable,
    Claim,
    ClaimLost,
    Execution,
    InvalidDefinition,
    Job,
    RevisionConflict,
    Settlement,
    UndecodableExecution,
)
from sched_core.row import is_to_be_cancelled


class Staged(Store):
    """What a transaction has written; the rest is read through to the store."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.met: dict[str, Any] = {}
        """What was stored when the transaction first looked."""

    def next_serial(self) -> int:
        return self.store.next_serial()

    def row(self, job_id: str) -> Any:
        if job_id not in self.rows:
            return copy.copy(self.store.row(job_id))
        return copy.copy(self.rows[job_id])

    def save(self, job_id: str, row: Any) -> None:
        self.met.setdefault(job_id, self.store.row(job_id))
        self.rows[job_id] = row

    def stored(self, execution_id: str) -> Execution | UndecodableExecution | None:
        return super().stored(execution_id) or self.store.stored(execution_id)

    def append(self, execution: Execution | UndecodableExecution) -> None:
        if self.store.stored(execution.id) is None:
            super().append(execution)

    def commit(self) -> None:
        """Store what was written, if no other has written there meanwhile."""
        for job_id, met in self.met.items():
            if self.store.rows.get(job_id, met) is not met:
                raise BackendUnavailable(f"{job_id} was written meanwhile")
        self.store_all()

    def store_all(self) -> None:
        """Store what was written."""
        for job_id, row in self.rows.items():
            self.store.save(job_id, row)
            self.tell_marks(row)
        for _, execution in self.history:
            self.store.append(execution)

    def tell_marks(self, row: Any) -> None:
        """Wake the workers that wait for marks."""
        if (
            row.hold is not None
            and isinstance(row.job, Job)
            and is_to_be_cancelled(row.job, row.hold)
        ):
            for alarm in self.store.cancel_alarms:
                alarm.nudge()


class Connection:
    """An application's connection: with a transaction, and no autocommit."""

    def __init__(self, store: Store) -> None:
        self.staged = Staged(store)


class JoinedHarness(MutantHarness):
    """Examines one with connections of an application's."""

    can_connect = True
    can_cut = can_spoil = can_lock = can_spoil_execution = can_refuse_writes = can_make_newer = (
        False
    )

    @contextmanager
    def connect(self, place: Any) -> Iterator[Connection]:
        connection = Connection(place)
        yield connection
        connection.staged.commit()


@examined_by(JoinedHarness)
class Joined(Sound):
    """The sound one."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._capabilities = evolve(self._capabilities, transactions=True, notified=True)

    def within(self, connection: Any) -> Any:
        """Return the same backend, on what the transaction has written."""
        if not isinstance(connection, Connection):
            raise InvalidDefinition("connection", f"must be a Connection, not {connection!r}")
        view = copy.copy(self)
        view.store = connection.staged
        return view

    def transaction(
        self,
        claim: Claim,
        decide: Callable[[Job | None], Settlement],
        committed: Callable[[Settlement], None],
    ) -> Handlers:
        """Return a handler's transaction."""
        return Handlers(self, claim, decide, committed)

    # -- the end of a handler's transaction, step by step, to be got wrong

    def begun(self, handlers: Handlers) -> None:
        """Called when the block begins."""

    def end(self, handlers: Handlers) -> None:
        """Settle and commit; called without an exception only."""
        self.settle_in(handlers)
        handlers.connection.staged.commit()

    def settle_in(self, handlers: Handlers) -> None:
        """Lock and read the job, ask, and write the settlement into the transaction."""
        claim = handlers.claim
        view = self.within(handlers.connection)
        row = view.store.row(claim.job.id)
        if not holds(row, claim):
            raise ClaimLost(claim.job.id)
        handlers.settlement = handlers.decide(row.read())
        outcome = view._settle(handlers.settlement, self._now()).outcome
        if outcome == "claim_lost":
            raise ClaimLost(claim.job.id)
        if outcome != "written":
            raise RevisionConflict(claim.job.id)

    def failed(self, handlers: Handlers) -> None:
        """Called when the block has raised, or its end has: nothing is left to do."""


class Handlers:
    """A handler's transaction, in a thread or in the loop."""

    def __init__(
        self,
        backend: Joined,
        claim: Claim,
        decide: Callable[[Job | None], Settlement],
        committed: Callable[[Settlement], None],
    ) -> None:
        self.backend, self.claim, self.decide, self.committed = backend, claim, decide, committed
        self.connection = Connection(backend.store)
        self.settlement: Settlement | None = None

    def _end(self, error: BaseException | None) -> None:
        try:
            if error is None:
                self.backend.end(self)
        except BaseException:
            self.backend.failed(self)
            raise
        if error is not None:
            self.backend.failed(self)

    def __enter__(self) -> Connection:
        anyio.from_thread.run_sync(self.backend.begun, self)
        return self.connection

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        anyio.from_thread.run_sync(self._end, error)
        if self.settlement is not None and error is None:
            self.committed(self.settlement)

    async def __aenter__(self) -> Connection:
        self.backend.begun(self)
        return self.connection

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._end(error)
        if self.settlement is not None and error is None:
            self.committed(self.settlement)
