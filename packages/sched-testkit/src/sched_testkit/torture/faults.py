"""What is done to processes and to the store, and when: drawn from the seed."""

from __future__ import annotations

import logging
import random
import signal
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
from attrs import define, field, frozen

from sched_testkit.torture.clock import set_clock
from sched_testkit.torture.finding import Finding
from sched_testkit.torture.harness import Fault, TortureHarness
from sched_testkit.torture.journal import now
from sched_testkit.torture.processes import Processes, Worker, can_limit_files

_log = logging.getLogger(__name__)
S = timedelta(seconds=1)
NEVER = 3600 * S
CLOCK, DISK, STARVED = "clock", "disk full", "machine overloaded"
ABSENT = "no process there yet"
"""All had ended, and those in their places had not begun: on a busy machine that takes long."""
MEDDLED = "store meddled with"
"""A handler does what its harness's ``meddle`` says."""
KILL = "kill at work"
"""The kill of a process that is running handlers; it counts as a kill like any other."""
STEPS = (0, 3600, -3600)
"""Seconds by which a worker's clock is off."""
ROOM = 16_384
"""Bytes for what a handler still has to write into its journal while the disk is full."""
IMPATIENT = 0.5
"""The share of terminations in which a process is told a second time, and cancels its handlers."""


@define(eq=False)
class InjectedFault:
    """A fault that was made.

    Attributes:
        what: Its name.
        worker: The number of the one that had it, 0 where all of them may feel it.
        began: When it began.
        ended: When it was undone.
        store: Whether the store had it, or the way there.
        costly: Whether claims may be lost by it; otherwise it excuses lateness and nothing else.
    """

    what: str
    worker: int = 0
    began: datetime = field(factory=now)
    ended: datetime = field(factory=lambda: now() + NEVER)
    store: bool = False
    costly: bool = True

    @property
    def excuses(self) -> bool:
        """Whether anything may come of it. A clock that does not decide changes nothing."""
        return self.what not in {CLOCK, MEDDLED}

    def overlaps(self, other: InjectedFault) -> bool:
        """Whether it is of the same process, and at the same time, as the other."""
        overlap = self.began <= other.ended and other.began <= self.ended
        return self.worker == other.worker and overlap

    @property
    def deadly(self) -> bool:
        """Whether the process ends by it."""
        return self.what in {"kill", "suicide", "terminate"}


@frozen
class Planned:
    """A fault before it is made; which process it hits depends on which ones are there then.

    Attributes:
        after: Seconds since the one before was made.
        kind: The kind of the fault.
        lasts: Seconds, for a stop and for a fault of the store.
        step: Seconds by which a clock is off then.
        again: Seconds until a termination is told a second time, ``None``: it is not.
    """

    after: float
    kind: str
    lasts: float
    step: int
    again: float | None


def plan(
    seed: int, kinds: Sequence[str], special: Container[str], each: float, lease: float
) -> Iterator[Planned]:
    """Draw faults without end; each kind comes once in a round, in another order each time.

    Args:
        seed: The same one draws the same faults.
        kinds: The kinds to draw from.
        special: The kinds that are faults of the store.
        each: Seconds between two, on average.
        lease: Seconds.
    """
    chance = random.Random(seed)
    bag = [KILL]  # first, so that also a short run takes something over
    while True:
        bag = bag or chance.sample(kinds, len(kinds))
        kind = bag.pop()
        shortest, longest = (0.2, 1.5 * lease) if kind in special else (0.3 * lease, 2.5 * lease)
        yield Planned(
            chance.expovariate(1 / each),
            kind,
            chance.uniform(shortest, longest),
            chance.choice(STEPS),
            chance.uniform(0, 0.2) if chance.random() < IMPATIENT else None,
        )


