"""One process that is tortured: ``python -m sched_testkit.torture.worker SPEC ADDRESS JOURNAL N``.

A fifth argument names the file that sets its clock.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import signal
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

import anyio

from sched_core import BackendUnavailable, Discard, JobEvent, RetryAfter, Scheduler, Snooze
from sched_testkit.torture.clock import SetClock
from sched_testkit.torture.faults import MEDDLED
from sched_testkit.torture.harness import TortureHarness
from sched_testkit.torture.journal import DISCARDED, SNOOZED, Journal

ASKS = (SNOOZED, SNOOZED, "failed", DISCARDED, "end")
"""How a handler ends that asks for something."""
ASKED = 0.3
"""Seconds after which it asks to be called again."""


class Failed(Exception):
    """A failure of a handler, as the job's kind and its key decide."""


def load(spec: str) -> TortureHarness:
    """Return the harness that ``package.module:Class`` names.

    Raises:
        ValueError: It names no such thing, or one that lacks a method.
    """
    module, _, name = spec.partition(":")
    if not (module and name):
        raise ValueError(f"{spec!r} must be package.module:Class")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 -- as python -m does
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise ValueError(f"{module!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, TortureHarness)):
        raise ValueError(  # noqa: TRY004 -- what was typed on a command line is a value
            f"{module!r} has no class {name!r} that is a subclass of TortureHarness"
        )
    if inspect.isabstract(found):
        lacking = ", ".join(sorted(found.__abstractmethods__))
        raise ValueError(f"{spec!r} does not define {lacking}")
    return found()


def chance(event: JobEvent, of: int) -> int:
    """Return a number below *of* that is the same for a claim in every process."""
    return zlib.crc32(f"{event.key}/{event.attempt}/{event.token}".encode()) % of


class Handler:
    """Journals when it begins and ends; in between it does what the job's metadata say."""

    def __init__(self, journal: Journal, lease: float, meddle: Callable[[], bool]) -> None:
        self._journal, self._lease, self._meddle = journal, lease, meddle

    async def __call__(self, event: JobEvent) -> None:
        """Run."""
        about = {"id": event.id, "key": event.key, "attempt": event.attempt, "token": event.token}
        self._journal.write(
            "start",
            **about,
            scheduled_at=event.scheduled_at.isoformat(),
            kind=event.kind.value,
            coalesced=event.coalesced,
            coalesced_until=event.coalesced_until and event.coalesced_until.isoformat(),
            version=event.metadata.get("version", "0"),
        )
        how = "cancelled"
        try:
            kind = event.metadata.get("kind", "")
            if kind == "slow":
                await anyio.sleep(0.4)
            elif kind == "long":
                await anyio.sleep(self._lease * 1.4)
            elif kind == "suicide" and chance(event, 40) == 0:
                self._journal.write("suicide", **about)
                os.kill(os.getpid(), signal.SIGKILL)
            elif kind == "block" and chance(event, 40) == 0:
                self._journal.write("block", **about)
                _block(self._lease * 1.5)
            elif kind == "meddles":
                await anyio.sleep(0.1)
                if self._meddle():
                    self._journal.write(MEDDLED, **about)
                await anyio.sleep(0.1)
            elif kind == "fails" and chance(event, 2) == 0:
                how = "failed"
                raise Failed("as decided by its key")
            elif kind == "asks":
                how = ASKS[chance(event, len(ASKS))]
                _ask(how)
            how = "end"
        finally:
            self._journal.write(how, **about, wait=ASKED if how == SNOOZED else 0)


def _ask(how: str) -> None:
    """Raise what asks for it."""
    if how == SNOOZED:
        raise Snooze(ASKED)
    if how == DISCARDED:
        raise Discard("as decided by its key")
    if how == "failed":
        raise RetryAfter(ASKED, "as decided by its key")


def _block(seconds: float) -> None:
    """Hold up the whole event loop, as a handler should not."""
    time.sleep(seconds)


async def _opened(
    harness: TortureHarness,
    stack: AsyncExitStack,
    address: str,
    handler: Handler,
    number: int,
    clock: str,
) -> Scheduler:
    """Open a scheduler, as often as the store is not there yet: as what restarts services does."""
    while True:
        scheduler = harness.scheduler(
            harness.backend(address),
            handler=handler,
            clock=SetClock(clock) if clock else None,
            worker=f"w{number}",
        )
        try:
            return await stack.enter_async_context(scheduler)
        except BackendUnavailable:
            await anyio.sleep(0.3)


async def watch(journal: Journal, lease: float) -> None:
    """Journal when the machine holds this process up: late, and nothing was computed."""
    while True:
        before, computed = time.monotonic(), time.process_time()
        await anyio.sleep(0.1)
        late, computed = time.monotonic() - before, time.process_time() - computed
        if late > lease / 4 and computed < late / 4:
            journal.write("held up", seconds=late)


async def main(spec: str, address: str, path: str, number: int, clock: str = "") -> None:
    """Run until stopped."""
    harness, journal = load(spec), Journal(path, number)
    meddle = partial(harness.meddle, address)
    handler = Handler(journal, harness.lease.total_seconds(), meddle)
    async with AsyncExitStack() as stack:
        scheduler = await _opened(harness, stack, address, handler, number, clock)
        async with anyio.create_task_group() as tasks:

            async def ready() -> None:
                await scheduler.wait_until_running()
                journal.write("ready")

            tasks.start_soon(ready)
            tasks.start_soon(watch, journal, harness.lease.total_seconds())
            await scheduler.run_forever()
            health = await scheduler.health()
            journal.write("stopped", errors=health.backend_errors)
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    _spec, _address, _path, _number, *_clock = sys.argv[1:]
    anyio.run(main, _spec, _address, _path, int(_number), "".join(_clock))
