"""The jobs of a service; ``sched run service:router`` runs them."""

from __future__ import annotations

from sched_core import Cron, Interval, JobEvent, JobRouter

router = JobRouter(group="example", version=1)  # better: the number of the build


@router.job("heartbeat", Interval(seconds=1))
async def heartbeat(event: JobEvent) -> None:
    print("alive", flush=True)


@router.job("nightly", Cron("0 4 * * *"))
def nightly(event: JobEvent) -> None:
    print("cleaned up", flush=True)
