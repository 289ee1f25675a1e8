"""Offers: what one worker does not take is told to the others at once.

The server knows which worker asks for a queue, and nothing of the jobs that a worker has functions
for. So a hint may come to a worker that has no use for it. It goes back to the server for a while
that grows, so that it does not come back at once, again and again; and a plain message tells all
workers of the job. One that takes it reads its record, and claims it as if the hint had come to it.
A message that got lost is made up for when the hint comes again.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from attrs import define
from nats.aio.msg import Msg

from sched_core import Room
from sched_core._support.logger import Logger
from sched_core.clock import monotonic_seconds
from sched_core.errors import BackendError
from sched_jetstream._model.subjects import Names, id_of
from sched_jetstream._runtime.acknowledgements import Acknowledgements
from sched_jetstream._store.wire import Wire

logger = Logger("sched_jetstream")

FIRST = 10.0
"""Seconds after which a hint that was refused comes again for the first time, to whichever worker;
each further time is twice as long."""
LONGEST = 60.0
MOST_A_SECOND = 500
"""Refused hints that may come again in a second: each is read, as those are that are wanted."""
MOST = 50_000
"""Jobs that are remembered."""
LARGEST = 8000
"""Characters of a message: any server takes them."""
LOOKS_AGAIN = 1.0
"""Seconds between two looks at what was refused."""
ASKS_AGAIN = 5.0
"""Seconds between two questions what the others do not take."""

_TOKEN = re.compile(r"[-_=0-9A-Za-z]{1,200}\Z")


@define
class _Refused:
    queue: str
    times: int = 0


class Offers:
    """What this worker leaves to others, and others to this one.

    Args:
        wire: The connection to the server.
        names: The names of the deployment.
        worker: The name of this worker.
        acks: Hands hints back.
        takes: Tells by id and queue whether this worker takes a job.
        told: Called when something was offered.
    """

    def __init__(
        self,
        wire: Wire,
        names: Names,
        worker: str,
        acks: Acknowledgements,
        *,
        takes: Callable[[str, str], bool],
        told: Callable[[], None],
    ) -> None:
        self._wire, self._acks, self._worker = wire, acks, worker
        self._takes, self._told = takes, told
        self._offer, self._ask = f"{names.signals}.offer", f"{names.signals}.ask"
        self._refused: dict[str, _Refused] = {}
        self._offered: dict[str, str] = {}
        """The queues of jobs that were offered, by token."""
        self._unsent: dict[str, str] = {}
        self._asks = False
        self._asked_at = self._looked_at = float("-inf")
        self._sending: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Hear what the others say.

        Raises:
            PermissionDenied: It may not be heard.
            NotSent: The connection is lost.
        """
        await self._wire.hear(self._offer, self._hear_offer)
        await self._wire.hear(self._ask, self._hear_ask)

    # -- what this worker does not take

    def is_refused(self, token: str) -> bool:
        """Whether this worker has refused the job before."""
        return token in self._refused

    def refuse(self, token: str, queue: str, reply: str) -> None:
        """Leave a job to the others.

        Args:
            token: The token of its record's subject.
            queue: Its queue.
            reply: The subject on which its hint is handed back.
        """
        refused = self._refused.pop(token, None) or _Refused(queue)
        refused.queue = queue
        wait = max(min(FIRST * 2**refused.times, LONGEST), len(self._refused) / MOST_A_SECOND)
        # Spread, so that those that were refused together do not come again together.
        self._acks.postpone(reply, timedelta(seconds=wait * random.uniform(0.5, 1.0)))  # noqa: S311
        refused.times = min(refused.times + 1, 10)
        if len(self._refused) >= MOST:
            self._refused.pop(next(iter(self._refused)))
        self._refused[token] = refused
        self._unsent[token] = queue
        self._send()

    def forget(self, token: str) -> None:
        """Note that a job is not refused, or is not due any more."""
        self._refused.pop(token, None)

    # -- what others do not take

    def __bool__(self) -> bool:
        return bool(self._offered)

    def keep(self, token: str, queue: str) -> None:
        """Keep a job that is due and that this worker has no room for at the moment."""
        if len(self._offered) < MOST:
            self._offered[token] = queue

    def take(self, room: Room, wants: Mapping[str, int]) -> dict[str, str]:
        """Remove and return jobs that were offered and are wanted: their queues by token.

        Args:
            room: What this worker takes.
            wants: How many, by the names under which their queues count in the room.
        """
        left, taken = dict(wants), dict[str, str]()
        for token, queue in list(self._offered.items()):
            lane = room.lane(queue)
            if lane is None:
                del self._offered[token]
            elif left.get(lane, 0) > 0:
                left[lane] -= 1
                taken[token] = self._offered.pop(token)
        return taken

    def look(self) -> None:
        """Look whether what was refused here is taken by now; often is no use, and does nothing."""
        if self._refused and monotonic_seconds() - self._looked_at > LOOKS_AGAIN:
            self.look_now()

    def look_now(self) -> None:
        """Look whether what was refused here is taken by now."""
        self._looked_at = monotonic_seconds()
        for token, refused in self._refused.items():
            if token not in self._offered and self._may_take(token, refused.queue):
                self.keep(token, refused.queue)

    def ask(self) -> None:
        """Ask the others what they do not take; often is no use, and does nothing."""
        if monotonic_seconds() - self._asked_at > ASKS_AGAIN:
            self._asked_at = monotonic_seconds()
            self._asks = True
            self._send()

    def _may_take(self, token: str, queue: str) -> bool:
        """Whether this worker takes a job, as far as the names tell."""
        job_id = id_of(token)
        return self._takes("" if job_id is None else job_id, queue) or job_id is None

    # -- messages

    def _hear_offer(self, msg: Msg) -> None:
        sender, jobs = _read(msg.data)
        if sender == self._worker:
            return
        jobs = [(queue, token) for queue, token in jobs if self._may_take(token, queue)]
        for queue, token in jobs:
            self.keep(token, queue)
        if jobs:
            self._told()

    def _hear_ask(self, msg: Msg) -> None:
        sender, _ = _read(msg.data)
        if sender != self._worker:
            self._unsent.update((token, each.queue) for token, each in self._refused.items())
            self._send()

    def _send(self) -> None:
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send_all())

    async def _send_all(self) -> None:
        await asyncio.sleep(0)  # what comes in the same moment goes into the same message
        try:
            if self._asks:
                self._asks = False
                await self._wire.send(self._ask, _said(self._worker))
            while self._unsent:
                jobs, size = [], 0
                while self._unsent and size < LARGEST:
                    token, queue = self._unsent.popitem()
                    jobs.append((queue, token))
                    size += len(queue) + len(token) + 8
                await self._wire.send(self._offer, _said(self._worker, jobs))
        except BackendError as error:
            self._unsent.clear()
            logger.debug("the hints come again, to other workers: %s", error)

    async def close(self) -> None:
        """Send what waits, if there is a connection."""
        if self._sending is not None and self._wire.connected:
            await self._sending


def _said(worker: str, jobs: Sequence[tuple[str, str]] = ()) -> bytes:
    return json.dumps({"from": worker, "jobs": jobs}).encode()


def _read(body: bytes) -> tuple[str, list[tuple[str, str]]]:
    """Return who says it, and the queues and tokens; nothing where it is no message of ours."""
    try:
        said = json.loads(body)
        jobs = [(str(queue), str(token)) for queue, token in said["jobs"]]
        sender = str(said["from"])
    except (LookupError, TypeError, ValueError) as error:
        logger.debug("a message about jobs makes no sense: %s", error)
        return "", []
    return sender, [(queue, token) for queue, token in jobs if _TOKEN.match(token)]
