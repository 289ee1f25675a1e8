"""The same steps on ``sched_core.row.Row`` and on JetStream's protocol, without a server.

Both say what a call of the port does to what is stored under one id: one as a row that a backend
saves, the other as a message that replaces another one. Whatever the story, both answer alike, and
the same job, hold and history are there after each step; also after the message was bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from operator import methodcaller
from typing import Any

import pytest
from attrs import evolve

from sched_core import (
    CancelMark,
    Claim,
    Execution,
    Interval,
    Job,
    JobSpec,
    Kind,
    Pause,
    Pending,
    Policy,
    Renewal,
    SchedError,
    Settled,
    Settlement,
    Standing,
    Status,
    Undecodable,
    UndecodableExecution,
)
from sched_core.row import CLAIM_LOST, WRITTEN, Row, is_repeat
from sched_jetstream._model import protocol
from sched_jetstream._model.protocol import StoredRecord, Verdict, Write
from sched_jetstream._model.record import Record, with_revision
from sched_jetstream._model.record_codec import decode, encode

START = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=30)
UNREADABLE = Undecodable("job", "format 99", 99, b"{}", "lunar")


class History:
    """What was written."""

    def __init__(self) -> None:
        self.executions: list[Execution] = []

    def stored(self, execution_id: str) -> Execution | UndecodableExecution | None:
        return next((each for each in self.executions if each.id == execution_id), None)

    def append(self, execution: Execution) -> None:
        if self.stored(execution.id) is None:
            self.executions.append(execution)


class OnRow:
    """A backend of one row."""

    def __init__(self) -> None:
        self.row, self.history = Row(), History()

    def add(self, job: Job, number: int) -> Job:
        return self.row.add(job, number)

    def replace(self, job: Job, executions: Sequence[Execution], number: int) -> Job:
        return self.row.replace(job, executions, number, self.history)

    def remove(self, job: Job, executions: Sequence[Execution], number: int) -> None:
        self.row.remove(job, executions, self.history)

    def lapse(self, now: datetime, number: int) -> tuple[Execution, ...]:
        return self.row.lapse(now, number, self.history)

    def claim(self, worker: str, now: datetime, token: int) -> Claim | None:
        return self.row.claim(token, worker, now, LEASE)

    def renew(self, renewal: Renewal, now: datetime, number: int) -> Claim | None:
        return self.row.renew(renewal, now, LEASE)

    def release(self, claim: Claim, now: datetime, number: int) -> bool:
        return self.row.release(claim, now, self.history)

    def settle(self, settlement: Settlement, now: datetime, number: int) -> Settled:
        return self.row.settle(settlement, now, number, self.history)

    def spoil(self) -> None:
        self.row = Row(UNREADABLE)

    def state(self, now: datetime) -> tuple[Any, ...]:
        if self.row.is_empty():
            self.row = Row()
        due = self.row.due()
        to_do = due is not None and due <= now
        return self.row.read(), self.row.hold, to_do, self.history.executions


class OnProtocol:
    """A backend of one message."""

    def __init__(self) -> None:
        self.found, self.history = StoredRecord("token", 0, None), History()

    def _write(self, write: Write, number: int) -> None:
        new = write.executions
        if write.may_exist:
            new = [each for each in new if self.history.stored(each.id) is None]
        known = [each for each in new if self.history.stored(each.id) is not None]
        assert not known, "what is stored was taken for new"
        self.history.executions += new
        record = write.record
        if record is not None:
            record = with_revision(record, number)
            read = decode(encode(write.record or record), number, "job")
            assert read == record, "it is not read as it was written"
        self.found = StoredRecord("token", number, record)

    def add(self, job: Job, number: int) -> Job:
        decided = protocol.add(self.found, job)
        if isinstance(decided, Job):
            return decided
        self._write(decided, number)
        return self._read()

    def _read(self) -> Job:
        job = self.found.read()
        assert isinstance(job, Job)
        return job

    def replace(self, job: Job, executions: Sequence[Execution], number: int) -> Job:
        self._write(protocol.replace(self.found, job, executions), number)
        return self._read()

    def remove(self, job: Job, executions: Sequence[Execution], number: int) -> None:
        self._write(protocol.remove(self.found, job, executions), number)

    def lapse(self, now: datetime, number: int) -> tuple[Execution, ...]:
        write = protocol.end_of_lease(self.found, now)
        if write is None:
            return ()
        self._write(write, number)
        return tuple(write.executions)

    def claim(self, worker: str, now: datetime, token: int) -> Claim | None:
        # The token is what the message is replaced at: here it is chosen, to be the same on both.
        found = evolve(self.found, sequence=token)
        taken = protocol.claim(found, now, worker=worker, lease=LEASE)
        if taken is None:
            return None
        self._write(taken.write, token)
        return taken.claim

    def renew(self, renewal: Renewal, now: datetime, number: int) -> Claim | None:
        extended = protocol.renew(self.found, renewal, now, LEASE)
        if extended is None:
            return None
        self._write(extended.write, number)
        return extended.claim

    def release(self, claim: Claim, now: datetime, number: int) -> bool:
        write = protocol.release(self.found, claim, now)
        if write is not None:
            self._write(write, number)
        return write is not None

    def settle(self, settlement: Settlement, now: datetime, number: int) -> Settled:
        decided = protocol.settle(self.found, settlement, now)
        if isinstance(decided, Settled):
            return decided
        if not isinstance(decided, Write):
            stored = [self.history.stored(each.id) for each in settlement.executions]
            return WRITTEN if is_repeat(settlement, stored) else CLAIM_LOST
        self._write(decided, number)
        return WRITTEN

    def spoil(self) -> None:
        self.found = evolve(self.found, content=UNREADABLE)

    def state(self, now: datetime) -> tuple[Any, ...]:
        content = self.found.content
        hold = content.hold if isinstance(content, Record) else None
        judged = protocol.assess(self.found, now, near=timedelta(0))
        to_do = judged.verdict is Verdict.DUE
        return self.found.read(), hold, to_do, self.history.executions


class Story:
    """One story told to both; small numbers, so that its parts meet each other."""

    def __init__(self) -> None:
        self.both = (OnRow(), OnProtocol())
        self.now, self.number = START, 0
        self.jobs: list[Job] = []
        """Jobs as they were read, oldest first: edits may be decided on an older one."""
        self.claims: list[Claim] = []
        self.settlements: list[Settlement] = []

    def ask(self, step: Callable[[Any], object]) -> Any:
        """Take one step on both; return what both answer."""
        answers: list[object] = []
        for each in self.both:
            try:
                answers.append(step(each))
            except SchedError as error:
                answers.append((type(error), str(error)))
        assert answers[0] == answers[1]
        ours, theirs = (each.state(self.now) for each in self.both)
        assert ours == theirs
        stored = self.both[0].row.read()
        if isinstance(stored, Job) and stored not in self.jobs:
            self.jobs.append(stored)
        return answers[0]

    def next(self) -> int:
        self.number += 1
        return self.number


DUES = (0, -5, 0, 0, 20, 50, None)
BACK = (0, 0, 0, 1, 2)
"""How far back: most often the newest."""
MOVES = (0, 1, 2)
"""How many occurrences an edit or a settlement moves a job on."""
ENDS = ("final", "final", "final", "retry", "retry", "silent", "alongside", "free", "uncounted")
EVER = (True, False)
OFTEN: dict[str, tuple[int, tuple[tuple[Any, ...], ...]]] = {
    "add": (2, (EVER, DUES)),
    "replace": (2, (BACK, MOVES, DUES, EVER)),
    "ask": (1, (BACK, DUES)),
    "mark": (1, (BACK,)),
    "pause": (1, (BACK, DUES)),
    "remove": (1, (BACK, EVER)),
    "claim": (6, (("v", "w"),)),
    "settle": (6, (BACK, EVER, ENDS, MOVES, DUES)),
    "renew": (1, (BACK, EVER)),
    "release": (1, (BACK,)),
    "lapse": (2, ()),
    "repeat": (1, (BACK,)),
    "pass": (3, ((30, 1, 29, 50, -60),)),
}
"""How often each step comes, and what it may be about."""
KINDS = [kind for kind, (times, _) in OFTEN.items() for _ in range(times)]


def step_of(chosen: random.Random, kind: str) -> tuple[Any, ...]:
    return (kind, *map(chosen.choice, OFTEN[kind][1]))


def execution(
    story: Story,
    uid: str,
    number: int,
    status: Status,
    claim: Claim | None = None,
    attempt: int = 0,
) -> Execution:
    return Execution(
        id=f"{uid}:{number}:{attempt}",
        job_id="job",
        uid=uid,
        number=number,
        attempt=attempt,
        kind=Kind.SCHEDULED,
        scheduled_at=START,
        status=status,
        final=status is not Status.FAILED,
        token=0 if claim is None else claim.token,
        worker="" if claim is None else claim.worker,
        claimed_at=story.now,
        started_at=None,
        finished_at=story.now,
    )


def standing(story: Story, number: int, due: int | None, **counts: Any) -> Standing:
    """Return a standing with an occurrence of the schedule; finished without a moment."""
    if due is None:
        return Standing(number, None, None)
    due_at = story.now + timedelta(seconds=due)
    return Standing(number, Pending(number, START, due_at, **counts), due_at)


def number_of(job: Job) -> int:
    """Return the number of the schedule's occurrence, or the newest one."""
    one = job.standing.scheduled
    return job.standing.last_number if one is None else one.number


