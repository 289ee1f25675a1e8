"""Workers of the layout before this one: a rolling deploy waits until they hold no claim."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta

from sched_core import codec
from sched_core._support.logger import Logger
from sched_core.clock import Clock, monotonic_seconds, pause
from sched_jetstream._model.protocol import StoredRecord
from sched_jetstream._model.record import Record
from sched_jetstream._store.provision import NO_CONSUMER
from sched_jetstream._store.reader import Reader
from sched_jetstream._store.wire import ApiError

logger = Logger("sched_jetstream")

LOOKS = 0.5
"""Seconds between two looks."""


async def wait_for_older_workers(reader: Reader, clock: Clock, *, budget: timedelta) -> None:
    """Wait until no worker of an older version holds a claim.

    The mark of the layout keeps such workers from opening. One that goes on all the same does
    little harm: what it claims is free for it, and what this version has written it leaves alone.
    But a job that is edited while it runs there is run again, for that worker cannot settle it.

    Args:
        reader: The reader of records.
        clock: The clock that decides.
        budget: How long to wait at the most.
    """
    until = monotonic_seconds() + budget.total_seconds()
    told: set[str] = set()
    while held := await _held_by_older(reader, clock):
        workers = _named(held)
        if not told.issuperset(workers):
            told.update(workers)
            logger.warning("waiting for workers of an older version: %s", _shown(workers))
        while held and monotonic_seconds() < until:
            await pause(LOOKS)
            found = await reader.read_current([each.token for each in held])
            held = [each for each in found.values() if _is_held(each, clock.now())]
        if held:
            logger.warning(
                "workers of an older version go on: %s; stop them, or a job that is edited while "
                "they run it is run again",
                _shown(_named(held)),
            )
            return
    await _delete_their_consumer(reader)


async def _held_by_older(reader: Reader, clock: Clock) -> list[StoredRecord]:
    held: list[StoredRecord] = []
    async for page in reader.scan():
        held += [found for found in page if _is_held(found, clock.now())]
    return held


def _is_held(found: StoredRecord, now: datetime) -> bool:
    record = found.content
    return (
        isinstance(record, Record)
        and record.format < codec.FORMAT
        and record.hold is not None
        and record.hold.expires_at > now
    )


def _named(held: list[StoredRecord]) -> dict[str, list[str]]:
    """Return the ids of the jobs that each worker holds."""
    workers: dict[str, list[str]] = defaultdict(list)
    for found in held:
        record = found.content
        if isinstance(record, Record) and record.hold is not None:
            workers[record.hold.worker].append(record.id)
    return workers


def _shown(workers: dict[str, list[str]]) -> str:
    shown = []
    for worker, ids in sorted(workers.items()):
        rest = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
        shown.append(f"{worker} (runs {', '.join(sorted(ids)[:3])}{rest})")
    return "; ".join(shown)


async def _delete_their_consumer(reader: Reader) -> None:
    """Delete the consumer that older versions had: no worker asks it any more."""
    names = reader.names
    for consumer in names.older_consumers:
        try:
            await reader.wire.call(f"CONSUMER.DELETE.{names.stream}.{consumer}", {})
        except ApiError as error:
            if error.err_code != NO_CONSUMER:
                raise
