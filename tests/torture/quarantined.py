"""A process of a service in which one handler kills its process.

``python -m tests.torture.quarantined HARNESS ADDRESS JOURNAL NUMBER [FAULT]``
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import anyio

from sched_core import JobEvent
from sched_core._rules import begin, hold
from sched_testkit.torture.journal import Journal
from sched_testkit.torture.worker import load

GUILTY, LONG = "guilty", "long"
SECONDS = {GUILTY: 0.3, LONG: 35.0}
"""How long handlers take: the long one longer than others are held up for one that is alone."""
OTHERS = 0.5
CONCURRENCY = 20
CHARGED = "all are charged"
"""The fault: what is lost with a process is due at once, and counts, and nothing is set apart."""


async def main(spec: str, address: str, path: str, number: str, fault: str = "") -> None:
    """Run until stopped, or killed by the handler."""
    if fault == CHARGED:
        vars(hold).update(_was_alone=lambda _: True, _wait=lambda *_: timedelta(0))
        vars(begin)["runs_alone"] = lambda *_: False
    journal = Journal(path, int(number))

    async def handle(event: JobEvent) -> None:
        journal.write("start", id=event.id, attempt=event.attempt)
        await anyio.sleep(SECONDS.get(event.id, OTHERS))
        if event.id == GUILTY:
            os._exit(9)

    harness = load(spec)
    scheduler = harness.scheduler(
        harness.backend(address), handler=handle, max_concurrency=CONCURRENCY
    )
    async with scheduler:
        await scheduler.run_forever()


if __name__ == "__main__":
    _spec, _address, _path, _number, *_fault = sys.argv[1:]
    anyio.run(main, _spec, _address, _path, _number, "".join(_fault))
