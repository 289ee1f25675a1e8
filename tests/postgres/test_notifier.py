"""Notifiers on PostgreSQL; ``tests/core/test_notifier.py`` says it in detail."""

from __future__ import annotations

import anyio
from tests.core.notified import told_of_all
from tests.postgres.places import Place


def test_people_are_told(here: Place) -> None:
    anyio.run(told_of_all, here.backend)
