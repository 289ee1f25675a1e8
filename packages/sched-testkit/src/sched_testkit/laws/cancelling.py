"""Calls that are cancelled under way, of those that write more than one thing."""

from __future__ import annotations

import functools
import itertools

from attrs import evolve

from sched_testkit.bench import Bench
from sched_testkit.laws.law import law
from sched_testkit.laws.revisions import EDITS, fate


@law
async def a_cancelled_edit_is_whole(bench: Bench) -> None:
    """An edit or a removal that is cancelled under way is written with its lines, or not at all."""
    backend = await bench.open()
    for steps, (name, edit) in itertools.product(range(4), EDITS.items()):
        (job,) = await bench.added(backend, bench.job(f"{name} {steps}", due=None))
        line = fate(bench, job)
        await bench.cancelled_after(steps, functools.partial(edit, backend, job, [line]))
        lines = await bench.lines(backend, job_id=job.id)
        edited = await backend.get(job.id) != job
        assert lines == ([line] if edited else []), f"of a {name} a part was written"


@law
async def a_cancelled_release_is_whole(bench: Bench) -> None:
    """A release that is cancelled under way has freed a claim and written its line, or neither."""
    backend = await bench.open()
    await bench.added(backend, *(bench.job(f"{n}") for n in range(4)))
    claims = await backend.claim_due(4)
    for steps, claim in enumerate(claims):
        moved = evolve(claim.job.standing, number=2, due_at=None)
        await backend.replace(evolve(claim.job, standing=moved))
        await bench.cancelled_after(steps, functools.partial(backend.release, [claim]))
        written = bool(await bench.lines(backend, job_id=claim.job.id))
        held = bool(await backend.renew([claim]))
        assert held is not written, "a release wrote its line alone, or freed its claim alone"
        await backend.release([claim])
        lines = await bench.lines(backend, job_id=claim.job.id)
        assert bench.fates(lines) == [(1, 0, "superseded")]
