"""The worker processes of a run: started, replaced when dead, ended."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import anyio
from attrs import define, field, frozen

from sched_testkit.torture.clock import set_clock
from sched_testkit.torture.journal import ENDS, now, read

PATIENCE = 60.0
"""Seconds in which a process must end after SIGTERM: more than its grace."""
MOMENT = 0.05
START = 60.0
"""Seconds in which processes get ready."""
TOLD = 1500
"""Characters of a log that a finding quotes."""


@define(eq=False)
class Worker:
    """A process.

    Attributes:
        process: It.
        number: The number of the process in this run, from 1.
        journal: Where its handlers write.
        log: Where it complains.
        clock: The file that sets its clock; ``None``: it has the machine's.
    """

    process: subprocess.Popen[bytes]
    number: int
    journal: Path
    log: Path
    clock: Path | None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether it looks for work."""
        return any(entry["what"] == "ready" for entry in read(self.journal))

    def at_work(self) -> bool:
        """Whether a handler of it has been running for a moment."""
        running: dict[tuple[str, int], float] = {}
        for entry in read(self.journal):
            if entry["what"] == "start":
                running[entry["id"], entry["token"]] = entry["mono"]
            elif entry["what"] in ENDS:
                running.pop((entry["id"], entry["token"]), None)
        return any(since < time.monotonic() - MOMENT for since in running.values())

    def told(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-TOLD:]

    def signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        self.process.send_signal(number)

    def limit_files(self, size: int | None) -> None:
        """Let no file that it writes grow beyond so many bytes: to it, the disk is full."""
        assert sys.platform == "linux"
        try:
            _, most = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
            limits = (resource.RLIM_INFINITY if size is None else size, most)
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, limits)
        except ProcessLookupError:
            return


def can_limit_files() -> bool:
    """Whether the system lets one process limit the files of another."""
    return sys.platform == "linux"


class NotReady(Exception):
    """A worker process ended, or took too long, before it looked for work."""


@frozen
class Exit:
    """A process that ended.

    Attributes:
        worker: Its number.
        code: The system's exit code: the negative number of a signal, or what it returned.
        at: When that was noticed.
        log: The end of its log.
    """

    worker: int
    code: int
    at: datetime
    log: str


@define
class Processes:
    """All of a run.

    Args:
        spec: Names the harness.
        address: The address of the place.
        folder: Where they write.
        count: How many there are to be.
        chance: The randomness of the run.
        clocks: Whether they have clocks of their own, which disagree.
    """

    spec: str
    address: str
    folder: Path
    count: int
    chance: random.Random
    clocks: bool
    workers: list[Worker] = field(factory=list)
    journals: list[Path] = field(factory=list)
    exits: list[Exit] = field(factory=list)

    def start(self) -> Worker:
        """Start one more."""
        number = len(self.journals) + 1
        journal, log = self.folder / f"journal-{number}.jsonl", self.folder / f"log-{number}.txt"
        command = [sys.executable, "-m", "sched_testkit.torture.worker", self.spec, self.address]
        command += [str(journal), str(number)]
        clock = None
        if self.clocks:
            clock = self.folder / f"clock-{number}"
            set_clock(clock, self.chance.choice((0, 0, 3600, -3600)))
            command.append(str(clock))
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file)
        self.journals.append(journal)
        worker = Worker(process, number, journal, log, clock)
        self.workers.append(worker)
        return worker

    async def ready(self) -> None:
        """Wait until all of them look for work.

        Raises:
            NotReady: One of them does not come so far.
        """
        until = time.monotonic() + START
        while waiting := [worker for worker in self.workers if not worker.ready]:
            for worker in waiting:
                if not worker.alive:
                    raise NotReady(
                        f"worker process {worker.number} of the harness ended with "
                        f"{worker.process.returncode} before it looked for work:\n{worker.told()}"
                    )
            if time.monotonic() > until:
                raise NotReady(
                    f"worker process {waiting[0].number} of the harness does not look for work "
                    f"after {START:.0f} s:\n{waiting[0].told()}"
                )
            await anyio.sleep(0.05)

    async def complete(self) -> None:
        """Wait until as many as there are to be look for work, or have had their time for that.

        On a machine with much else to do a process takes long to begin.
        """
        with anyio.move_on_after(START):
            while sum(worker.ready for worker in self.alive()) < self.count:  # noqa: ASYNC110 -- files
                await anyio.sleep(0.1)

    def alive(self) -> list[Worker]:
        """Return those that run."""
        return [worker for worker in self.workers if worker.alive]

    async def replace_dead(self) -> None:
        """Start another one in the place of each that ends, until cancelled."""
        while True:
            await anyio.sleep(0.2)
            for worker in [w for w in self.workers if not w.alive]:
                self._ended(worker)
            # By their number: a cancelled call may have left one out.
            while len(self.workers) < self.count:
                await anyio.sleep(self.chance.random() * 0.5)
                self.start()

    def _ended(self, worker: Worker) -> None:
        self.workers.remove(worker)
        self.exits.append(Exit(worker.number, worker.process.returncode, now(), worker.told()))

    def stop(self) -> list[int]:
        """Terminate all; return the numbers of those that do not end."""
        hanging = []
        for worker in (alive := self.alive()):
            worker.signal(signal.SIGTERM)
        for worker in alive:
            try:
                worker.process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                hanging.append(worker.number)
        self.end()
        return hanging

    def end(self) -> None:
        """Kill whatever is left."""
        for worker in list(self.workers):
            if worker.alive:
                worker.process.kill()
            worker.process.wait(timeout=PATIENCE)
            self._ended(worker)
