"""Turns runs into executions: decides one by one, and writes in batches.

What ends while a batch is being written goes into the next one. No handler waits for a write.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import anyio

from sched_core._model.claim import SUCCESS, Decision, Ended, Settled, Settlement
from sched_core._model.execution import Execution, Status, describe, occurrence_key
from sched_core._model.job import Job
from sched_core._rules.begin import begin
from sched_core._rules.finish import LONGEST_WAIT, finish, postpone
from sched_core._rules.standing import current
from sched_core._runtime.in_flight import InFlight
from sched_core._runtime.outcomes import Postponed, Unknown
from sched_core._runtime.runs import Run
from sched_core._support.logger import Logger, from_user_code
from sched_core.clock import backoff_pause, monotonic_seconds
from sched_core.errors import BackendError, BackendUnavailable
from sched_core.ports import ExecutionQuery

logger = Logger("sched_core")

BATCH = 500
"""The most settlements in one write."""
SCHEDULE_ERROR_DELAY = timedelta(seconds=60)
"""How long a job is set aside after its schedule has raised an exception."""
MOST_CONFLICTS = 100
"""More conflicts in a row than this are a fault of the backend, not of the timing."""
RECENT = 20
"""How many of a job's newest executions are searched for that of a claim which has just ended."""
LONGEST_REFUSAL = 30.0
"""The most seconds between two attempts to write what the store refuses."""
INTERRUPTIONS = 5
"""After so many attempts that failures of the store have ended, health names the job."""


