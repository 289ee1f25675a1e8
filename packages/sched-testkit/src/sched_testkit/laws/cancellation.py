"""Calls that are cancelled under way, of those that write more than one thing."""

from __future__ import annotations

import functools
import itertools
from datetime import timedelta

from sched_testkit._suite.bench import Bench
from sched_testkit.laws.law import law
from sched_testkit.laws.revisions import EDITS, unrun


@law
async def a_cancelled_edit_is_whole(bench: Bench) -> None:
    """An edit or a removal that is cancelled is written with its executions, or not at all."""
    backend = await bench.open()
    for steps, (name, edit) in itertools.product(range(4), EDITS.items()):
        (job,) = await bench.added(backend, bench.job(f"{name} {steps}", due=None))
        ended = unrun(bench, job)
        await bench.cancelled_after(steps, functools.partial(edit, backend, job, [ended]))
        history = await bench.history(backend, job_id=job.id)
        edited = await backend.get(job.id) != job
        assert history == ([ended] if edited else []), f"of a {name} a part was written"


@law
async def a_cancelled_release_is_whole(bench: Bench) -> None:
    """A release that is cancelled has freed a claim and written what that owes, or neither."""
    backend = await bench.open()
    await bench.added(backend, *(bench.job(f"{n}") for n in range(4)))
    claims = await bench.due(backend, 4)
    later = bench.clock.now() + timedelta(days=1)
    for steps, claim in enumerate(claims):
        await backend.replace(bench.moved(bench.held(claim.job, claim), later))
        await bench.cancelled_after(steps, functools.partial(backend.release, [claim]))
        written = bool(await bench.history(backend, job_id=claim.job.id))
        held = bool(await bench.renew(backend, [claim]))
        assert held is not written, "a release wrote its execution alone, or freed its claim alone"
        await backend.release([claim])
        history = await bench.history(backend, job_id=claim.job.id)
        assert bench.summary(history) == [(1, 0, "superseded")]
