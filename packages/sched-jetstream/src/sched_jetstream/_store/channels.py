"""Messages that answer nothing: those of consumers, and what other workers say."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error

from sched_core._support.logger import Logger

logger = Logger("sched_jetstream")

Handler = Callable[[Msg], None]


class Channel:
    """Receives the messages of a consumer: under their own subjects, which needs a subscription.

    Attributes:
        reply: The subject on which the present request is answered.
        on_message: Called with each message, of whichever request.
        on_status: Called with what ends the present request.
    """

    def __init__(self) -> None:
        self._inbox = self.reply = ""
        self._subscription: Subscription | None = None
        self._numbers = itertools.count()
        self.on_message: Handler = _ignore
        self.on_status: Handler = _ignore

    async def attach(self, nc: Client) -> None:
        """Use this connection from now on."""
        self._inbox = nc.new_inbox()
        self._subscription = await nc.subscribe(f"{self._inbox}.*", cb=self._receive)

    async def drain(self, seconds: float) -> None:
        """Want nothing more, and hand on what is on its way."""
        if self._subscription is None:
            return
        try:
            drained = self._subscription.drain()  # type: ignore[no-untyped-call]  # nats-py's
            await asyncio.wait_for(drained, seconds)
        except (Error, OSError, TimeoutError) as error:
            logger.debug("what is on its way comes again: %s", error)

    def begin(self) -> str:
        """Return where the next request is to be answered; what ends older ones is ignored."""
        self.reply = f"{self._inbox}.{next(self._numbers)}"
        return self.reply

    async def _receive(self, msg: Msg) -> None:
        status = status_of(msg)
        if status is None:
            self.on_message(msg)
        elif status != "100" and msg.subject == self.reply:
            self.on_status(msg)


class Ears:
    """Hears plain subjects, on one connection after the other.

    Attributes:
        subjects: What is heard, and who is told.
    """

    def __init__(self) -> None:
        self.subjects: dict[str, Handler] = {}
        self._subscriptions: list[Subscription] = []

    async def attach(self, nc: Client) -> None:
        """Use this connection from now on."""
        await self.detach()
        for subject, handler in self.subjects.items():
            self._subscriptions.append(await nc.subscribe(subject, cb=_calling(handler)))

    async def detach(self) -> None:
        """Hear nothing more."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for each in subscriptions:
            try:
                await each.unsubscribe()
            except (Error, OSError) as error:
                logger.debug("nothing is heard on that connection any more: %s", error)


def _ignore(_: Msg) -> None:
    return


def _calling(handler: Handler) -> Callable[[Msg], Awaitable[None]]:
    async def call(msg: Msg) -> None:
        handler(msg)

    return call


def status_of(msg: Msg) -> str | None:
    """Return the status of a message that says something about the delivery, else ``None``."""
    return msg.headers.get("Status") if msg.headers else None
