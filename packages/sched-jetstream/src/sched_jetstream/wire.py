"""The connection: requests with answers of any number, on one inbox, that fail in known ways.

nats-py's own helpers are not used where they lose an answer: ``request`` takes only the first
reply, ``publish_async`` leaves futures that never resolve after a connection was lost, and what is
published while disconnected is stored, minutes later, though the call failed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import (
    ConnectionClosedError,
    Error,
    MaxPayloadError,
    NoServersError,
    OutboundBufferLimitError,
)

from sched_core.clock import cpu_seconds, pause
from sched_core.errors import BackendError, BackendUnavailable, InvalidDefinition
from sched_core.redaction import shown_address
from sched_jetstream.errors import NotSent, OutcomeUnknown
from sched_jetstream.layout import Message

logger = logging.getLogger("sched_jetstream")

SLACK = 4096
"""Bytes that a message must stay below the server's limit: a fired one grows by a header or two."""
LONGEST_HEADERS = 60_000
RECONNECTS = 1.0
"""Seconds for which a call waits for a connection that is lost, before it says so."""
GIVES_UP = 15.0
"""Seconds after which a connection that is not back is replaced by a new one."""
POLL = 0.02
"""Seconds between two looks at a connection that is not ours to get callbacks from."""

Handler = Callable[[Msg], None]


class ApiError(BackendError):
    """The JetStream API refused.

    Attributes:
        code: As in HTTP.
        err_code: What exactly.
    """

    def __init__(self, subject: str, error: Mapping[str, Any]) -> None:
        self.code = int(error.get("code", 0))
        self.err_code = int(error.get("err_code", 0))
        self.description = str(error.get("description", ""))
        super().__init__(f"{subject}: {self.description} ({self.code}, {self.err_code})")


class NoResponders(NotSent):
    """Nobody listens on the subject: no stream, no leader, no JetStream."""


class NoLeader(NotSent):
    """JetStream says that it cannot answer at the moment: the cluster elects."""


