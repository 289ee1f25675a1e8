"""A run: one claim, from the moment it was made until it is settled or let go.

Each step from one phase to another is a method here. :data:`TABLE` says which steps a phase allows;
any other step raises an error, and changes nothing.

====================  ==============================================================================
phase                 meaning
====================  ==============================================================================
``claimed``           Nothing is decided yet, or an earlier run of the job has to end here first.
``queued``            The handler is to be called.
``running``           The handler was called, in the loop or in a thread, and has not returned.
``committed``         The handler's own transaction has settled the occurrence; the handler has not
                      returned.
``ended``             The outcome is decided, and being written.
``over``              The claim was settled, given back, lost, or left until its lease runs out.
====================  ==============================================================================
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import anyio
from attrs import evolve

from sched_core._model.claim import Claim, Decision, Ended, Settlement, Start
from sched_core._model.event import Cancellation
from sched_core._rules.standing import current
from sched_core._runtime.notes import Notes
from sched_core._runtime.outcomes import CancelReason, Outcome
from sched_core._runtime.threads import HandlerThread

Phase = Literal["claimed", "queued", "running", "committed", "ended", "over"]
Step = Literal["queue", "call", "commit", "decide", "let go"]


class _Steps(dict[Step, Phase]):
    """The steps out of one phase, each with the phase that follows; any other step raises."""

    def __missing__(self, step: Step) -> Phase:
        phase = next(phase for phase, steps in TABLE.items() if steps is self)
        raise RuntimeError(f"a run that is {phase} cannot {step}: a fault of sched_core")


TABLE: Mapping[Phase, Mapping[Step, Phase]] = {
    "claimed": _Steps({"queue": "queued", "decide": "ended", "let go": "over"}),
    "queued": _Steps({"call": "running", "decide": "ended", "let go": "over"}),
    "running": _Steps({"commit": "committed", "decide": "ended", "let go": "over"}),
    "committed": _Steps({"let go": "over"}),
    # "decide": the job was edited in the meantime. "commit": a thread that the handler has left
    # behind may commit after the decision; the store then says which of the two was written.
    "ended": _Steps({"decide": "ended", "commit": "ended", "let go": "over"}),
    "over": _Steps({"commit": "over", "let go": "over"}),
}

_STRENGTH: Mapping[CancelReason | None, int] = {
    None: 0,
    "stop": 1,
    "timeout": 1,
    "overlap": 1,
    "cancel": 1,
    "lost": 2,
}
"""How strong reasons are: the first one is kept, but a lost claim outweighs all others."""

_FIRST_NOTES = threading.Lock()


class WorkerTask:
    """A task that calls handlers, one after the other."""

    __slots__ = ("scope", "thread", "woken")

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.thread: HandlerThread | None = None
        self.woken = anyio.Event()


class Run:
    """One claim, and how far it has come.

    Attributes:
        claim: The claim, with its present lease.
        phase: The phase, see the table above.
        start: What the rules decided for the claim; ``None`` if no handler is called.
        started_at: The time when the handler was called.
        finished_at: The time when the handler returned, or when it proved not to be called.
        worker: The task that the handler runs in; ``None`` before and after.
        in_thread: Whether the handler runs in a thread, where it cannot be cancelled.
        cancel_reason: Why the handler was told to stop.
        cancellation: The value by which the handler learns that it is to stop.
        outcome: How the handler ended; ``None`` if nothing was called, or nothing may be written.
        error: The exception that the handler raised.
        notes: What the handler has told of its run; ``None`` if nothing.
        decision: What is to be written.
        expected: The revision of the job that the decision was made on.
        conflicts: How often the decision was made again because the job had been edited.
        refusals: How often the store refused to write the decision.
        offered: What the handler's own transaction was about to commit, whether or not it did.
        overdue: Whether the handler still runs although its time is up.
        alone: Whether no other run is under way in this process, or begins.
    """

    __slots__ = (
        "alone",
        "cancel_reason",
        "cancellation",
        "claim",
        "conflicts",
        "decision",
        "error",
        "expected",
        "finished_at",
        "in_thread",
        "notes",
        "offered",
        "outcome",
        "overdue",
        "phase",
        "refusals",
        "start",
        "started_at",
        "worker",
    )

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.phase: Phase = "claimed"
        self.start: Start | None = None
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None
        self.worker: WorkerTask | None = None
        self.in_thread = False
        self.cancel_reason: CancelReason | None = None
        self.cancellation = Cancellation()
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self.notes: Notes | None = None
        self.decision: Decision | None = None
        self.expected: int | None = claim.job.revision
        self.conflicts = self.refusals = 0
        self.offered: Settlement | None = None
        self.overdue = self.alone = False

    # -- its state

    @property
    def is_open(self) -> bool:
        """Whether nothing is decided yet: the handler can be told to stop, the claim be lost."""
        return self.phase in {"claimed", "queued", "running"}

    @property
    def is_under_way(self) -> bool:
        """Whether it is open, and the handler has not returned."""
        return self.is_open and not self.has_returned

    @property
    def is_lost(self) -> bool:
        """Whether the claim is known to be another worker's, or to have ended."""
        return self.cancel_reason == "lost"

    @property
    def needs_lease(self) -> bool:
        """Whether the claim has to be renewed before its lease ends."""
        return self.is_open and not self.is_lost

    @property
    def claims_lost(self) -> int:
        """How many claims of its occurrence were lost in a row before this one."""
        one = current(self.claim.job.standing)
        return 0 if one is None else one.lost

    @property
    def has_returned(self) -> bool:
        """Whether the handler has returned, or will not be called."""
        return self.finished_at is not None

    def take_notes(self) -> Notes:
        """Return what the handler has told of its run, to add to it. Any thread may call this."""
        with _FIRST_NOTES:
            if self.notes is None:
                self.notes = Notes()
            return self.notes

    def with_notes(self, ended: Ended) -> Ended:
        """Return how the run ended, and what the handler has told of it."""
        if self.notes is None:
            return ended
        return evolve(ended, log=self.notes.log(), progress=self.notes.progress)

    # -- steps

    def queue(self, start: Start) -> None:
        """Have the handler called."""
        self.phase = TABLE[self.phase]["queue"]
        self.start = start

    def call(self, worker: WorkerTask, now: datetime, *, in_thread: bool) -> None:
        """Note that the handler is being called."""
        self.phase = TABLE[self.phase]["call"]
        self.started_at, self.worker, self.in_thread = now, worker, in_thread

    def enter_thread(self) -> None:
        """Note that the handler continues in a thread."""
        self.in_thread = True

    def leave_thread(self) -> None:
        """Note that the handler continues in the loop; cancel it now if it was told to stop."""
        self.in_thread = False
        if self.cancel_reason is not None and self.worker is not None and self.is_open:
            self.worker.scope.cancel()

    def cancel(self, reason: CancelReason) -> None:
        """Tell the handler to stop, and cancel it where it can be."""
        if not self.is_open:
            return
        if _STRENGTH[reason] > _STRENGTH[self.cancel_reason]:
            self.cancel_reason = reason
        self.cancellation.requested = True
        if self.worker is not None and not self.in_thread:
            self.worker.scope.cancel()

    def abandon(self) -> None:
        """Stop waiting for the handler, whatever it is doing."""
        if self.worker is not None:
            self.worker.scope.cancel()

    def renew(self, claim: Claim) -> None:
        """Note the new lease of the claim."""
        self.claim = claim

    def miss_renewal(self) -> None:
        """Note that the claim was not renewed after the decision.

        It was settled in the meantime, or lost: the answer to the settlement will tell.
        """
        if self.phase == "ended":
            self.cancel_reason = "lost"

    def offer(self, settlement: Settlement) -> Settlement:
        """Note what the handler's own transaction is about to commit. Any thread may call this."""
        self.offered = settlement
        return settlement

    def commit(self, settlement: Settlement) -> None:
        """Note that the handler's own transaction was committed. Any thread may call this."""
        phase = TABLE[self.phase]["commit"]
        self.offered = settlement  # before the phase, which other threads read
        self.phase = phase

    def finish(self, outcome: Outcome | None, error: BaseException | None, now: datetime) -> None:
        """Note how the handler ended; what that means is decided next.

        Args:
            outcome: The outcome; ``None`` if nothing may be written.
            error: The exception that it raised.
            now: The present moment.
        """
        self.worker, self.finished_at, self.error = None, now, error
        self.outcome = outcome

    def decide(self, decision: Decision, expected: int | None) -> None:
        """Note what is to be written, and on which revision of the job."""
        self.phase = TABLE[self.phase]["decide"]
        self.decision, self.expected = decision, expected

    def let_go(self) -> None:
        """Note that the claim is no longer this worker's."""
        self.phase = TABLE[self.phase]["let go"]
