"""The connection: how it is made, lost and made again, and what the server refuses on it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import (
    Error,
)

from sched_core._support.logger import Logger
from sched_core.clock import monotonic_seconds, pause
from sched_core.errors import BackendError, BackendUnavailable
from sched_jetstream._store.addresses import Address
from sched_jetstream._store.channels import Channel, Ears, Handler
from sched_jetstream._store.dialer import HANG_UP, dial, hang_up
from sched_jetstream._store.refusals import family, forbidden, refusal, spelt
from sched_jetstream.errors import NotSent, PermissionDenied

logger = Logger("sched_jetstream")

RECONNECTS = 1.0
"""Seconds for which a call waits for a connection that is lost, before it says so."""
RECONNECT_AFTER = 15.0
"""Seconds after which a connection that is not back is replaced by a new one."""
DENIED_FOR = 60.0
"""Seconds for which a permission that was missing once is told."""
MOST_DENIALS = 100
VERBS = ("STREAM.INFO.CREATE.PURGE.MSG.GET.DELETE", "CONSUMER.NEXT.DIRECT.NAMES.LIST")
"""Words of the API's subjects: nats-py hands refused subjects on in lower case."""
POLL = 0.02
"""Seconds between two looks at a connection that is not ours to get callbacks from."""


class Connection:
    """One connection, which is made again when it is lost.

    Args:
        servers: The servers to connect to.
        options: Options for ``nats.connect``.
        connection: An existing connection, which is never closed here.
        api: The prefix of the JetStream API.
        known: The words of our subjects, in their capitals.
        timeout: Seconds for an answer.
        connect_timeout: Seconds to get a connection at all.
    """

    def __init__(
        self,
        servers: Sequence[Address],
        options: Mapping[str, Any],
        *,
        connection: Client | None,
        api: str,
        known: Sequence[str],
        timeout: float,
        connect_timeout: float,
    ) -> None:
        self._servers = servers
        self._options = {
            "reconnect_time_wait": 0.2,
            "connect_timeout": 2,
            "ping_interval": 10,
            "max_outstanding_pings": 2,
            **options,
            "max_reconnect_attempts": -1,
        }
        self._given = connection
        self.api = api
        self._known = (api, "$JS.ACK", "_INBOX", *VERBS, *known)
        self.timeout, self.connect_timeout = timeout, connect_timeout
        self._nc: Client | None = None
        self._inbox = ""
        self._handlers: dict[str, Handler] = {}
        self._channels: list[Channel] = []
        self._ears = Ears()
        self._numbers = itertools.count()
        self._awaited: dict[str, set[asyncio.Future[Any]]] = {}
        self._denials: dict[str, tuple[PermissionDenied, float]] = {}
        self._reopening: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._lost_at = 0.0
        self._noticed: Exception | None = None
        self._deaf = False
        """Whether the server refused a subscription, so that no answer can come."""
        self._subscribing = asyncio.Lock()
        self._listen_at = 0.0

    # -- the connection

    async def open(self) -> None:
        """Connect.

        Raises:
            BackendUnavailable: No server could be reached in time.
            NatsRefused: One refused.
        """
        try:
            await self._connect()
        except BaseException:
            await self.close()
            raise

    async def _connect(self) -> None:
        if self._given is not None:
            nc = self._given
            if nc.is_closed:
                raise BackendUnavailable(
                    "the NATS connection that was given is closed: open a scheduler on a new one"
                )
        else:
            nc = await dial(
                self._servers,
                self._options,
                seconds=self.connect_timeout,
                on_error=self._notice,
            )
        self._deaf = False
        try:
            await self._subscribe(nc)
        except BaseException:
            if nc is not self._given:
                await hang_up(nc, self.timeout)
            raise
        self._nc = nc

    def _notice(self, error: Exception) -> None:
        """Take in what nats-py reports: what the server refused, or why there is no connection."""
        logger.debug("NATS: %s", error)
        missing = forbidden(error)
        if missing is None:
            self._problem = refusal(error).text
            return
        if missing.what == "subscribe":
            self._deaf = True
        key = family(missing.subject)
        denied = PermissionDenied(missing.what, spelt(key, self._known))
        if key not in self._denials:
            logger.error("%s", denied)
        if len(self._denials) >= MOST_DENIALS:
            self._denials.pop(next(iter(self._denials)))
        self._denials[key] = (denied, monotonic_seconds())
        for future in self._awaited.get(missing.subject, ()):
            if not future.done():
                future.set_exception(denied)

    def denial(self, subjects: Iterable[str] | None = None) -> PermissionDenied | None:
        """Return which permission was missing lately, of the subjects or of any."""
        if self._given is not None and self._given.last_error is not None:
            # The callback is the one of the code that made the connection; it keeps the last error.
            self._notice_once(self._given.last_error)
        since = monotonic_seconds() - DENIED_FOR
        for subject, (_, at) in list(self._denials.items()):
            if at < since:
                del self._denials[subject]
        if subjects is None:
            found = list(self._denials.values())
        else:
            asked = (self._denials.get(family(subject.lower())) for subject in subjects)
            found = [each for each in asked if each is not None]
        # A new one each time: the traceback of an error that is raised again and again would grow.
        return PermissionDenied(found[-1][0].what, found[-1][0].subject) if found else None

    def passed(self, subject: str) -> None:
        """Note that a subject was published to: what was denied there before is not any more."""
        if self._denials:
            self._denials.pop(subject.lower(), None)

    def _notice_once(self, error: Exception) -> None:
        if error is not self._noticed:
            self._noticed = error
            if forbidden(error) is not None:
                self._notice(error)

    async def close(self) -> None:
        """Let go of the connection."""
        nc, self._nc = self._nc, None
        self._handlers.clear()
        reopening, self._reopening = self._reopening, None
        if reopening is not None:
            reopening.cancel()
            await asyncio.wait({reopening})
        if nc is None:
            return
        if nc is self._given:
            await self._ears.detach()
            return
        await hang_up(nc, min(self.timeout, HANG_UP))

    @property
    def client(self) -> Client:
        """The client of nats-py.

        Raises:
            BackendError: It is not open.
        """
        if self._nc is None:
            raise BackendError("this JetStreamBackend is not open: use it through a Scheduler")
        return self._nc

    @property
    def version(self) -> str:
        """The version of the server at the other end."""
        found = self.client.connected_server_version
        return f"{found.major}.{found.minor}.{found.patch}"

    @property
    def may_have_jetstream(self) -> bool:
        """Whether the server has JetStream, or others of its cluster may."""
        # nats-py shows no public view of it; what it lacks is not held against the server.
        info = getattr(self.client, "_server_info", None) or {"jetstream": True}
        return bool(info.get("jetstream") or info.get("cluster"))

    @property
    def connected(self) -> bool:
        """Whether something sent now would reach a server, as far as is known."""
        return self._nc is not None and self._nc.is_connected

    async def ready(self) -> Client:
        """Return the client once it is connected.

        Raises:
            NotSent: It was not within the timeout. Nothing must be sent before: it would lie in a
                buffer, and be stored long after the caller was told that it failed.
        """
        nc = self._nc
        if nc is not None and nc.is_connected and not self._deaf:
            self._lost_at = 0.0
            return nc
        began = monotonic_seconds()
        until = began + min(self.timeout, RECONNECTS)
        self._lost_at = self._lost_at or began
        while not (nc := self.client).is_connected:
            if nc.is_closed or monotonic_seconds() - self._lost_at > RECONNECT_AFTER:
                self._reopen(nc)
            if monotonic_seconds() > until:
                raise NotSent(self._lost(nc))
            await pause(POLL)
        self._lost_at, self._problem = 0.0, None
        if self._deaf:
            await self._listen_again(nc)
        return nc

    async def _listen_again(self, nc: Client) -> None:
        """Subscribe again: the server has dropped what the user was not allowed to hear.

        Raises:
            PermissionDenied: It is not allowed yet.
        """
        async with self._subscribing:
            if not self._deaf:
                return
            if monotonic_seconds() >= self._listen_at:
                self._listen_at = monotonic_seconds() + RECONNECTS
                self._deaf = False
                await self._subscribe(nc)
            if self._deaf:
                raise self.denial() or NotSent("the server lets no answers through")

    async def _subscribe(self, nc: Client) -> None:
        """Have answers come in, and know whether they may."""
        self._drop_denials("subscribe")
        inbox = nc.new_inbox()
        await nc.subscribe(f"{inbox}.*", cb=self._receive)
        for channel in self._channels:
            await channel.attach(nc)
        await self._ears.attach(nc)
        await self._heard(nc)
        self._inbox = inbox

    async def hear(self, subject: str, handler: Handler) -> None:
        """Have plain messages of a subject handed to a function, over all connections to come.

        What is published while there is no connection is never heard.

        Raises:
            PermissionDenied: It is not allowed.
            NotSent: The connection is lost.
        """
        self._ears.subjects[subject] = handler
        nc = await self.ready()
        self._drop_denials("subscribe")
        await self._ears.attach(nc)
        await self._heard(nc)
        if self._deaf:
            raise self.denial() or NotSent(f"the server does not let {subject} be heard")

    async def _heard(self, nc: Client) -> None:
        """Wait until the server has taken in what was sent: what it refuses, it has said by then.

        Raises:
            NotSent: It does not answer.
        """
        seconds = max(1, ceil(self.timeout))
        try:
            await nc.flush(seconds)  # its ping overtakes what waits to be sent
            await nc.flush(seconds)
        except (Error, OSError, ValueError) as error:
            raise NotSent(f"the server does not answer: {refusal(error).text}") from error

    def _drop_denials(self, what: str) -> None:
        """Forget what was denied, because it is about to be tried again."""
        for key, (denied, _) in list(self._denials.items()):
            if denied.what == what and not key.startswith("$js.api."):
                del self._denials[key]

    def _lost(self, nc: Client) -> str:
        if self._given is not None and nc.is_closed:
            return "the NATS connection that was given is closed: open a scheduler on a new one"
        why = "" if self._problem is None else f": {self._problem}"
        return f"the connection to NATS is lost, and is tried again{why}"

    def _reopen(self, dead: Client) -> None:
        """Connect again: nats-py gives up for good after what it takes for a protocol error."""
        if self._given is None and (self._reopening is None or self._reopening.done()):
            self._reopening = asyncio.create_task(self._open_another(dead))

    async def _open_another(self, dead: Client) -> None:
        if dead.last_error is not None and self._problem is None:
            self._problem = refusal(dead.last_error).text
        logger.warning("the NATS connection is lost (%s): opening another", self._problem)
        try:
            await self._connect()
        except BackendError as error:
            self._problem = str(error)
        except (Error, OSError) as error:
            self._problem = refusal(error).text
        else:
            await hang_up(dead, self.timeout)
        self._lost_at = monotonic_seconds()

    async def _receive(self, msg: Msg) -> None:
        handler = self._handlers.get(msg.subject[len(self._inbox) + 1 :])
        if handler is not None:
            handler(msg)

    async def channel(self) -> Channel:
        """Return a new place where messages of a consumer arrive."""
        channel = Channel()
        await channel.attach(self.client)
        self._channels.append(channel)
        return channel

    @contextmanager
    def awaiting(self, subject: str, future: asyncio.Future[Any]) -> Iterator[None]:
        """Have a future fail at once where the server refuses what is published to a subject."""
        waiting = self._awaited.setdefault(subject.lower(), set())
        waiting.add(future)
        try:
            yield
        finally:
            waiting.discard(future)
            if not waiting:
                self._awaited.pop(subject.lower(), None)
