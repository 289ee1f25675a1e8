"""Observes the simulated store, and gives the oracle everything that happens there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any

from attrs import define, evolve, field, frozen

from sched_core import Claim, Claimed, Execution, Job, Kind, Renewal, Status
from sched_core.memory import MemoryStore
from sched_testkit._oracle.incarnations import Request
from sched_testkit._oracle.oracle import Oracle
from sched_testkit._oracle.violation import Violation
from sched_testkit.simulation.clock import SimulatedClock, SimulatedProcess
from sched_testkit.simulation.loop import SimulatedLoop

OWN = "sched:"
"""Ids that begin with it are the package's own records."""
KINDS = {
    "trigger": Kind.TRIGGERED,
    "ask": Kind.TRIGGERED,
    "rerun": Kind.RERUN,
    "backfill": Kind.BACKFILLED,
}
"""What is asked for, by the command."""
commanded: ContextVar[Command | None] = ContextVar("commanded", default=None)
"""The command that a write belongs to."""


@frozen
class Command:
    """A command that a scheduler got.

    Attributes:
        kind: Its name.
        changes: What an edit changes.
        until: The end of a pause, or of a backfill's range.
        since: The beginning of a backfill's range.
        key: The occurrence, the execution or the request that it names.
        args: The arguments of a request.
        cancel: Whether a removal cancels what is held.
    """

    kind: str
    changes: dict[str, Any] = field(factory=dict)
    until: datetime | None = None
    since: datetime | None = None
    key: str | None = None
    args: dict[str, str] | None = None
    cancel: bool = False

    @property
    def about(self) -> str:
        """What it names, in words."""
        named = [self.key, self.args, self.since, self.cancel and "cancelled"]
        return " ".join(str(each) for each in named if each)


@define
class Outcome:
    """The result of a history.

    Attributes:
        seed: The seed that makes the same history again.
        finding: The first thing that was wrong; empty if nothing was.
        story: Everything that happened, in order: the second, the process, the event.
        runs: The number of calls of the handler.
        takeovers: The number of claims that another worker took over.
        turns: The number of turns of the event loop.
    """

    seed: int
    finding: str = ""
    story: list[tuple[float, str, str]] = field(factory=list)
    runs: int = 0
    takeovers: int = 0
    turns: int = 0

    def narration(self) -> str:
        """Return the story as a list, each event with its simulated second."""
        return "\n".join(f"{at:9.3f}  {who:<4} {what}" for at, who, what in self.story)