class Channel:
    """Where messages of a consumer arrive: under their own subjects, so one needs a subscription.

    Attributes:
        reply: Where the present request is answered.
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


def _ignore(_: Msg) -> None:
    return


class _Client(Client):
    async def _connect_to_server(self, server: Any) -> None:
        """Close what an attempt that failed has left open, before the next one: nats-py forgets."""
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]  # nats-py's
        await super()._connect_to_server(server)


class Wire:
    """One connection.

    Args:
        servers: Where to connect.
        options: Handed to ``nats.connect``.
        connection: An existing one, which is never closed here.
        api: Prefix of the JetStream API.
        timeout: Seconds for an answer.
        connect_timeout: Seconds to get a connection at all.
    """

    def __init__(
        self,
        servers: str | Sequence[str],
        options: Mapping[str, Any],
        *,
        connection: Client | None,
        api: str,
        timeout: float,
        connect_timeout: float,
    ) -> None:
        self._servers = [servers] if isinstance(servers, str) else list(servers)
        self._options = dict(options)
        self._given = connection
        self.api = api
        self.timeout, self.connect_timeout = timeout, connect_timeout
        self._nc: Client | None = None
        self._inbox = ""
        self._handlers: dict[str, Handler] = {}
        self._channels: list[Channel] = []
        self._numbers = itertools.count()
        self._closed = True
        self._connecting = asyncio.Lock()
        self._lost_at = 0.0

    # -- the connection

    async def open(self) -> None:
        """Connect.

        Raises:
            BackendUnavailable: No server could be reached in time.
        """
        self._closed = False
        await self._connect()

    async def _connect(self) -> None:
        if self._given is not None:
            nc = self._given
            if nc.is_closed:
                raise BackendUnavailable(
                    "the NATS connection that was given is closed: open a scheduler on a new one"
                )
        else:
            nc = await self._dial()
        self._inbox = nc.new_inbox()
        await nc.subscribe(f"{self._inbox}.*", cb=self._receive)
        for channel in self._channels:
            await channel.attach(nc)
        self._nc = nc

    async def _try_to_dial(self) -> Client:
        options: dict[str, Any] = {
            "reconnect_time_wait": 0.2,
            "connect_timeout": 2,
            "ping_interval": 10,
            "max_outstanding_pings": 2,
            "max_reconnect_attempts": -1,
            "error_cb": _ignore_error,
            **self._options,
        }
        nc = _Client()
        try:
            await asyncio.wait_for(
                nc.connect(servers=self._servers, **options), self.connect_timeout
            )
        except BaseException:
            await _close(nc, self.timeout)
            raise
        return nc

    async def _dial(self) -> Client:
        try:
            return await self._try_to_dial()
        except (TimeoutError, OSError, NoServersError) as error:
            raise BackendUnavailable(
                f"no NATS server answered within {self.connect_timeout} s at "
                f"{', '.join(shown_address(server) for server in self._servers)}: {_text(error)}"
            ) from error
        except Error as error:
            raise BackendError(f"the NATS server refused: {_text(error)}") from error

    async def close(self) -> None:
        """Let go of the connection."""
        self._closed = True
        nc, self._nc = self._nc, None
        self._handlers.clear()
        if nc is None or nc is self._given:
            return
        await _close(nc, self.timeout)

    @property
    def client(self) -> Client:
        """What stands underneath.

        Raises:
            BackendError: It is not open.
        """
        if self._nc is None:
            raise BackendError("this JetStreamBackend is not open: use it through a Scheduler")
        return self._nc

    @property
    def version(self) -> str:
        """Of the server at the other end."""
        found = self.client.connected_server_version
        return f"{found.major}.{found.minor}.{found.patch}"

    @property
    def connected(self) -> bool:
        """Whether something sent now would reach a server, as far as is known."""
        return self._nc is not None and self._nc.is_connected

    async def ready(self) -> Client:
        """Return the connection once it stands.

        Raises:
            NotSent: It did not within the timeout. Nothing must be sent before: it would lie in a
                buffer, and be stored long after the caller was told that it failed.
        """
        nc = self._nc
        if nc is not None and nc.is_connected:
            self._lost_at = 0.0
            return nc
        if nc is None:
            return self.client
        began = cpu_seconds()
        until = began + min(self.timeout, RECONNECTS)
        self._lost_at = self._lost_at or began
        while True:
            stuck = self._given is None and cpu_seconds() - self._lost_at > GIVES_UP
            if (nc.is_closed or stuck) and not self._closed:
                nc = await self._reopen(nc)
            if nc.is_connected:
                self._lost_at = 0.0
                return nc
            if cpu_seconds() > until:
                raise NotSent("the connection to NATS is lost; it is being tried again")
            await pause(POLL)
            nc = self.client

    async def _reopen(self, dead: Client) -> Client:
        """Connect anew: nats-py gives up for good after what it takes for a protocol error."""
        async with self._connecting:
            if self._nc is dead:
                logger.warning("the NATS connection is lost (%s): opening another", dead.last_error)
                self._lost_at = cpu_seconds()
                try:
                    await self._connect()
                    await _close(dead, self.timeout)
                except NotSent:
                    raise
                except BackendUnavailable as error:
                    raise NotSent(str(error)) from error
            return self.client

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

    # -- sending

    def listen(self, handler: Handler) -> tuple[str, str]:
        """Have answers handed to a function; return its key, and the subject to answer to."""
        key = str(next(self._numbers))
        self._handlers[key] = handler
        return key, f"{self._inbox}.{key}"

    def unlisten(self, key: str) -> None:
        """Forget what :meth:`listen` returned."""
        self._handlers.pop(key, None)

    async def send(
        self,
        subject: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        reply: str = "",
        *,
        checked: bool = False,
    ) -> None:
        """Publish, without an answer.

        Raises:
            NotSent: The connection is lost.
            InvalidDefinition: It is larger than the server takes. The connection lives on.
        """
        nc = self._nc
        if nc is None or not nc.is_connected:
            nc = await self.ready()
        if not checked:
            self.check_size(body, headers)
        try:
            await nc.publish(subject, body, reply=reply, headers=headers)
        except (ConnectionClosedError, OutboundBufferLimitError) as error:
            raise NotSent(_text(error)) from error
        except MaxPayloadError as error:
            raise _too_large(len(body), nc.max_payload) from error

    def check_size(self, body: bytes, headers: Mapping[str, str] | None) -> None:
        """Refuse what would make the server cut the connection, for good as nats-py takes it.

        Raises:
            InvalidDefinition: It is too large.
        """
        limit, size = self.client.max_payload, len(body)
        if headers:
            of_headers = 32 + sum(len(key) + len(value) + 4 for key, value in headers.items())
            if of_headers > LONGEST_HEADERS:
                raise _too_large(of_headers, LONGEST_HEADERS)
            size += of_headers
        if size > limit - SLACK:
            raise _too_large(size, limit - SLACK)

    async def request(
        self,
        subject: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 -- it says what was waited for in vain
    ) -> Msg:
        """Send and return the answer.

        Raises:
            NotSent: Nothing was stored, and nothing will be.
            OutcomeUnknown: No answer came in time.
        """
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

        def answer(msg: Msg) -> None:
            if not future.done():
                future.set_result(msg)

        await self.ready()
        key, reply = self.listen(answer)
        timeout = self.timeout if timeout is None else timeout
        try:
            await self.send(subject, body, headers, reply)
            msg = await asyncio.wait_for(future, timeout)
        except TimeoutError:
            raise OutcomeUnknown(f"{subject}: no answer within {timeout} s") from None
        finally:
            self.unlisten(key)
        if status_of(msg) == "503":
            raise NoResponders(f"{subject}: nobody answers (no stream, or no leader yet)")
        return msg

    async def call(
        self, what: str, body: Mapping[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Call the JetStream API.

        Raises:
            ApiError: It refused.
            BackendUnavailable: It did not answer.
        """
        payload = b"" if body is None else json.dumps(body).encode()
        msg = await self.request(f"{self.api}.{what}", payload, **options)
        found = json.loads(msg.data)
        if not isinstance(found, dict):
            raise BackendError(f"{what}: the answer is no object: {msg.data[:100]!r}")
        if "error" in found:
            error = ApiError(what, found["error"])
            if error.code == 503:
                raise NoLeader(str(error)) from error
            raise error
        return found

    async def collect(self, subject: str, body: Mapping[str, Any], *, each: Handler) -> Msg:
        """Send, hand every answer on, and return the one that says that it is the last.

        Raises:
            BackendUnavailable: The answers stopped coming.
        """
        last: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        came = 0

        def answer(msg: Msg) -> None:
            nonlocal came
            came += 1
            if status_of(msg) is None:
                each(msg)
            elif not last.done():
                last.set_result(msg)

        await self.ready()
        key, reply = self.listen(answer)
        try:
            await self.send(subject, json.dumps(body).encode(), None, reply)
            seen = -1
            while not last.done():
                if came == seen:
                    raise OutcomeUnknown(f"{subject}: no answer within {self.timeout} s")
                seen = came
                await asyncio.wait([last], timeout=self.timeout)
        finally:
            self.unlisten(key)
        msg = last.result()
        if status_of(msg) == "503":
            raise NoResponders(f"{subject}: nobody answers (no stream, or no leader yet)")
        return msg

    async def store(self, message: Message) -> int:
        """Publish one message into its stream; return its sequence.

        Raises:
            ApiError, BackendUnavailable.
        """
        msg = await self.request(message.subject, message.body, dict(message.headers))
        return sequence_of(message.subject, msg)


def sequence_of(subject: str, msg: Msg) -> int:
    """Return the sequence that an acknowledgement tells.

    Raises:
        ApiError: It is a refusal.
    """
    ack = json.loads(msg.data)
    if "error" in ack:
        raise ApiError(subject, ack["error"])
    return int(ack["seq"])


def status_of(msg: Msg) -> str | None:
    """Return the status of a message that says something about the delivery, else ``None``."""
    return msg.headers.get("Status") if msg.headers else None


def _too_large(size: int, limit: int) -> InvalidDefinition:
    return InvalidDefinition(
        "metadata",
        f"the record of the job has {size} bytes, and the NATS server takes {limit}: store the "
        "data elsewhere and keep a reference here, or raise the server's max_payload",
    )


async def _close(nc: Client, seconds: float) -> None:
    try:
        await asyncio.wait_for(nc.close(), seconds)
    except (Error, OSError, TimeoutError) as error:
        logger.debug("closing the connection: %s", error)


async def _ignore_error(error: Exception) -> None:
    logger.debug("NATS: %s", _text(error))


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
