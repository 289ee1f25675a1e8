"""``machine(harness)``: whole histories on one backend, judged by the oracle after every step.

The real :class:`~sched_core.Scheduler`, twice on one place, with one fake clock. Hypothesis chooses
what happens, and shrinks a history that goes wrong; the error lists its steps.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import anyio
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sched_core import (
    CatchUp,
    Coalesce,
    Cron,
    Drop,
    FixedDelay,
    Interval,
    JobSpec,
    Once,
    Policy,
    Retry,
    Schedule,
)
from sched_testkit._histories.driver import Driver
from sched_testkit._histories.handlers import ENDS, HandlerAction, Planned, PlannedAgain
from sched_testkit._oracle.violation import Violation
from sched_testkit._suite.failure import innermost
from sched_testkit._suite.port import fresh
from sched_testkit.harness import Harness

S = timedelta(seconds=1)
IDS = ("a", "b", "c")
SCHEDULES: dict[str, Schedule | timedelta] = {
    "every 60 s": Interval(seconds=60),
    "every 45 s": Interval(seconds=45),
    "every hour": Interval(hours=1),
    "once in 30 s": 30 * S,
    "once in 100 s": 100 * S,
    "40 s after each run": FixedDelay(seconds=40),
    "cron */20": Cron("*/20 * * * *"),
    "cron at 3": Cron("0 3 * * *"),
}
POLICIES = {
    "default": Policy(),
    "3 attempts": Policy(retry=Retry(3, 20 * S)),
    "2 attempts, slowly": Policy(retry=Retry(2, 200 * S)),
    "run all": Policy(misfire=CatchUp(3, 3600 * S)),
    "run all, 2 attempts": Policy(misfire=CatchUp(2, 100 * S), retry=Retry(2, 10 * S)),
    "drop after 30 s": Policy(misfire=Drop(30 * S)),
    "drop at once, lost twice": Policy(misfire=Drop(timedelta(microseconds=1)), max_lost=2),
    "lost once, kept 10 s": Policy(misfire=Coalesce(), max_lost=1, keep_finished=10 * S),
    "skip what passes": Policy(overlap="skip", retry=Retry(3, 50 * S)),
    "catch up all": Policy(misfire=CatchUp(5)),
    "paused after 2 failures": Policy(pause_after=2),
    "snoozed once": Policy(max_snoozes=1),
    "never snoozed, 2 attempts": Policy(max_snoozes=0, retry=Retry(2, 20 * S)),
    "lost twice": Policy(max_lost=2),
    "jitter": Policy(jitter=7 * S),
    "jitter, run all": Policy(jitter=7 * S, misfire=CatchUp(2, 3600 * S), retry=Retry(2, 10 * S)),
    "25 s, 2 attempts with jitter": Policy(
        timeout=25 * S, retry=Retry(3, 20 * S, maximum=30 * S, jitter=0.5)
    ),
    "5 s and 50 s apart": Policy(retry=Retry(4, delays=(5 * S, 50 * S), jitter=0.2)),
    "never again": Policy(retry=Retry(4, 10 * S, never=(PlannedAgain,)), overdue=60 * S),
    "25 s, only planned": Policy(timeout=25 * S, retry=Retry(3, 10 * S, only=(Planned,))),
}
SPANS = (1, 10, 29, 31, 60, 61, 100, 300, 3600, 20_000)
MISHAPS = (
    *("claimed", "die", "settling", "settled"),
    *("cut off", "suspended", "slow", "stopped", "timed out", "deaf"),
)

CANCELLED = ("runs", "schedule", "first request", "last request")
"""What may be cancelled."""

_which = st.integers(0, 1)
_ids = st.sampled_from(IDS)
_schedules = st.sampled_from(tuple(SCHEDULES))
_policies = st.sampled_from(tuple(POLICIES))
_spans = st.sampled_from(SPANS)
_acts = st.lists(
    st.builds(
        HandlerAction,
        does=st.sampled_from(
            (
                "nothing",
                "take a while",
                "change the schedule",
                "slow the schedule down",
                "change the metadata",
                "remove",
                "remove and cancel",
                "remove and add again",
                "pause",
                "trigger",
                "skip the next of",
                "trigger by name",
                "cancel itself",
                "be cancelled",
            )
        ),
        ends=st.sampled_from(ENDS),
        after=st.sampled_from((0, 5, 40, 400)),
    ),
    max_size=4,
)


class Histories(RuleBasedStateMachine):
    """Every step that a history may have. :func:`machine` gives it a harness."""

    harness: Harness
    loop = "asyncio"

    def __init__(self) -> None:
        super().__init__()
        self.failed = False
        self._stack = ExitStack()
        place = self._stack.enter_context(fresh(self.harness))
        self._portal = self._stack.enter_context(start_blocking_portal(self.loop))
        self.driver = self._portal.call(self._make, place)

    async def _make(self, place: Any) -> Driver:
        driver = Driver(self.harness, place)
        await driver.start()
        return driver

    def teardown(self) -> None:
        """Close everything, whatever happened."""
        try:
            if not self.failed:
                self._step(self.driver.rest)
        finally:
            try:
                self._portal.call(self.driver.stage.close)
            finally:
                self._stack.close()

    def _step(self, act: Callable[..., Awaitable[None]], *arguments: Any, **options: Any) -> None:
        async def step() -> None:
            with anyio.move_on_after(3 * self.harness.patience) as scope:
                await act(*arguments, **options)
                await self.driver.stage.look()
            if scope.cancelled_caught:
                raise Violation("a step did not end")

        try:
            self._portal.call(step)
        except BaseException as error:  # noqa: BLE001 -- raised again with the story
            self.failed = True
            found = innermost(error)
            found.add_note("\nWhat happened:\n" + self.driver.stage.narration())
            raise found from None

    def _alive(self, wanted: str) -> str:
        alive = self.driver.stage.oracle.known.alive()
        return wanted if wanted in alive else alive[0]

    def _any(self) -> bool:
        return bool(self.driver.stage.oracle.known.current)

    def _schedule(self, name: str) -> Schedule:
        schedule = SCHEDULES[name]
        if isinstance(schedule, timedelta):
            return Once(self.driver.stage.clock.now() + schedule)
        return schedule

    # -- definitions

    @initialize(schedule=_schedules, policy=_policies)
    def begin(self, schedule: str, policy: str) -> None:
        """There is a job from the beginning."""
        spec = JobSpec("a", self._schedule(schedule), policy=POLICIES[policy])
        self._step(self.driver.commands.submit, 0, spec, declared=False)

    @rule(which=_which, job=_ids, schedule=_schedules, policy=_policies, declared=st.booleans())
    def add(self, which: int, job: str, schedule: str, policy: str, declared: bool) -> None:
        """Submit or ensure a job; where the id is taken, ensure it."""
        spec = JobSpec(job, self._schedule(schedule), policy=POLICIES[policy])
        if job in self.driver.stage.oracle.known.current:
            self._step(self.driver.commands.ensure, which, spec)
        else:
            self._step(self.driver.commands.submit, which, spec, declared=declared)

    @precondition(_any)
    @rule(which=_which, job=_ids)
    def ensure_same(self, which: int, job: str) -> None:
        """Ensure a job as it is."""
        spec = self.driver.stage.oracle.known.current[self._alive(job)].spec
        assert spec is not None
        self._step(self.driver.commands.ensure, which, spec)

    @precondition(_any)
    @rule(which=_which, job=_ids, schedule=_schedules)
    def reschedule(self, which: int, job: str, schedule: str) -> None:
        """Change the schedule."""
        new = self._schedule(schedule)
        self._step(self.driver.commands.update, which, self._alive(job), schedule=new)

    @precondition(_any)
    @rule(which=_which, job=_ids, policy=_policies)
    def change_policy(self, which: int, job: str, policy: str) -> None:
        """Change the policy."""
        self._step(self.driver.commands.update, which, self._alive(job), policy=POLICIES[policy])

    @precondition(_any)
    @rule(which=_which, job=_ids, text=st.sampled_from("xyz"))
    def change_metadata(self, which: int, job: str, text: str) -> None:
        """Change the metadata."""
        self._step(self.driver.commands.update, which, self._alive(job), metadata={"text": text})

    @precondition(_any)
    @rule(which=_which, job=_ids, cancel=st.booleans())
    def remove(self, which: int, job: str, cancel: bool) -> None:
        """Remove a job."""
        self._step(self.driver.commands.remove, which, self._alive(job), cancel=cancel)

    # -- operating

    @precondition(_any)
    @rule(which=_which, job=_ids, lasts=st.sampled_from((None, 20, 200, 4000)))
    def pause(self, which: int, job: str, lasts: int | None) -> None:
        """Pause a job."""
        span = None if lasts is None else lasts * S
        self._step(self.driver.commands.pause, which, self._alive(job), span)

    @precondition(_any)
    @rule(
        which=_which,
        job=_ids,
        what=st.sampled_from(("resume", "trigger", "skip the next of", "unskip")),
    )
    def operate(self, which: int, job: str, what: str) -> None:
        """Resume, trigger, skip, unskip."""
        self._step(self.driver.commands.operate, which, what, self._alive(job))

    # -- one occurrence, and requests

    @precondition(_any)
    @rule(which=_which, job=_ids, what=st.sampled_from(CANCELLED))
    def cancel(self, which: int, job: str, what: str) -> None:
        """Cancel what runs or waits."""
        self._step(self.driver.commands.cancel, which, self._alive(job), what)

    @precondition(_any)
    @rule(which=_which, job=_ids)
    def hurry(self, which: int, job: str) -> None:
        """Have what waits for its next attempt attempted now."""
        self._step(self.driver.commands.hurry, which, self._alive(job))

    @precondition(_any)
    @rule(
        which=_which,
        job=_ids,
        args=st.sampled_from((None, {"n": "1"}, {"n": "2"})),
        key=st.sampled_from((None, "x", "y")),
    )
    def ask(self, which: int, job: str, args: dict[str, str] | None, key: str | None) -> None:
        """Trigger a job with arguments, by a name."""
        self._step(self.driver.commands.trigger, which, self._alive(job), args, key)

    @precondition(_any)
    @rule(which=_which, job=_ids, nth=st.integers(0, 5))
    def rerun(self, which: int, job: str, nth: int) -> None:
        """Repeat an execution."""
        self._step(self.driver.commands.rerun, which, self._alive(job), nth)

    @precondition(_any)
    @rule(which=_which, job=_ids, span=st.sampled_from((0, 100, 400)))
    def backfill(self, which: int, job: str, span: int) -> None:
        """Ask for the moments of the last while."""
        self._step(self.driver.commands.backfill, which, self._alive(job), span * S)

    # -- time and runs

    @rule(span=_spans)
    def wait(self, span: int) -> None:
        """Let time pass while no worker runs."""
        self._step(self.driver.stage.advance, span * S)

    @rule(span=_spans, which=_which, acts=_acts)
    def work(self, span: int, which: int, acts: list[HandlerAction]) -> None:
        """Let time pass, then run what is due."""
        self._step(self.driver.stage.advance, span * S)
        self._step(self.driver.run, which, acts)

    @rule(span=_spans, which=_which, kind=st.sampled_from(MISHAPS))
    def mishap(self, span: int, which: int, kind: str) -> None:
        """Let time pass, then run what is due on a process that has a mishap."""
        self._step(self.driver.stage.advance, span * S)
        self._step(self.driver.mishap, which, kind)

    @rule(which=_which, plain=st.booleans())
    def restart(self, which: int, plain: bool) -> None:
        """End a process and start another, whose handler is a coroutine or a plain function."""
        self._step(self.driver.stage.restart, which, plain=plain)

    @rule(span=st.sampled_from((1, 31, 100, 1500)))
    def set_back(self, span: int) -> None:
        """Set the clock back."""
        self._step(self.driver.stage.set_back, span * S)

    @rule(which=_which, age=st.sampled_from((0, 100, 5000)))
    def prune(self, which: int, age: int) -> None:
        """Prune the history."""
        self._step(self.driver.commands.prune, which, age * S)


def machine(harness: Harness, *, loop: str = "asyncio") -> type[Histories]:
    """Return a state machine for one backend; each call returns a fresh class."""
    return type("Histories", (Histories,), {"harness": harness, "loop": loop})


def run_histories(
    harness: Harness,
    *,
    examples: int,
    steps: int,
    derandomize: bool = True,
    loop: str = "asyncio",
    shrink: bool = True,
) -> None:
    """Run so many histories of so many steps; raise the first wrong one, shrunk, with its story."""
    left_out = {Phase.explain} if shrink else {Phase.explain, Phase.shrink}
    logger = logging.getLogger("sched_core")
    logger.disabled = True  # handlers fail by the thousand here, all of them on purpose
    try:
        run_state_machine_as_test(
            machine(harness, loop=loop),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                derandomize=derandomize,
                database=None,
                deadline=None,
                print_blob=False,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
                phases=[phase for phase in Phase if phase not in left_out],
            ),
        )
    finally:
        logger.disabled = False
