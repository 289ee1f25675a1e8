"""Two calls under way at once: when the second begins is swept over the whole of the first.

A law of this kind describes one round: it prepares jobs, lets two calls overlap, and judges their
answers and what is stored. The round is repeated on one instance, on two, and, where data is shared
and a process can be forked, with the second call in another process. First one call waits for the
other's end, which tells how long that takes; then it begins ever later in the midst of it. So a
store that reads, waits and then writes is met between the two, whatever makes it wait. Two
processes meet only if their machine lets both run: a round in which they did not is played again.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import anyio
import anyio.lowlevel
from attrs import define, frozen

from sched_core import (
    Backend,
    BackendUnavailable,
    Claim,
    Execution,
    ExecutionQuery,
    Job,
    Renewal,
    Room,
    SchedError,
    Settled,
    Settlement,
    UndecodableExecution,
)
from sched_core.clock import pause
from sched_testkit._suite.bench import SECOND, Bench
from sched_testkit._suite.processes import SOON, Distant, advance_there, meet, moment, open_there

T = TypeVar("T")
Call = Callable[[Backend], Awaitable[Any]]

BEGINS = 4
"""The number of points of a call at which the other one begins."""
MEETINGS = 6
"""How often two processes meet; their machine decides how closely."""
REPEATS = 5
"""How often a round of two processes is played until they meet and both calls are answered."""
TRIES = 20


@frozen
class Answer:
    """What a call returned or raised."""

    value: Any = None
    error: SchedError | None = None

    def __str__(self) -> str:
        """Return it for people."""
        if self.error is None:
            return f"{self.value!r}"[:200]
        return f"{type(self.error).__name__}({self.error})"

    @property
    def outcome(self) -> str:
        """What a settlement came to."""
        assert isinstance(self.value, Settled), f"settle raised {self}"
        return self.value.outcome

    @property
    def claims(self) -> list[Claim]:
        """What was claimed or renewed."""
        assert self.error is None, f"raised {self}"
        return list(self.value)

    def raised(self, *kinds: type[SchedError]) -> bool:
        """Whether one of these was raised."""
        return isinstance(self.error, kinds)


class Undecided(Exception):
    """A call raised BackendUnavailable: what it did is unknown, so the round says nothing."""


@define
class Plan:
    """How the two calls of a round meet.

    Attributes:
        what: The plan, described for people.
        swapped: Whether the second call begins first.
        turns: After how many turns of the event loop the other begins; ``None`` for at its end.
        delay: How many seconds the call here begins after the one in another process.
        took: Turns, or the seconds here and there: noted when the calls did not overlap.
        met: Whether the calls were under way at once, as far as their round noted.
    """

    what: str
    swapped: bool = False
    turns: int | None = None
    delay: float | None = None
    took: tuple[float, float] = (0, 0)
    met: bool = True

    def __str__(self) -> str:
        """Return it for people."""
        later = "first" if self.swapped else "second"
        if self.turns is not None:
            return f"{self.what}: the {later} call began {self.turns} turns after the other"
        if self.delay is not None:
            return f"{self.what}: they began {abs(self.delay) * 1000:.1f} ms apart"
        return f"{self.what}: the {later} call began after the other"


class Overlap:
    """One round: two backends, and names that no other round uses."""

    def __init__(self, bench: Bench, name: str, plan: Plan, one: Backend, two: Backend) -> None:
        self.bench, self.name, self.plan = bench, name, plan
        self.one, self.two = one, two
        self.lapsed: list[Execution] = []
        """What was told of the claims of this round whose lease had ended."""

    # -- values

    def job(self, suffix: str = "", **changes: Any) -> Job:
        """Build a job of this round."""
        return self.bench.job(f"{self.name}{suffix}", **changes)

    async def added(self, *jobs: Job) -> list[Job]:
        """Add jobs."""
        return list(await self.one.add(jobs))

    # -- steps

    async def both(self, first: Call, second: Call) -> tuple[Answer, Answer]:
        """Let the first call meet the second: on the backends ``one`` and ``two``.

        Raises:
            Undecided: One of them raised BackendUnavailable.
        """
        if isinstance(self.two, Distant):
            answers = await self._in_two_processes(first, second, self.two)
        else:
            answers = await self._in_one_loop(first, second)
        for answer in answers:
            if answer.raised(BackendUnavailable):
                raise Undecided from answer.error
        return answers

    async def _in_one_loop(self, first: Call, second: Call) -> tuple[Answer, Answer]:
        calls: list[tuple[int, Call, Backend]] = [(0, first, self.one), (1, second, self.two)]
        if self.plan.swapped:
            calls.reverse()
        answers: dict[int, Answer] = {}

        async def run(index: int, call: Call, backend: Backend) -> None:
            answers[index] = await _answer(call, backend)

        turns = 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, *calls[0])
            while not answers and (self.plan.turns is None or turns < self.plan.turns):
                await anyio.lowlevel.checkpoint()
                turns += 1
            tasks.start_soon(run, *calls[1])
        self.plan.took = (turns, 0)
        return answers[0], answers[1]

    async def _in_two_processes(
        self, first: Call, second: Call, there: Distant
    ) -> tuple[Answer, Answer]:
        delay = self.plan.delay
        if delay is None:
            theirs = await _answer(second, self.two)
            begun = moment()
            ours = await _answer(first, self.one)
            self.plan.took = (moment() - begun, there.seconds)
            return ours, theirs
        answers: list[Answer] = []

        async def run() -> None:
            answers.append(await _answer(second, self.two))

        there.at = at = moment() + SOON + max(-delay, 0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await anyio.lowlevel.checkpoint()
            await meet(at + delay)
            begun = moment()
            ours = await _answer(first, self.one)
            ended = moment()
        self.plan.met = begun < there.begun + there.seconds and there.begun < ended
        return ours, answers[0]

    async def advance(self, by: timedelta) -> None:
        """Move the clock, of the other process, too."""
        await self.bench.advance(by)
        if isinstance(self.two, Distant) and self.bench.other is not None:
            await self.bench.other.call(advance_there, by)

    async def end_leases(self) -> None:
        """Move the clock to the end of what is held now."""
        await self.advance(self.one.capabilities.lease)

    async def wait(self) -> None:
        """Move the clock to the end of the wait after a first lost claim."""
        await self.advance(SECOND)

    async def held(self) -> tuple[Job, Claim]:
        """Add the job of this round and claim it; return it as it is read then."""
        (job,) = await self.added(self.job())
        claim = await self.claim()
        return self.bench.held(job, claim), claim

    async def renewed(self, backend: Backend, claim: Claim) -> list[Claim]:
        """Renew a claim."""
        return list(await backend.renew([Renewal(claim)]))

    async def claim(self) -> Claim:
        """Claim the one job of this round."""
        claims = await self.claimed(self.one)
        assert len(claims) == 1, f"expected one claim, got {[claim.job.id for claim in claims]}"
        return claims[0]

    async def claimed(self, backend: Backend) -> list[Claim]:
        """Claim what is due of this round; there is nothing else."""
        claimed = await backend.claim_due(Room(20))
        self.lapsed += [each for each in claimed.lapsed if each.job_id.startswith(self.name)]
        return [
            claim
            for claim in claimed.claims
            if claim.job.id.startswith(self.name)  # tombstones of other rounds yield nothing
        ]

    async def settle(self, settlement: Settlement, backend: Backend | None = None) -> Settled:
        """Settle one; a store that is busy with the row is asked again."""
        return await settled(backend or self.one, settlement)

    # -- what is stored

    async def seen(self, suffix: str = "") -> Job | None:
        """Return what is stored, which both backends must agree about."""
        here = await self.one.get(f"{self.name}{suffix}")
        there = await self.two.get(f"{self.name}{suffix}")
        assert here == there, f"one backend sees {here!r}, the other {there!r}"
        assert here is None or isinstance(here, Job), f"what is stored cannot be read: {here!r}"
        return here

    async def stored(self, suffix: str = "") -> Job:
        """Return a job that must be there."""
        job = await self.seen(suffix)
        assert job is not None, f"job {self.name}{suffix} is gone"
        return job

    async def history(self, suffix: str = "") -> list[Execution]:
        """Return the executions of a job, newest first."""
        return await self.bench.history(self.one, job_id=f"{self.name}{suffix}")

    async def newest(self, count: int) -> list[Execution | UndecodableExecution]:
        """Return the newest executions of all jobs, each on a page of its own."""
        found: list[Execution | UndecodableExecution] = []
        after: str | None = None
        for _ in range(count):
            page = await self.two.executions(ExecutionQuery(), after=after, limit=1)
            found += page.items
            after = page.next
        return found

    async def statuses(self, suffix: str = "") -> list[str]:
        """Return the statuses of its executions, sorted."""
        return sorted(execution.status.value for execution in await self.history(suffix))

    async def end(self) -> None:
        """Leave nothing that a later round would claim."""
        for job in await self.bench.jobs(self.one, limit=50, id_prefix=self.name):
            if isinstance(job, Job):
                await self.one.remove(job)


async def settled(backend: Backend, settlement: Settlement) -> Settled:
    """Settle one; a store that is busy with the row is asked again."""
    for _ in range(TRIES):
        (answer,) = await backend.settle([settlement])
        if answer.outcome != "busy":
            return answer
        await pause(0.01)
    raise AssertionError(f"the store stays busy with {settlement.claim.job.id}")


async def _answer(call: Call, backend: Backend) -> Answer:
    try:
        return Answer(await call(backend))
    except SchedError as error:
        return Answer(error=error)


# -- the sweep


Round = Callable[[Overlap], Awaitable[None]]


async def sweep(bench: Bench, check: Round) -> None:
    """Play the round in every constellation.

    Raises:
        AssertionError: One of them went wrong; or too many say nothing, because calls raise
            BackendUnavailable only for being two.
    """
    one, two = await bench.open(), await bench.open()
    names = (f"r{number}-" for number in itertools.count())
    rounds, undecided = 0, list[BaseException]()
    backends = {"on one instance": one, "on two instances": two}
    if bench.other is not None:
        await bench.other.call(open_there, "worker-elsewhere")
        backends["in two processes"] = cast(Backend, Distant(bench.other))
    for what, second in backends.items():
        for plan in _plans(bench, what, second, same=second is one):
            rounds += 1
            unclear: BaseException | None = None
            for _ in range(REPEATS):
                reason = await _played(check, Overlap(bench, next(names), plan, one, second))
                unclear = unclear or reason
                if plan.delay is None or (reason is None and plan.met):
                    break
                if not plan.met:  # a busy machine makes a call seem longer than the next one is
                    plan.delay /= 2
            undecided += [unclear] if unclear else []  # a round counts once, however often played
    if len(undecided) > rounds / 2:
        raise AssertionError(
            f"in {len(undecided)} of {rounds} rounds a call raised BackendUnavailable because "
            "another one was under way: let it wait for a moment, or try again itself"
        ) from undecided[-1]


async def _played(check: Round, overlap: Overlap) -> BaseException | None:
    """Play a round once; return what left it undecided."""
    reason: BaseException | None = None
    with _told(overlap.plan):
        try:
            await check(overlap)
        except Undecided as error:
            reason = error.__cause__
        await overlap.end()
    return reason


@contextmanager
def _told(plan: Plan) -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        error.args = (f"{error.args[0] if error.args else ''}\n({plan})",)
        raise


def _plans(bench: Bench, what: str, second: Backend, *, same: bool) -> Iterator[Plan]:
    """Yield the plans; what the first of each kind took decides about the others."""
    share = bench.harness.share if bench.whole else 0.0
    if isinstance(second, Distant):
        alone = Plan(what)
        yield alone
        here, there = alone.took
        count = max(round(MEETINGS * share), 2)
        inside = (here + there) / count / 2  # at the very edge of a call the other one has ended
        for delay in _spread(inside - here, inside + there, count):
            yield Plan(what, delay=delay)
        return
    begins = BEGINS // 2 if same else BEGINS
    # A slow store that is given little is met one way on one instance, the other way on two.
    ways = (False, True) if begins * bench.harness.share >= 1 else (same,)
    for swapped in ways:
        alone = Plan(what, swapped)
        yield alone
        points = _spread(0, alone.took[0], max(round(begins * share), 1))
        for begin in dict.fromkeys(int(point) for point in points):
            yield Plan(what, swapped, turns=begin)


def _spread(low: float, high: float, count: int) -> list[float]:
    """Return points from low up to high, which is none of them."""
    return [low + (high - low) * index / count for index in range(count)]