def held_of(claim: Claim) -> Pending:
    """Return what a claim is for."""
    one = claim.job.standing.scheduled
    for other in claim.job.standing.requests:
        if one is None or other.due_at < one.due_at or claim.job.standing.pause:
            one = other
    return one or Pending(99, START, START)


def passed(story: Story, job: Job, until: int, status: Status) -> list[Execution]:
    """Return the ends of the occurrences that a job leaves behind, and a repeat of the last."""
    left = [execution(story, job.uid, n, status) for n in range(number_of(job), until)]
    return left + story.both[0].history.executions[-1:]


def pick(values: list[Any], back: int) -> Any:
    return values[-1 - back] if back < len(values) else None


def tell(story: Story, step: tuple[Any, ...]) -> None:
    kind, number = step[0], story.next()
    old = pick(story.jobs, step[1]) if kind in EDITS else None
    if kind == "add":
        newest = pick(story.jobs, 0)
        uid = newest.uid if step[1] and newest is not None else f"u{number}"
        if story.both[0].row.job is None:
            uid = f"u{number}"  # an incarnation is never added again
        spec = JobSpec("job", Interval(hours=1), policy=Policy(keep_executions=timedelta(days=3)))
        job = Job(spec, uid, False, START, standing(story, 1, step[2]))
        story.ask(lambda each: each.add(job, number))
    elif old is not None:
        edited = EDITS[kind](story, old, step)
        executions: list[Execution] = []
        if kind == "replace" and step[4]:
            executions = passed(story, old, number_of(edited), Status.SUPERSEDED)
        elif kind == "remove" and step[2]:
            executions = passed(story, old, number_of(old) + 1, Status.SUPERSEDED)
        if kind == "remove":
            story.ask(lambda each: each.remove(old, executions, number))
        else:
            story.ask(lambda each: each.replace(edited, executions, number))
    elif kind == "claim":
        claim = story.ask(lambda each: each.claim(step[1], story.now, number))
        if claim is not None:
            story.claims.append(claim)
    elif kind == "lapse":
        story.ask(lambda each: each.lapse(story.now, number))
    elif kind == "renew" and (held := pick(story.claims, step[1])) is not None:
        story.ask(lambda each: each.renew(Renewal(held, step[2]), story.now, number))
    elif kind == "release" and (held := pick(story.claims, step[1])) is not None:
        story.ask(lambda each: each.release(held, story.now, number))
    elif kind == "settle" and (held := pick(story.claims, step[1])) is not None:
        settlement = decided(story, held, *step[2:])
        story.settlements.append(settlement)
        story.ask(lambda each: each.settle(settlement, story.now, number))
    elif kind == "repeat" and (earlier := pick(story.settlements, step[1])) is not None:
        story.ask(lambda each: each.settle(earlier, story.now, number))
    elif kind == "pass":
        story.now += timedelta(seconds=step[1])
        story.ask(lambda each: None)
    elif kind == "spoil":
        for each in story.both:
            each.spoil()


