"""Makes ``first.sql``: a store as revision 1996364 wrote it. It runs there, and nowhere else.

    git worktree add /tmp/old 1996364 && cd /tmp/old && ./dev setup
    .venv/bin/python …/tests/sql/stored/make_first.py > …/tests/sql/stored/first.sql
"""

# mypy: ignore-errors -- it is written for another revision of these packages
# ruff: noqa

import sqlite3
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import anyio
from attrs import evolve

from sched_core import lifecycle
from sched_core.job import Job, JobSpec, Settlement, Status
from sched_core.lifecycle import Ended, Start
from sched_core.policy import Coalesce, Drop, Policy, Retry, RunAll
from sched_core.schedule import AnyOf, Cron, FixedDelay, Interval, Once
from sched_core.testing import FakeClock
from sched_sql import SqlBackend

M = timedelta(minutes=1)
LEASE = timedelta(seconds=30)


class Old:
    def __init__(self, path):
        self.clock = FakeClock()  # 2026-01-01
        self.path = path
        self.count = 0

    async def worker(self, name):
        backend = SqlBackend(self.path, lease=LEASE)
        await backend.open(self.clock, worker=name)
        return backend

    async def add(self, job_id, schedule, declared=False, **spec):
        self.count += 1
        job = lifecycle.admit(
            JobSpec(job_id, schedule, **spec), uid=f"u{self.count}", declared=declared, now=self.clock.now()
        )
        await self.one.add([job])

    async def edit(self, job_id, change):
        job = await self.one.get(job_id)
        changed = change(job)
        if isinstance(changed, Job):
            await self.one.replace(changed)
        else:
            await self.one.replace(changed.job, changed.ledger)

    async def claim(self, backend, *wanted):
        """Claim all that is due, and keep these; hand the others back."""
        claims = await backend.claim_due(100)
        await backend.release([claim for claim in claims if claim.job.id not in wanted])
        kept = {claim.job.id: claim for claim in claims if claim.job.id in wanted}
        assert set(kept) == set(wanted), (sorted(kept), wanted)
        return kept

    async def settle(self, backend, claim, ended=Ended(Status.SUCCEEDED)):
        now, stored = self.clock.now(), claim.job
        begun = lifecycle.begin(claim, now=now)
        if isinstance(begun, Start):
            done = lifecycle.finish(claim, begun, ended, started_at=now, now=now, stored=stored)
        else:
            done = begun
        (settled,) = await backend.settle(
            [Settlement(claim, stored.revision, done.standing, done.ledger)]
        )
        assert settled.outcome == "written"

    async def run(self, job_id, ended=Ended(Status.SUCCEEDED)):
        claims = await self.claim(self.one, job_id)
        await self.settle(self.one, claims[job_id], ended)