class Completer:
    """Decides what the end of each run means, and has the backend write that.

    Args:
        in_flight: The runs in flight; a run leaves them once it is written.
        forget: Called with a run that is over, unless it was written and no successor waits for it.
        on_execution: Called with each execution once it is written.
    """

    def __init__(
        self,
        in_flight: InFlight,
        *,
        forget: Callable[[Run], None],
        on_execution: Callable[[Execution], None] | None,
    ) -> None:
        self._in_flight = in_flight
        self._forget = forget
        self._on_execution = on_execution
        self._waiting: list[Run] = []
        self._wanted = anyio.Event()
        self._until: dict[str, datetime] = {}
        """The time, by job id, when health stops naming a job unless its problem comes back."""
        self._retry_refused = False
        self._refused: list[tuple[float, Run]] = []
        """Runs that the store has refused to write, each with the time of the next try."""

    # -- deciding

    def begin(self, run: Run, now: datetime) -> bool:
        """Decide what a claim means; return whether the handler is to be called."""
        try:
            what = begin(run.claim, now=now)
        except Exception as error:  # noqa: BLE001 -- a third party's schedule may raise anything
            self._cannot_decide(run, error, now)
            stored, until = run.claim.job, now + SCHEDULE_ERROR_DELAY
            what = postpone(run.claim, until=until, now=now, stored=stored)
        if isinstance(what, Decision):
            self._enqueue(run, what, run.expected)
            self._log(run, what, None)
            return False
        run.queue(what)
        return True

    def finish(self, run: Run, stored: Job | None, now: datetime) -> None:
        """Decide what the end of a run means for the stored job, and write that soon."""
        claim, start, outcome = run.claim, run.start, run.outcome
        try:
            if isinstance(outcome, Unknown):
                decision = Decision(None)
            elif start is None or outcome is None or isinstance(outcome, Postponed):
                until = outcome.until if isinstance(outcome, Postponed) else now
                decision = postpone(claim, until=until, now=now, stored=stored)
            else:
                decision = finish(
                    claim, start, outcome, started_at=run.started_at or now, now=now, stored=stored
                )
        except Exception as error:  # noqa: BLE001 -- as above
            self._cannot_decide(run, error, now)
            decision = postpone(claim, until=now + SCHEDULE_ERROR_DELAY, now=now, stored=stored)
        if run.phase != "ended" and outcome is not SUCCESS:
            self._log(run, decision, run.error)
            self._watch_interruptions(run, now)
        self._enqueue(run, decision, None if stored is None else stored.revision)

    @staticmethod
    def _log(run: Run, decision: Decision, error: BaseException | None) -> None:
        """Log a failure: as an error if it ends the occurrence, else as a warning."""
        failed = [each for each in decision.executions if each.status is Status.FAILED]
        if not failed and (error is None or _is_snoozed(run)):
            return
        final = any(each.final for each in failed)
        reason = failed[0].reason if failed else describe(error) if error is not None else None
        job, one = run.claim.job, current(run.claim.job.standing)
        logger.log(
            logging.ERROR if final else logging.WARNING,
            "job %r failed: %s" if final else "job %r failed, and will be attempted again: %s",
            job.spec.id,
            reason,
            exc_info=None if error is None else from_user_code(error),
            extra={
                "job_id": job.spec.id,
                "key": None if one is None else occurrence_key(job.uid, one.number),
                "attempt": None if one is None else one.attempts + 1,
            },
        )

    def _watch_interruptions(self, run: Run, now: datetime) -> None:
        """Note a job whose occurrence cannot end because of failures of the store."""
        outcome, start, job = run.outcome, run.start, run.claim.job
        if start is None or not isinstance(outcome, Ended) or not outcome.by_store:
            return
        topic = f"job {job.spec.id}"
        text = f"attempt {start.attempt} was interrupted, and will be made again: {outcome.reason}"
        self._in_flight.backend_errors += 1
        self._in_flight.set_notice(topic, text)
        one = current(job.standing)
        if one is not None and start.attempt - one.failures >= INTERRUPTIONS:
            self._in_flight.set_problem(topic, text)
        self._until[job.spec.id] = now + 2 * SCHEDULE_ERROR_DELAY + LONGEST_WAIT

    def _cannot_decide(self, run: Run, error: Exception, now: datetime) -> None:
        job_id = run.claim.job.spec.id
        logger.error("job %r: the scheduler cannot decide what comes next", job_id, exc_info=error)
        problem = f"the scheduler cannot decide what comes next: {describe(error)}"
        self._in_flight.set_problem(f"job {job_id}", problem)
        self._until[job_id] = now + 2 * SCHEDULE_ERROR_DELAY

    def tick(self) -> None:
        """Clear the problems of jobs that did not come back."""
        now = self._in_flight.clock.now()
        for job_id in [job_id for job_id, until in self._until.items() if until <= now]:
            self._settled_well(job_id)

    def _settled_well(self, job_id: str) -> None:
        del self._until[job_id]
        self._in_flight.set_problem(f"job {job_id}", None)
        self._in_flight.set_notice(f"job {job_id}", None)

    # -- writing

    def start(self, *, retry_refused: bool) -> None:
        """Get ready to write.

        Args:
            retry_refused: Whether a run that the store refuses to write keeps its claim, and is
                written again later. Otherwise its lease runs out, and the job runs twice.
        """
        self._wanted = anyio.Event()
        self._retry_refused = retry_refused

    def clear(self) -> None:
        """Forget what is not written. The leases of those claims run out."""
        self._waiting.clear()
        self._refused.clear()

    def _enqueue(self, run: Run, decision: Decision, expected: int | None) -> None:
        run.decide(decision, expected)
        self._write_soon(run)

    def _write_soon(self, run: Run) -> None:
        if not self._waiting:
            self._wanted.set()  # the task that writes waits only while the list is empty
        self._waiting.append(run)

    async def write_all(self, *, begun: Callable[[], None]) -> None:
        """Write what was decided, in batches, until cancelled.

        Args:
            begun: Called before each batch is written.
        """
        while True:
            self._try_refused_again()
            if not self._waiting:
                self._wanted = anyio.Event()
                with anyio.move_on_after(self._until_next_try()):
                    await self._wanted.wait()
                continue
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            begun()
            try:
                await self._write(batch)
            except BaseException:
                # Cancelled. What was not acted on is written once more, which is harmless.
                waiting = set(map(id, self._waiting))
                self._waiting[:0] = [
                    run for run in batch if run.phase == "ended" and id(run) not in waiting
                ]
                raise

    async def _write(self, batch: list[Run]) -> None:
        settlements = [_settlement(run) for run in batch]
        failures = 0
        while True:
            try:
                outcomes = await self._in_flight.backend.settle(settlements)
                break
            except BackendUnavailable as error:
                # The outcome is unknown. The same settlement again is harmless.
                failures += 1
                self._in_flight.backend_failed("settling", error)
                await backoff_pause(failures)
            except Exception as error:  # noqa: BLE001 -- a third party's backend may raise anything
                self._in_flight.backend_failed("settling", error)
                if len(batch) > 1:
                    middle = len(batch) // 2
                    await self._write(batch[:middle])
                    await self._write(batch[middle:])
                    return
                self._refuse(batch[0], error)
                return
        self._in_flight.set_problem("settling", None)
        for run, settled in zip(batch, outcomes, strict=True):
            if run.offered is not None and settled.outcome in {"written", "claim_lost"}:
                await self._look_up(run)
        busy = 0
        for run, settlement, settled in zip(batch, settlements, outcomes, strict=True):
            if run.phase == "ended":
                busy += self._act_on(run, settlement, settled)
        self._in_flight.signal()
        if busy == len(batch):
            await backoff_pause(1)

    def _refuse(self, run: Run, error: Exception) -> None:
        """Keep the claim of a run that the store refuses to write, and try again later.

        A fault of the backend's own would come back each time: then the lease runs out.
        """
        job_id = run.claim.job.spec.id
        if not (self._retry_refused and isinstance(error, BackendError)):
            logger.error(
                "job %r: its outcome cannot be written; its claim ends with its lease", job_id
            )
            self._forget(run)
            return
        run.refusals += 1
        wait = min(2.0 ** (run.refusals - 1), LONGEST_REFUSAL)
        self._refused.append((monotonic_seconds() + wait, run))
        problem = f"the store refuses to write its outcome, its claim is kept: {describe(error)}"
        if run.refusals == 1:
            logger.error("job %r: %s", job_id, problem)
        self._in_flight.set_problem(f"job {job_id}", problem)
        self._until[job_id] = self._in_flight.clock.now() + 2 * SCHEDULE_ERROR_DELAY

    def _try_refused_again(self) -> None:
        now = monotonic_seconds()
        due = [run for at, run in self._refused if at <= now]
        self._refused = [(at, run) for at, run in self._refused if at > now]
        self._waiting += [run for run in due if run.phase == "ended"]

    def _until_next_try(self) -> float | None:
        """Return the seconds until a refused run is tried again; ``None`` if there is none."""
        if not self._refused:
            return None
        return max(min(at for at, _ in self._refused) - monotonic_seconds(), 0.0)

    async def _look_up(self, run: Run) -> None:
        """Look for an execution that the handler's own transaction has written, and act on it."""
        start, job = run.start, run.claim.job
        if start is None:
            return
        execution_id = f"{job.uid}:{start.number}:{start.attempt}"
        try:
            page = await self._in_flight.backend.executions(
                ExecutionQuery(job_id=job.spec.id), after=None, limit=RECENT
            )
        except Exception as error:  # noqa: BLE001 -- the execution is stored, whatever this raises
            self._in_flight.backend_failed("reading what a handler has committed", error)
            return
        for each in page.items:
            if (
                each.id == execution_id
                and isinstance(each, Execution)
                and each.token == run.claim.token
            ):
                self._forget(run)
                self.notify([each])
                if each.status is Status.SUCCEEDED:
                    logger.warning(
                        "job %r: the store had committed its transaction; it has succeeded",
                        job.spec.id,
                    )
                return

    def _act_on(self, run: Run, settlement: Settlement, settled: Settled) -> bool:
        """Act on the answer to a settlement; return whether it has to be written again later."""
        outcome = settled.outcome
        if outcome == "written":
            if self._in_flight.successors:
                self._forget(run)
            else:
                self._in_flight.forget(run)
            if self._on_execution is not None:
                self.notify(settlement.executions)
            if self._until and run.claim.job.spec.id in self._until and _ended_well(run):
                self._settled_well(run.claim.job.spec.id)
        elif outcome == "busy":
            self._write_soon(run)
            return True
        elif outcome == "conflict":
            self._conflict(run, settled.job)
        else:
            self._in_flight.claims_lost += 1
            logger.warning(
                "job %r: claim %s was taken over by another worker; its outcome was not written",
                run.claim.job.id,
                run.claim.token,
            )
            self._forget(run)
        return False

    def notify(self, executions: Sequence[Execution]) -> None:
        """Call ``on_execution`` with executions that are stored."""
        if self._on_execution is not None:
            for each in executions:
                self._on_execution(each)

    def _conflict(self, run: Run, stored: Job | None) -> None:
        """Decide again on the job that is stored now: the edit that came first is kept."""
        run.conflicts += 1
        now = self._in_flight.clock.now()
        if run.conflicts > MOST_CONFLICTS:
            logger.error(
                "job %r: conflicts without end; its claim ends with its lease", run.claim.job.id
            )
            self._forget(run)
        elif run.outcome is None:
            # The decision was made without a run, on an old definition: give the claim back.
            decision = postpone(run.claim, until=now, now=now, stored=stored)
            self._enqueue(run, decision, None if stored is None else stored.revision)
        else:
            self.finish(run, stored, run.finished_at or now)


def _settlement(run: Run) -> Settlement:
    decision = run.decision or Decision(None, ())
    expected = None if decision.standing is None else run.expected
    return Settlement(run.claim, expected, decision.standing, decision.executions)


def _is_snoozed(run: Run) -> bool:
    return isinstance(run.outcome, Ended) and run.outcome.status is Status.SNOOZED


def _ended_well(run: Run) -> bool:
    return isinstance(run.outcome, Ended) and not run.outcome.by_store
