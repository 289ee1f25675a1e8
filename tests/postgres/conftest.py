"""Fixtures of the tests of PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.postgres.places import Place, place


@pytest.fixture
def here() -> Iterator[Place]:
    """An empty schema."""
    with place() as made:
        yield made
