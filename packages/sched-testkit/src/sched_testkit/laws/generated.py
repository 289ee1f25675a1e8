"""Laws that are examined with many generated values: what was written is what is read."""

from __future__ import annotations

from attrs import evolve

from sched_core import Execution, Job, Kind, Pending, Room, Status
from sched_testkit import strategies
from sched_testkit._suite.bench import Bench
from sched_testkit.laws.law import law_of_values


@law_of_values(strategies.jobs)
async def any_legal_job_survives_a_round_trip(bench: Bench, job: Job) -> None:
    """Any legal job is returned by add, get, jobs and replace exactly as it was written."""
    backend = await bench.open()
    (stored,) = await backend.add([job])
    assert stored == evolve(job, revision=stored.revision)
    assert await backend.get(job.id) == stored
    assert await bench.jobs(backend) == [stored]
    again = await backend.replace(stored)
    assert evolve(again, revision=stored.revision) == stored
    assert await backend.get(job.id) == again


@law_of_values(strategies.pendings)
async def any_occurrence_survives_its_claim(bench: Bench, one: Pending) -> None:
    """What is claimed is kept in every field, also once an edit has taken it out of its job."""
    backend = await bench.open()
    now, lease = bench.clock.now(), backend.capabilities.lease
    one = evolve(one, due_at=min(one.due_at, now))
    job = bench.job(due=None)
    scheduled, requests = (one, ()) if one.kind is Kind.SCHEDULED else (None, (one,))
    standing = evolve(job.standing, pause=None, scheduled=scheduled, requests=requests)
    (job,) = await backend.add([evolve(job, standing=evolve(standing, due_at=one.due_at))])
    claim = await bench.claim(backend)
    assert claim.job == job
    assert await backend.get(job.id) == evolve(job, held=one.number, held_at=now)
    gone = evolve(standing, scheduled=None, requests=(), due_at=None)
    await backend.replace(evolve(job, standing=gone, held=one.number, held_at=now))
    await bench.advance(lease)
    expected = [bench.owed(claim, Status.ABANDONED), bench.owed(claim, Status.SUPERSEDED)]
    told = (await backend.claim_due(Room(10))).lapsed
    ended = evolve(expected[1], coalesced=one.coalesced, coalesced_until=one.coalesced_until)
    assert list(told) == [expected[0], ended]
    assert await bench.history(backend) == [ended, expected[0]]


@law_of_values(strategies.executions)
async def any_legal_execution_survives_a_round_trip(bench: Bench, execution: Execution) -> None:
    """Any legal execution is listed exactly as it was written."""
    backend = await bench.open()
    (job,) = await backend.add([bench.job()])
    await backend.replace(job, [execution])
    assert await bench.history(backend) == [execution]
