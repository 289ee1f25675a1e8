"""Notifiers on JetStream; ``tests/core/test_notifier.py`` says it in detail."""

from __future__ import annotations

import anyio
from tests.core.notified import told_of_all
from tests.nats_shared import delete_streams, shared_server

from sched_jetstream import JetStreamBackend

BUCKET = "notifier"


def test_people_are_told() -> None:
    try:
        anyio.run(
            told_of_all,
            lambda: JetStreamBackend(
                shared_server().url, job_bucket=BUCKET, execution_bucket=f"{BUCKET}-lines"
            ),
        )
    finally:
        delete_streams(shared_server().url, f"KV_{BUCKET}", f"KV_{BUCKET}-lines")
