"""Fixtures of the tests of running schedulers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from tests.core.running import BACKENDS, Make, seconds

from sched_core import MemoryBackend, MemoryStore
from sched_core._runtime import loop as runtime_loop
from sched_core._runtime import shutdown
from sched_core.schedule import kinds


@pytest.fixture
def short_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for handlers that do not end after they were cancelled."""
    monkeypatch.setattr(shutdown, "FLUSH", 1.0)
    monkeypatch.setattr(runtime_loop, "RELEASE_TIMEOUT", 1.0)


@pytest.fixture
def own_kinds() -> Iterator[None]:
    """Forget the kinds of schedules that a test registers."""
    with patch.dict(kinds.KINDS), patch.dict(kinds.TAGS):
        yield
    kinds.known_tags.cache_clear()


@pytest.fixture(params=BACKENDS)
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Return a function that makes one more instance on the same data."""
    store = MemoryStore()

    def build(lease: float = 30) -> Any:
        if request.param == "memory":
            return MemoryBackend(store, lease=seconds(lease))
        from sched_sql import SqlBackend

        return SqlBackend(f"sqlite:///{tmp_path / 'jobs.db'}", lease=seconds(lease))

    return build
