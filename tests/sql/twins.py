"""The same calls to a backend in a database and to the one in memory: every answer must agree.

Tokens and revisions are the store's own, so they are compared by which of them are the same.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from attrs import define, evolve

from sched_core import (
    CatchUp,
    Claim,
    Claimed,
    Drop,
    Execution,
    ExecutionQuery,
    FixedDelay,
    Interval,
    Job,
    JobQuery,
    JobSpec,
    MemoryBackend,
    MemoryStore,
    Once,
    Policy,
    Renewal,
    Retry,
    Room,
    SchedError,
    Schedule,
    Settled,
    Settlement,
    State,
    Status,
)
from sched_core._model.claim import Decision, Ended, Start
from sched_core._rules import begin as begins
from sched_core._rules import define as defines
from sched_core._rules import finish as finishes
from sched_core._rules import operate, request
from sched_core.ports import Backend
from sched_core.testing import FakeClock

LEASE = timedelta(seconds=30)
IDS = ["a", "b", "c", "d"]


@define
class Side:
    """One of the two stores, with two workers on it.

    Attributes:
        backends: The backends of the two workers.
        reads: Jobs as they were read, to be written later.
        claims: Claims that have not ended, as far as the test knows.
        over: Settlements and claims that have ended, to be sent again.
    """

    backends: list[Backend]
    reads: list[Job]
    claims: list[Claim]
    over: list[Settlement]


class Twins:
    """The two stores, and what is done to both.

    Args:
        seed: The seed by which calls are chosen.
        clock: The clock of both stores.
        open_other: Opens a backend on the store in the database.
    """

    def __init__(
        self, seed: int, clock: FakeClock, open_other: Callable[[], Awaitable[Backend]]
    ) -> None:
        self.random = random.Random(seed)
        self.clock, self._open_other = clock, open_other
        self.sides: list[Side] = []
        self.numbers: list[dict[int, int]] = [{}, {}]
        """Tokens and revisions: the numbers of the first store, and those of the second."""
        self.lives = 0

    async def open(self) -> None:
        """Open two workers on each."""
        store = MemoryStore()
        memory: list[Backend] = [MemoryBackend(store, lease=LEASE) for _ in range(2)]
        for number, backend in enumerate(memory, 1):
            await backend.open(self.clock, worker=f"worker-{number}")
        others = [await self._open_other() for _ in range(2)]
        self.sides = [Side(backends, [], [], []) for backends in (memory, others)]

    async def close(self) -> None:
        """Close the backends in memory; the others are their opener's."""
        for backend in self.sides[0].backends:
            await backend.close()

    # -- comparing

    def agree(self, what: str, one: Any, other: Any) -> None:
        """Raise unless two answers are the same."""
        if self._plain(one, 0) != self._plain(other, 1):
            raise AssertionError(
                f"{what}\n  memory: {self._plain(one, 0)}\n  other:  {self._plain(other, 1)}"
            )
        self._names(one, other)

    def _plain(self, value: Any, side: int) -> Any:
        """Return a value without tokens and revisions."""
        if isinstance(value, Job):
            return evolve(value, revision=0)
        if isinstance(value, Execution):
            return evolve(value, token=0)
        if isinstance(value, Claim):
            return evolve(value, token=0, job=self._plain(value.job, side))
        if isinstance(value, Settled):
            return evolve(value, job=self._plain(value.job, side))
        if isinstance(value, Claimed):
            return (self._plain(value.claims, side), self._plain(value.lapsed, side))
        if isinstance(value, (list, tuple)):
            found = [self._plain(each, side) for each in value]
            if found and isinstance(found[0], Execution):
                # What lapses at one moment is in no order.
                found.sort(key=lambda each: (each.finished_at, each.id))
            return found
        return value

    def _names(self, one: Any, other: Any) -> None:
        """See that tokens and revisions are the same where they are, and else are not."""
        mine, others = list(_numbers(one)), list(_numbers(other))
        if len(mine) != len(others):
            raise AssertionError(f"{one} and {other}")
        for number, there in zip(sorted(mine), sorted(others), strict=True):
            if number[:-1] != there[:-1]:
                raise AssertionError(f"{number} and {there}")
            for side, (key, value) in enumerate([(number[-1], there[-1]), (there[-1], number[-1])]):
                if self.numbers[side].setdefault(key, value) != value:
                    raise AssertionError(f"{number}: {key} is {value}, and was another one")

    async def both(self, what: str, call: Callable[[Side], Awaitable[Any]]) -> list[Any]:
        """Make a call to both, and return the answers, which agree."""
        answers: list[Any] = []
        for side in self.sides:
            try:
                answers.append(await call(side))
            except SchedError as error:
                answers.append((type(error).__name__, *error.args))
        if any(isinstance(answer, tuple) for answer in answers):
            assert answers[0] == answers[1], (what, answers)
            return answers
        self.agree(what, *answers)
        return answers

    # -- what is done

    async def step(self) -> str:
        """Do one thing to both; return what."""
        weights = {
            self.add: 3,
            self.time: 14,
            self.claim: 14,
            self.settle: 16,
            self.edit: 12,
            self.renew: 5,
            self.release: 3,
            self.again: 4,
            self.read: 4,
            self.prune: 1,
            self.stale: 2,
        }
        chosen = self.random.choices(list(weights), list(weights.values()))[0]
        self.clock.advance(timedelta(microseconds=1))
        await chosen()
        await self.compare()
        return chosen.__name__

    async def compare(self) -> None:
        """Compare all that is stored, and when there is something to do."""
        for job_id in IDS:
            await self.both("get", lambda side, job_id=job_id: side.backends[0].get(job_id))  # type: ignore[misc]
        memory, other = (side.backends[0] for side in self.sides)
        assert isinstance(memory, MemoryBackend)
        earliest = memory.store.earliest()
        horizon = self.clock.now() + timedelta(days=10_000)
        found = other._table.earliest(Room(9), self.clock.now, horizon)  # type: ignore[attr-defined]
        assert earliest == found or (found is None and earliest is not None and earliest > horizon)

    async def time(self) -> None:
        """Let time go by, or set the clock back."""
        if self.random.random() < 0.05:
            self.clock.jump(-timedelta(seconds=self.random.randint(1, 90)))
        else:
            self.clock.advance(seconds=self.random.choice([0.5, 3, 11, 31, 70, 400]))

    def _spec(self, job_id: str) -> JobSpec:
        choice, now = self.random.choice, self.clock.now()
        # Moments of their own, so that no two jobs are due at the same.
        schedules: list[Schedule] = [
            Interval(seconds=60 + self.random.random()),
            FixedDelay(seconds=40 + self.random.random()),
            Once(now + timedelta(seconds=self.random.random() * 100)),
        ]
        policy = choice(
            [
                Policy(),
                Policy(retry=Retry(attempts=3, backoff=timedelta(seconds=7)), max_lost=2),
                Policy(misfire=CatchUp(limit=2), overlap="skip", max_lost=1),
                Policy(misfire=Drop(timedelta(seconds=30)), overlap="cancel", pause_after=2),
                Policy(jitter=timedelta(seconds=9), keep_executions=timedelta(seconds=200)),
            ]
        )
        metadata = choice([{}, {"of": "me"}])
        return JobSpec(
            job_id, choice(schedules), policy=policy, metadata=metadata, group=choice([None, "g"])
        )

    async def add(self) -> None:
        """Add some jobs."""
        new: list[Job] = []
        for job_id in self.random.sample(IDS, self.random.randint(1, 2)):
            self.lives += 1
            uid = str(uuid.UUID(int=self.lives))
            declared = self.random.random() < 0.5
            now = self.clock.now()
            new.append(defines.admit(self._spec(job_id), uid=uid, declared=declared, now=now))
        await self.both("add", lambda side: side.backends[0].add(new))
        if self.random.random() < 0.2:
            await self.both("add again", lambda side: side.backends[1].add(new))

    async def claim(self) -> None:
        """Claim, and begin."""
        worker, limit = self.random.randrange(2), self.random.choice([0, 1, 2, 10])
        claimed = await self.both(
            "claim", lambda side: side.backends[worker].claim_due(Room(limit))
        )
        for side, answer in zip(self.sides, claimed, strict=True):
            side.claims += answer.claims

    async def edit(self) -> None:
        """Do what an operator does."""
        job_id, now, spec = self.random.choice(IDS), self.clock.now(), None
        what = self.random.choice(
            [
                *("redefine", "policy", "pause", "pause until", "resume", "trigger", "key"),
                *("backfill", "skip", "unskip", "hurry", "cancel", "remove", "remove"),
            ]
        )
        spec, seconds = self._spec(job_id), self.random.randint(1, 100)

        def edited(job: Job) -> tuple[Job, tuple[Execution, ...]]:
            if what in {"redefine", "policy"}:
                new = spec if what == "redefine" else evolve(job.spec, policy=spec.policy)
                change = defines.redefine(job, new, now=now)
                return (job, ()) if change is None else (change.job, change.executions)
            if what.startswith("pause"):
                until = now + timedelta(seconds=seconds) if "until" in what else None
                return operate.pause(job, until=until, reason="tests", now=now), ()
            if what == "trigger":
                return request.trigger(job, now=now).job, ()
            if what == "key":
                return request.trigger(job, now=now, key=str(seconds), args={"a": "b"}).job, ()
            if what == "backfill":
                since = now - timedelta(seconds=200)
                return request.backfill(job, since=since, until=now, now=now).job, ()
            if what == "cancel":
                numbers = [None, job.standing.last_number, job.held]
                return operate.cancel(job, now=now, number=numbers[seconds % 3]), ()
            simple: dict[str, Callable[[], Job]] = {
                "resume": lambda: operate.resume(job, at=now),
                "skip": lambda: operate.skip_next(job, now=now),
                "unskip": lambda: operate.unskip(job),
                "hurry": lambda: operate.retry_now(job, now=now),
            }
            return simple[what](), ()

        async def call(side: Side) -> Any:
            job = await side.backends[0].get(job_id)
            if not isinstance(job, Job):
                return job
            side.reads = [*side.reads[-3:], job]
            if what == "remove":
                return await side.backends[1].remove(job, defines.final_executions(job, now=now))
            job, executions = edited(job)
            return await side.backends[1].replace(job, executions)

        await self.both(what, call)

    async def stale(self) -> None:
        """Write what was read some time ago."""
        back = self.random.randint(1, 4)
        if len(self.sides[0].reads) < back:
            return
        remove = self.random.random() < 0.3

        async def call(side: Side) -> Any:
            job = side.reads[-back]
            backend = side.backends[0]
            return await (backend.remove(job) if remove else backend.replace(job))

        await self.both("write what was read before", call)

    async def settle(self) -> None:
        """End some claims, and decide again where the job was edited meanwhile."""
        claims = self.sides[0].claims
        if not claims:
            return
        chosen = self.random.sample(range(len(claims)), self.random.randint(1, len(claims)))
        how = [
            self.random.choice(
                [Ended(Status.SUCCEEDED)] * 3
                + [Ended(Status.FAILED, "no"), Ended(Status.FAILED, "never", retry=False)]
                + [Ended(Status.SNOOZED, delay=timedelta(seconds=13))]
                + [Ended(Status.INTERRUPTED, "stop"), Ended(Status.INTERRUPTED, by_store=True)]
                + [None]
            )
            for _ in chosen
        ]
        started_at, now = self.clock.now(), self.clock.advance(timedelta(microseconds=1))

        def settlement(claim: Claim, ended: Ended | None, stored: Job | None) -> Settlement:
            what = begins.begin(claim, now=started_at)
            if isinstance(what, Start) and ended is not None:
                decision = finishes.finish(
                    claim, what, ended, started_at=started_at, now=now, stored=stored
                )
            elif isinstance(what, Decision) and stored is claim.job:
                decision = what
            else:
                decision = finishes.postpone(claim, until=now, now=now, stored=stored)
            expected = None if stored is None or decision.standing is None else stored.revision
            return Settlement(claim, expected, decision.standing, decision.executions)

        async def call(side: Side) -> Any:
            mine = [side.claims[each] for each in chosen]
            sent = [
                settlement(claim, ended, claim.job) for claim, ended in zip(mine, how, strict=True)
            ]
            answers = list(await side.backends[0].settle(sent))
            told = list(answers)
            for _ in range(3):
                wrong = [i for i, answer in enumerate(answers) if answer.outcome == "conflict"]
                if not wrong:
                    break
                for i in wrong:
                    sent[i] = settlement(mine[i], how[i], answers[i].job)
                again = await side.backends[0].settle([sent[i] for i in wrong])
                told += again
                for i, answer in zip(wrong, again, strict=True):
                    answers[i] = answer
            assert all(answer.outcome != "conflict" for answer in answers)
            gone = {id(claim) for claim in mine}
            side.claims = [claim for claim in side.claims if id(claim) not in gone]
            side.over = [*side.over[-5:], *sent]
            return told

        await self.both("settle", call)

    async def again(self) -> None:
        """Send settlements that are over once more, or release or renew what they ended."""
        if not self.sides[0].over:
            return
        which = self.random.randrange(len(self.sides[0].over))
        how = self.random.choice(["settle", "settle", "twice", "release", "renew"])

        async def call(side: Side) -> Any:
            one, backend = side.over[which], side.backends[1]
            if how == "settle":
                return await backend.settle([one])
            if how == "twice":
                return await backend.settle([one, one])
            if how == "release":
                return await backend.release([one.claim])
            return await backend.renew([Renewal(one.claim)])

        await self.both(how, call)

    async def renew(self) -> None:
        """Renew some claims."""
        alone = self.random.random() < 0.3
        kept = [self.random.random() < 0.7 for _ in self.sides[0].claims]
        renewed = await self.both(
            "renew",
            lambda side: side.backends[0].renew(
                [
                    Renewal(claim, alone)
                    for claim, keep in zip(side.claims, kept, strict=True)
                    if keep
                ]
            ),
        )
        for side, answer in zip(self.sides, renewed, strict=True):
            held = {claim.token: claim for claim in answer}
            side.claims = [held.get(claim.token, claim) for claim in side.claims]

    async def release(self) -> None:
        """Hand some claims back."""
        count = self.random.randint(1, 2)
        await self.both("release", lambda side: side.backends[0].release(side.claims[:count]))
        for side in self.sides:
            side.claims = side.claims[count:]

    async def read(self) -> None:
        """List all there is."""
        state = self.random.choice([None, *State])
        metadata = self.random.choice([{}, {"of": "me"}])
        wanted = JobQuery(state, group=self.random.choice([None, "g"]), metadata=metadata)

        async def jobs(side: Side) -> Sequence[Any]:
            return list((await side.backends[0].jobs(wanted, after=None, limit=100)).items)

        async def history(side: Side) -> Sequence[Any]:
            query = ExecutionQuery()
            found = await side.backends[0].executions(query, after=None, limit=100_000)
            return list(found.items)

        await self.both("jobs", jobs)
        await self.both("executions", history)

    async def prune(self) -> None:
        """Delete what has expired, and what is old."""
        before = self.clock.now() - timedelta(seconds=self.random.choice([500, 100_000]))
        await self.both("prune", lambda side: side.backends[0].prune(before))


def _numbers(value: Any) -> Any:
    """Yield where a token or a revision is, and it."""
    if isinstance(value, Job):
        yield (value.id, "revision", value.revision)
    elif isinstance(value, Execution):
        yield (value.id, "token", value.token)
    elif isinstance(value, Claim):
        yield (value.job.id, "token", value.token)
        yield from _numbers(value.job)
    elif isinstance(value, Settled):
        yield from _numbers(value.job)
    elif isinstance(value, Claimed):
        yield from _numbers(value.claims)
        yield from _numbers(value.lapsed)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _numbers(each)
