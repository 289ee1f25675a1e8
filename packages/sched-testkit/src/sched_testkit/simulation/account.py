"""What the oracle is told: it watches the store, and says what was wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from attrs import define, evolve, field, frozen

from sched_core import Claim, Execution, Job, Once, Status
from sched_core.memory import MemoryStore
from sched_testkit.annals import Call, Mark, Wrong
from sched_testkit.oracle import Oracle
from sched_testkit.simulation.clock import Process, SimulatedClock
from sched_testkit.simulation.loop import SimulatedLoop

commanded: ContextVar[Command | None] = ContextVar("commanded", default=None)
"""Which command a write belongs to."""


@frozen
class Command:
    """What somebody asked of a scheduler."""

    kind: str
    changes: dict[str, Any] = field(factory=dict)
    until: datetime | None = None


@define
class Outcome:
    """What came of a history.

    Attributes:
        seed: That makes it again.
        finding: What was wrong; empty if nothing was.
        undecided: Why the oracle cannot say whether anything was wrong; hardly ever.
        story: What happened, in order: seconds, who, what.
        runs: Calls of the handler.
        takeovers: Claims that were lost to another.
        turns: Of the event loop.
    """

    seed: int
    finding: str = ""
    undecided: str = ""
    story: list[tuple[float, str, str]] = field(factory=list)
    runs: int = 0
    takeovers: int = 0
    turns: int = 0

    def told(self) -> str:
        """Return the story as a list, each thing with its simulated second."""
        lines = [f"{at:9.3f}  {who:<4} {what}" for at, who, what in self.story]
        return "\n".join(lines)


class Account:
    """The account of one history; it implements the network's ``Witness``.

    Args:
        seed: Of the history.
        loop: Tells the simulated seconds.
        clock: Tells the time that decides.
        store: What is watched.
    """

    def __init__(
        self, seed: int, loop: SimulatedLoop, clock: SimulatedClock, store: MemoryStore
    ) -> None:
        self.outcome = Outcome(seed)
        self.oracle = Oracle()
        self.harmed: set[str] = set()
        """Workers to whom something happened; "" where it may have been the network."""
        self._loop, self._clock, self._store = loop, clock, store
        self._read_up_to = 0
        self._answered: dict[int, datetime] = {}
        self._ended: dict[tuple[str, int], set[tuple[str, Status]]] = {}

    # -- telling

    def noted(self, process: Process | None, what: str, detail: object = "") -> None:
        """Add to the story."""
        who = "" if process is None else process.name
        self.outcome.story.append((self._loop.time(), who, f"{what} {detail}".rstrip()))

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Take what the oracle objects to as the finding."""
        try:
            yield
        except Wrong as wrong:
            self.found(str(wrong))

    def found(self, finding: str) -> None:
        """Note what is wrong: the first thing counts."""
        if not self.outcome.finding and not self.outcome.undecided:
            self.outcome.finding = finding
            self.noted(None, "WRONG:", finding)

    # -- what the store did

    def wrote(self) -> None:
        """Read the new lines."""
        new = []
        for position, line in reversed(self._store.lines):
            if position <= self._read_up_to:
                break
            if isinstance(line, Execution):
                new.append(line)
        if not new:
            return
        self._read_up_to = self._store.lines[-1][0]
        oracle = self.oracle
        with self.judging():
            for line in reversed(new):
                self.noted(None, "ledger:", f"{line.job_id} {line.id} {line.status.value}")
                hold = oracle.holds.get((line.job_id, line.token))
                if hold is not None and line.status is Status.ABANDONED:
                    self.outcome.takeovers += 1
                    hold.open = False
                    if not self.harmed & {"", line.worker}:
                        raise Wrong(f"{line.id} is taken over, and nothing happened to its worker")
                call = oracle.calls.get((line.uid, line.number, line.attempt))
                if call is not None and call.event.token == line.token:
                    self._resolve(call, line.status, line.reason or "")
                judged = self._judged(line)
                try:
                    oracle._read(evolve(line, claimed_at=judged))
                except Wrong as wrong:
                    life = oracle.lives.get(line.uid)
                    kinds = ("schedule", "pause", "resume")
                    overtaken = life and hold and life.commanded(hold.seq, *kinds)
                    if not (overtaken and " folds " in str(wrong)):
                        raise
                    self.outcome.undecided = "an edit overtook a claim on its way"
                    return
                oracle.ledger[line.id] = line

    def _judged(self, line: Execution) -> datetime:
        """Return when a claim was judged: the oracle takes it that this is when it was made.

        Here it travels first, and then may wait for an earlier run of the same job.
        """
        if line.attempt == 0 and line.status is not Status.SUPERSEDED:
            return max(line.claimed_at, line.finished_at)
        answered = self._answered.get(line.token, line.claimed_at)
        waited = line.folded_until is not None and line.folded_until > answered
        return line.started_at if waited and line.started_at is not None else answered

    def _resolve(self, call: Call, status: Status, reason: str) -> None:
        """Learn from its line how a call ended that was cancelled, or whose process is gone."""
        if status is Status.ABANDONED:
            if call.settled:
                raise Wrong(f"{call} was settled, and is taken over all the same")
            call.how = "lost"
        elif call.how == "cancelled":
            timed_out = status is Status.FAILED and reason.startswith("timeout")
            if timed_out or status is Status.INTERRUPTED:
                call.how = status.value

    def added(self, jobs: Sequence[Job], decided: datetime) -> None:
        """Tell the oracle."""
        with self.judging():
            for job in jobs:
                self.oracle.added(job, job.spec, declared=job.declared, now=decided)

    def replaced(self, job: Job, decided: datetime) -> None:
        """Tell the oracle which command it was."""
        command, oracle = commanded.get(), self.oracle
        assert command is not None
        self.noted(None, "stored:", f"{command.kind} {job.id}")
        with self.judging():
            if command.kind in {"ensure", "update"}:
                known = oracle.current.get(job.id)
                spec = job.spec if known is None else evolve(known.spec, **command.changes)
                declared = True if command.kind == "ensure" else None
                epochs = 0 if known is None else len(known.epochs)
                oracle.edited(job, spec, declared=declared, now=decided)
                self._redefined(job, rescheduled=len(oracle.current[job.id].epochs) > epochs)
            elif command.kind == "pause":
                oracle.paused(job, command.until, decided)
            elif command.kind == "resume":
                oracle.resumed(job, decided)
                for call in oracle.newest.values():
                    if call.uid == job.uid and call.how == "failed":
                        call.spec = None  # the end of a pause hurries what waits in it
            elif command.kind == "trigger":
                oracle.triggered(job, decided)
            elif command.kind == "skip":
                self._skipped(job, decided)
            elif command.kind == "unskip":
                oracle.unskipped(job, decided)

    def _skipped(self, job: Job, decided: datetime) -> None:
        """Tell the oracle; what has begun is not skipped, also where a claim was to end a pause."""
        life, marked = self.oracle.lives[job.uid], job.standing.skipped_run
        begun = job.standing.number in life.attempts or job.standing.attempts > 0
        if begun and marked is not None and marked != self.oracle.to_skip(job.id, decided):
            life.touched = self.oracle.seq
            life.marks = [Mark(self.oracle.seq, decided, marked)]
        else:
            self.oracle.skipped(job, decided)

    def _redefined(self, job: Job, *, rescheduled: bool) -> None:
        """Tell the oracle what an edit means that comes between a run and its line, or too late."""
        life = self.oracle.lives[job.uid]
        for call in self.oracle.calls.values():
            if call.uid == job.uid and not call.settled and call.spec is not None:
                call.spec = life.spec
            if call.uid == job.uid and call.event.manual and call.event.attempt > 1:
                # Known: an edit while a manual occurrence is retried takes a newer trigger along.
                life.answered = self.oracle.seq
        if not rescheduled:
            return
        schedule, finals = life.epoch.schedule, life.finals.values()
        past = [line.scheduled_at for line in finals if line.status is not Status.SUPERSEDED]
        if isinstance(schedule, Once) and past and schedule.at <= max(past):
            life.epoch.next = None  # what has passed once does not come again

    def removed(self, job_id: str, decided: datetime) -> None:
        """Tell the oracle."""
        self.noted(None, "stored:", f"{job_id} is removed")
        with self.judging():
            if job_id not in self.oracle.current:
                raise Wrong(f"job {job_id!r} was removed, though there is none")
            self.oracle.removed(job_id, decided)

    def claimed(self, claims: Sequence[Claim]) -> None:
        """Tell the oracle."""
        self.wrote()  # the lines of what was lost come first
        with self.judging():
            for claim in claims:
                self.noted(None, "claimed:", f"{claim.job.id} {claim.token} by {claim.worker}")
                self.oracle.claimed(claim, self._clock.now())

    def answered(self, claims: Sequence[Claim]) -> None:
        """Note when the claims reached who made them."""
        self._answered.update((claim.token, self._clock.now()) for claim in claims)

    def renewed(self, claims: Sequence[Claim]) -> None:
        """Tell the oracle."""
        with self.judging():
            for claim in claims:
                self.oracle.renewed(claim)

    def unclaimed(self, claim: Claim, ledger: Sequence[Execution], *, written: bool) -> None:
        """Tell the oracle.

        Only what was written may not be told lost: of two settlements of one claim, decided before
        and after an edit, the first may arrive when the other has been written.
        """
        oracle = self.oracle
        hold = oracle.holds.get((claim.job.id, claim.token))
        fence = claim.job.id, claim.token
        if written:
            self._ended[fence] = _fates(ledger)
        elif (
            ledger
            and self._ended.get(fence) == _fates(ledger)
            and all(self._store.line(line.id) is not None for line in ledger)
        ):
            self.found(f"the claim {claim.token} of {claim.job.id!r} has ended, and is told lost")
        if hold is not None and not written and hold.open:
            self.found(f"the claim {claim.token} of {claim.job.id!r} is told lost, and is not")
        if hold is None or hold.open:
            oracle.unclaimed(claim, written=written)
        job, life = self._store.row(claim.job.id).job, oracle.current.get(claim.job.id)
        if isinstance(job, Job) and life is not None:
            with self.judging():
                oracle._check_stored(life, job, self._clock.now())

    def pruned(self) -> None:
        """Have the oracle look which jobs have expired."""
        with self.judging():
            self.oracle._check_jobs(self.jobs(), self._clock.now())

    def jobs(self) -> dict[str, Job]:
        """Return what is stored and can be read."""
        rows = self._store.rows.items()
        return {job_id: row.job for job_id, row in rows if isinstance(row.job, Job)}


def _fates(ledger: Sequence[Execution]) -> set[tuple[str, Status]]:
    return {(line.id, line.status) for line in ledger}