class Observer:
    """Observes one history; it implements ``StoreObserver`` of the network.

    Args:
        seed: The seed of the history.
        loop: The event loop; its time is the seconds of the story.
        clock: The clock by which the schedulers decide.
        store: The store that it observes.
    """

    def __init__(
        self, seed: int, loop: SimulatedLoop, clock: SimulatedClock, store: MemoryStore
    ) -> None:
        self.outcome = Outcome(seed)
        self.oracle = Oracle(jitter=timedelta(0))
        self.harmed: set[str] = set()
        """Workers that had a fault; "" where the network or the clock may have had one."""
        self._loop, self._clock, self._store = loop, clock, store
        self._last_read = 0
        self._ended: dict[tuple[str, int], set[tuple[str, Status]]] = {}

    # -- the story

    def noted(self, process: SimulatedProcess | None, what: str, detail: object = "") -> None:
        """Add to the story."""
        who = "" if process is None else process.name
        self.outcome.story.append((self._loop.time(), who, f"{what} {detail}".rstrip()))

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Note the oracle's objection as the finding."""
        try:
            yield
        except Violation as violation:
            self.found(str(violation))

    def found(self, finding: str) -> None:
        """Note what is wrong: the first thing counts."""
        if not self.outcome.finding:
            self.outcome.finding = finding
            self.noted(None, "WRONG:", finding)

    # -- what the store did

    def wrote(self) -> None:
        """Read the new executions."""
        new = []
        for position, each in reversed(self._store.history):
            if position <= self._last_read:
                break
            if isinstance(each, Execution):
                new.append(each)
        if not new:
            return
        self._last_read = self._store.history[-1][0]
        oracle = self.oracle
        with self.judging():
            for each in reversed(new):
                self.noted(None, "history:", f"{each.job_id} {each.id} {each.status.value}")
                if each.status is Status.ABANDONED:
                    self.outcome.takeovers += 1
                    if not self.harmed & {"", each.worker}:
                        raise Violation(f"{each.id} is lost, and nothing happened to its worker")
                oracle.attempts.learn_end(each)
                oracle.executions.add(each)

    def added(self, jobs: Sequence[Job], decided: datetime) -> None:
        """Give the oracle new jobs."""
        with self.judging():
            for job in jobs:
                if not job.id.startswith(OWN):
                    self.oracle.commands.added(job, job.spec, declared=job.declared, now=decided)

    def replaced(self, before: Job, job: Job, decided: datetime) -> None:
        """Give the oracle an edit, and the command that made it."""
        if job.id.startswith(OWN):
            return
        command, oracle = commanded.get(), self.oracle
        kind = "anchor" if command is None else command.kind
        self.noted(None, "stored:", f"{kind} {job.id}")
        with self.judging():
            life = oracle.known.current.get(job.id)
            if life is None or life.spec is None:
                raise Violation(f"job {job.id!r} was edited, though there is none")
            if command is None or kind in {"ensure", "update", "submit"}:
                changes = {} if command is None else command.changes
                spec = evolve(life.spec, **changes)
                declared = True if kind == "ensure" else None
                oracle.commands.redefined(before, job, spec, declared=declared, now=decided)
            elif kind == "pause":
                oracle.commands.paused(before, job, command.until, decided)
            elif kind == "resume":
                oracle.commands.resumed(job, decided)
            elif kind in KINDS:
                self._asked(command, before, job)
            elif kind == "cancel":
                known = {mark.number for mark in before.standing.cancels}
                for mark in job.standing.cancels:
                    if mark.number not in known:
                        key, by_key = f"{job.uid}:{mark.number}", command.key is not None
                        oracle.commands.cancelled(before, key, by_key=by_key)
            elif kind == "retry":
                number = command.key and int(command.key.rpartition(":")[2])
                oracle.commands.hurried(job, decided, number or None)
            elif kind == "skip":
                oracle.commands.skipped(job, decided)
            elif kind == "unskip":
                oracle.commands.unskipped(job, decided)

    def _asked(self, command: Command, before: Job, job: Job) -> None:
        """Give the oracle the requests that are new."""
        oracle, kind = self.oracle, KINDS[command.kind]
        known = {one.number for one in before.standing.requests}
        for one in job.standing.requests:
            if one.number in known:
                continue
            asked = Request(oracle.known.seq, 0, kind, command.args, key=command.key)
            if kind is Kind.BACKFILLED:
                asked.since, asked.until = command.since, command.until
                asked.key = f"{asked.since} {asked.until}"
            elif kind is Kind.RERUN:
                repeated = oracle.executions.history.stored(command.key or "")
                if repeated is None:
                    raise Violation(f"{command.key} is repeated, and was never written")
                asked.since = asked.until = repeated.scheduled_at
                asked.args = repeated.args and dict(repeated.args)
            oracle.commands.asked(before, f"{job.uid}:{one.number}", asked)

    def removed(self, before: Job, decided: datetime) -> None:
        """Give the oracle a removed job."""
        if before.id.startswith(OWN):
            return
        self.noted(None, "stored:", f"{before.id} is removed")
        with self.judging():
            if before.id not in self.oracle.known.current:
                raise Violation(f"job {before.id!r} was removed, though there is none")
            command = commanded.get()
            cancel = command is not None and command.cancel
            self.oracle.commands.removed(before, decided, cancel=cancel)

    def claimed(self, claimed: Claimed) -> None:
        """Give the oracle claims."""
        now = self._clock.now()
        with self.judging():
            self.oracle.claims.lapsed(claimed.lapsed, now)
        self.wrote()  # lost attempts come before the claims that follow them
        with self.judging():
            for claim in claimed.claims:
                self.noted(None, "claimed:", f"{claim.job.id} {claim.token} by {claim.worker}")
                self.oracle.claims.claimed(claim, now)

    def renewed(self, renewals: Sequence[Renewal], claims: Sequence[Claim]) -> None:
        """Give the oracle renewals."""
        with self.judging():
            self.oracle.claims.renewed(renewals, claims, self._clock.now())

    def unclaimed(self, claim: Claim, executions: Sequence[Execution], *, written: bool) -> None:
        """Give the oracle the end of a claim.

        The store must not call a settlement lost that it has written. Another settlement of the
        same claim may be lost: of two that were decided before and after an edit, the first may
        arrive when the other has been written.
        """
        oracle = self.oracle
        hold = oracle.claims.find(claim)
        fence = claim.job.id, claim.token
        if written:
            self._ended[fence] = _ends(executions)
        elif (
            executions
            and self._ended.get(fence) == _ends(executions)
            and all(self._store.stored(each.id) is not None for each in executions)
        ):
            self.found(f"the claim {claim.token} of {claim.job.id!r} has ended, and is told lost")
        if hold is not None and hold.stored.expires_at <= self._clock.now():
            hold.lapse_unseen(self._clock.now())
        if hold is not None and not written and hold.open:
            self.found(f"the claim {claim.token} of {claim.job.id!r} is told lost, and is not")
        if hold is None or hold.open:
            oracle.unclaimed(claim, written=written)
        self.wrote()
        job, life = self._store.row(claim.job.id).read(), oracle.known.current.get(claim.job.id)
        if isinstance(job, Job) and life is not None:
            with self.judging():
                oracle.stored.judge(life, job, self._clock.now())

    def pruned(self) -> None:
        """Have the oracle look which jobs have expired."""
        with self.judging():
            self.oracle.stored.read(self.jobs(), self._clock.now())

    def jobs(self) -> dict[str, Job]:
        """Return what is stored and can be read."""
        rows = self._store.rows.items()
        found = {job_id: row.read() for job_id, row in rows if not job_id.startswith(OWN)}
        return {job_id: job for job_id, job in found.items() if isinstance(job, Job)}


def _ends(executions: Sequence[Execution]) -> set[tuple[str, Status]]:
    return {(each.id, each.status) for each in executions}
