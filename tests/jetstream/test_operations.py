"""What operates runs, on JetStream; ``tests/core/test_operations.py`` says it in detail."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import anyio
import pytest
from tests.core.operated import cancelled_elsewhere, operated
from tests.nats_shared import delete_streams, shared_server

from sched_jetstream import JetStreamBackend

BUCKET = "operations"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    delete_streams(shared_server().url, f"KV_{BUCKET}", f"KV_{BUCKET}-lines")


def backend(**options: Any) -> JetStreamBackend:
    return JetStreamBackend(
        shared_server().url, job_bucket=BUCKET, execution_bucket=f"{BUCKET}-lines", **options
    )


async def catch_up(opened: Any) -> None:
    """Have what is due be seen at once: the server's clock is not the test's."""
    await opened.reconcile()


def test_all_that_operates_runs() -> None:
    anyio.run(operated, lambda: backend(time="clock"), catch_up)


def test_another_process_cancels_runs() -> None:
    anyio.run(cancelled_elsewhere, lambda: backend(lease=timedelta(seconds=3)))
