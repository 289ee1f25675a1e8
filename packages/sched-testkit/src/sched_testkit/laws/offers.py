"""What a backend may offer beside the methods that each one has: laws of the later ones."""

from __future__ import annotations

from datetime import timedelta

from sched_core.ports import Probed
from sched_testkit.bench import Bench
from sched_testkit.laws.law import law, offers


@law(needs=offers("due_since"))
async def due_since_tells_of_what_nobody_holds(bench: Bench) -> None:
    """Due_since is the moment of the job that is due longest and not held, and changes nothing."""
    backend = await bench.open()
    assert isinstance(backend, Probed), "due_since() and live_workers() are offered together"
    now = bench.clock.now()
    assert await backend.due_since() is None, "nothing is stored, and something is due"
    long, short = now - timedelta(minutes=5), now - timedelta(minutes=1)
    await bench.added(backend, bench.job("soon", due=now + timedelta(minutes=1)))
    assert await backend.due_since() is None, "a job is told as due before its moment"
    await bench.added(backend, bench.job("short", due=short), bench.job("long", due=long))
    assert await backend.due_since() == long
    assert await backend.due_since() == long, "to ask changes something"
    (claim,) = await backend.claim_due(1)
    assert claim.job.id == "long"
    assert await backend.due_since() == short, "what is held is told as waiting"
    await backend.claim_due(10)
    assert await backend.due_since() is None, "all is held, and something is told as waiting"
    await backend.release([claim])
    assert await backend.due_since() == long
