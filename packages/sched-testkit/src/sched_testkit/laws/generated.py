"""Laws that are examined with many generated values: what was written is what is read."""

from __future__ import annotations

from attrs import evolve

from sched_core import Execution, Job
from sched_testkit import strategies
from sched_testkit.bench import Bench
from sched_testkit.laws.law import GeneratedLaw


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


async def any_legal_execution_survives_a_round_trip(bench: Bench, execution: Execution) -> None:
    """Any legal execution is listed exactly as it was written."""
    backend = await bench.open()
    (job,) = await backend.add([bench.job()])
    await backend.replace(job, [execution])
    assert await bench.history(backend) == [execution]


LAWS = (
    GeneratedLaw(
        "any_legal_job_survives_a_round_trip",
        "Any legal job is returned by add, get, jobs and replace exactly as it was written.",
        any_legal_job_survives_a_round_trip,
        strategies.jobs,
    ),
    GeneratedLaw(
        "any_legal_execution_survives_a_round_trip",
        "Any legal execution is listed exactly as it was written.",
        any_legal_execution_survives_a_round_trip,
        strategies.executions,
    ),
)
