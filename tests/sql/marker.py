"""Another process, which marks runs to be cancelled: for each id that it reads, the one in flight.

Started as ``python marker.py ADDRESS SCHEMA``. It prints ``ready``, and for each id the moment, of
the clock that all processes share, at which it began to write.
"""

from __future__ import annotations

import sys
import time

import anyio
from attrs import evolve

from sched_core import CancelMark, Job, SystemClock
from sched_sql import SqlBackend


async def main(address: str, schema: str) -> None:
    backend = (
        SqlBackend(address, schema=schema)
        if address.startswith("postgresql:")
        else SqlBackend(address)
    )
    await backend.open(SystemClock(), worker="marker")
    print("ready", flush=True)  # noqa: T201 -- it is read
    while job_id := (await anyio.to_thread.run_sync(sys.stdin.readline)).strip():
        job = await backend.get(job_id)
        assert isinstance(job, Job)
        assert job.held is not None
        standing = evolve(job.standing, cancels=(CancelMark(job.held),))
        began = time.monotonic()
        await backend.replace(evolve(job, standing=standing))
        print(began, flush=True)  # noqa: T201 -- it is read
    await backend.close()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