class Faults:
    """Makes the faults, one after the other; one that lasts continues during the next.

    Args:
        harness: The harness, which supplies the faults of the store.
        address: The place of the run.
        processes: The processes that have the faults.
        seed: The seed of the run.
        each: Seconds between two, on average.

    Attributes:
        injected: The faults that were made, and those of the machine.
        special: The kinds that are faults of the store.
        delays: The special kinds that cost no claim.
        broken: The faults that raised instead; after that none are made.
    """

    def __init__(
        self,
        harness: TortureHarness,
        address: str,
        processes: Processes,
        seed: int,
        each: float,
    ) -> None:
        self.injected: list[InjectedFault] = []
        self.broken: list[Finding] = []
        self._lease = harness.lease.total_seconds()
        self._processes, self._whom = processes, random.Random(seed)
        delays = harness.delays(address)
        special: dict[str, Fault] = {**harness.faults(address), **delays}
        self.delays = frozenset(delays)
        if harness.owns_file and can_limit_files():
            special[DISK] = self._fill_disk
        self.special: Mapping[str, Fault] = special
        kinds = ["kill", KILL, "stop", "terminate", *special]
        if processes.clocks:
            kinds.append(CLOCK)
        self._plan = plan(seed, kinds, special, each, self._lease)

    @contextmanager
    def noting(
        self, what: str, worker: int = 0, *, store: bool = False, costly: bool = True
    ) -> Iterator[InjectedFault]:
        """Note a fault for as long as it lasts."""
        fault = InjectedFault(what, worker, store=store, costly=costly)
        self.injected.append(fault)
        try:
            yield fault
        finally:
            fault.ended = now()

    async def make(self, tasks: anyio.abc.TaskGroup) -> None:
        """Make faults until cancelled; what has begun is undone in the task group."""
        await anyio.sleep(1.0)
        for planned in self._plan:
            await anyio.sleep(planned.after)
            while not (alive := self._processes.alive()):  # noqa: ASYNC110 -- elsewhere
                await anyio.sleep(0.05)
            if planned.kind in self.special:
                if not await self._hurt_store(planned):
                    return
            else:
                await self._hurt(planned, self._whom.choice(alive), tasks)

    async def watch_machine(self) -> None:
        """Note when this process is held up itself, or a byte on its way into a file.

        Then so are the others, and no process is to blame: there are too few processors, or the
        file system lets all wait while the writes of another are synced.
        """
        with (self._processes.folder / "watched").open("ab", buffering=0) as file:
            while True:
                before = now()
                await anyio.sleep(0.1)
                await anyio.to_thread.run_sync(file.write, b".")
                if (after := now()) - before > self._lease / 4 * S:
                    self.injected.append(InjectedFault(STARVED, began=before, ended=after))

    async def _hurt_store(self, planned: Planned) -> bool:
        """Make a fault of the store; return whether it came to its end."""
        kind = planned.kind
        costly = kind not in self.delays
        with self.noting(kind, store=True, costly=costly), anyio.CancelScope(shield=True):
            try:
                await anyio.to_thread.run_sync(self.special[kind], planned.lasts)
            except Exception as error:
                _log.exception("the harness's fault %r", kind)
                self.broken.append(Finding("fault failed", f"{kind}: {error!r}", now()))
                return False
        return True

    async def _hurt(self, planned: Planned, worker: Worker, tasks: anyio.abc.TaskGroup) -> None:
        kind = planned.kind
        if kind == KILL:
            worker, kind = await self._at_work(worker), "kill"
        if kind == "stop":
            tasks.start_soon(self._stop, worker, planned.lasts)
            return
        with self.noting(kind, worker.number):
            if kind == CLOCK:
                assert worker.clock is not None
                set_clock(worker.clock, planned.step)
            elif kind == "kill":
                worker.signal(signal.SIGKILL)
                await anyio.sleep(0.05)
            else:
                await self._terminate(worker, planned.again)

    async def _terminate(self, worker: Worker, again: float | None) -> None:
        worker.signal(signal.SIGTERM)
        if again is not None:
            await anyio.sleep(again)
            if worker.alive:
                worker.signal(signal.SIGTERM)
        await anyio.sleep(0.5)

    async def _at_work(self, otherwise: Worker) -> Worker:
        """Return a process that runs handlers, if one does before long."""
        for _ in range(100):
            if busy := [worker for worker in self._processes.alive() if worker.at_work()]:
                return self._whom.choice(busy)
            await anyio.sleep(0.02)
        return otherwise

    async def _stop(self, worker: Worker, seconds: float) -> None:
        with self.noting("stop", worker.number), anyio.CancelScope(shield=True):
            worker.signal(signal.SIGSTOP)
            await anyio.sleep(seconds)
            if worker.alive:
                worker.signal(signal.SIGCONT)
                await anyio.sleep(0.5)

    def _fill_disk(self, seconds: float) -> None:
        """Let no file of theirs grow any more, apart from their journals."""
        workers: Sequence[Worker] = self._processes.alive()
        written = [worker.journal.stat().st_size for worker in workers if worker.journal.exists()]
        for worker in workers:
            worker.limit_files(max(written, default=0) + ROOM)
        time.sleep(seconds)
        for worker in workers:
            worker.limit_files(None)

    def note(self, entries: Sequence[dict[str, Any]]) -> None:
        """Take in what handlers did to themselves, and what the machine did to processes."""
        for entry in entries:
            what = entry["what"]
            lasts = {"suicide": 2 * S, "block": 2 * self._lease * S, MEDDLED: 0 * S}.get(what)
            if lasts is not None:
                at = datetime.fromisoformat(entry["at"])
                self.injected.append(InjectedFault(entry["what"], entry["worker"], at, at + lasts))
        made = [fault for fault in self.injected if fault.what in {"stop", "block"}]
        for entry in entries:
            if entry["what"] == "held up":
                until = datetime.fromisoformat(entry["at"])
                starved = InjectedFault(
                    STARVED, entry["worker"], until - entry["seconds"] * S, until
                )
                if not any(fault.overlaps(starved) for fault in made):
                    self.injected.append(starved)
        self.injected += self._absences(entries)

    def _absences(self, entries: Sequence[dict[str, Any]]) -> Iterator[InjectedFault]:
        """Yield when no process was there, between two that were."""
        ended = {one.worker: one.at for one in self._processes.exits}
        ready = [(e["at"], e["worker"]) for e in entries if e["what"] == "ready"]
        present: datetime | None = None
        for at, number in sorted((datetime.fromisoformat(at), number) for at, number in ready):
            if present is not None and present < at:
                yield InjectedFault(ABSENT, 0, present, at, costly=False)
            present = max(present or at, ended.get(number, at + NEVER))
