"""Group commit: what arrives while a batch is being written goes into the next one.

Each write is atomic on its own: all its messages are stored, or none. Many writes share one atomic
batch, because on one server's files a batch costs as much as a hundred. A conflict of one rejects
them all; one read of their records finds it, and the rest is sent again.
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

MOST_WRITES = 100
"""Writes in one batch: beyond, latency doubles for a third more throughput."""
MOST_MESSAGES = 1000
"""Messages in one batch: the server takes no more."""
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
    """A record was not what the write expected. Nothing of the write was stored."""


@define(eq=False)
class _Submission:
    """Writes that are stored together or not at all, and the future that says so."""

    writes: Sequence[AtomicWrite]
    done: asyncio.Future[list[int]]
    size: int = field(init=False)
    subjects: frozenset[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.size = sum(len(write.messages) for write in self.writes)
        self.subjects = frozenset(
            message.subject for write in self.writes for message in write.messages
        )


class GroupCommitWriter:
    """Stores writes, many in one batch.

    Args:
        reader: The reader that finds out which write was in conflict.
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

    async def write(self, *writes: AtomicWrite) -> list[int]:
        """Store all of the writes or none; return the sequences of their records.

        A caller that is cancelled leaves at once, and all or none are stored all the same. Raises
        as :meth:`submit`.
        """
        future = self.submit(*writes)
        await asyncio.wait([future])
        return future.result()

    def submit(self, *writes: AtomicWrite) -> asyncio.Future[list[int]]:
        """Hand writes over; the future has the sequences of their records.

        Raises:
            RevisionMismatch: One of the records has changed. Nothing was stored.
            OutcomeUnknown: It may have been stored. Read, and decide again.
            NotSent: Nothing was stored, and the server was out of reach for too long.
            PermissionDenied: Nothing was stored, and the user may not write there.
            InvalidDefinition: It is too large.
        """
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        submission = _Submission(writes, done)
        if submission.size > MOST_MESSAGES:
            raise BackendError(
                f"{submission.size} messages in one write, and the server takes {MOST_MESSAGES}"
            )
        for write in writes:
            for message in write.messages:
                self._wire.check_size(message.body, message.headers)
        if submission.size == 1 and not self._batch_all:
            # Nothing to make atomic, and a batch would cost the server a file.
            task = asyncio.create_task(self._commit([submission]))
            self._singles.add(task)
            task.add_done_callback(self._singles.discard)
            return done
        self._waiting.append(submission)
        if len(self._under_way) < IN_FLIGHT and not self._starting:
            self._starting = True
            asyncio.get_running_loop().call_soon(self._start)
        return done

    def _start(self) -> None:
        """Begin batches: a turn of the loop after the first write, so that more may join it."""
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
        writes = messages = 0
        subjects: set[str] = set()
        passed: list[_Submission] = []
        while self._waiting:
            submission = self._waiting[0]
            full = (
                writes + len(submission.writes) > MOST_WRITES
                or messages + submission.size > MOST_MESSAGES
            )
            if chosen and full:
                break
            self._waiting.popleft()
            if not subjects.isdisjoint(submission.subjects):
                passed.append(submission)
                continue
            chosen.append(submission)
            writes += len(submission.writes)
            messages += submission.size
            subjects |= submission.subjects
        self._waiting.extendleft(reversed(passed))
        return chosen

    async def close(self) -> None:
        """Wait until everything that was handed over is decided."""
        while self._waiting or self._under_way or self._singles:
            self._start()
            await asyncio.wait(self._under_way | self._singles)

    def abandon(self) -> None:
        """Leave what is not decided yet: it is stored or not."""
        for submission in self._waiting:
            _fail(submission, OutcomeUnknown("the backend was closed meanwhile"))
        self._waiting.clear()
        for task in self._under_way | self._singles:
            task.cancel()

    # -- one batch

    async def _commit(self, submissions: list[_Submission]) -> None:
        try:
            await self._try(submissions)
        except BaseException as error:
            for submission in submissions:
                _fail(submission, error)
            if not isinstance(error, Exception):
                raise

    async def _try(self, submissions: list[_Submission]) -> None:
        until = monotonic_seconds() + self._budget
        failures = 0
        while submissions:
            messages = [
                message
                for submission in submissions
                for write in submission.writes
                for message in write.messages
            ]
            try:
                self.batches += 1
                last = await self._send(messages)
            except ApiError as error:
                if error.err_code == WRONG_SEQUENCE:
                    submissions = await self._without_conflicts(submissions)
                    continue
                if (
                    error.err_code == IN_FLIGHT_ELSEWHERE
                    and len(submissions) == 1
                    and failures >= 3
                ):
                    raise RevisionMismatch(str(error)) from error
                if error.err_code not in TRANSIENT and error.code != 503:
                    if error.err_code == NO_STREAM:
                        await self._reader.stream_exists(self._reader.names.stream)
                    if len(submissions) == 1:
                        raise
                    await self._apart(submissions)
                    return
                denied = self._wire.denial(message.subject for message in messages)
                if denied is not None:
                    raise denied from error
                failures += 1
                if monotonic_seconds() > until:
                    raise NotSent(f"the server does not take writes: {error}") from error
                if error.err_code == IN_FLIGHT_ELSEWHERE and len(submissions) > 1 and failures >= 2:
                    await self._apart(submissions)
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
                _succeed(submissions, last - len(messages) + 1)
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

    async def _apart(self, submissions: list[_Submission]) -> None:
        """Send halves, so that what is wrong with one does not stop the others."""
        middle = len(submissions) // 2
        await self._commit(submissions[:middle])
        await self._commit(submissions[middle:])

    async def _without_conflicts(self, submissions: list[_Submission]) -> list[_Submission]:
        """Fail those in conflict; return the others."""
        if len(submissions) == 1:
            _fail(submissions[0], RevisionMismatch("a record has changed"))
            return []
        subjects = [
            write.messages[0].subject for submission in submissions for write in submission.writes
        ]
        stored = await self._reader.sequences(subjects)
        rest = [submission for submission in submissions if not _in_conflict(submission, stored)]
        if len(rest) < len(submissions):
            for submission in submissions:
                if submission not in rest:
                    _fail(submission, RevisionMismatch("a record has changed"))
            return rest
        # It has changed once more, or what is in conflict is no record: find out by halves.
        await self._apart(submissions)
        return []


def _in_conflict(submission: _Submission, stored: dict[str, int]) -> bool:
    return any(
        int(write.messages[0].headers[EXPECTED]) != stored.get(write.messages[0].subject, 0)
        for write in submission.writes
    )


def _succeed(submissions: Sequence[_Submission], first: int) -> None:
    for submission in submissions:
        sequences = []
        for write in submission.writes:
            sequences.append(first)
            first += len(write.messages)
        if not submission.done.done():
            submission.done.set_result(sequences)


def _fail(submission: _Submission, error: BaseException) -> None:
    if not submission.done.done():
        submission.done.set_exception(error)
        submission.done.exception()  # the caller may be gone: nothing to warn about
