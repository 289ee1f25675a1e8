"""What handlers do in a history while they run."""

from __future__ import annotations

from datetime import timedelta

import anyio
import anyio.from_thread
import anyio.lowlevel
from attrs import define

from sched_core import (
    Discard,
    FixedDelay,
    Interval,
    JobEvent,
    Kind,
    RetryAfter,
    Snooze,
)
from sched_testkit._histories.commands import Commands
from sched_testkit._histories.stage import SchedulerProcess, Stage
from sched_testkit._oracle.calls import Call, CallState
from sched_testkit._oracle.narration import seconds

ENDS = ("succeeds", "fails", "snoozes", "asks for another attempt", "discards")
"""How a handler may end."""
STATES = {
    "fails": CallState.FAILED,
    "snoozes": CallState.SNOOZED,
    "asks for another attempt": CallState.FAILED,
    "discards": CallState.DISCARDED,
}


class Planned(Exception):
    """A handler was told to fail."""


class PlannedAgain(Planned):
    """A handler was told to fail at an even attempt, which policies can tell from an odd one."""


@define(frozen=True)
class HandlerAction:
    """What a handler does when it is called, and how it then ends.

    Attributes:
        does: What it does.
        ends: How it ends, one of ``ENDS``.
        after: Where it asks to be called again, the seconds until then.
    """

    does: str = "nothing"
    ends: str = "succeeds"
    after: float = 0

    @property
    def state(self) -> CallState:
        """How the oracle has seen it end, unless it was cancelled."""
        return STATES.get(self.ends, CallState.SUCCEEDED)

    @property
    def wait(self) -> timedelta | None:
        """How long the handler asks to wait until it is called again."""
        asks = self.ends in {"snoozes", "asks for another attempt"}
        return timedelta(seconds=self.after) if asks else None

    def end(self, event: JobEvent) -> None:
        """End as planned: raise, or return."""
        if self.ends == "fails":
            raise (Planned if event.attempt % 2 else PlannedAgain)("as planned")
        if self.ends == "snoozes":
            raise Snooze(self.after)
        if self.ends == "asks for another attempt":
            raise RetryAfter(self.after, "as planned")
        if self.ends == "discards":
            raise Discard("as planned")

    def __str__(self) -> str:
        doing = "" if self.does == "nothing" else f": {self.does}"
        until = "" if self.wait is None else f", in {seconds(self.wait)} again"
        return doing + ("" if self.ends == "succeeds" else f", {self.ends}{until}")


class Handlers:
    """Acts as the handler of every process of a stage.

    Attributes:
        actions: What the next calls of the handler do, in order.
        hanging: The event of the handler that hangs.
        deaf: Whether the handler that hangs ignores its cancellation.
        reached: An event that is set once a handler hangs, or the run has ended.
        gate: An event for which a handler that hangs waits.
    """

    def __init__(self, stage: Stage, commands: Commands) -> None:
        self._stage, self._commands = stage, commands
        self.actions: list[HandlerAction] = []
        self.hanging: JobEvent | None = None
        self.deaf = False
        self.reached, self.gate = anyio.Event(), anyio.Event()

    def hang_next(self, *, deaf: bool) -> None:
        """Let the next call of a handler hang until the gate opens.

        Args:
            deaf: Whether it ignores its cancellation.
        """
        self.reached, self.gate = anyio.Event(), anyio.Event()
        self.actions, self.hanging, self.deaf = [HandlerAction("hang")], None, deaf

    async def handle(self, process: SchedulerProcess, event: JobEvent) -> None:
        """Do the next action, and give the oracle the call and its end."""
        if process.spy.dead:
            return  # a dead process calls no handler
        act = self.actions.pop(0) if self.actions else HandlerAction()
        call: Call | None = None
        now = self._stage.clock.now()
        if event.attempt > 1:
            await self._stage.sync()  # the attempt before it may have ended in this very run
        with self._stage.noting():
            call = self._stage.oracle.attempts.called(event, now)
        kind = "as asked " if event.kind is not Kind.SCHEDULED else ""
        more = f", for {event.coalesced} more" if event.coalesced else ""
        what = f"{process.name} runs {event.id!r} {kind}(attempt {event.attempt}{more}){act}"
        self._stage.tell(what)
        try:
            if act.does == "hang":
                await self._hang_on(event)  # without its turn: the others do not wait for it
            else:
                async with process.turn:
                    await self._do(process, event, act)
        except BaseException as error:
            if not isinstance(error, Exception):
                self._ended(call, process.cancelled_means)
            elif isinstance(error, Planned | Snooze | RetryAfter | Discard):
                self._ended(call, act.state, type(error), act.wait)
            else:
                self._stage.verdicts.append(error)
                self._ended(call, CallState.FAILED, type(error))
            raise
        # A handler whose time is up, or whose claim is lost, returns without effect.
        is_cancelled = event.cancelled and process.cancelled_means is not CallState.INTERRUPTED
        self._ended(call, process.cancelled_means if is_cancelled else CallState.SUCCEEDED)

    def _ended(
        self,
        call: Call | None,
        state: CallState,
        raised: type[BaseException] | None = None,
        wait: timedelta | None = None,
    ) -> None:
        if call is not None:
            now = self._stage.clock.now()
            with self._stage.noting():
                self._stage.oracle.attempts.ended(call, state, now, raised, wait)

    async def _hang_on(self, event: JobEvent) -> None:
        self.hanging = event
        self.reached.set()
        with anyio.CancelScope(shield=self.deaf):
            await self.gate.wait()

    async def _do(self, process: SchedulerProcess, event: JobEvent, act: HandlerAction) -> None:
        index, job_id = self._stage.processes.index(process), event.id
        known = self._stage.oracle.known
        if act.does == "die":
            process.spy.dead = True
            self._stage.oracle.crashed(process.spy.worker)
        elif act.does == "take a while":
            self._stage.clock.advance(self._stage.lease / 5)
        elif job_id in known.current:
            spec = known.current[job_id].spec
            assert spec is not None
            if act.does == "change the schedule":
                await self._commands.update(index, job_id, schedule=Interval(seconds=50))
            elif act.does == "slow the schedule down":
                await self._commands.update(index, job_id, schedule=FixedDelay(seconds=90))
            elif act.does == "change the metadata":
                await self._commands.update(index, job_id, metadata={"edit": str(known.seq)})
            elif act.does in {"remove", "remove and cancel", "remove and add again"}:
                with anyio.CancelScope(shield=True):
                    cancel = act.does == "remove and cancel"
                    await self._commands.remove(index, job_id, cancel=cancel)
                if act.does == "remove and add again":
                    await self._commands.submit(index, spec, declared=False)
            elif act.does == "pause":
                await self._commands.pause(index, job_id, None)
            elif act.does in {"trigger", "skip the next of"}:
                await self._commands.operate(index, act.does, job_id)
            elif act.does == "trigger by name":
                await self._commands.trigger(index, job_id, {"by": "itself"}, "x")
            elif act.does in {"cancel itself", "be cancelled"}:
                other = 1 - index
                if act.does == "cancel itself" or self._stage.processes[other].spy.dead:
                    other = index
                with anyio.CancelScope(shield=True):  # its end is what is to be seen
                    await self._commands.cancel(other, job_id, alone=False)
        act.end(event)