async def make(old):
    old.one, old.two = await old.worker("old-1"), await old.worker("old-2")
    hour, now, edit = Interval(hours=1), old.clock.now, old.edit
    start = now()
    await old.add("active", Cron("0 3 * * *", tz="Europe/Berlin"), True, name="Nightly", group="g", metadata={"of": "me"})
    await old.add("ran", Interval(minutes=5))
    await old.add("delayed", FixedDelay(minutes=7))
    await old.add("retried", Interval(minutes=5), policy=Policy(retry=Retry(attempts=3, backoff=2 * M)))
    await old.add("once", Once(start + 5 * M))
    await old.add("any", AnyOf(Interval(minutes=5), Cron("30 4 * * *")), policy=Policy(misfire=RunAll(limit=3), timeout=M))
    await old.add("dropped", Interval(minutes=5), policy=Policy(misfire=Drop(grace=M), keep_executions=timedelta(days=3)))
    await old.add("skipped", Interval(minutes=5))
    await old.add("paused", Interval(minutes=5))
    await old.add("paused-until", Interval(minutes=40))
    await old.add("paused-triggered", hour)
    await old.add("outlived", Interval(minutes=5))
    await old.add("triggered", hour)
    await old.add("behind", Interval(minutes=5))
    await old.add("once-again", Once(start + 2 * M))
    await old.add("claimed", Interval(minutes=5))
    await old.add("claimed-trigger", hour)
    await old.add("lost-free", Interval(minutes=5))
    await old.add("lost-held", Interval(minutes=5))
    await old.add("edited", Interval(minutes=5))
    await old.add("edited-policy", Interval(minutes=5))
    await old.add("removed", Interval(minutes=5))
    await old.add("readded", Interval(minutes=5))
    await old.add("marked", hour)
    await old.add("superseded", Interval(minutes=5))
    await old.add("interrupted", Interval(minutes=5))
    await old.add("ends-pause", Interval(minutes=20))
    announced = lifecycle.announce(JobSpec("announced", hour), uid="u-announced", now=now())
    await old.one.add([announced])
    await edit("marked", lambda job: lifecycle.skip_next(job, now=now()))
    await edit("skipped", lambda job: lifecycle.skip_next(job, now=now()))
    await edit("ends-pause", lambda job: lifecycle.pause(job, until=now() + 21 * M, reason="a while", now=now()))

    old.clock.advance(2 * M)
    await old.run("once-again")
    old.clock.advance(3 * M)
    for job_id in ("ran", "once", "any", "skipped"):
        await old.run(job_id)
    await old.run("retried", Ended(Status.FAILED, "ValueError: no"))
    await old.run("interrupted", Ended(Status.INTERRUPTED, "the worker stopped"))
    await edit("paused", lambda job: lifecycle.pause(job, until=None, reason="holiday", now=now()))
    await edit("paused-until", lambda job: lifecycle.pause(job, until=now() + 60 * M, reason=None, now=now()))
    await edit("paused-triggered", lambda job: lifecycle.pause(job, until=None, reason="x", now=now()))
    await edit("paused-triggered", lambda job: lifecycle.trigger(job, now=now()))
    await edit("superseded", lambda job: lifecycle.redefine(job, evolve(job.spec, schedule=Interval(hours=2)), now=now()))
    await edit("triggered", lambda job: lifecycle.trigger(job, now=now()))
    await edit("behind", lambda job: lifecycle.trigger(job, now=now()))
    await edit("once-again", lambda job: lifecycle.trigger(job, now=now()))
    await edit("claimed-trigger", lambda job: lifecycle.trigger(job, now=now()))

    # Lost claims: by old-1, found by old-2 after the lease.
    await old.claim(old.one, "lost-free", "lost-held")
    old.clock.advance(LEASE)
    taken = await old.claim(old.two, "lost-free", "lost-held")
    await old.two.release(list(taken.values()))

    old.clock.advance(10 * M)
    await old.run("ran", Ended(Status.FAILED, "RuntimeError: twice"))
    await old.run("dropped")
    await old.run("delayed")
    await edit("outlived", lambda job: lifecycle.pause(job, until=None, reason="a day", now=now()))
    old.clock.advance(5 * M)
    await edit("outlived", lambda job: lifecycle.resume(job, at=now()))

    # What is held at the end; no worker lives any more that holds it.
    old.clock.advance(M)
    held = await old.claim(
        old.one, "claimed", "claimed-trigger", "edited", "edited-policy", "removed", "readded", "ends-pause", "lost-held"
    )
    await edit("edited", lambda job: lifecycle.redefine(job, evolve(job.spec, schedule=hour), now=now()))
    await edit("edited-policy", lambda job: lifecycle.redefine(job, evolve(job.spec, policy=Policy(max_lost=2)), now=now()))
    for job_id in ("removed", "readded"):
        job = await old.one.get(job_id)
        await old.one.remove(job_id, lifecycle.retire(job, now=now()))
    await old.add("readded", Interval(minutes=6))
    for backend in (old.one, old.two):
        await backend.close()

    # What another version, or a hand, has written.
    with sqlite3.connect(old.path) as connection:
        for job_id, column, value in (("odd-kind", "tag", "lunar"), ("odd-number", "attempts", "many"), ("odd-format", "format", 9)):
            columns = [row[1] for row in connection.execute("PRAGMA table_info(sched_job)")]
            taken = ", ".join("?" if name in ("id", "uid", column) else name for name in columns)
            values = [{"id": job_id, "uid": job_id, column: value}[name] for name in columns if name in ("id", "uid", column)]
            connection.execute(f"INSERT INTO sched_job SELECT {taken} FROM sched_job WHERE id = 'active'", values)
    print(f"-- Made by make_first.py at {now().isoformat()} of its clock.", file=sys.stdout)
    with sqlite3.connect(old.path) as connection:
        for line in connection.iterdump():
            print(line)


with tempfile.TemporaryDirectory() as folder:
    anyio.run(make, Old(Path(folder) / "jobs.db"))
