"""An open backend on streams of its own, and executions that are put there as settlements do it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.nats_shared import delete_streams, shared_server

from sched_core import Execution, Kind, Status, SystemClock
from sched_core.clock import Clock
from sched_jetstream import JetStreamBackend
from sched_jetstream._model.layout import run_message

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)

_numbers = itertools.count()


@asynccontextmanager
async def opened(clock: Clock | None = None, **settings: Any) -> AsyncIterator[JetStreamBackend]:
    """Open a backend on new streams, and delete them in the end."""
    bucket = f"looks{next(_numbers)}"
    settings = {"storage": "memory", "time": "store" if clock is None else "clock"} | settings
    backend = another(bucket, **settings)
    await backend.open(clock or SystemClock(), worker="worker")
    try:
        yield backend
    finally:
        await backend.close()
        delete_streams(shared_server().url, *streams(backend))


def another(bucket: str, **settings: Any) -> JetStreamBackend:
    """Return one more backend on the same streams."""
    url = shared_server().url
    return JetStreamBackend(url, job_bucket=bucket, execution_bucket=f"{bucket}-lines", **settings)


def streams(backend: JetStreamBackend) -> tuple[str, str]:
    """Return the names of the streams of a backend."""
    return backend.options.names.stream, backend.options.names.history_stream


def execution(
    number: int,
    job_id: str = "job",
    *,
    ago: timedelta = timedelta(0),
    status: Status = Status.SUCCEEDED,
    keep: timedelta | None = 30 * DAY,
    reason: str | None = None,
) -> Execution:
    """Return an execution that ended some time ago."""
    at, uid = NOW - ago, f"uid-of-{job_id}"
    return Execution(
        id=f"{uid}:{number}:1",
        job_id=job_id,
        uid=uid,
        number=number,
        attempt=1,
        kind=Kind.SCHEDULED,
        scheduled_at=at,
        status=status,
        final=True,
        token=number,
        worker="worker",
        claimed_at=at,
        started_at=at,
        finished_at=at,
        reason=reason,
        expires_at=None if keep is None else at + keep,
    )


async def write(backend: JetStreamBackend, *executions: Execution) -> None:
    """Put executions where settlements put them."""
    session = backend._session
    assert session is not None
    for each in executions:
        await session.wire.store(run_message(session.names, each, DAY))


async def api(backend: JetStreamBackend, what: str, body: dict[str, object]) -> dict[str, Any]:
    """Call the API of the server as an operator does."""
    session = backend._session
    assert session is not None
    return await session.wire.call(what, body)
