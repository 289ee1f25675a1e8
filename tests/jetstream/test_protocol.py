"""The same steps on ``sched_core.row.Row`` and on JetStream's protocol, without a server.

Both say what a call of the port does to what is stored under one id: one as a row that a backend
saves, the other as a message that replaces another one. Whatever the story, both answer alike, and
the same job, hold and history are there after each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from sched_core import (
    Claim,
    Execution,
    Interval,
    Job,
    JobSpec,
    Policy,
    SchedError,
    Settled,
    Settlement,
    Standing,
    State,
    Status,
    Undecodable,
    UndecodableExecution,
)
from sched_core.row import CLAIM_LOST, WRITTEN, Row, is_written
from sched_jetstream import protocol
from sched_jetstream.protocol import Found, Taken, Verdict, Write
from sched_jetstream.record import Hold, Record, with_revision

START = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=30)
UNREADABLE = Undecodable("job", "format 99", 99, b"{}", "lunar")


class Lines:
    """A history."""

    def __init__(self) -> None:
        self.lines: list[Execution] = []

    def line(self, line_id: str) -> Execution | UndecodableExecution | None:
        return next((line for line in self.lines if line.id == line_id), None)

    def has_final(self, uid: str, number: int) -> bool:
        return any((line.uid, line.number) == (uid, number) for line in self.lines if line.final)

    def append(self, line: Execution) -> None:
        self.lines.append(line)


class OnRow:
    """A backend of one row."""

    def __init__(self) -> None:
        self.row, self.history = Row(), Lines()

    def add(self, job: Job, number: int) -> Job:
        return self.row.add(job, number)

    def replace(self, job: Job, lines: Sequence[Execution], number: int) -> Job:
        return self.row.replace(job, lines, number, self.history)

    def remove(self, lines: Sequence[Execution], expected: int | None, number: int) -> bool:
        return self.row.remove("job", lines, expected, self.history)

    def claim(self, worker: str, now: datetime, token: int) -> Claim | None:
        return self.row.claim(token, worker, now, now + LEASE, self.history)

    def renew(self, claim: Claim, now: datetime, number: int) -> bool:
        return self.row.renew(claim, now + LEASE) is not None

    def release(self, claim: Claim, now: datetime, number: int) -> bool:
        return self.row.release(claim, now, self.history)

    def settle(self, settlement: Settlement, number: int) -> Settled:
        return self.row.settle(settlement, number, self.history)

    def spoil(self) -> None:
        self.row = Row(UNREADABLE)

    def state(self, now: datetime) -> tuple[Any, ...]:
        if self.row.is_empty():
            self.row = Row()
        hold = self.row.hold
        held = None if hold is None else (hold.token, hold.worker, hold.expires_at, hold.lost)
        return self.row.job, held, self.row.is_due(now), self.history.lines


class OnProtocol:
    """A backend of one message."""

    def __init__(self) -> None:
        self.found, self.history = Found("token", 0, None), Lines()

    def _write(self, write: Write, number: int) -> None:
        lines = write.lines
        if write.unsure:
            lines = [line for line in lines if not self._stored(line) and not self._taken(line)]
        self.history.lines += lines
        record = None if write.record is None else with_revision(write.record, number)
        self.found = Found("token", number, record)

    def _stored(self, line: Execution) -> bool:
        return self.history.line(line.id) is not None

    def _taken(self, line: Execution) -> bool:
        return line.final and self.history.has_final(line.uid, line.number)

    def add(self, job: Job, number: int) -> Job:
        decided = protocol.add(self.found, job)
        if isinstance(decided, Job):
            return decided
        self._write(decided, number)
        return evolve(job, revision=number)

    def replace(self, job: Job, lines: Sequence[Execution], number: int) -> Job:
        self._write(protocol.replace(self.found, job, lines), number)
        return evolve(job, revision=number)

    def remove(self, lines: Sequence[Execution], expected: int | None, number: int) -> bool:
        write = protocol.remove(self.found, "job", lines, expected)
        if write is not None:
            self._write(write, number)
        return write is not None

    def claim(self, worker: str, now: datetime, token: int) -> Claim | None:
        # The token is what the message is replaced at: here it is chosen, to be the same on both.
        found = evolve(self.found, sequence=token)
        taken: Taken | None = protocol.claim(found, now, worker=worker, lease=LEASE)
        if taken is None:
            return None
        self._write(taken.write, token)
        return taken.claim

    def renew(self, claim: Claim, now: datetime, number: int) -> bool:
        write = protocol.renew(self.found, claim, now + LEASE)
        if write is not None:
            self._write(write, number)
        return write is not None

    def release(self, claim: Claim, now: datetime, number: int) -> bool:
        write = protocol.release(self.found, claim, now)
        if write is not None:
            self._write(write, number)
        return write is not None

    def settle(self, settlement: Settlement, number: int) -> Settled:
        decided = protocol.settle(self.found, settlement)
        if isinstance(decided, Settled):
            return decided
        if not isinstance(decided, Write):
            return WRITTEN if is_written(settlement, self.history.line) else CLAIM_LOST
        if decided.unsure:
            new = [line for line in decided.lines if not self._stored(line)]
            if any(self._taken(line) for line in new):
                content = self.found.content
                return Settled("conflict", content.job if isinstance(content, Record) else None)
        self._write(decided, number)
        return WRITTEN

    def spoil(self) -> None:
        self.found = evolve(self.found, content=UNREADABLE)

    def state(self, now: datetime) -> tuple[Any, ...]:
        content = self.found.content
        if not isinstance(content, Record):
            return content, None, False, self.history.lines
        hold: Hold | None = content.hold
        held = None if hold is None else (hold.token, hold.worker, hold.until, hold.lost)
        judged = protocol.judge(self.found, now, near=timedelta(0))
        return content.job, held, judged.verdict is Verdict.DUE, self.history.lines


class Story:
    """One story told to both; small numbers, so that its parts meet each other."""

    def __init__(self) -> None:
        self.both = (OnRow(), OnProtocol())
        self.now, self.number = START, 0
        self.jobs: list[Job] = []
        """As they were stored, oldest first: edits may be decided on an older one."""
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
        return answers[0]

    def next(self) -> int:
        self.number += 1
        return self.number


DUES = st.sampled_from([0, -5, 0, 20, 50, None])
PICK = st.sampled_from([0, 0, 0, 1, 2])
"""How far back: most often the newest."""
MOVES = st.integers(0, 2)
"""By how many occurrences an edit or a settlement moves a job on."""
ENDS = st.sampled_from(["final", "final", "retry", "silent", "beside", "free"])
ADD = st.tuples(st.just("add"), st.booleans(), DUES)
CLAIM = st.tuples(st.just("claim"), st.sampled_from(["v", "w"]))
SETTLE = st.tuples(st.just("settle"), PICK, st.booleans(), ENDS, MOVES, DUES)
STEPS = st.one_of(
    ADD,
    st.tuples(st.just("replace"), PICK, MOVES, DUES, st.booleans()),
    st.tuples(st.just("remove"), st.none() | PICK, st.booleans()),
    *[CLAIM] * 4,
    *[SETTLE] * 3,
    st.tuples(st.just("renew"), PICK),
    st.tuples(st.just("release"), PICK),
    st.tuples(st.just("repeat"), PICK),
    st.tuples(st.just("pass"), st.sampled_from([30, 1, 29, 50, -60])),
)


def line(
    story: Story, uid: str, number: int, status: Status, claim: Claim | None = None
) -> Execution:
    attempt = 0 if claim is None else claim.attempt
    return Execution(
        id=f"{uid}:{number}:{attempt}",
        job_id="job",
        uid=uid,
        number=number,
        scheduled_at=START,
        manual=False,
        attempt=attempt,
        status=status,
        final=status is not Status.FAILED,
        token=0 if claim is None else claim.token,
        worker="" if claim is None else claim.worker,
        claimed_at=story.now,
        started_at=None,
        finished_at=story.now,
    )


def standing(story: Story, number: int, due: int | None, attempts: int = 0) -> Standing:
    due_at = None if due is None else story.now + timedelta(seconds=due)
    return Standing(State.ACTIVE, number, due_at, due_at, attempts=attempts)


def passed(story: Story, job: Job, until: int, status: Status) -> list[Execution]:
    """Return final lines of the occurrences that a job leaves behind, and a repeat of the last."""
    lines = [line(story, job.uid, n, status) for n in range(job.standing.number, until)]
    return lines + story.both[0].history.lines[-1:]


def pick(values: list[Any], back: int) -> Any:
    return values[-1 - back] if back < len(values) else None


def tell(story: Story, step: tuple[Any, ...]) -> None:
    kind, number = step[0], story.next()
    if kind == "add":
        newest = pick(story.jobs, 0)
        uid = newest.uid if step[1] and newest is not None else f"u{number}"
        if story.both[0].row.job is None:
            uid = f"u{number}"  # an incarnation is never added again
        spec = JobSpec("job", Interval(hours=1), policy=Policy(keep_executions=timedelta(days=3)))
        job = Job(spec, uid, False, START, standing(story, 1, step[2]))
        remember(story, story.ask(lambda each: each.add(job, number)))
    elif kind == "replace" and (old := pick(story.jobs, step[1])) is not None:
        _, _, move, due, written = step
        after = old.standing.number + move
        spec = evolve(old.spec, policy=Policy(keep_executions=timedelta(days=after)))
        attempts = 0 if move else old.standing.attempts
        new = evolve(old, spec=spec, standing=standing(story, after, due, attempts))
        lines = passed(story, old, after, Status.SUPERSEDED) if written else []
        remember(story, story.ask(lambda each: each.replace(new, lines, number)))
    elif kind == "remove":
        old = None if step[1] is None else pick(story.jobs, step[1])
        expected = None if old is None else old.revision
        lines = []
        if old is not None and step[2]:
            lines = passed(story, old, old.standing.number + 1, Status.SUPERSEDED)
        story.ask(lambda each: each.remove(lines, expected, number))
    elif kind == "claim":
        claim = story.ask(lambda each: each.claim(step[1], story.now, number))
        if claim is not None:
            story.claims.append(claim)
    elif kind in {"renew", "release"} and (held := pick(story.claims, step[1])) is not None:
        story.ask(lambda each: getattr(each, kind)(held, story.now, number))
    elif kind == "settle" and (held := pick(story.claims, step[1])) is not None:
        settlement = decided(story, held, *step[2:])
        story.settlements.append(settlement)
        settle(story, settlement, number)
    elif kind == "repeat" and (earlier := pick(story.settlements, step[1])) is not None:
        settle(story, earlier, number)
    elif kind == "pass":
        story.now += timedelta(seconds=step[1])
        story.ask(lambda each: None)
    elif kind == "spoil":
        for each in story.both:
            each.spoil()


def decided(
    story: Story, claim: Claim, fresh: bool, ends: str, move: int, due: int | None
) -> Settlement:
    """Return a settlement as a scheduler decides it, on what it claimed or on what is stored."""
    job, newest = claim.job, story.both[0].row.job
    known = newest if fresh and isinstance(newest, Job) else job
    there = (known.uid, known.standing.number) == (job.uid, job.standing.number)
    held, attempt = job.standing.number, claim.attempt
    own = line(story, job.uid, held, Status.SUCCEEDED, claim)
    if ends == "free" and claim.lost is not None:
        ends = "silent"  # or attempts that were lost would lose their numbers
    if ends == "free" or (not there and ends in {"retry", "silent"}):
        return Settlement(claim, None, None, ())
    if ends == "beside":
        return Settlement(claim, None, None, (own,))
    if ends == "retry":
        lines = [line(story, job.uid, held, Status.FAILED, claim)]
        after = standing(story, held, due, attempt)
    elif ends == "silent":
        lines, after = [], standing(story, held, due, attempt)
    elif there:
        following = held + 1 + move
        missed = [line(story, job.uid, n, Status.MISSED) for n in range(held + 1, following)]
        lines, after = [own, *missed], standing(story, following, due)
    else:
        lines, after = [own], known.standing
    return Settlement(claim, known.revision, after, tuple(lines))


def remember(story: Story, answer: object) -> None:
    if isinstance(answer, Job):
        story.jobs.append(answer)


def settle(story: Story, settlement: Settlement, number: int) -> None:
    story.ask(lambda each: each.settle(settlement, number))
    stored = story.both[0].row.job
    if isinstance(stored, Job) and stored not in story.jobs:
        story.jobs.append(stored)


@settings(max_examples=300, deadline=None)
@given(ADD, st.lists(STEPS, min_size=10, max_size=25), st.lists(STEPS, max_size=2))
def test_rows_and_records_tell_the_same_story(
    begins: tuple[Any, ...], steps: list[tuple[Any, ...]], spoilt: list[tuple[Any, ...]]
) -> None:
    story = Story()
    for step in (begins, *steps, ("spoil",), *spoilt):
        tell(story, step)
