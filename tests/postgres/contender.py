"""One process of the contention: random calls of the port, as fast as they go.

Started as ``python contender.py ADDRESS SCHEMA SEED SECONDS``; prints what it counted as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
from attrs import evolve

from sched_core import (
    BackendUnavailable,
    Claim,
    Interval,
    Job,
    JobAlreadyExists,
    JobNotFound,
    JobSpec,
    Renewal,
    RevisionConflict,
    Room,
    Settlement,
    SystemClock,
)
from sched_core._model.claim import SUCCESS, Start
from sched_core._rules import define, finish
from sched_core.row import current
from sched_sql import PostgresBackend

JOBS = 60
LEASE = timedelta(milliseconds=400)


class Contender:
    def __init__(self, backend: PostgresBackend, seed: int) -> None:
        self.backend = backend
        self.chance = random.Random(seed)
        self.held: list[Claim] = []
        self.frozen: list[tuple[float, list[Claim]]] = []
        self.counts: Counter[str] = Counter()
        self.slowest = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def step(self) -> None:
        draw = self.chance.random()
        if draw < 0.35:
            await self.claim()
        elif draw < 0.7:
            await self.settle()
        elif draw < 0.78:
            renewals = [Renewal(claim) for claim in self.held]
            self.held = list(await self.backend.renew(renewals))
        elif draw < 0.83:
            given = [claim for claim in self.held if self.chance.random() < 0.3]
            self.held = [claim for claim in self.held if claim not in given]
            await self.backend.release(given)
        elif draw < 0.88:
            # As a process that freezes: what it holds is left to its lease, and comes back.
            self.frozen.append((time.monotonic(), self.held))
            self.held = []
        elif draw < 0.94:
            if self.frozen and time.monotonic() - self.frozen[0][0] > 3 * LEASE.total_seconds():
                self.held += self.frozen.pop(0)[1]
        else:
            await self.edit()

    async def claim(self) -> None:
        claimed = await self.backend.claim_due(Room(self.chance.randint(1, 20)))
        self.counts["claims"] += len(claimed.claims)
        self.counts["lost"] += sum(one.attempt > 0 for one in claimed.lapsed)
        self.held += claimed.claims

    async def settle(self) -> None:
        batch = self.held[:]
        self.chance.shuffle(batch)
        self.held = []
        settlements = [self.settlement(claim, claim.job) for claim in batch]
        began = time.monotonic()
        outcomes = await self.backend.settle(settlements)
        self.slowest = max(self.slowest, time.monotonic() - began)
        for claim, settled in zip(batch, outcomes, strict=True):
            self.counts[settled.outcome] += 1
            if settled.outcome == "busy":
                self.held.append(claim)
            elif settled.outcome == "conflict":
                (again,) = await self.backend.settle([self.settlement(claim, settled.job)])
                self.counts[f"again {again.outcome}"] += 1

    def settlement(self, claim: Claim, stored: Job | None) -> Settlement:
        one = current(claim.job.standing)
        assert one is not None
        start = Start(one.number, one.scheduled_at, one.kind, one.attempts + 1)
        decision = finish.finish(
            claim, start, SUCCESS, started_at=claim.claimed_at, now=self.now(), stored=stored
        )
        leave = decision.standing is None or stored is None
        return Settlement(
            claim,
            None if leave or stored is None else stored.revision,
            decision.standing,
            decision.executions,
        )

    async def edit(self) -> None:
        job_id = f"job-{self.chance.randrange(JOBS)}"
        stored = await self.backend.get(job_id)
        try:
            if stored is None:
                await self.backend.add([new_job(job_id, self.now())])
                self.counts["added"] += 1
            elif isinstance(stored, Job) and self.chance.random() < 0.5:
                await self.backend.remove(stored, define.final_executions(stored, now=self.now()))
                self.counts["removed"] += 1
            elif isinstance(stored, Job):
                every = timedelta(milliseconds=self.chance.randint(10, 300))
                spec = evolve(stored.spec, schedule=Interval(every))
                change = define.redefine(stored, spec, now=self.now())
                if change is not None:
                    await self.backend.replace(change.job, change.executions)
                    self.counts["edited"] += 1
        except (RevisionConflict, JobAlreadyExists, JobNotFound):
            self.counts["overtaken"] += 1


def new_job(job_id: str, now: datetime) -> Job:
    spec = JobSpec(job_id, Interval(milliseconds=50))
    return define.admit(spec, uid=random.Random().randbytes(8).hex(), declared=True, now=now)


async def main(address: str, schema: str, seed: int, seconds: float) -> None:
    backend = PostgresBackend(address, schema=schema, lease=LEASE)
    await backend.open(SystemClock(), worker=f"worker-{seed}")
    contender = Contender(backend, seed)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            await contender.step()
        except BackendUnavailable as error:
            if "lock" not in str(error):
                raise
            contender.counts["edits that waited for a lock"] += 1
    await backend.close()
    told: dict[str, Any] = {"counts": contender.counts, "slowest": contender.slowest}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
