"""One run: start the workers, let the workload and the faults loose, end in peace, judge."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from attrs import define, field

from sched_core import (
    BackendError,
    Cron,
    FixedDelay,
    Interval,
    Job,
    JobAlreadyExists,
    JobNotFound,
    JobSpec,
    NothingToSkip,
    Once,
    Policy,
    Retry,
    RunAll,
    Schedule,
    Scheduler,
)
from sched_core.ports import MAX_POLL
from sched_testkit.torture.checker import Evidence, Finding, Report, check
from sched_testkit.torture.harness import TortureHarness
from sched_testkit.torture.journal import now, read
from sched_testkit.torture.worker import load

S = timedelta(seconds=1)
KEPT: dict[str, Any] = {"max_lost": 1_000_000, "keep_executions": None, "keep_finished": None}


def workload(base: datetime, seconds: float, scale: int) -> list[JobSpec]:
    """Return the jobs that run undisturbed, and those (``edited-``) that commands are for."""
    specs: list[JobSpec] = []

    def add(
        name: str, count: int, schedule: Callable[[int], Schedule], kind: str, **rules: Any
    ) -> None:
        for n in range(count):
            policy = Policy(**KEPT, **rules)
            specs.append(JobSpec(f"{name}-{n}", schedule(n), None, {"kind": kind}, policy))

    add("cron", scale, lambda _: Cron("* * * * * *"), "quick")
    add("interval", 2 * scale, lambda n: Interval(milliseconds=700 + 60 * n), "quick")
    add(
        "all", scale, lambda n: Interval(milliseconds=900 + 50 * n), "quick", misfire=RunAll(10_000)
    )
    span = seconds / (4 * scale)
    add("once", 4 * scale, lambda n: Once(base + n * span * S), "quick")
    add(
        "retry",
        scale,
        lambda n: Interval(milliseconds=1500 + 40 * n),
        "fails",
        retry=Retry(3, S / 10),
    )
    add("delay", scale, lambda n: FixedDelay(milliseconds=400 + 20 * n), "slow")
    add("long", scale, lambda n: Interval(seconds=5 + n), "long")
    add("suicide", scale, lambda n: Interval(seconds=3 + n), "suicide")
    add("block", 1, lambda _: Interval(seconds=4), "block")
    add("timeout", scale, lambda n: Interval(seconds=4 + n), "long", timeout=S / 2)
    add("edited", 2 * scale, lambda n: Interval(milliseconds=600 + 90 * n), "slow")
    return specs


@define
class Worker:
    """A process."""

    process: subprocess.Popen[bytes]
    journal: Path


@define
class Run:
    """One run of the torture.

    Attributes:
        spec: Names the harness for the workers.
        seed: Of workload and faults.
        seconds: How long faults are made.
        faults_each: Seconds between two faults, on average.
        scale: Of the workload.
    """

    spec: str
    seed: int
    seconds: float
    faults_each: float = 2.0
    scale: int = 4
    workers: list[Worker] = field(factory=list)
    commands: list[dict[str, Any]] = field(factory=list)
    faults: list[dict[str, Any]] = field(factory=list)
    journals: list[Path] = field(factory=list)
    harness: TortureHarness = field(init=False)
    _folder: Path = field(init=False)
    _address: str = field(init=False)
    _chance: random.Random = field(init=False)
    _version: int = 0

    def play(self) -> tuple[Report, Evidence]:
        """Play it to the end."""
        self.harness = load(self.spec)
        self._chance = random.Random(self.seed)
        with tempfile.TemporaryDirectory(prefix="torture-") as folder:
            self._folder = Path(folder)
            store = self._folder / "store"
            store.mkdir()
            with self.harness.place(str(store)) as self._address, self._ended():
                evidence = anyio.run(self._play)
        return check(evidence), evidence

    @contextmanager
    def _ended(self) -> Iterator[None]:
        try:
            yield
        finally:
            for worker in self.workers:
                if worker.process.poll() is None:
                    worker.process.kill()
                worker.process.wait(timeout=60)

    # -- processes

    def _start(self) -> Worker:
        path = self._folder / f"journal-{len(self.journals)}.jsonl"
        command = [sys.executable, "-m", "sched_testkit.torture.worker", self.spec, self._address]
        with (self._folder / "log.txt").open("ab") as log:
            process = subprocess.Popen([*command, str(path)], stdout=log, stderr=log)
        self.journals.append(path)
        worker = Worker(process, path)
        self.workers.append(worker)
        return worker

    @contextmanager
    def _fault(self, what: str, pid: int = 0) -> Iterator[dict[str, Any]]:
        fault = {"what": what, "pid": pid, "began": now(), "ended": now() + 3600 * S}
        self.faults.append(fault)
        yield fault
        fault["ended"] = now()

    # -- the course

    async def _play(self) -> Evidence:
        harness, base = self.harness, now() + 2 * S
        async with Scheduler(harness.backend(self._address)) as scheduler:
            specs = workload(base, self.seconds, self.scale)
            await scheduler.submit_jobs(specs, atomic=False)
            for spec in specs:
                self._note("submit", spec.id, "ok", stays=True)
            for _ in range(harness.processes):
                self._start()
            async with anyio.create_task_group() as tasks:
                with anyio.move_on_after(self.seconds):
                    async with anyio.create_task_group() as disturbing:
                        disturbing.start_soon(self._command_on, scheduler)
                        disturbing.start_soon(self._harm_on, tasks)
                        disturbing.start_soon(self._replace_dead)
            rested, resting = await self._rest(scheduler)
            await anyio.to_thread.run_sync(self._stop_all)
            jobs = [job async for job in scheduler.list_jobs() if isinstance(job, Job)]
            lines = [line async for line in scheduler.list_executions()][::-1]
        entries = [entry for path in self.journals for entry in read(path)]
        entries.sort(key=lambda entry: entry["mono"])
        self._note_what_handlers_did(entries)
        return Evidence(
            jobs, lines, entries, self.commands, self.faults, rested, resting, harness.lease
        )

    def _note_what_handlers_did(self, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            at = datetime.fromisoformat(entry["at"])
            if entry["what"] == "suicide":
                self.faults.append(
                    {"what": "suicide", "pid": entry["pid"], "began": at, "ended": at + 2 * S}
                )
            elif entry["what"] == "block":
                ended = at + 2 * self.harness.lease
                self.faults.append(
                    {"what": "block", "pid": entry["pid"], "began": at, "ended": ended}
                )

    async def _replace_dead(self) -> None:
        while True:
            await anyio.sleep(0.2)
            for worker in [w for w in self.workers if w.process.poll() is not None]:
                self.workers.remove(worker)
                await anyio.sleep(self._chance.random() * 0.5)
                self._start()

    async def _rest(self, scheduler: Scheduler) -> tuple[datetime, list[Job]]:
        """Let everything be well for long enough, suicides apart."""
        calm = (2 * self.harness.lease + MAX_POLL + 2 * S).total_seconds()
        with anyio.move_on_after(calm):
            await self._replace_dead()
        jobs = [job async for job in scheduler.list_jobs() if isinstance(job, Job)]
        return now(), jobs

    def _stop_all(self) -> None:
        alive = [worker for worker in self.workers if worker.process.poll() is None]
        with self._fault("terminate"):
            for worker in alive:
                worker.process.send_signal(signal.SIGTERM)
            for worker in alive:
                worker.process.wait(timeout=60)

    # -- faults

    async def _harm_on(self, tasks: Any) -> None:
        special = dict(self.harness.faults(self._address))
        await anyio.sleep(1.0)
        while True:
            await anyio.sleep(self._chance.expovariate(1 / self.faults_each))
            alive = [worker for worker in self.workers if worker.process.poll() is None]
            if not alive:
                continue
            worker = self._chance.choice(alive)
            kinds = ["kill", "kill", "stop", "terminate", *special]
            kind = self._chance.choice(kinds)
            lease = self.harness.lease.total_seconds()
            if kind == "stop":
                tasks.start_soon(self._stop_for, worker, lease * self._chance.uniform(0.3, 2.5))
            elif kind in special:
                harm, lasts = special[kind], self._chance.uniform(0.2, 1.5 * lease)
                with self._fault(kind):
                    await anyio.to_thread.run_sync(harm, lasts)
            else:
                number = signal.SIGKILL if kind == "kill" else signal.SIGTERM
                with self._fault(kind, worker.process.pid):
                    worker.process.send_signal(number)
                    await anyio.sleep(0.05 if kind == "kill" else 0.5)

    async def _stop_for(self, worker: Worker, seconds: float) -> None:
        with self._fault("stop", worker.process.pid):
            os.kill(worker.process.pid, signal.SIGSTOP)
            with anyio.CancelScope(shield=True):
                await anyio.sleep(seconds)
            if worker.process.poll() is None:
                os.kill(worker.process.pid, signal.SIGCONT)
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.5)

    # -- commands

    def _note(self, what: str, job_id: str, outcome: str, **details: Any) -> None:
        self.commands.append(
            {"what": what, "id": job_id, "outcome": outcome, "at": now(), "ended": now(), **details}
        )

    async def _command_on(self, scheduler: Scheduler) -> None:
        kinds: tuple[str, ...] = ("update", "update", "reschedule", "ensure", "remove", "submit")
        kinds += ("pause", "resume", "trigger", "skip", "unskip")
        while True:
            await anyio.sleep(self._chance.expovariate(4))
            what = self._chance.choice(kinds)
            with anyio.CancelScope(shield=True):
                await self._command(
                    scheduler, what, f"edited-{self._chance.randrange(2 * self.scale)}"
                )

    async def _command(self, scheduler: Scheduler, what: str, job_id: str) -> None:
        self._version += 1
        metadata = {"kind": "slow", "version": str(self._version)}
        every = Interval(milliseconds=600 + 90 * self._chance.randrange(8))
        policy, details = Policy(**KEPT), dict[str, Any]()
        try:
            if what == "update":
                details = {"version": str(self._version)}
                await scheduler.update_job(job_id, metadata=metadata)
            elif what == "reschedule":
                await scheduler.update_job(job_id, every)
            elif what in {"ensure", "submit"}:
                details = {"version": str(self._version)}
                add = scheduler.ensure_job if what == "ensure" else scheduler.submit_job
                await add(job_id, every, metadata=metadata, policy=policy)
            elif what == "remove":
                job = await scheduler.get_job(job_id)
                details = {"uid": job.uid}
                await scheduler.remove_job(job_id)
            elif what == "pause":
                until = now() + self._chance.choice((1, 3)) * S
                await scheduler.pause_job(job_id, until=until if self._version % 2 else None)
            else:
                act = {
                    "resume": scheduler.resume_job,
                    "trigger": scheduler.trigger_job,
                    "skip": scheduler.skip_next,
                    "unskip": scheduler.unskip,
                }[what]
                await act(job_id)
            outcome = "ok"
        except (JobNotFound, JobAlreadyExists, NothingToSkip):
            outcome = "fail"
        except BackendError:
            outcome = "info"
        changes = what in {"update", "ensure", "submit", "remove"}
        kind = "ensure" if what == "submit" and outcome == "ok" else what
        if changes or outcome != "ok":
            self._note(kind, job_id, outcome, **details)
        else:
            # It leaves the definition alone: the checker need not know when.
            self._note("operate", job_id, "fail")


def timeline(evidence: Evidence, finding: Finding, *, span: timedelta = 6 * S) -> str:
    """Return what happened around a finding, in order, for a person to follow."""
    events: list[tuple[datetime, str]] = []
    job = finding.job_id
    for entry in evidence.entries:
        if entry["what"] in {"ready", "stopped"} or entry.get("id") == job:
            about = f"{entry.get('key', '')} attempt {entry.get('attempt', '')}"
            events.append(
                (
                    datetime.fromisoformat(entry["at"]),
                    f"pid {entry['pid']}: {entry['what']} {about}",
                )
            )
    for line in evidence.lines:
        if line.job_id == job:
            events.append(  # noqa: PERF401 -- the loops read alike
                (line.finished_at, f"ledger: {line.id} {line.status.value} token {line.token}")
            )
    for fault in evidence.faults:
        events.append((fault["began"], f"fault: {fault['what']} pid {fault['pid']}"))
        events.append((fault["ended"], f"fault ends: {fault['what']} pid {fault['pid']}"))
    for command in evidence.commands:
        if command["id"] == job:
            events.append(  # noqa: PERF401 -- as above
                (command["at"], f"command: {command['what']} {command['outcome']}")
            )
    near = [e for e in sorted(events) if abs(e[0] - finding.at) <= span]
    return "\n".join(f"  {at:%H:%M:%S.%f} {what}" for at, what in near[-60:])
