"""Hints say that a job may be due. This worker takes them from the server and keeps them.

One durable consumer is shared by all replicas. A replica asks it for as many hints as it could run
jobs, and reads the records that they point at as soon as they come, a little ahead of their moment.
What is then due, or will be in a moment, waits here; the claim is a compare-and-set of what was
read, so that whatever happened to the job meanwhile is noticed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from nats.aio.msg import Msg

from sched_core._support.logger import Logger
from sched_core.clock import Alarm, monotonic_seconds, pause
from sched_core.errors import BackendError, BackendUnavailable
from sched_jetstream._model.protocol import StoredRecord, Verdict, assess
from sched_jetstream._model.record import Record
from sched_jetstream._runtime.acknowledgements import Acknowledgements
from sched_jetstream._runtime.due_queue import DueQueue, Hint
from sched_jetstream._runtime.live_claims import LiveClaims
from sched_jetstream._store.connection import Channel, status_of
from sched_jetstream._store.provision import make_consumer
from sched_jetstream._store.reader import Reader
from sched_jetstream._store.wire import NoResponders, answered
from sched_jetstream.errors import OutcomeUnknown, StreamLost
from sched_jetstream.options import Options

logger = Logger("sched_jetstream")

NEAR = timedelta(seconds=3)
"""Hints of what is due later are dropped: there is a schedule for it."""
MOST = 1000
"""Hints at a time."""
WAIT = 3.0
"""Seconds for which the server holds an unanswered request for hints."""
IDLE = 0.25
"""Seconds after which due hints that no call claims here go to another worker."""
SHORTEST_NAK = timedelta(milliseconds=50)


class Hints:
    """The hints of one replica.

    Args:
        reader: The reader of records.
        options: The options of the backend.
        now: Tells the time that decides.
        alarm: Nudged when something has become due.
        live: The claims in flight: a hint about a job that this worker holds belongs to its claim.
        acks: Acknowledges the messages of hints.
    """

    def __init__(
        self,
        reader: Reader,
        options: Options,
        *,
        now: Callable[[], datetime],
        alarm: Alarm,
        live: LiveClaims,
        acks: Acknowledgements,
    ) -> None:
        self._reader, self._wire, self._names = reader, reader.wire, reader.names
        self._options, self._now, self._alarm = options, now, alarm
        self._live, self._acks = live, acks
        self._due, self._ending = DueQueue(), DueQueue()
        """What can be claimed, and what is held by a claim that is to be ended."""
        self._demands: list[int] = []
        self._demand = 0
        self._polling = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._asking = False
        self._long_poll: Channel | None = None
        self._short_poll: Channel | None = None
        self._give_back_timer: asyncio.TimerHandle | None = None
        self._looked_at = monotonic_seconds()
        self.failure: BackendError | None = None
        """Why nothing can come any more."""

    # -- what is there

    def __len__(self) -> int:
        return len(self._due.hints) + len(self._ending.hints)

    def earliest(self) -> datetime | None:
        """Return when there is the first thing to do."""
        due, ending = self._due.earliest(), self._ending.earliest()
        return ending if due is None or (ending is not None and ending < due) else due

    def take(self, now: datetime, most: int) -> list[Hint]:
        """Remove and return what can be claimed, oldest first."""
        return self._due.take(now, most)

    def take_ended(self, now: datetime) -> list[Hint]:
        """Remove and return what is held by claims that are to be ended, oldest first."""
        return self._ending.take(now, MOST) if self._ending.hints else []

    def put(self, hint: Hint) -> None:
        """Keep a hint, in the place of an older one about the same job."""
        place, other = self._due, self._ending
        if hint.is_held:
            place, other = other, place
        old = place.hints.get(hint.token) or other.hints.pop(hint.token, None)
        if old is not None and old.reply and not hint.reply:
            hint.reply = old.reply
        place.put(hint)

    def replace(self, hints: Sequence[Hint]) -> None:
        """Keep these: they are all that there are."""
        left = {hint.token for hint in hints}
        for upcoming in (self._due, self._ending):
            for hint in [each for each in upcoming.hints.values() if each.token not in left]:
                del upcoming.hints[hint.token]
                self._acks.done(hint.reply)
        for hint in hints:
            self.put(hint)

    # -- demand

    @contextmanager
    def wanted(self, demand: int) -> Iterator[None]:
        """Ask the server for hints while the caller waits.

        Args:
            demand: How many jobs the caller could run; several callers may wait.
        """
        self._demands.append(demand)
        self._demand = min(sum(self._demands), MOST)
        try:
            yield
        finally:
            self._demands.remove(demand)
            self._demand = min(sum(self._demands), MOST)
            self.look()
            if not self._demand and len(self) and self._give_back_timer is None:
                loop = asyncio.get_running_loop()
                self._give_back_timer = loop.call_later(IDLE, self._give_surplus_back)

    def look(self) -> None:
        """Note that a call looks at what is here, and whether more is wanted."""
        self._looked_at = monotonic_seconds()
        self._update_demand()

    def _update_demand(self) -> None:
        if self._demand > len(self):
            self._wanted.set()
        else:
            self._wanted.clear()

    def _give_surplus_back(self) -> None:
        """Hand what is due and not claimed here to workers that have the time."""
        self._give_back_timer = None
        idle = monotonic_seconds() - self._looked_at
        if idle >= IDLE and not self._demand:
            now = self._now()
            for hint in (*self.take_ended(now), *self.take(now, MOST)):
                self._acks.postpone(hint.reply, timedelta(0))
        if len(self):
            self._give_back_timer = asyncio.get_running_loop().call_later(
                IDLE, self._give_surplus_back
            )

    def give_all_back(self) -> None:
        """Hand everything to the other replicas."""
        for hint in (*self._ending.clear(), *self._due.clear()):
            self._acks.postpone(hint.reply, timedelta(0))
        if self._give_back_timer is not None:
            self._give_back_timer.cancel()
            self._give_back_timer = None

    # -- asking

    async def run(self) -> None:
        """Ask for hints while they are wanted, until the stream is lost.

        After a failure no call waits for hints: one hint is asked for, to see whether the
        failure is over.
        """
        failures = 0
        while not isinstance(self.failure, StreamLost):
            try:
                if self.failure is None:
                    await self._wanted.wait()
                most = self._demand - len(self)
                if most > 0:
                    await self.pull(most, wait=WAIT)
                elif self.failure is not None:
                    await self.pull(1)
                else:
                    self._wanted.clear()
                failures = 0
                if not isinstance(self.failure, StreamLost):  # another task may have seen that
                    self.failure = None
            except NoResponders:
                failures = await self._failed(failures, await self._restore())
            except BackendUnavailable as error:
                failures = await self._failed(failures, error)
            except BackendError as error:
                self.fail(error)
                await pause(1.0)

    def fail(self, error: BackendError) -> None:
        """Tell the calls that wait for hints why none can come."""
        self.failure = error
        self._alarm.nudge()

    async def _failed(self, failures: int, error: BackendError | None) -> int:
        if error is not None and not isinstance(error, BackendUnavailable):
            self.fail(error)
            await pause(1.0)
        elif error is not None:
            await pause(min(0.05 * 2**failures, 1.0))
        return failures + 1

    async def _restore(self) -> BackendError | None:
        """Make the consumer again if it was deleted: that it replays every hint is harmless."""
        try:
            await self._reader.stream_exists(self._names.stream)
            await make_consumer(self._wire, self._names, self._options)
        except BackendError as error:
            return error
        logger.info("the consumer %s was not there; it has been made again", self._names.consumer())
        return None

    async def pull_available(self, most: int) -> None:
        """Ask for what is there already, unless a request waits: then hints come to that one."""
        await self._wire.ready()
        async with self._polling:  # each request has the channel for itself
            if self._asking or most <= 0:
                return
            try:
                await self.pull(min(most, MOST))
            except NoResponders:
                error = await self._restore()
                if error is not None:
                    raise error from None

    async def pull(self, most: int, *, wait: float = 0.0) -> None:
        """Ask the consumer for hints, and judge what comes."""
        wire = self._wire
        await wire.ready()
        channel = self._long_poll if wait else self._short_poll
        if channel is None:
            channel = await wire.channel()
            if wait:
                self._long_poll = channel
            else:
                self._short_poll = channel
        arrived: list[Msg] = []
        ended: asyncio.Future[Msg | None] = asyncio.get_running_loop().create_future()

        def message(msg: Msg) -> None:
            arrived.append(msg)
            if len(arrived) == most and not ended.done():
                ended.set_result(None)  # all that was asked for: nothing more is said

        def status(msg: Msg) -> None:
            if not ended.done():
                ended.set_result(msg)

        channel.on_message, channel.on_status = message, status
        body: dict[str, object] = {"batch": most, "no_wait": True}
        if wait:
            body["expires"] = int(wait * 1e9)
        subject = f"{wire.api}.CONSUMER.MSG.NEXT.{self._names.stream}.{self._names.consumer()}"
        self._asking = self._asking or wait > 0
        try:
            with wire.awaiting(subject, ended):
                await wire.send(subject, json.dumps(body).encode(), None, channel.begin())
                done = await answered(ended, wait + wire.timeout)
            if done and ended.exception() is None:
                wire.passed(subject)
            channel.on_message = self._hand_on
            if arrived:
                await self._judge_all(arrived)
        except BaseException:
            for msg in arrived:  # unread: another worker gets them soon
                self._acks.postpone(msg.reply, SHORTEST_NAK)
            raise
        finally:
            if wait:
                self._asking = False
            channel.on_message, channel.on_status = self._hand_on, _ignore
        if not done:
            raise OutcomeUnknown(f"{subject}: no answer")
        last = ended.result()
        if last is not None and status_of(last) in {"503", "409"}:
            raise NoResponders(f"{subject}: {last.headers}")

    def _hand_on(self, msg: Msg) -> None:
        """Hand a message of a request that was given up to another worker."""
        self._acks.postpone(msg.reply, timedelta(0))

    # -- judging

    async def _judge_all(self, arrived: list[Msg]) -> None:
        """Read the records that messages point at, and act on what *they* say."""
        token_of = self._names.fire_token
        found = await self._reader.read_any([token_of(msg.subject) for msg in arrived])
        useless = [
            msg for msg in arrived if not self.judge(found[token_of(msg.subject)], msg.reply)
        ]
        arrived[:] = useless  # what is left there is handed back if this fails
        self._alarm.nudge()
        if useless and self._reader.may_lag:
            # Perhaps a replica answered that lags behind: the leader knows.
            known = await self._reader.read_current([token_of(msg.subject) for msg in useless])
            useless = [
                msg for msg in useless if not self.judge(known[token_of(msg.subject)], msg.reply)
            ]
            self._alarm.nudge()
        for msg in useless:
            self._acks.done(msg.reply)
        arrived.clear()

    def judge(self, found: StoredRecord, reply: str) -> bool:
        """Keep, postpone or adopt a hint; return whether it is worth something."""
        now = self._now()
        judged = assess(found, now, near=NEAR)
        if judged.verdict is Verdict.DUE and judged.at is not None:
            self.put(Hint(found.token, judged.at, found, reply))
            return True
        if judged.verdict is Verdict.HELD and judged.at is not None:
            hold = found.content.hold if isinstance(found.content, Record) else None
            if self._live.is_unconfirmed(found.token, hold):
                self.put(Hint(found.token, now, found, reply))  # free for this worker at once
            elif self._live.adopt(found, reply):
                self._acks.working(reply)
            else:
                self._acks.postpone(reply, max(judged.at - now, SHORTEST_NAK))
            return True
        return False

    def judge_or_drop(self, found: StoredRecord, reply: str) -> None:
        """Keep, postpone or adopt a hint, or acknowledge it where it is worth nothing."""
        if not self.judge(found, reply):
            self._acks.done(reply)

    async def close(self) -> None:
        """Hand everything to the other replicas, what is still on its way included."""
        for channel in (self._long_poll, self._short_poll):
            if channel is not None:
                await channel.drain(self._wire.timeout)
        self.give_all_back()
        await self._acks.close()


def _ignore(_: Msg) -> None:
    return
