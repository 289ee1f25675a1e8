"""One run: start the workers, let the workload and the faults loose, end in peace, judge."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
from attrs import define, field

from sched_core import BackendUnavailable, Execution, Job, Scheduler
from sched_core.ports import MAX_POLL
from sched_core.testing import history
from sched_testkit.torture.commands import Commands, S, workload
from sched_testkit.torture.evidence import Evidence, Report, Rules
from sched_testkit.torture.faults import ABSENT, CLOCK, DISK, STARVED, Faults
from sched_testkit.torture.harness import TortureHarness
from sched_testkit.torture.invariants import check
from sched_testkit.torture.journal import now, read
from sched_testkit.torture.processes import Processes, can_limit_files
from sched_testkit.torture.worker import load

Read = TypeVar("Read")
TRIES = 30
"""Tries to read what is stored, about a second each."""


@define
class Run:
    """One run of the torture.

    Attributes:
        spec: Names the harness for the workers.
        seed: The seed of workload and faults.
        seconds: How long faults are made.
        faults_each: Seconds between two faults, on average.
        scale: The size of the workload.
        harness: Once it has played.
        evidence: Once it has played.
        kept: The folder with the journals and logs, if there was a finding, or no verdict at all.
    """

    spec: str
    seed: int
    seconds: float
    faults_each: float = 2.0
    scale: int = 4
    harness: TortureHarness = field(init=False)
    evidence: Evidence = field(init=False)
    kept: Path | None = field(init=False, default=None)

    def play(self) -> Report:
        """Play it to the end, and judge.

        Raises:
            ValueError: The spec names no harness.
            NotReady: The worker processes cannot be started.
            BackendError: The store cannot be read at the end.
        """
        self.harness = load(self.spec)
        self.kept = folder = Path(tempfile.mkdtemp(prefix="torture-"))
        store = folder / "store"
        store.mkdir()
        try:
            self.evidence = self._played(folder, store)
        finally:
            shutil.rmtree(store, ignore_errors=True)  # servers have gone; it may be large
        report = check(self.evidence)
        if not report.findings:
            shutil.rmtree(folder)
            self.kept = None
        return report

    def _played(self, folder: Path, store: Path) -> Evidence:
        harness = self.harness
        with harness.place(str(store)) as address:
            backend = harness.backend(address)
            processes = Processes(
                self.spec,
                address,
                folder,
                harness.processes,
                random.Random(self.seed + 1),
                clocks=backend.capabilities.time == "store",
            )
            faults = Faults(harness, address, processes, self.seed, self.faults_each)
            try:
                return anyio.run(self._play, Scheduler(backend), processes, faults)
            finally:
                processes.end()

    async def _play(self, scheduler: Scheduler, processes: Processes, faults: Faults) -> Evidence:
        harness, base = self.harness, now() + 2 * S
        async with scheduler:
            commands = Commands(scheduler, random.Random(self.seed + 2), 2 * self.scale)
            await commands.submit(workload(base, self.seconds, self.scale))
            for _ in range(processes.count):
                processes.start()
            await processes.ready()
            async with anyio.create_task_group() as watching:
                watching.start_soon(faults.watch_machine)
                async with anyio.create_task_group() as tasks:
                    with anyio.move_on_after(self.seconds):
                        async with anyio.create_task_group() as disturbing:
                            disturbing.start_soon(commands.issue)
                            disturbing.start_soon(processes.replace_dead)
                            await faults.make(tasks)
                            disturbing.cancel_scope.cancel()  # a fault failed: it is judged now
                # Let everything be well for long enough, suicides apart.
                calm = max(2 * harness.lease, harness.recovery) + MAX_POLL + 2 * S
                async with anyio.create_task_group() as replacing:
                    replacing.start_soon(processes.replace_dead)
                    await processes.complete()
                    await anyio.sleep(calm.total_seconds())
                    replacing.cancel_scope.cancel()
                watching.cancel_scope.cancel()
            resting = await _read(partial(_jobs, scheduler))
            rested = now()
            with faults.noting("terminate"):
                hanging = await anyio.to_thread.run_sync(processes.stop)
            jobs = await _read(partial(_jobs, scheduler))
            executions = await _read(partial(_executions, scheduler))
        entries = [entry for path in processes.journals for entry in read(path)]
        entries.sort(key=lambda entry: entry["mono"])
        faults.note(entries)
        rules = Rules(
            harness.lease,
            harness.recovery,
            harness.dead_are_free,
            bool(faults.special),
            processes.clocks,
            harness.stopped_may_lock,
        )
        return Evidence(
            rules,
            jobs,
            executions,
            entries,
            commands.record,
            faults.injected,
            processes.exits,
            hanging,
            rested,
            resting,
            [*faults.broken, *commands.broken],
        )

    def faults(self) -> str:
        """Return how many faults of each kind there were."""
        counted = Counter(fault.what for fault in self.evidence.injected)
        overloads = counted.pop(STARVED, 0) + counted.pop(ABSENT, 0)
        made = ", ".join(f"{count} {what}" for what, count in sorted(counted.items()))
        told = f"{counted.total()} faults ({made})"
        return f"{told}, {overloads} times {STARVED}" if overloads else told

    def left_out(self) -> dict[str, str]:
        """Return the faults that this backend cannot have, with the reason."""
        missing = {}
        if not self.evidence.rules.clocks:
            missing[CLOCK] = "all processes share the machine's clock, which decides"
        if not self.harness.owns_file:
            missing[DISK] = "its processes write no file of the store"
        elif not can_limit_files():
            missing[DISK] = "this system cannot limit the files of another process"
        return missing


async def _jobs(scheduler: Scheduler) -> list[Job]:
    return [job async for job in scheduler.list_jobs() if isinstance(job, Job)]


async def _executions(scheduler: Scheduler) -> list[Execution]:
    return (await history(scheduler))[::-1]


async def _read(read: Callable[[], Awaitable[Read]]) -> Read:
    """Read what is stored, also if the store does not answer at once: a whole run hangs on it."""
    for _ in range(TRIES):
        try:
            return await read()
        except BackendUnavailable:
            await anyio.sleep(1.0)
    return await read()
