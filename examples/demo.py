"""The demo: a service with jobs of several kinds on one SQLite file, shown live.

Run it with ``./dev demo``. Ctrl-C drains: running handlers end and are written. ``kill -9`` it and
start it again: it goes on where it was. Times are in UTC.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Literal

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sched_core import (
    Cron,
    Execution,
    ExecutionQuery,
    Health,
    HealthChange,
    Interval,
    Job,
    JobEvent,
    JobQuery,
    Once,
    Policy,
    Retry,
    Schedule,
    Scheduler,
    State,
    Status,
)
from sched_sql import SqlBackend

ROOT = Path(__file__).resolve().parents[1]
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
KEEP = Policy(keep_executions=HOUR, keep_finished=timedelta(minutes=10))
FLAKY = Policy(retry=Retry(attempts=3, backoff=SECOND), timeout=5 * SECOND, keep_executions=HOUR)
JOBS: dict[str, tuple[Schedule, Policy]] = {
    "daily_cleanup": (Cron("0 3 * * *"), KEEP),
    "hourly_metrics": (Interval(hours=1), KEEP),
    "heartbeat": (Interval(seconds=2), KEEP),
    "round_seconds": (Cron("*/5 * * * * *"), KEEP),
    "flaky_upload": (Interval(seconds=9), FLAKY),
    "sync_report": (Interval(seconds=12), KEEP),
}
REMINDERS = cycle([("tea", "take the bag out"), ("call", "ring Ada back"), ("bill", "pay it")])


# -- what the jobs do


async def handle(event: JobEvent) -> None:
    """Tell jobs apart by metadata or id: there is one handler for all."""
    match event.metadata.get("kind", event.id):
        case "tea" | "call" | "bill":
            await anyio.sleep(0.05)  # sends a message, say
        case "flaky_upload":
            await anyio.sleep(0.2)
            if event.attempt == 1:
                raise ConnectionError("the other side hung up")
        case "sync_report":
            await anyio.to_thread.run_sync(write_report, event)  # a function that blocks


def write_report(event: JobEvent) -> None:
    for _ in range(10):
        if event.cancelled:  # a thread cannot be cancelled, so it is told
            return
        time.sleep(0.15)


# -- what is known about them, and how it looks


class Board(logging.Handler):
    """Collects what the scheduler reports: executions, health, log records."""

    def __init__(self, database: Path, say: Callable[[str], object]) -> None:
        super().__init__(logging.ERROR)
        self.database, self.say = database, say
        self.began = datetime.now(UTC)
        self.note = "A new file: kill -9 this and start it again, it will go on."
        self.executions: deque[Execution] = deque(maxlen=200)
        self.texts: dict[str, str] = {}
        self.jobs: list[Job] = []
        self.lost: set[str] = set()
        self.running: set[str] = set()
        self.before = self.runs = self.failures = 0
        self.late: deque[timedelta] = deque(maxlen=10_000)
        self.health: Health | None = None
        self.draining = False

    async def look_back(self, scheduler: Scheduler) -> None:
        """Read what an earlier start has left in the file."""
        found = [each async for each in scheduler.list_executions() if isinstance(each, Execution)]
        self.jobs = [job async for job in scheduler.list_jobs() if isinstance(job, Job)]
        self.texts = {job.id: reminder(job.spec.metadata) for job in self.jobs}
        self.before = sum(each.attempt > 0 for each in found)
        self.executions.extend(reversed(found[:200]))
        waiting = sum(job.state is not State.FINISHED for job in self.jobs)
        if found:
            ago = span(self.began - found[0].finished_at)
            last = f"last run {ago} ago ({found[0].job_id}), {self.before:,} runs in the history"
            self.note = f"Picked up where it was: {waiting} jobs, {last}."
        self.say(self.note)

    def observe(self, what: Execution | HealthChange) -> None:
        if isinstance(what, HealthChange):
            self.say(f"health: {'; '.join(what.problems) or 'good'}")
            return
        self.executions.append(what)
        self.runs += what.attempt > 0
        self.failures += what.status is Status.FAILED
        if what.attempt == 1 and what.started_at and what.scheduled_at > self.began:
            self.late.append(what.started_at - what.scheduled_at)
        state, at = coloured(what.status, final=what.final).plain, f"{what.finished_at:%H:%M:%S.%f}"
        columns = f"{at[:-3]}  {what.job_id:<17} {state:<16} {lateness(what):>9}"
        self.say(f"{columns}  {self.remark(what)}".rstrip())

    def emit(self, record: logging.LogRecord) -> None:
        self.say(f"{record.levelname.lower()}: {record.getMessage()}")

    async def call(self, event: JobEvent) -> None:
        """Call the handler, and know meanwhile that it runs."""
        self.running.add(event.id)
        if len(self.texts) > 1000:
            self.texts.clear()
        self.texts[event.id] = reminder(event.metadata)
        try:
            await handle(event)
        finally:
            self.running.discard(event.id)

    def remark(self, execution: Execution) -> str:
        parts = [self.texts.get(execution.job_id, ""), execution.reason or ""]
        if execution.attempt > 1:
            lost = f"{execution.uid}:{execution.number}:{execution.attempt - 1}" in self.lost
            parts.append(f"attempt {execution.attempt}" + (" (after a kill)" if lost else ""))
        parts.append(
            f"and for {execution.coalesced:,} more that passed" if execution.coalesced else ""
        )
        return ", ".join(filter(None, parts))

    def frame(self, height: int) -> Group:
        jobs = sorted(self.jobs, key=lambda job: job.standing.due_at or self.began)
        coming = min(len(jobs), max(3, (height - 12) // 2))
        return Group(
            panel("sched demo", self.head()),
            panel("what comes next", self.coming(jobs[:coming])),
            panel("what just ran", self.ran(max(1, height - coming - 14))),
            panel("since this start", self.totals()),
        )

    def head(self) -> Text:
        up, kill = span(datetime.now(UTC) - self.began), f"kill -9 {os.getpid()}"
        first = Text(f"{self.database.name} · up {up} · Ctrl-C drains, {kill} does not\n")
        if self.draining:
            first = Text("Draining: running handlers end, nothing new begins.\n", "bold yellow")
        return Text.assemble(first, (self.note, "dim"), no_wrap=True)

    def coming(self, jobs: list[Job]) -> Table:
        table = grid("job:17", "what", "at:8", ">in:9", ">no.:6", "last:10")
        now = datetime.now(UTC)
        for job in jobs:
            due, last = job.standing.due_at or now, job.standing.last_status
            left = Text(span(due - now), "bold" if due - now < 3 * SECOND else "")
            if job.id in self.running or due <= now:
                left = Text("running" if job.id in self.running else "now", "bold cyan")
            at, number = f"{due:%H:%M:%S}", f"{job.standing.last_number:,}"
            table.add_row(job.id, described(job), at, left, number, coloured(last))
        return table

    def ran(self, rows: int) -> Table:
        table = grid("job:17", "what", "at:8", ">late:9", "status:16")
        for each in list(self.executions)[-1 : -rows - 1 : -1]:
            at, style = each.started_at or each.finished_at, "dim" * (each.finished_at < self.began)
            cells = each.job_id, self.remark(each), f"{at:%H:%M:%S}", lateness(each)
            table.add_row(*cells, coloured(each.status, final=each.final), style=style)
        for _ in range(rows - len(self.executions)):
            table.add_row()
        return table

    def totals(self) -> Text:
        late = sorted(self.late) or [timedelta(0)]
        half, most = short(late[len(late) // 2]), short(late[len(late) * 99 // 100])
        problems = "; ".join(self.health.problems) if self.health else ""
        return Text.assemble(
            f"{self.runs:,} runs, {self.failures:,} failed, {len(self.running)} running · ",
            f"{self.before + self.runs:,} in the history\n",
            f"lateness p50 {half}, p99 {most} · ",
            (problems or "healthy", "bold red" if problems else "green"),
            no_wrap=True,
        )


def grid(*columns: str) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim")
    for column in columns:
        name, _, size = column.partition(":")
        width, ratio = (int(size), None) if size else (None, 1)
        side: Literal["left", "right"] = "right" if name.startswith(">") else "left"
        name = name.lstrip(">")
        table.add_column(name, width=width, ratio=ratio, justify=side, no_wrap=True)
    return table


def panel(title: str, content: Table | Text) -> Panel:
    return Panel(content, title=title, title_align="left", border_style="blue", padding=(0, 1))


def coloured(status: Status | None, *, final: bool = True) -> Text:
    colours = {None: "", Status.SUCCEEDED: "green", Status.FAILED: "red" if final else "yellow"}
    text = status.value if status else ""
    return Text(text if final else f"{text}, again", colours.get(status, "yellow"))


def described(job: Job) -> str:
    schedule, one = job.spec.schedule, job.standing.scheduled
    if isinstance(schedule, Cron):
        text = f"cron {schedule.expression}"
    elif isinstance(schedule, Interval):
        text = f"every {span(schedule.every)}".replace(".0 s", " s").replace(" 00 m", "")
    else:
        text = reminder(job.spec.metadata)
    return f"{text}, attempt {one.attempts + 1}" if one and one.attempts else text


def reminder(metadata: Mapping[str, str]) -> str:
    return f"{metadata['kind']}: {metadata['text']}" if "kind" in metadata else ""


def lateness(execution: Execution) -> str:
    began = execution.started_at if execution.attempt == 1 else None  # a retry is late on purpose
    return short(began - execution.scheduled_at) if began else ""


def span(length: timedelta) -> str:
    seconds = int(length.total_seconds())
    if seconds < 60:
        return f"{length.total_seconds():.1f} s"
    minutes = f"{seconds // 60} m {seconds % 60:02} s"
    return minutes if seconds < 3600 else f"{seconds // 3600} h {seconds % 3600 // 60:02} m"


def short(length: timedelta) -> str:
    return span(length) if length >= SECOND else f"{length / SECOND * 1000:.1f} ms"


# -- the service


async def submit_reminders(scheduler: Scheduler) -> None:
    """Submit a one-shot every few seconds, as requests of users would."""
    for kind, text in REMINDERS:
        at = datetime.now(UTC) + timedelta(milliseconds=3000 + secrets.randbelow(9000))
        metadata = {"kind": kind, "text": text}
        name = f"reminder-{secrets.token_hex(4)}"
        await scheduler.submit_job(name, Once(at), metadata=metadata, policy=KEEP)
        await anyio.sleep(4)


async def look(scheduler: Scheduler, board: Board) -> None:
    """Read the jobs often, health every five seconds (it writes to the disk)."""
    query = JobQuery(state=State.ACTIVE)
    abandoned = ExecutionQuery(statuses=frozenset({Status.ABANDONED}))
    for turn in range(sys.maxsize):
        board.jobs = [job async for job in scheduler.list_jobs(query) if isinstance(job, Job)]
        board.lost = {each.id async for each in scheduler.list_executions(abandoned)}
        if turn % 25 == 0:
            board.health = await scheduler.health()
        await anyio.sleep(0.2)


async def show(board: Board) -> None:
    with Live(screen=True, auto_refresh=False) as live:
        while True:
            draw = partial(live.update, board.frame(live.console.height), refresh=True)
            await anyio.to_thread.run_sync(draw)  # outside the loop: drawing must not delay jobs
            await anyio.sleep(0.2)


async def stop_on_signals(scheduler: Scheduler, board: Board, tasks: TaskGroup) -> None:
    """Stop as ``run_forever`` does on its own, and show that it is under way."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            tasks.start_soon(stop, scheduler, board)


