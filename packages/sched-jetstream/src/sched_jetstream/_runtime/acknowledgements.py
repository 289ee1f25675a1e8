"""Acknowledgements: what becomes of the message that brought a hint."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import timedelta

from sched_core._support.logger import Logger
from sched_core.clock import monotonic_seconds, pause
from sched_core.errors import BackendError
from sched_jetstream._store.wire import Wire
from sched_jetstream.errors import NotSent

logger = Logger("sched_jetstream")


class Acknowledgements:
    """Sends acknowledgements in their order, without making a caller wait.

    Args:
        wire: The connection to the server.
        known_for: How long the server waits for one, before it gives the hint to another worker.
    """

    def __init__(self, wire: Wire, known_for: timedelta) -> None:
        self._wire, self._known_for = wire, known_for.total_seconds()
        self._waiting: deque[tuple[str, bytes, float]] = deque()
        self._sending: asyncio.Task[None] | None = None

    def done(self, reply: str) -> None:
        """Acknowledge a message: its job is settled, or it was no use."""
        self._send(reply, b"+ACK")

    def working(self, reply: str) -> None:
        """Keep a message from being delivered to another worker for another while."""
        self._send(reply, b"+WPI")

    def postpone(self, reply: str, delay: timedelta) -> None:
        """Hand a message back, to be delivered again after the delay."""
        nanoseconds = int(delay.total_seconds() * 1e9)
        self._send(reply, b'-NAK {"delay": %d}' % nanoseconds if nanoseconds else b"-NAK")

    def _send(self, reply: str, what: bytes) -> None:
        if not reply:
            return
        self._waiting.append((reply, what, monotonic_seconds()))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send_all())

    async def _send_all(self) -> None:
        """Wait for a connection: without its acknowledgement, a hint comes only after a lease."""
        while self._waiting:
            reply, what, since = self._waiting[0]
            try:
                if monotonic_seconds() - since < self._known_for:
                    await self._wire.send(reply, what)
            except NotSent:
                await pause(0.1)
                continue
            except BackendError as error:
                logger.debug("a hint was not acknowledged: %s", error)
            if self._waiting:
                self._waiting.popleft()

    async def close(self) -> None:
        """Send what waits, if there is a connection."""
        if not self._wire.connected:
            self._waiting.clear()  # the server delivers them again, to others, after a lease
        if self._sending is not None:
            await self._sending