def moved(story: Story, old: Job, step: tuple[Any, ...]) -> Job:
    _, _, move, due, _ = step
    after = number_of(old) + move
    spec = evolve(old.spec, policy=Policy(keep_executions=timedelta(days=after)))
    one = old.standing.scheduled
    counts = {} if move or one is None else {"attempts": one.attempts, "lost": one.lost}
    return evolve(old, spec=spec, standing=standing(story, after, due, **counts))


def asked(story: Story, old: Job, step: tuple[Any, ...]) -> Job:
    there, due = old.standing, story.now + timedelta(seconds=step[2] or 0)
    number = there.last_number + 1
    one = Pending(number, story.now, due, Kind.TRIGGERED, origin=number, args={"a": "b"})
    due_at = due if there.due_at is None else min(due, there.due_at)
    after = evolve(there, last_number=number, requests=(*there.requests, one), due_at=due_at)
    return evolve(old, standing=after)


def marked(story: Story, old: Job, step: tuple[Any, ...]) -> Job:
    """Return the job with a mark that cancels its run, whatever that is."""
    return evolve(old, standing=evolve(old.standing, cancels=(CancelMark(number_of(old)),)))


def paused(story: Story, old: Job, step: tuple[Any, ...]) -> Job:
    until = None if step[2] is None else story.now + timedelta(seconds=step[2])
    pause = Pause(story.now, old.standing.last_number, until, "for a while")
    return evolve(old, standing=evolve(old.standing, pause=pause, due_at=until))


