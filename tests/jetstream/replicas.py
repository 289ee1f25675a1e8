"""Replicas as processes, and what can be said about them from outside afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import anyio
from attrs import define, field

from sched_core import Execution, Status

WORKER = Path(__file__).with_name("worker.py")


@define
class Start:
    """A handler was called, as its journal says."""

    job: str
    key: str
    attempt: int
    token: int
    pid: int
    at: float
    late: float


@define
class Replicas:
    """Processes on one bucket.

    Attributes:
        bucket: The bucket of jobs.
        folder: The folder to which the processes write.
        lease: The lease of claims in seconds.
        copies: How many copies the streams have.
        processes: The processes by their place; a new one takes the place of a killed one.
        urls: The server that each place connects to.
        journals: The file that each place writes to now.
    """

    bucket: str
    folder: Path
    lease: float
    copies: int = 1
    processes: list[subprocess.Popen[bytes]] = field(factory=list)
    urls: list[Sequence[str]] = field(factory=list)
    journals: list[Path] = field(factory=list)
    made: int = 0
    kills: int = 0

    def start(self, urls: Sequence[str]) -> int:
        """Start one more; return its place."""
        self.urls.append(urls)
        self.journals.append(self.folder)  # until it has one
        place = len(self.urls) - 1
        self.processes.append(self._launch(place))
        return place

    def _launch(self, place: int) -> subprocess.Popen[bytes]:
        self.made += 1
        journal = self.journals[place] = self.folder / f"journal-{self.made}"
        arguments = [self.bucket, str(journal), str(self.lease), str(self.copies)]
        with (self.folder / f"errors-{self.made}").open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, str(WORKER), *arguments, *self.urls[place]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    def kill(self, place: int) -> None:
        """End one without goodbye, and start another in its place."""
        self.kills += 1
        self.processes[place].kill()
        self.processes[place].wait(30)
        self.processes[place] = self._launch(place)

    async def at_work(self, place: int, job: str) -> None:
        """Return as soon as a job whose id begins so runs there: a new process takes long."""
        journal, begins = self.journals[place], f'["{job}'.encode()
        with anyio.fail_after(60):
            while not journal.exists():
                await anyio.sleep(0.01)
            with journal.open("rb") as file:
                file.seek(0, os.SEEK_END)
                while not any(line.startswith(begins) for line in file.readlines()):
                    await anyio.sleep(0.01)

    def freeze(self, place: int) -> None:
        """Stop a process wherever it is."""
        self.processes[place].send_signal(signal.SIGSTOP)

    def thaw(self, place: int) -> None:
        """Let a frozen one go on."""
        self.processes[place].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End all of them in order."""
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(30)
                raise

    def end(self) -> None:
        """End whatever is left."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait(30)

    def errors(self) -> str:
        """Return what they wrote to standard error."""
        texts = [path.read_text(errors="replace") for path in self.folder.glob("errors-*")]
        return "\n".join(text for text in texts if text)

    def starts(self) -> list[Start]:
        """Return all calls of handlers, oldest first."""
        found: list[Start] = []
        for path in self.folder.glob("journal-*"):
            if path.suffix:
                continue
            for line in path.read_bytes().split(b"\n"):
                # The last one of a killed process may be cut.
                found += [Start(*json.loads(line))] if line.endswith(b"]") else []
        return sorted(found, key=lambda start: start.at)

    def health(self) -> list[tuple[float, bool, str]]:
        """Return what they said about themselves, oldest first."""
        rows = []
        for path in self.folder.glob("*.health"):
            rows += [tuple(json.loads(line)) for line in path.read_text().splitlines()]
        return sorted(rows)


def judge(starts: Sequence[Start], lines: Sequence[Execution]) -> dict[str, int]:
    """Hold what happened to what must be true whatever was killed; return what was counted.

    Nothing of the backend is asked: journals and the history are compared.
    """
    finals: dict[str, list[Execution]] = defaultdict(list)
    by_attempt: dict[tuple[str, int], Execution] = {}
    for line in lines:
        key = f"{line.uid}:{line.number}"
        if line.final:
            finals[key].append(line)
        where = (key, line.attempt)
        assert where not in by_attempt, f"two lines of one attempt: {line} {by_attempt[where]}"
        by_attempt[where] = line
    doubled = {key: each for key, each in finals.items() if len(each) > 1}
    assert not doubled, f"{len(doubled)} occurrences ended twice: {list(doubled.values())[:2]}"

    calls: dict[str, list[Start]] = defaultdict(list)
    for start in starts:
        calls[start.key].append(start)
    repeats = 0
    for key, made in calls.items():
        assert key in finals, f"{key} was begun and has no end: {made}"
        made.sort(key=lambda start: start.token)
        attempts = [start.attempt for start in made]
        assert attempts == sorted(set(attempts)), f"one attempt began twice: {made}"
        for earlier in made[:-1]:
            left = by_attempt.get((key, earlier.attempt))
            assert left is not None, f"an attempt left no line: {earlier}"
            assert left.status in {Status.ABANDONED, Status.INTERRUPTED}, f"{left} ran again"
            assert left.token == earlier.token
            repeats += 1
    for line in lines:
        if line.status is Status.SUCCEEDED:
            key = f"{line.uid}:{line.number}"
            assert any(
                start.token == line.token and start.attempt == line.attempt
                for start in calls.get(key, [])
            ), f"succeeded and never began: {line}"
    lost = sum(line.status is Status.ABANDONED for line in lines)
    return {
        "occurrences": len(finals),
        "calls": len(starts),
        "repeats": repeats,
        "lost claims": lost,
    }
