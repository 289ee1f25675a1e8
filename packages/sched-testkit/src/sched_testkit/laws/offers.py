"""Laws of the methods that came later, which a backend may offer or leave out."""

from __future__ import annotations

from datetime import timedelta

from sched_core.ports import Probed
from sched_testkit._suite.bench import Bench
from sched_testkit.laws.law import law, offers


@law(needs=offers("due_since"))
async def due_since_tells_of_what_no_claim_holds(bench: Bench) -> None:
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
    (claim,) = await bench.due(backend, 1)
    assert claim.job.id == "long"
    assert await backend.due_since() == short, "what is held is told as waiting"
    await bench.due(backend, 10)
    assert await backend.due_since() is None, "all is held, and something is told as waiting"
    await backend.release([claim])
    assert await backend.due_since() == long


@law(needs=offers("due_since"))
async def due_since_tells_of_what_was_lost(bench: Bench) -> None:
    """Due_since tells of a job whose claim was lost, from the end of its lease on."""
    backend, other = await bench.open(), await bench.open()
    assert isinstance(backend, Probed) and isinstance(other, Probed)
    (job,) = await bench.added(backend, bench.job())
    claim = await bench.claim(backend)
    await bench.advance(bench.lease - bench.tick)
    assert await other.due_since() is None, "what is held is told as waiting"
    await bench.advance(bench.tick)
    since = await other.due_since()
    assert since in {job.standing.due_at, claim.expires_at}, f"what was lost is due since {since}"
    assert not await bench.history(other), "to ask took the claim away"
    assert len(await bench.renew(backend, [claim])) == 1, "to ask took the claim away"


@law(needs=offers("live_workers"))
async def live_workers_are_the_others(bench: Bench) -> None:
    """Live_workers names the other workers that are open, or is None where that is unknown."""
    one, two = await bench.open(), await bench.open()
    assert isinstance(one, Probed) and isinstance(two, Probed)
    alive = [await one.live_workers(), await two.live_workers()]
    if None in alive:
        assert alive == [None, None], f"one can tell, and the other cannot: {alive}"
        return
    assert alive == [["worker-2"], ["worker-1"]], f"of worker-1 and worker-2 told: {alive}"
    await two.close()
    assert await one.live_workers() == [], "a worker that has closed is told to be alive"
