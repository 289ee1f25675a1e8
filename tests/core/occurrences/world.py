"""One id in a tiny store, two workers, and a clock that anybody may set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import define, evolve
from tests.core.occurrences.clock import T0, M, at
from tests.core.occurrences.commands import COMMANDS
from tests.core.occurrences.stored import Stored

from sched_core._model.claim import Claim, Decision, Ended, Renewal, Requested, Settlement, Start
from sched_core._model.execution import Execution, Kind, Status
from sched_core._model.job import Job, JobSpec
from sched_core._model.occurrence import Pause, Pending, Standing
from sched_core._model.policy import Drop, Policy
from sched_core._rules import begin as begins
from sched_core._rules import define as defines
from sched_core._rules import finish as finishes
from sched_core._rules.standing import current
from sched_core.errors import (
    InvalidDefinition,
    NothingToCancel,
    NothingToRetry,
    NothingToSkip,
    RevisionConflict,
)
from sched_core.schedule import Once
from sched_testkit._oracle import starts
from sched_testkit._oracle.judge import new_judge
from sched_testkit._oracle.violation import Violation

LEASE = 4 * M
REFUSED = (NothingToSkip, InvalidDefinition, NothingToCancel, NothingToRetry)


@define
class Worker:
    """One that has a claim, or none."""

    claim: Claim | None = None
    what: Start | Decision | None = None
    frozen: bool = False
    renewed: bool = False
    last: Settlement | None = None


@define(frozen=True)
class Scenario:
    """What the schedules and policies are that edits go through."""

    schedules: Sequence[Any]
    policies: Sequence[Policy]


class World:
    """A history so far."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.now = self.latest = T0
        self.row, self.judge = Stored(), new_judge(grace=_grace(scenario.policies))
        self.workers = {"A": Worker(), "B": Worker()}
        self.serial = self.lives = self.schedule = self.policy = self.read_at = 0
        self.highest: dict[str, int] = {}
        self.waits: dict[tuple[str, int], datetime] = {}
        """The moment before which a failed or postponed occurrence is not attempted again."""
        self.told: tuple[str, ...] = ()
        self.do_add()

    def copy(self) -> World:
        """Return one that goes its own way."""
        new = World.__new__(World)
        vars(new).update(vars(self))
        new.row, new.judge, new.highest = evolve(self.row), self.judge.copy(), dict(self.highest)
        new.waits = dict(self.waits)
        new.workers = {name: evolve(worker) for name, worker in self.workers.items()}
        return new

    def next(self) -> int:
        """Return a number that was not there before."""
        self.serial += 1
        return self.serial

    # -- what may happen next

    def options(self, alphabet: Sequence[str]) -> list[str]:
        """Return what of an alphabet means something now."""
        return [op for op in alphabet if self._is_possible(op)]

    def _is_possible(self, op: str) -> bool:
        job, due = self.row.found, self.row.due()
        claimable = due is not None and due <= self.now
        name, _, between = op.partition("|")
        head, _, who = name.partition(":")
        if between and not (claimable and self.workers["A"].claim is None):
            return False
        if head in {"t", "back"}:
            return True
        if head == "repeat":
            return self.workers[who].last is not None
        if head == "add":
            return job is None
        if head == "claim":
            second = who == "B" and self.workers["A"].claim is None
            return claimable and self.workers[who].claim is None and not second
        if head in {"die", "die-alone"}:
            return claimable
        if who in self.workers:
            worker = self.workers[who]
            if worker.claim is None or (head == "freeze" and worker.frozen):
                return False
            return not isinstance(worker.what, Decision) or head in {"ok", "release", "freeze"}
        if job is None:
            return False
        needs = {"resume": job.standing.pause, "unskip": job.standing.skip}
        return needs.get(head, job) is not None

    def do(self, op: str) -> None:
        """Let something happen, and look at what is stored then."""
        self.told = (*self.told, op)
        self.judge.known.seq += 1
        name, _, between = op.partition("|")
        head, _, argument = name.partition(":")
        method = head.replace("-", "_")
        if argument in self.workers:
            getattr(self, f"do_{method}")(self.workers[argument])
        elif head in {"t", "back"}:
            self.do_time(int(argument) * (1 if head == "t" else -1))
        elif head in {"add", "die", "die-alone"}:
            getattr(self, f"do_{method}")()
        else:
            self._edit(head, argument, between)
        self.look()

    def look(self) -> None:
        """Expect what must hold of the stored job after every step."""
        job = self.row.found
        if job is None:
            return
        standing, incarnation = job.standing, self.judge.known.incarnations[job.uid]
        pause = standing.pause
        if pause is None and not incarnation.resumed:
            until = incarnation.pauses[-1].end
            if standing.due_at is None and incarnation.paused_at(self.now):
                incarnation.resume(self.judge.known.seq, self.now)  # a finished job is not paused
            elif until is not None and until <= self.latest:
                incarnation.resume(self.judge.known.seq)
        elif pause is not None and pause.until is None and not incarnation.paused_at(self.now):
            if job.spec.policy.pause_after is None:
                raise Violation("it is paused, and no command asked for it")
            incarnation.pause(pause.since, None, self.judge.known.seq, None)
        if standing.last_number < self.highest.get(job.uid, 0):
            raise Violation("numbers go back")
        self.highest[job.uid] = standing.last_number
        ones = [*standing.requests, *([standing.scheduled] if standing.scheduled else [])]
        self._look_at_names(job, ones)
        held = [] if pause is None else [one for one in ones if _is_held(one, pause, standing)]
        dues = [one.due_at for one in ones if one not in held]
        if pause is not None and pause.until is not None and ones:
            dues.append(pause.until)
        if standing.due_at != min(dues, default=None):
            raise Violation(f"due at {at(standing.due_at)}, not {at(min(dues, default=None))}")

    def _look_at_names(self, job: Job, ones: Sequence[Pending]) -> None:
        numbers = [one.number for one in ones]
        if len(set(numbers)) != len(numbers) or max(numbers, default=0) > job.standing.last_number:
            raise Violation(f"numbers {numbers} up to {job.standing.last_number}")
        for one in ones:
            key, name = (job.uid, one.number), (one.kind, one.scheduled_at)
            if key in self.judge.observed.finals:
                raise Violation(f"{one.number} is pending and has its final execution")
            if self.judge.observed.names.get(key, name) != name:
                raise Violation(f"{one.number} is another one than before")

    # -- time

    def do_time(self, minutes: int) -> None:
        """Let time go by, or have the clock set back; those that live renew their claims."""
        target = self.now + minutes * M
        self.judge.known.set_back = self.judge.known.set_back or minutes < 0
        while self.now != target:
            step = min(target - self.now, 3 * M) if minutes > 0 else target - self.now
            self.now += step
            self.latest = max(self.latest, self.now)
            for worker in self.workers.values():
                if worker.claim is not None and not worker.frozen:
                    worker.renewed = True  # minutes later: longer than it is to run alone
                    if self.row.renew(Renewal(worker.claim), self.now, LEASE) is None:
                        worker.claim = worker.what = None  # lost: it stops, and writes nothing

    # -- workers

    def _claim(self, name: str) -> Claim | None:
        return self.row.claim_due(
            self.next(), name, self.now, LEASE, self.next(), self.judge.history
        )

    def do_claim(self, worker: Worker) -> None:
        """Claim, and begin."""
        name = next(key for key, one in self.workers.items() if one is worker)
        claim = self._claim(name)
        if claim is None:
            return
        worker.claim, worker.frozen, worker.renewed = claim, False, False
        worker.what = begins.begin(claim, now=self.now)
        if isinstance(worker.what, Start):
            waits_until = self.waits.get((claim.job.uid, worker.what.number), self.now)
            if self.now < waits_until and not self.judge.known.set_back:
                raise Violation(f"{worker.what.number} starts before {at(waits_until)}")
            self.judge.starts.start(claim.job, _told(worker.what), self.now)
            if worker.what.alone:
                self.row.renew(Renewal(claim, alone=True), self.now, LEASE)

    def do_die(self) -> None:
        """Claim, and die while others run in the same process."""
        self._die(alone=False)

    def do_die_alone(self) -> None:
        """Claim, and die alone, where the worker must run the occurrence alone."""
        self._die(alone=True)

    def _die(self, *, alone: bool) -> None:
        claim = self._claim("C")
        if claim is None:
            return
        what, one = begins.begin(claim, now=self.now), current(claim.job.standing)
        if one is None:
            return
        if isinstance(what, Start):
            self.judge.starts.start(claim.job, _told(what), self.now)
        if claim.job.spec.policy.max_lost == 1:
            self.judge.observed.fatal.add((claim.job.uid, one.number))
        elif isinstance(what, Start) and what.alone and alone:
            self.row.renew(Renewal(claim, alone=True), self.now, LEASE)
            self.judge.observed.fatal.add((claim.job.uid, one.number))

    def do_freeze(self, worker: Worker) -> None:
        """Stop renewing, and know nothing of it."""
        worker.frozen = True
        self._may_be_lost(worker)

    def _may_be_lost(self, worker: Worker) -> None:
        claim, what = worker.claim, worker.what
        one = None if claim is None else current(claim.job.standing)
        if claim is None or one is None:
            return
        alone = isinstance(what, Start) and what.alone and not worker.renewed
        if alone or (self.row.found or claim.job).spec.policy.max_lost == 1:
            self.judge.observed.fatal.add((claim.job.uid, one.number))

    def _is_kept(self, claim: Claim) -> None:
        """Take in that a claim was not lost after all."""
        one = current(claim.job.standing)
        if one is not None and one.lost < claim.job.spec.policy.max_lost:
            self.judge.observed.fatal.discard((claim.job.uid, one.number))

    def _settle(self, worker: Worker, decide: Callable[[Job | None], Decision]) -> bool:
        """Settle, and decide on what is stored where the job was edited meanwhile.

        Returns:
            Whether the claim was still held.
        """
        claim = worker.claim
        assert claim is not None
        holds = self.row.hold is not None and self.row.hold.token == claim.token
        before = (self.row.job, self.row.hold, len(self.judge.history.executions))
        stored: Job | None = claim.job
        for _ in range(3):
            decision = decide(stored)
            expected = None if stored is None or decision.standing is None else stored.revision
            settlement = Settlement(claim, expected, decision.standing, decision.executions)
            settled = self.row.settle(settlement, self.now, self.next(), self.judge.history)
            if settled.outcome != "conflict":
                break
            stored = settled.job
        else:
            raise Violation("conflicts without end")
        if holds and settled.outcome != "written":
            raise Violation(f"a holder's settlement: {settled.outcome}")
        if not holds:
            if settled.outcome != "claim_lost":
                raise Violation(f"the settlement of a lost claim: {settled.outcome}")
            if before != (self.row.job, self.row.hold, len(self.judge.history.executions)):
                raise Violation("the settlement of a lost claim changed something")
        else:
            self._is_kept(claim)
        worker.last = settlement
        worker.claim = worker.what = None
        return holds

    def _end(self, worker: Worker, ended: Ended) -> None:
        claim, what, now = worker.claim, worker.what, self.now
        assert claim is not None

        def decide(stored: Job | None) -> Decision:
            if isinstance(what, Start):
                return finishes.finish(claim, what, ended, started_at=now, now=now, stored=stored)
            assert what is not None
            if stored is claim.job:
                return what
            return finishes.postpone(claim, until=now, now=now, stored=stored)

        is_written, wait = self._settle(worker, decide), ended.delay
        if ended.status is Status.FAILED and wait is None:
            wait = (self.row.found or claim.job).spec.policy.retry.backoff
        if is_written and isinstance(what, Start) and wait is not None:
            self.waits[claim.job.uid, what.number] = now + wait

    def do_ok(self, worker: Worker) -> None:
        """Succeed."""
        self._end(worker, Ended(Status.SUCCEEDED))

    def do_fail(self, worker: Worker) -> None:
        """Fail."""
        self._end(worker, Ended(Status.FAILED, "no"))

    def do_later(self, worker: Worker) -> None:
        """Fail, and say when to try again."""
        self._end(worker, Ended(Status.FAILED, "later", delay=8 * M))

    def do_discard(self, worker: Worker) -> None:
        """Fail for good."""
        self._end(worker, Ended(Status.FAILED, "never", retry=False))

    def do_snooze(self, worker: Worker) -> None:
        """Ask for later."""
        self._end(worker, Ended(Status.SNOOZED, delay=6 * M))

    def do_interrupt(self, worker: Worker) -> None:
        """Stop before the handler has ended."""
        self._end(worker, Ended(Status.INTERRUPTED, "stop"))

    def do_disconnect(self, worker: Worker) -> None:
        """Lose the store before the handler has ended."""
        self._end(worker, Ended(Status.INTERRUPTED, "store", by_store=True))

    def do_postpone(self, worker: Worker) -> None:
        """Hand the claim back, and the job out again later."""
        claim, now, what = worker.claim, self.now, worker.what
        assert claim is not None
        holds = self.row.hold is not None and self.row.hold.token == claim.token

        def decide(stored: Job | None) -> Decision:
            return finishes.postpone(claim, until=now + 3 * M, now=now, stored=stored)

        self._settle(worker, decide)
        if holds and isinstance(what, Start):
            self.judge.starts.hand_back(claim.job.uid, _told(what))

    def do_release(self, worker: Worker) -> None:
        """Hand the claim back."""
        claim, what = worker.claim, worker.what
        assert claim is not None
        holds = self.row.hold is not None and self.row.hold.token == claim.token
        before = (self.row.job, self.row.hold, len(self.judge.history.executions))
        if holds:
            self._is_kept(claim)
        if holds and isinstance(what, Start):
            self.judge.starts.hand_back(claim.job.uid, _told(what))
        self.row.release(claim, self.now, self.judge.history)
        if not holds and before != (
            self.row.job,
            self.row.hold,
            len(self.judge.history.executions),
        ):
            raise Violation("the release of a lost claim changed something")
        worker.claim = worker.what = None

    def do_repeat(self, worker: Worker) -> None:
        """Send the last settlement once more."""
        assert worker.last is not None
        before = (self.row.job, self.row.hold, len(self.judge.history.executions))
        settled = self.row.settle(worker.last, self.now, self.next(), self.judge.history)
        if before != (self.row.job, self.row.hold, len(self.judge.history.executions)):
            raise Violation("a repeated settlement changed something")
        if settled.outcome == "conflict":
            raise Violation("a repeated settlement conflicts")

    # -- commands

    def do_add(self) -> None:
        """Admit the job."""
        self.lives += 1
        spec = JobSpec("a", self.next_schedule(), policy=self.scenario.policies[self.policy])
        job = defines.admit(spec, uid=f"u{self.lives}", declared=False, now=self.now)
        self.row.add(job, self.next())
        self.judge.known.reschedule(job.uid, spec.schedule, self.now, None)

    def next_schedule(self) -> Any:
        """Return the schedule that is chosen; a single moment lies five minutes ahead."""
        found = self.scenario.schedules[self.schedule]
        return Once(self.now + 5 * M) if found == "once" else found

    def _edit(self, head: str, argument: str, between: str) -> None:
        for _ in range(3):
            found = self.row.read()
            if not isinstance(found, Job):
                return
            job = found
            self.read_at = self.judge.known.seq
            if between:
                self.do_claim(self.workers["A"])
                between = ""
            try:
                COMMANDS[head](self, job, argument)
            except RevisionConflict:
                continue
            except REFUSED:
                pass
            return
        raise Violation("an edit conflicts without end")

    def replace(self, job: Job, found: tuple[Execution, ...] = ()) -> None:
        """Write what an operator has made of the job."""
        self.row.replace(job, found, self.next(), self.judge.history)

    def ask(self, job: Job, asked: Requested) -> int:
        """Write a request, unless it was there; return its number."""
        if asked.job is not job:
            self.replace(asked.job)
        return asked.number

    # -- the end

    def drain(self) -> None:
        """Let a healthy worker go on alone until all that is due by an hour later has ended."""
        for worker in self.workers.values():
            self._may_be_lost(worker)
            worker.claim = worker.what = None
        self._drain(max(self.now, self.latest) + 30 * M)
        job = self.row.read()
        if isinstance(job, Job) and job.standing.pause is not None:
            self.judge.accounting.expect_ends_in_pause(job.uid, self.now)
            COMMANDS["resume"](self, job, "")
        horizon = max(self.now, self.latest) + 42 * M
        self._drain(horizon)
        self.now = horizon
        self.judge.accounting.account(horizon)

    def _drain(self, horizon: datetime) -> None:
        worker = self.workers["B"]
        for _ in range(300):
            due = self.row.due()
            if due is None or due > horizon:
                return
            self.now = max(self.now, due)
            self.do_claim(worker)
            if worker.claim is not None:
                self.do_ok(worker)
            self.look()
        raise Violation("it does not come to rest")


def _is_held(one: Pending, pause: Pause, standing: Standing) -> bool:
    """Whether a pause holds what was there when it began, as the documentation says."""
    marked = standing.is_marked(one.number)
    return not marked and (one.kind is Kind.SCHEDULED or one.origin <= pause.last_number)


def _told(start: Start) -> starts.Start:
    """Return what a handler is told, in the judge's own words."""
    return starts.Start(
        start.number,
        start.scheduled_at,
        start.kind,
        start.attempt,
        start.coalesced,
        start.coalesced_until,
        start.deadline,
        start.args,
    )


def _grace(policies: Sequence[Policy]) -> timedelta | None:
    """Return how late everything may begin, where all policies say the same."""
    graces = {each.misfire.grace if isinstance(each.misfire, Drop) else None for each in policies}
    return graces.pop() if len(graces) == 1 else None
