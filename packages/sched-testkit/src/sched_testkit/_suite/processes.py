"""Another process with a backend on the same place, for laws about what processes share.

It is forked before any event loop runs and before any backend is open, so it knows the place and
nothing of what the suite does there: what it sees came through the store. Forked, because a harness
that lies in a test file cannot be imported in a process that was newly started.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import anyio
from attrs import evolve, frozen

from sched_core.clock import pause
from sched_testkit._suite.bench import Bench
from sched_testkit.harness import Harness

Order = tuple[Callable[..., Awaitable[Any]], tuple[Any, ...], float]
"""A function of a module, which is called with a bench and arguments, at a moment."""

SOON = 0.002
"""Seconds that an order needs to arrive."""


def moment() -> float:
    """Return a time in seconds that all processes of this machine agree on."""
    return time.monotonic()  # noqa: TID251 -- no clock of the scheduler: processes meet by it


async def meet(at: float) -> None:
    """Wait, at last without giving the processor away: two processes begin within microseconds."""
    await pause(max(at - moment() - SOON / 2, 0))
    while moment() < at:
        pass


class Gone(Exception):
    """The other process has ended, and should not have."""


@frozen
class Reply:
    """What a call in the other process came to.

    Attributes:
        value: What it returned.
        error: The class of what it raised.
        text: What that said.
        begun: The moment at which it began.
        seconds: How long it took.
    """

    value: Any = None
    error: type[Exception] | None = None
    text: str = ""
    begun: float = 0.0
    seconds: float = 0.0

    def result(self) -> Any:
        """Return or raise what the call returned or raised."""
        if self.error is None:
            return self.value
        error = self.error.__new__(self.error)  # its __init__ may want other arguments
        error.args = (self.text,)
        error.add_note("(raised in the other process)")
        raise error


class Elsewhere:
    """The other process, as seen from here."""

    def __init__(self, process: int, connection: Connection) -> None:
        self._process: int | None = process
        self._connection = connection

    async def call(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Call ``function(bench, *arguments)`` there, and return or raise what it does."""
        return (await self.reply(function, *arguments)).result()

    async def reply(
        self, function: Callable[..., Awaitable[Any]], *arguments: Any, at: float = 0.0
    ) -> Reply:
        """Call it there, not before the moment.

        Raises:
            Gone: The other process has ended.
        """
        try:
            self._connection.send((function, arguments, at))
            await anyio.wait_readable(self._connection)
            reply: Reply = self._connection.recv()
        except (EOFError, OSError) as error:
            raise Gone("the other process has ended: a backend must not end its process") from error
        return reply

    def kill(self) -> None:
        """End it at once, as the system does: nothing is said, nothing is closed."""
        if self._process is None:
            return
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        self._process = None
        self._connection.close()


@contextmanager
def elsewhere(harness: Harness, place: Any, loop: str) -> Iterator[Elsewhere]:
    """Fork a process that waits for orders; it is killed at the end."""
    here, there = multiprocessing.Pipe()
    with warnings.catch_warnings():
        # A harness may have threads; what they hold is nothing that the child uses.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process == 0:
        here.close()
        _live(harness, place, there, loop)
    there.close()
    other = Elsewhere(process, here)
    try:
        yield other
    finally:
        other.kill()


def _live(harness: Harness, place: Any, orders: Connection, loop: str) -> None:
    """Be the other process; never return into the one that this was forked from."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it kills this one
    try:
        anyio.run(_serve, Bench(harness, place), orders, backend=loop)
    finally:
        os._exit(0)


async def _serve(bench: Bench, orders: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):  # the parent has gone
        while True:
            await anyio.wait_readable(orders)
            order: Order = orders.recv()
            reply = await _obey(bench, *order)
            try:
                orders.send(reply)
            except Exception as error:  # noqa: BLE001 -- whatever an author's class makes of it
                orders.send(Reply(error=TypeError, text=f"{reply.value!r} cannot be sent: {error}"))


async def _obey(
    bench: Bench, function: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...], at: float
) -> Reply:
    await meet(at)
    begun = moment()
    try:
        reply = Reply(await function(bench, *arguments))
    except Exception as error:  # noqa: BLE001 -- raised again in the parent
        reply = Reply(error=type(error), text=str(error))
    return evolve(reply, begun=begun, seconds=moment() - begun)


# -- what is done there: functions of this module, which both processes know


async def open_there(bench: Bench, worker: str) -> None:
    """Open a backend, as that worker."""
    await bench.open(worker)


async def close_there(bench: Bench) -> None:
    """Close what is open."""
    await bench.close()
    bench.backends.clear()


async def advance_there(bench: Bench, by: timedelta) -> None:
    """Move the clock."""
    await bench.advance(by)


async def call_there(bench: Bench, method: str, *arguments: Any, **named: Any) -> Any:
    """Call a method of the port."""
    return await getattr(bench.backends[0], method)(*arguments, **named)


class Distant:
    """A backend of the other process: it has the methods of the port, and calls them there."""

    def __init__(self, other: Elsewhere) -> None:
        self._other = other
        self.at = 0.0
        """The moment at which the next call begins there, if not at once."""
        self.begun = self.seconds = 0.0
        """The moment at which the last call began there, and how long it took."""

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any, **named: Any) -> Any:
            at, self.at = self.at, 0.0
            reply = await self._other.reply(_call_named, method, arguments, named, at=at)
            self.begun, self.seconds = reply.begun, reply.seconds
            return reply.result()

        return call


async def _call_named(
    bench: Bench, method: str, arguments: tuple[Any, ...], named: dict[str, Any]
) -> Any:
    return await call_there(bench, method, *arguments, **named)