EDITS: dict[str, Callable[[Story, Job, tuple[Any, ...]], Job]] = {
    "replace": moved,
    "ask": asked,
    "mark": marked,
    "pause": paused,
    "remove": lambda story, old, step: old,
}


def decided(
    story: Story, claim: Claim, fresh: bool, ends: str, move: int, due: int | None
) -> Settlement:
    """Return a settlement as a scheduler decides it, on what it claimed or on what is stored."""
    job, newest = claim.job, story.both[0].row.job
    known = newest if fresh and isinstance(newest, Job) else job
    one = held_of(claim)
    attempt = one.attempts + 1
    there = known.uid == job.uid and number_of(known) == one.number
    own = execution(story, job.uid, one.number, Status.SUCCEEDED, claim, attempt)
    if ends == "free" or (not there and ends in {"retry", "silent", "uncounted"}):
        return Settlement(claim, None, None, ())
    if ends == "alongside":
        return Settlement(claim, None, None, (own,))
    if ends == "retry":
        failed = [execution(story, job.uid, one.number, Status.FAILED, claim, attempt)]
        after = standing(story, one.number, due, attempts=attempt)
    elif ends == "uncounted":  # no decision of the core does it
        failed = [execution(story, job.uid, one.number, Status.FAILED, claim, attempt)]
        after = standing(story, one.number, due, attempts=one.attempts)
    elif ends == "silent":
        failed, after = [], standing(story, one.number, due, attempts=attempt)
    elif there:
        following = one.number + 1 + move
        missed = [
            execution(story, job.uid, n, Status.MISSED) for n in range(one.number + 1, following)
        ]
        failed, after = [own, *missed], standing(story, following, due)
    else:
        failed, after = [own], known.standing
    return Settlement(claim, known.revision, after, tuple(failed))


def test_rows_and_records_tell_the_same_story(deep: bool) -> None:
    """Uniformly random ones: hypothesis tells simple ones, in which little meets."""
    for seed in range(20_000 if deep else 600):
        chosen, story = random.Random(seed), Story()
        kinds = ["add", *chosen.choices(KINDS, k=25), "spoil", *chosen.choices(KINDS, k=2)]
        steps = [(kind,) if kind == "spoil" else step_of(chosen, kind) for kind in kinds]
        try:
            for step in steps:
                tell(story, step)
        except Exception as error:
            error.add_note(f"seed {seed}: {steps}")
            raise


@pytest.mark.parametrize("ends", ["uncounted", "final", "alongside"])
def test_an_attempt_that_a_standing_does_not_count_is_looked_up_when_it_comes_again(
    ends: str,
) -> None:
    """No decision of the core leaves it out; what is stored is never written twice all the same."""
    story = Story()
    again = ("settle", 0, True, ends, 0, 0)
    for step in (("add", False, 0), ("claim", "v"), ("settle", 0, True, "uncounted", 0, 0)):
        tell(story, step)
    for step in (("claim", "w"), again):
        tell(story, step)
    assert [each.id for each in story.both[1].history.executions] == ["u1:1:1"]


def test_a_number_beyond_the_newest_is_looked_up_when_it_comes_again() -> None:
    story = Story()
    tell(story, ("add", False, 0))
    early = execution(story, "u1", 7, Status.SUPERSEDED)
    for newest in (1, 1, 8):
        edited = evolve(story.jobs[-1], standing=standing(story, newest, 0))
        number = story.next()
        story.ask(methodcaller("replace", edited, [early], number))
    assert len(story.both[1].history.executions) == 1


@pytest.mark.parametrize(
    "edit", [("pause", 0, None), ("replace", 0, 0, None, False), ("remove", 0, False)]
)
def test_a_held_record_is_looked_at_when_its_lease_ends(edit: tuple[Any, ...]) -> None:
    """Whether or not its job is due by then, and not before."""
    story = Story()
    for step in (("add", False, 0), ("claim", "v"), edit):
        tell(story, step)
    found, near = story.both[1].found, timedelta(0)
    ends = START + LEASE
    for now, verdict in ((ends - timedelta(seconds=1), Verdict.HELD), (ends, Verdict.DUE)):
        judged = protocol.assess(found, now, near=near)
        assert (judged.verdict, judged.at) == (verdict, ends)
    tell(story, ("pass", 30))
    story.ask(methodcaller("lapse", story.now, story.next()))
    judged = protocol.assess(story.both[1].found, story.now, near=near)
    assert judged.verdict is Verdict.IDLE