async def stop(scheduler: Scheduler, board: Board, after: float = 0) -> None:
    await anyio.sleep(after)
    await scheduler.wait_until_running()
    again, board.draining = board.draining, True
    board.say("stopping at once" if again else "draining: running handlers end, none begins")
    await (scheduler.stop(grace=0) if again else scheduler.stop())


async def serve(database: Path, seconds: float | None, *, plain: bool) -> None:
    board = Board(database, partial(print, flush=True) if plain else lambda _: None)
    logging.getLogger("sched_core").addHandler(board)
    logging.getLogger("sched_core").propagate = False
    backend = SqlBackend(f"sqlite:///{database}")
    async with Scheduler(backend, handler=board.call, observers=[board.observe]) as scheduler:
        await board.look_back(scheduler)
        for job_id, (schedule, policy) in JOBS.items():
            await scheduler.ensure_job(job_id, schedule, policy=policy)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop_on_signals, scheduler, board, tasks)
            tasks.start_soon(submit_reminders, scheduler)
            tasks.start_soon(look, scheduler, board)
            if not plain:
                tasks.start_soon(show, board)
            if seconds is not None:
                tasks.start_soon(stop, scheduler, board, seconds)
            await scheduler.run_forever(signals=False)
            tasks.cancel_scope.cancel()
    print(f"Drained: {board.runs:,} runs since this start are written, {board.failures:,} failed.")
    print(f"{len(board.jobs)} jobs wait in {database}; start again to go on.")


def main() -> None:
    parser = argparse.ArgumentParser(description="Jobs on a SQLite file, live.")
    parser.add_argument("--database", type=Path, default=ROOT / "demo.db", help="the file")
    parser.add_argument("--seconds", type=float, help="end after this many seconds")
    parser.add_argument("--plain", action="store_true", help="lines instead of a live screen")
    options = parser.parse_args()
    plain = options.plain or not sys.stdout.isatty()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # ./dev demo | head
    anyio.run(lambda: serve(options.database.resolve(), options.seconds, plain=plain))


if __name__ == "__main__":
    main()
