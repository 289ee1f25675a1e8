"""A source of hints: one durable consumer, which this worker asks while it wants some."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Protocol

from nats.aio.msg import Msg

from sched_core._support.logger import Logger
from sched_core.clock import pause
from sched_core.errors import BackendError, BackendUnavailable
from sched_jetstream._runtime.acknowledgements import Acknowledgements
from sched_jetstream._store.channels import Channel, status_of
from sched_jetstream._store.provision import make_consumer
from sched_jetstream._store.reader import Reader
from sched_jetstream._store.wire import NoResponders, answered
from sched_jetstream.errors import OutcomeUnknown
from sched_jetstream.options import Options

logger = Logger("sched_jetstream")

MOST = 1000
"""Hints at a time."""
PART = 250
"""Hints at a time that come during other work: each takes the loop for 50 µs or more."""
WAIT = 3.0
"""Seconds for which the server holds an unanswered request for hints."""
SHORTEST_NAK = timedelta(milliseconds=50)


class Failures(Protocol):
    """Why no hints can come, as the sources find out."""

    def failure_of(self, source: Source) -> BackendError | None:
        """Return why it failed at last."""
        ...

    def failed(self, source: Source, error: BackendError) -> None:
        """Note that it failed, and that trying again at once does not help."""
        ...

    def worked(self, source: Source) -> None:
        """Note that it did what it was asked for."""
        ...

    @property
    def is_lost(self) -> bool:
        """Whether the stream is gone for good."""
        ...


class Source:
    """Asks one consumer for hints.

    Args:
        reader: The reader of records.
        options: The options of the backend.
        queue: The queue whose hints it has; ``None`` for all hints.
        acks: Hands back what was not looked at.
        demand: Tells how many hints are wanted beyond those that are here.
        receive: Looks at hints; what is left in the list is handed back if it fails.
        failures: Told when it fails, and when it works.
    """

    def __init__(
        self,
        reader: Reader,
        options: Options,
        queue: str | None,
        *,
        acks: Acknowledgements,
        demand: Callable[[], int],
        receive: Callable[[list[Msg]], Awaitable[None]],
        failures: Failures,
    ) -> None:
        self._reader, self._wire, self._names = reader, reader.wire, reader.names
        self._options, self._queue, self._acks = options, queue, acks
        self._demand, self._receive, self._failures = demand, receive, failures
        self._consumer = self._names.consumer(queue)
        self._made = queue is None  # that one is provided
        self._making = asyncio.Lock()
        self._polling = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._asking = False
        self._long_poll: Channel | None = None
        self._short_poll: Channel | None = None

    def look(self) -> None:
        """Note that the demand may have changed."""
        if self._demand() > 0:
            self._wanted.set()
        else:
            self._wanted.clear()

    async def run(self) -> None:
        """Ask for hints while they are wanted, until the stream is lost.

        After a failure no call waits for hints: one hint is asked for, to see whether the
        failure is over.
        """
        failures = 0
        while not self._failures.is_lost:
            try:
                if self._failures.failure_of(self) is None:
                    await self._wanted.wait()
                await self._make()
                most = self._demand()
                if most > 0:
                    await self.pull(min(most, PART), wait=WAIT)
                elif self._failures.failure_of(self) is not None:
                    await self.pull(1)
                else:
                    self._wanted.clear()
                failures = 0
                self._failures.worked(self)
            except NoResponders:
                failures = await self._failed(failures, await self._restore())
            except BackendUnavailable as error:
                failures = await self._failed(failures, error)
            except BackendError as error:
                self._failures.failed(self, error)
                await pause(1.0)

    async def _failed(self, failures: int, error: BackendError | None) -> int:
        if error is not None and not isinstance(error, BackendUnavailable):
            self._failures.failed(self, error)
            await pause(1.0)
        elif error is not None:
            await pause(min(0.05 * 2**failures, 1.0))
        return failures + 1

    async def _make(self) -> None:
        """Make the consumer before it is asked for the first time."""
        async with self._making:
            if not self._made:
                await make_consumer(self._wire, self._names, self._options, self._queue)
                self._made = True

    async def _restore(self) -> BackendError | None:
        """Make the consumer again if it was deleted: that it replays every hint is harmless."""
        try:
            await self._reader.stream_exists(self._names.stream)
            await make_consumer(self._wire, self._names, self._options, self._queue)
        except BackendError as error:
            return error
        logger.info("the consumer %s was not there; it has been made again", self._consumer)
        return None

    async def pull_available(self, most: int) -> None:
        """Ask for what is there already, unless a request waits: then hints come to that one."""
        await self._wire.ready()
        async with self._polling:  # each request has the channel for itself
            if self._asking or most <= 0:
                return
            try:
                await self._make()
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
        subject = f"{wire.api}.CONSUMER.MSG.NEXT.{self._names.stream}.{self._consumer}"
        self._asking = self._asking or wait > 0
        try:
            with wire.awaiting(subject, ended):
                await wire.send(subject, json.dumps(body).encode(), None, channel.begin())
                done = await answered(ended, wait + wire.timeout)
            if done and ended.exception() is None:
                wire.passed(subject)
            channel.on_message = self._hand_on
            if arrived:
                await self._receive(arrived)
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

    async def close(self) -> None:
        """Hand on what is still on its way."""
        for channel in (self._long_poll, self._short_poll):
            if channel is not None:
                await channel.drain(self._wire.timeout)


def _ignore(_: Msg) -> None:
    return
