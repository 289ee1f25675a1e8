"""What the oracle is told: it watches the store, and says what was wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from attrs import define, evolve, field, frozen

from sched_core import Claim, Claimed, Execution, Job, Renewal, Status
from sched_core.memory import MemoryStore
from sched_testkit._oracle.annals import Wrong
from sched_testkit._oracle.chronicle import Call
from sched_testkit._oracle.witness import Witness
from sched_testkit.simulation.clock import Process, SimulatedClock
from sched_testkit.simulation.loop import SimulatedLoop

OWN = "sched:"
"""Ids that begin with it are the package's own records."""
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
        told = [f"{at:9.3f}  {who:<4} {what}" for at, who, what in self.story]
        return "\n".join(told)


class Account:
    """The account of one history; it implements what the network tells.

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
        self.oracle = Witness()
        self.harmed: set[str] = set()
        """Workers to whom something happened; "" where it may have been the network."""
        self._loop, self._clock, self._store = loop, clock, store
        self._read_up_to = 0
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
        """Read the new executions."""
        new = []
        for position, each in reversed(self._store.history):
            if position <= self._read_up_to:
                break
            if isinstance(each, Execution):
                new.append(each)
        if not new:
            return
        self._read_up_to = self._store.history[-1][0]
        oracle = self.oracle
        with self.judging():
            for each in reversed(new):
                self.noted(None, "history:", f"{each.job_id} {each.id} {each.status.value}")
                if each.status is Status.ABANDONED:
                    self.outcome.takeovers += 1
                    if not self.harmed & {"", each.worker}:
                        raise Wrong(f"{each.id} is lost, and nothing happened to its worker")
                call = oracle.calls.get((each.uid, each.number, each.attempt))
                if call is not None and call.event.token == each.token:
                    self._resolve(call, each.status, each.reason or "")
                oracle.take(each)

    def _resolve(self, call: Call, status: Status, reason: str) -> None:
        """Learn how a call ended that was cancelled, or whose process is gone."""
        if status is Status.ABANDONED:
            if call.settled:
                raise Wrong(f"{call} was settled, and is lost all the same")
            call.failures -= call.how == "failed"  # it was never written, so it does not count
            call.how = "lost"
        elif call.how == "cancelled":
            timed_out = status is Status.FAILED and reason.startswith("timeout")
            if timed_out or status in {Status.INTERRUPTED, Status.CANCELLED}:
                call.how = status.value
                call.failures += timed_out

    def added(self, jobs: Sequence[Job], decided: datetime) -> None:
        """Tell the oracle."""
        with self.judging():
            for job in jobs:
                if not job.id.startswith(OWN):
                    self.oracle.added(job, job.spec, declared=job.declared, now=decided)

    def replaced(self, before: Job, job: Job, decided: datetime) -> None:
        """Tell the oracle which command it was."""
        if job.id.startswith(OWN):
            return
        command, oracle = commanded.get(), self.oracle
        kind = "anchor" if command is None else command.kind
        self.noted(None, "stored:", f"{kind} {job.id}")
        with self.judging():
            life = oracle.current.get(job.id)
            if life is None or life.spec is None:
                raise Wrong(f"job {job.id!r} was edited, though there is none")
            if command is None or kind in {"ensure", "update", "submit"}:
                changes = {} if command is None else command.changes
                spec = evolve(life.spec, **changes)
                declared = True if kind == "ensure" else None
                oracle.redefined(before, job, spec, declared=declared, now=decided)
            elif kind == "pause":
                oracle.paused(before, job, command.until, decided)
            elif kind == "resume":
                oracle.resumed(job, decided)
            elif kind == "trigger":
                known = {one.number for one in before.standing.requests}
                new = [one.number for one in job.standing.requests if one.number not in known]
                for number in new:
                    oracle.triggered(before, f"{job.uid}:{number}", oracle.seq)
            elif kind == "skip":
                oracle.skipped(job, decided)
            elif kind == "unskip":
                oracle.unskipped(job, decided)

    def removed(self, before: Job, decided: datetime) -> None:
        """Tell the oracle."""
        if before.id.startswith(OWN):
            return
        self.noted(None, "stored:", f"{before.id} is removed")
        with self.judging():
            if before.id not in self.oracle.current:
                raise Wrong(f"job {before.id!r} was removed, though there is none")
            self.oracle.gone(before, decided)

    def claimed(self, claimed: Claimed) -> None:
        """Tell the oracle."""
        now = self._clock.now()
        with self.judging():
            self.oracle.lapsed(claimed.lapsed, now)
        self.wrote()  # what was lost comes first
        with self.judging():
            for claim in claimed.claims:
                self.noted(None, "claimed:", f"{claim.job.id} {claim.token} by {claim.worker}")
                self.oracle.claimed(claim, now)

    def renewed(self, renewals: Sequence[Renewal], claims: Sequence[Claim]) -> None:
        """Tell the oracle."""
        with self.judging():
            self.oracle.renewed(renewals, claims, self._clock.now())

    def unclaimed(self, claim: Claim, executions: Sequence[Execution], *, written: bool) -> None:
        """Tell the oracle.

        Only what was written may not be told lost: of two settlements of one claim, decided before
        and after an edit, the first may arrive when the other has been written.
        """
        oracle = self.oracle
        hold = oracle.holds.get((claim.job.id, claim.token))
        fence = claim.job.id, claim.token
        if written:
            self._ended[fence] = _ends(executions)
        elif (
            executions
            and self._ended.get(fence) == _ends(executions)
            and all(self._store.stored(each.id) is not None for each in executions)
        ):
            self.found(f"the claim {claim.token} of {claim.job.id!r} has ended, and is told lost")
        ended = hold is not None and hold.stored.expires_at <= self._clock.now()
        if hold is not None and hold.pending is None and ended:
            hold.open = False  # the end of a claim that was only to end a pause leaves no trace
        if hold is not None and not written and hold.open:
            self.found(f"the claim {claim.token} of {claim.job.id!r} is told lost, and is not")
        if hold is None or hold.open:
            oracle.unclaimed(claim, written=written)
        self.wrote()
        job, life = self._store.row(claim.job.id).read(), oracle.current.get(claim.job.id)
        if isinstance(job, Job) and life is not None:
            with self.judging():
                oracle.check_stored(life, job, self._clock.now())

    def pruned(self) -> None:
        """Have the oracle look which jobs have expired."""
        with self.judging():
            self.oracle.check_jobs(self.jobs(), self._clock.now())

    def jobs(self) -> dict[str, Job]:
        """Return what is stored and can be read."""
        rows = self._store.rows.items()
        found = {job_id: row.read() for job_id, row in rows if not job_id.startswith(OWN)}
        return {job_id: job for job_id, job in found.items() if isinstance(job, Job)}


def _ends(executions: Sequence[Execution]) -> set[tuple[str, Status]]:
    return {(each.id, each.status) for each in executions}
