"""Hints say that a job may be due. This worker takes them from the server and keeps them.

Durable consumers are shared by all replicas: one for each queue that some worker names, and one of
all hints, for workers that serve queues without naming them. A replica asks those of its room for
as many hints as it could run jobs, and reads the records that they point at as soon as they come, a
little ahead of their moment. What is then due, or will be in a moment, waits here; the claim is a
compare-and-set of what was read, so that whatever happened to the job meanwhile is noticed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from nats.aio.msg import Msg

from sched_core import Room
from sched_core.clock import Alarm, monotonic_seconds
from sched_core.errors import BackendError
from sched_core.row import Filling
from sched_jetstream._model.protocol import StoredRecord, Verdict, assess
from sched_jetstream._model.record import Record
from sched_jetstream._model.subjects import id_of
from sched_jetstream._runtime.acknowledgements import Acknowledgements
from sched_jetstream._runtime.background import Work
from sched_jetstream._runtime.due_queue import (
    REST,
    DueByQueue,
    DueQueue,
    Hint,
    accepts,
    lacking,
    lanes,
)
from sched_jetstream._runtime.live_claims import LiveClaims
from sched_jetstream._runtime.offers import Offers
from sched_jetstream._runtime.sources import MOST, SHORTEST_NAK, Source
from sched_jetstream._store.reader import Reader
from sched_jetstream.errors import StreamLost
from sched_jetstream.options import Options

NEAR = timedelta(seconds=3)
"""Hints of what is due later are dropped: there is a schedule for it."""
AHEAD = 900
"""Hints that a waiting replica may have of a queue beyond what it can run at once: they come ahead
of their moment, and quick handlers are done with many before the last of them is due."""
IDLE = 0.25
"""Seconds after which due hints that no call claims here go to another worker."""


class Hints:
    """The hints of one replica.

    Args:
        reader: The reader of records.
        options: The options of the backend.
        now: Tells the time that decides.
        alarm: Nudged when something has become due.
        live: The claims in flight: a hint about a job that this worker holds belongs to its claim.
        acks: Acknowledges the messages of hints.
        supervise: Runs what asks the server, until the backend closes.
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
        supervise: Callable[[Work], None],
    ) -> None:
        self._reader, self._names, self._options = reader, reader.names, options
        self._now, self._alarm = now, alarm
        self._live, self._acks, self._supervise = live, acks, supervise
        self._due, self._ending = DueByQueue(), DueQueue()
        """What can be claimed, and what is held by a claim that is to be ended."""
        self.offers = Offers(
            reader.wire, self._names, live.worker, acks, takes=self._takes, told=alarm.nudge
        )
        self._room = Room(0, {})
        """What the newest call asked for."""
        self._shape: object = None
        self._waiting: list[Room] = []
        self._sources: dict[str, Source] = {}
        self._give_back_timer: asyncio.TimerHandle | None = None
        self._looked_at: dict[str, float] = {}
        self._failures: dict[Source | None, BackendError] = {}

    def begin(self) -> None:
        """Begin to ask for hints. What asks for all of them also notices when a failure ends."""
        self._source(REST)

    # -- what is there

    def __len__(self) -> int:
        return len(self._due) + len(self._ending.hints)

    def earliest(self, room: Room) -> datetime | None:
        """Return when there is the first thing to do that fits into a room."""
        due, ending = self._due.earliest(room), self._ending.earliest()
        return ending if due is None or (ending is not None and ending < due) else due

    def take(self, now: datetime, filling: Filling) -> list[Hint]:
        """Remove and return what can be claimed and fits, oldest first; it is added as taken."""
        taken, refused = self._due.take(now, filling)
        for hint in refused:
            if hint.reply:
                self.offers.refuse(hint.token, hint.queue, hint.reply)
        return taken

    def take_ended(self, now: datetime) -> list[Hint]:
        """Remove and return what is held by claims that are to be ended, oldest first."""
        return self._ending.take(now, MOST) if self._ending.hints else []

    def put(self, hint: Hint) -> None:
        """Keep a hint, in the place of an older one about the same job."""
        due, ended = self._due.pop(hint.token), self._ending.hints.pop(hint.token, None)
        old = due or ended
        if old is not None and old.reply and not hint.reply:
            hint.reply = old.reply
        (self._ending if hint.is_held else self._due).put(hint)

    def replace(self, hints: Sequence[Hint]) -> None:
        """Keep these: they are all that there are."""
        left = {hint.token for hint in hints}
        for token in [*self._due.tokens(), *self._ending.hints]:
            if token not in left:
                old = self._due.pop(token) or self._ending.hints.pop(token)
                self._acks.done(old.reply)
        for hint in hints:
            self.put(hint)

    # -- demand

    @contextmanager
    def wanted(self, room: Room) -> Iterator[None]:
        """Ask the server for hints while the caller waits.

        Args:
            room: What the caller could run; several callers may wait.
        """
        self._serve(room)
        self._waiting.append(room)
        try:
            yield
        finally:
            self._waiting.remove(room)
            self.look(room)

    def look(self, room: Room) -> None:
        """Note that a call looks at what is here, and whether more is wanted."""
        self._serve(room)
        now = monotonic_seconds()
        for lane in lanes(room):
            if room.most(lane) > 0:
                self._looked_at[lane] = now
        for source in self._sources.values():
            source.look()
        if len(self) and self._give_back_timer is None:
            self._watch_surplus()

    def _serve(self, room: Room) -> None:
        """Have a source for each queue that the room names, and look for what is taken now."""
        self._room = room
        for lane in lanes(room):
            self._source(lane)
        shape = (None if room.queues is None else room.queues.keys(), room.accepts)
        if shape == self._shape:
            self.offers.look()  # what it accepts may be a matter of time
        else:
            self._shape = shape
            self.offers.look_now()
            self.offers.ask()

    def _source(self, lane: str) -> None:
        if lane in self._sources:
            return

        async def receive(arrived: list[Msg]) -> None:
            await self._judge_all(arrived, lane)

        source = self._sources[lane] = Source(
            self._reader,
            self._options,
            None if lane == REST else lane,
            acks=self._acks,
            demand=lambda: self._demand(lane),
            receive=receive,
            failures=self,
        )
        self._supervise(source.run)

    def _demand(self, lane: str) -> int:
        """Return how many more hints are wanted by waiting calls."""
        most = [room.most(lane) for room in self._waiting if lane in lanes(room)]
        wanted = sum(each + AHEAD for each in most if each > 0)
        return min(wanted, MOST) - self._due.by_lane(self._room)[lane] if wanted else 0

    def _watch_surplus(self) -> None:
        loop = asyncio.get_running_loop()
        self._give_back_timer = loop.call_later(IDLE, self._give_surplus_back)

    def _give_surplus_back(self) -> None:
        """Hand what is due and not claimed here to workers that have the time."""
        self._give_back_timer = None
        now, until = self._now(), monotonic_seconds() - IDLE
        for queue in list(self._due.queues):
            lane = self._room.lane(queue)
            is_wanted = lane is not None and (
                self._looked_at.get(lane, 0.0) > until
                or any(lane in lanes(room) and room.most(lane) > 0 for room in self._waiting)
            )
            if not is_wanted:
                self._hand_back(self._due.take_of(queue, now))
        if not self._waiting and all(at <= until for at in self._looked_at.values()):
            self._hand_back(self.take_ended(now))
        if len(self):
            self._watch_surplus()

    def _hand_back(self, hints: Iterable[Hint]) -> None:
        for hint in hints:
            if hint.reply:
                self._acks.postpone(hint.reply, timedelta(0))
            else:
                self.offers.keep(hint.token, hint.queue)

    def give_all_back(self) -> None:
        """Hand everything to the other replicas."""
        for hint in (*self._ending.clear(), *self._due.clear()):
            self._acks.postpone(hint.reply, timedelta(0))
        if self._give_back_timer is not None:
            self._give_back_timer.cancel()
            self._give_back_timer = None

    # -- asking

    async def pull_available(self, room: Room, wants: dict[str, int]) -> None:
        """Ask for what is there already, by the names under which it counts in the room."""
        self._serve(room)
        asked = (self._sources[lane].pull_available(most) for lane, most in wants.items())
        for ended in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended
        await self._read_offers(wants)

    async def read_offers(self, room: Room) -> None:
        """Read what other workers have left to this one, as far as there is room."""
        if self.offers:
            await self._read_offers(lacking(room, self._due.by_lane(room)))

    async def _read_offers(self, wants: dict[str, int]) -> None:
        offered = self.offers.take(self._room, wants) if self.offers else {}
        if not offered:
            return
        try:
            found = await self._reader.read_any(list(offered))
            for token in [token for token in offered if self.judge(found[token], "")]:
                del offered[token]
            if offered and self._reader.may_lag:
                for each in (await self._reader.read_current(list(offered))).values():
                    self.judge(each, "")
        except BaseException:  # also where the call that reads them is cancelled
            for token, queue in offered.items():
                self.offers.keep(token, queue)
            raise
        self._alarm.nudge()

    # -- failures

    @property
    def failure(self) -> BackendError | None:
        """Why nothing can come any more."""
        lost = (each for each in self._failures.values() if isinstance(each, StreamLost))
        return next(lost, None) or next(iter(self._failures.values()), None)

    @property
    def is_lost(self) -> bool:
        """Whether the stream is gone for good."""
        return isinstance(self.failure, StreamLost)

    def fail(self, error: BackendError) -> None:
        """Tell the calls that wait for hints why none can come."""
        self._failures[None] = error
        self._alarm.nudge()

    def failure_of(self, source: Source) -> BackendError | None:
        """Return why a source failed, or everything did."""
        return self._failures.get(source) or self._failures.get(None)

    def failed(self, source: Source, error: BackendError) -> None:
        """Tell the calls that wait for hints why none can come from a source."""
        self._failures[source] = error
        self._alarm.nudge()

    def worked(self, source: Source) -> None:
        """Note that a source gives hints; another task may have seen that the stream is lost."""
        if self._failures and not self.is_lost:
            self._failures.pop(source, None)
            self._failures.pop(None, None)

    # -- judging

    def _takes(self, job_id: str, queue: str) -> bool:
        """Whether this worker takes a job, now or later."""
        return self._room.lane(queue) is not None and accepts(self._room, job_id)

    def _is_for_others(self, job_id: str, queue: str, lane: str | None) -> bool:
        """Whether a hint is to be left to others.

        Args:
            job_id: The id of the job.
            queue: Its queue.
            lane: Where the hint came from. From among all hints, this worker takes those of a queue
                that it names only while it has room: they come by themselves, too.
        """
        if not self._takes(job_id, queue):
            return True
        own = self._room.lane(queue)
        return lane == REST and own not in (None, REST) and self._room.most(own or REST) <= 0

    async def _judge_all(self, arrived: list[Msg], lane: str) -> None:
        """Read the records that messages point at, and act on what *they* say."""
        arrived[:] = [msg for msg in arrived if not self._left_unread(msg, lane)]
        token_of = self._names.fire_token
        found = await self._reader.read_any([token_of(msg.subject) for msg in arrived])
        useless = [
            msg for msg in arrived if not self.judge(found[token_of(msg.subject)], msg.reply, lane)
        ]
        arrived[:] = useless  # what is left there is handed back if this fails
        self._alarm.nudge()
        if useless and self._reader.may_lag:
            # Perhaps a replica answered that lags behind: the leader knows.
            known = await self._reader.read_current([token_of(msg.subject) for msg in useless])
            useless = [
                msg
                for msg in useless
                if not self.judge(known[token_of(msg.subject)], msg.reply, lane)
            ]
            self._alarm.nudge()
        for msg in useless:
            self._acks.done(msg.reply)
            self.offers.forget(token_of(msg.subject))
        arrived.clear()
        if len(self) and self._give_back_timer is None:
            self._watch_surplus()

    def _left_unread(self, msg: Msg, lane: str) -> bool:
        """Leave a job to others by its name alone; the next time, its record is read."""
        token, queue = self._names.fire_token(msg.subject), self._names.fire_queue(msg.subject)
        job_id = id_of(token)
        if job_id is None or queue is None or self.offers.is_refused(token):
            return False
        if not self._is_for_others(job_id, queue, lane):
            return False
        self.offers.refuse(token, queue, msg.reply)
        return True

    def judge(self, found: StoredRecord, reply: str, lane: str | None = None) -> bool:
        """Keep, postpone, adopt or refuse a hint; return whether it is worth something."""
        now = self._now()
        judged = assess(found, now, near=NEAR)
        record = found.content
        if judged.at is None or not isinstance(record, Record):
            return False
        if judged.verdict is Verdict.DUE:
            if record.hold is None and self._is_for_others(record.id, record.queue, lane):
                if reply:
                    self.offers.refuse(found.token, record.queue, reply)
                return bool(reply)
            self.offers.forget(found.token)
            self.put(Hint(found.token, judged.at, found, reply))
            return True
        if self._live.is_unconfirmed(found.token, record.hold):
            self.put(Hint(found.token, now, found, reply))  # free for this worker at once
        elif reply and self._live.adopt(found, reply):
            self._acks.working(reply)
        else:
            self._acks.postpone(reply, max(judged.at - now, SHORTEST_NAK))
        return True

    def judge_or_drop(self, found: StoredRecord, reply: str) -> None:
        """Keep, postpone or adopt a hint, or acknowledge it where it is worth nothing."""
        if not self.judge(found, reply):
            self._acks.done(reply)

    async def close(self) -> None:
        """Hand everything to the other replicas, what is still on its way included."""
        for source in self._sources.values():
            await source.close()
        self.give_all_back()
        await self.offers.close()
        await self._acks.close()
