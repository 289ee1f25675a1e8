"""Group commit: what arrives while a batch is being written goes into the next one.

Each step is atomic by itself: all its messages are stored, or none. Many steps share one atomic
batch, because on one server's files a batch costs as much as a hundred. A conflict of one rejects
them all; it is found with one look at their records, dropped, and the rest is sent again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence

from attrs import define, field

from sched_core._support.logger import Logger
from sched_core.clock import backoff_pause, monotonic_seconds
from sched_core.errors import BackendError
from sched_jetstream._model.layout import EXPECTED, AtomicWrite, Message
from sched_jetstream._store.reader import NO_STREAM, Reader
from sched_jetstream._store.wire import ApiError, sequence_of
from sched_jetstream.errors import NotSent, OutcomeUnknown, PermissionDenied

logger = Logger("sched_jetstream")

STEPS = 100
"""In one batch: beyond, latency doubles for a third more throughput."""
MESSAGES = 1000
"""In one batch: the server takes no more."""
IN_FLIGHT = 3
"""Batches at a time: while one is stored, the next is written down and sent."""

WRONG_SEQUENCE = 10071
IN_FLIGHT_ELSEWHERE = 10164
"""A write to the same subject is on its way through the cluster: read again."""
TRANSIENT = frozenset(
    {IN_FLIGHT_ELSEWHERE, 10008, 10009, 10023, 10077, 10167, 10174, 10176, 10199, 10210}
)
"""Nothing was stored, and the same may succeed: no leader, no resources, a batch that lost a part
on the way, too many batches at once."""


class RevisionMismatch(Exception):
    """A record was not what the step expected. Nothing of the step was stored."""


@define(eq=False)
class _Submission:
    """Steps that are stored together or not at all, and who waits for it."""

    steps: Sequence[AtomicWrite]
    done: asyncio.Future[list[int]]
    size: int = field(init=False)
    subjects: frozenset[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.size = sum(len(step.messages) for step in self.steps)
        self.subjects = frozenset(
            message.subject for step in self.steps for message in step.messages
        )


class GroupCommitWriter:
    """Writes steps.

    Args:
        reader: To find out who was in conflict.
        budget: Seconds for which a write that was certainly not stored is tried again.
        batch_all: Put single messages into batches, too: where each write is synced to the disk.
    """

    def __init__(self, reader: Reader, *, budget: float, batch_all: bool = False) -> None:
        self._reader, self._wire = reader, reader.wire
        self._budget, self._batch_all = budget, batch_all
        self._waiting: deque[_Submission] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._singles: set[asyncio.Task[None]] = set()
        self._starting = False
        self.batches = 0

    async def write(self, *steps: AtomicWrite) -> list[int]:
        """Store all of the steps or none; return the sequences of their records.

        A caller that is cancelled leaves at once, and all or none are stored all the same. Raises
        as :meth:`submit`.
        """
        future = self.submit(*steps)
        await asyncio.wait([future])
        return future.result()

    def submit(self, *steps: AtomicWrite) -> asyncio.Future[list[int]]:
        """Hand steps over; the future has the sequences of their records.

        Raises:
            RevisionMismatch: One of the records has changed. Nothing was stored.
            OutcomeUnknown: It may have been stored. Read, and decide anew.
            NotSent: Nothing was stored, and the server was out of reach for too long.
            PermissionDenied: Nothing was stored, and the user may not write there.
            InvalidDefinition: It is too large.
        """
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        job = _Submission(steps, done)
        if job.size > MESSAGES:
            raise BackendError(f"{job.size} messages in one step, and the server takes {MESSAGES}")
        for step in steps:
            for message in step.messages:
                self._wire.check_size(message.body, message.headers)
        if job.size == 1 and not self._batch_all:
            # Nothing to make atomic, and a batch would cost the server a file.
            task = asyncio.create_task(self._commit([job]))
            self._singles.add(task)
            task.add_done_callback(self._singles.discard)
            return done
        self._waiting.append(job)
        if len(self._under_way) < IN_FLIGHT and not self._starting:
            self._starting = True
            asyncio.get_running_loop().call_soon(self._start)
        return done

    def _start(self) -> None:
        """Begin batches: a turn of the loop after the first step came, so that more may join it."""
        self._starting = False
        while self._waiting and len(self._under_way) < IN_FLIGHT:
            task = asyncio.create_task(self._commit(self._next()))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._start()

    def _next(self) -> list[_Submission]:
        """Take as many as go into one batch, no subject twice."""
        chosen: list[_Submission] = []
        steps = messages = 0
        subjects: set[str] = set()
        passed: list[_Submission] = []
        while self._waiting:
            job = self._waiting[0]
            full = steps + len(job.steps) > STEPS or messages + job.size > MESSAGES
            if chosen and full:
                break
            self._waiting.popleft()
            if not subjects.isdisjoint(job.subjects):
                passed.append(job)
                continue
            chosen.append(job)
            steps += len(job.steps)
            messages += job.size
            subjects |= job.subjects
        self._waiting.extendleft(reversed(passed))
        return chosen

    async def close(self) -> None:
        """Wait until everything that was handed over is decided."""
        while self._waiting or self._under_way or self._singles:
            self._start()
            await asyncio.wait(self._under_way | self._singles)

    def abandon(self) -> None:
        """Leave what is not decided yet: it is stored or not."""
        for job in self._waiting:
            _fail(job, OutcomeUnknown("the backend was closed meanwhile"))
        self._waiting.clear()
        for task in self._under_way | self._singles:
            task.cancel()

    # -- one batch

    async def _commit(self, jobs: list[_Submission]) -> None:
        try:
            await self._try(jobs)
        except BaseException as error:
            for job in jobs:
                _fail(job, error)
            if not isinstance(error, Exception):
                raise

    async def _try(self, jobs: list[_Submission]) -> None:
        until = monotonic_seconds() + self._budget
        failures = 0
        while jobs:
            messages = [message for job in jobs for step in job.steps for message in step.messages]
            try:
                self.batches += 1
                last = await self._send(messages)
            except ApiError as error:
                if error.err_code == WRONG_SEQUENCE:
                    jobs = await self._without_conflicts(jobs)
                    continue
                if error.err_code == IN_FLIGHT_ELSEWHERE and len(jobs) == 1 and failures >= 3:
                    raise RevisionMismatch(str(error)) from error
                if error.err_code not in TRANSIENT and error.code != 503:
                    if error.err_code == NO_STREAM:
                        await self._reader.stream_exists(self._reader.names.stream)
                    if len(jobs) == 1:
                        raise
                    await self._apart(jobs)
                    return
                denied = self._wire.denial(message.subject for message in messages)
                if denied is not None:
                    raise denied from error
                failures += 1
                if monotonic_seconds() > until:
                    raise NotSent(f"the server does not take writes: {error}") from error
                if error.err_code == IN_FLIGHT_ELSEWHERE and len(jobs) > 1 and failures >= 2:
                    await self._apart(jobs)
                    return
                await backoff_pause(failures)
            except PermissionDenied:
                raise
            except NotSent as error:
                failures += 1
                if monotonic_seconds() > until:
                    await self._reader.stream_exists(self._reader.names.stream)
                    raise NotSent(str(error)) from error
                await backoff_pause(failures)
            else:
                _succeed(jobs, last - len(messages) + 1)
                return

    async def _send(self, messages: Sequence[Message]) -> int:
        """Store messages atomically; return the sequence of the last."""
        if len(messages) == 1:
            return await self._wire.store(messages[0])
        batch = secrets.token_hex(12)
        final = len(messages)
        wire = self._wire
        for number, message in enumerate(messages, 1):
            headers = dict(message.headers)
            headers["Nats-Batch-Id"] = batch
            headers["Nats-Batch-Sequence"] = str(number)
            if number < final:
                await wire.send(message.subject, message.body, headers, checked=True)
        headers["Nats-Batch-Commit"] = "1"
        last = messages[-1]
        return sequence_of(last.subject, await wire.request(last.subject, last.body, headers))

    async def _apart(self, jobs: list[_Submission]) -> None:
        """Send halves, so that what is wrong with one does not stop the others."""
        middle = len(jobs) // 2
        await self._commit(jobs[:middle])
        await self._commit(jobs[middle:])

    async def _without_conflicts(self, jobs: list[_Submission]) -> list[_Submission]:
        """Tell those in conflict that they are; return the others."""
        if len(jobs) == 1:
            _fail(jobs[0], RevisionMismatch("a record has changed"))
            return []
        subjects = [step.messages[0].subject for job in jobs for step in job.steps]
        stored = await self._reader.sequences(subjects)
        rest = [job for job in jobs if not _in_conflict(job, stored)]
        if len(rest) < len(jobs):
            for job in jobs:
                if job not in rest:
                    _fail(job, RevisionMismatch("a record has changed"))
            return rest
        # It has changed once more, or what is in conflict is no record: find out by halves.
        await self._apart(jobs)
        return []


def _in_conflict(job: _Submission, stored: dict[str, int]) -> bool:
    return any(
        int(step.messages[0].headers[EXPECTED]) != stored.get(step.messages[0].subject, 0)
        for step in job.steps
    )


def _succeed(jobs: Sequence[_Submission], first: int) -> None:
    for job in jobs:
        sequences = []
        for step in job.steps:
            sequences.append(first)
            first += len(step.messages)
        if not job.done.done():
            job.done.set_result(sequences)


def _fail(job: _Submission, error: BaseException) -> None:
    if not job.done.done():
        job.done.set_exception(error)
        job.done.exception()  # whoever waited may be gone: nothing to warn about
