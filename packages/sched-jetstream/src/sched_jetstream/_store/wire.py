"""Requests with answers of any number, on one inbox, that fail in known ways.

nats-py's own helpers are not used where they lose an answer: ``request`` takes only the first
reply, ``publish_async`` leaves futures that never resolve after a connection was lost, and what is
published while disconnected is stored, minutes later, though the call failed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nats.aio.msg import Msg
from nats.errors import (
    ConnectionClosedError,
    MaxPayloadError,
    OutboundBufferLimitError,
)

from sched_core._support.logger import Logger
from sched_core.errors import BackendError, InvalidDefinition
from sched_jetstream._model.layout import Message
from sched_jetstream._store.channels import Handler, status_of
from sched_jetstream._store.connection import Connection
from sched_jetstream._store.refusals import refusal
from sched_jetstream.errors import NotSent, OutcomeUnknown

logger = Logger("sched_jetstream")

HEADER_RESERVE = 4096
"""Bytes that a message must stay below the server's limit: a fired one grows by a header or two."""
LONGEST_HEADERS = 60_000
PARTS = 4
"""The parts in which the time for an answer is counted."""


class ApiError(BackendError):
    """The JetStream API refused.

    Attributes:
        code: The kind of refusal, a status of HTTP.
        err_code: The exact refusal.
    """

    def __init__(self, subject: str, error: Mapping[str, Any]) -> None:
        self.code = int(error.get("code", 0))
        self.err_code = int(error.get("err_code", 0))
        self.description = str(error.get("description", ""))
        super().__init__(f"{subject}: {self.description} ({self.code}, {self.err_code})")


class NoResponders(NotSent):
    """No server listens on the subject: no stream, no leader, no JetStream."""


class NoLeader(NotSent):
    """JetStream says that it cannot answer at the moment: the cluster elects.

    Attributes:
        err_code: The exact reason.
    """

    def __init__(self, error: ApiError) -> None:
        super().__init__(str(error))
        self.err_code = error.err_code


class Wire(Connection):
    """Sends requests and messages over one connection."""

    async def allowed(self, probes: Sequence[Message]) -> None:
        """Check permissions by publishing messages that change nothing.

        Args:
            probes: A message for each kind of subject.

        Raises:
            PermissionDenied: It refused one, or a subscription.
            NotSent: The connection is lost.
        """
        await self.ready()
        self._drop_denials("publish")
        for each in probes:
            await self.send(each.subject, each.body, dict(each.headers))
        await self._heard(self.client)
        denied = self.denial()
        if denied is not None:
            raise denied

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
            raise NotSent(refusal(error).text) from error
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
        if size > limit - HEADER_RESERVE:
            raise _too_large(size, limit - HEADER_RESERVE)

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
            with self.awaiting(subject, future):
                await self.send(subject, body, headers, reply)
                if not await answered(future, timeout):
                    raise OutcomeUnknown(self._no_answer(subject, timeout))
                msg = future.result()
                self.passed(subject)
        finally:
            self.unlisten(key)
        if status_of(msg) == "503":
            raise NoResponders(f"{subject}: no server answers (no stream, or no leader yet)")
        return msg

    def _no_answer(self, subject: str, seconds: float) -> str:
        denied = self.denial()
        why = "" if denied is None else f"; {denied}"
        return f"{subject}: no answer within {seconds:g} s{why}"

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
                raise NoLeader(error) from error
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
            with self.awaiting(subject, last):
                await self.send(subject, json.dumps(body).encode(), None, reply)
                seen = -1
                while not last.done():
                    if came == seen:
                        raise OutcomeUnknown(self._no_answer(subject, self.timeout))
                    seen = came
                    await answered(last, self.timeout)
        finally:
            self.unlisten(key)
        msg = last.result()
        self.passed(subject)
        if status_of(msg) == "503":
            raise NoResponders(f"{subject}: no server answers (no stream, or no leader yet)")
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


def _too_large(size: int, limit: int) -> InvalidDefinition:
    return InvalidDefinition(
        "metadata",
        f"the record of the job has {size} bytes, and the NATS server takes {limit}: store the "
        "data elsewhere and keep a reference here, or raise the server's max_payload",
    )


async def answered(future: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for an answer; return whether it came.

    The time is counted in parts, so that a process that was stopped, or whose loop was blocked,
    first reads what has come meanwhile: no answer is missed that lies in the socket.
    """
    for _ in range(PARTS):
        done, _ = await asyncio.wait([future], timeout=seconds / PARTS)
        if done:
            return True
    return False
