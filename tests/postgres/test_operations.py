"""What operates runs, on PostgreSQL; ``tests/core/test_operations.py`` says it in detail."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
from tests.core.operated import cancelled_elsewhere, operated
from tests.postgres.places import Place


async def nothing(_: Any) -> None:
    """Wait for nothing: what is due is seen at once."""


def test_all_that_operates_runs(here: Place) -> None:
    anyio.run(operated, lambda: here.backend(time="clock"), nothing)


def test_another_process_cancels_runs(here: Place) -> None:
    anyio.run(cancelled_elsewhere, lambda: here.backend(lease=timedelta(seconds=3)))
