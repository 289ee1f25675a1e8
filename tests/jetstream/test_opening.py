"""The backend that a configuration describes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from tests.core.test_config import ORIGINAL

from sched_core import InvalidDefinition
from sched_core.config import open_backend, read_config
from sched_jetstream import JetStreamBackend


def opened(config: object) -> JetStreamBackend:
    backend = open_backend(read_config(config, environ={}))  # type: ignore[arg-type]  # a path or a mapping
    assert isinstance(backend, JetStreamBackend)
    return backend


def test_the_originals_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(ORIGINAL.format(mode="nats"), encoding="utf-8")
    options = opened(path).options
    assert options.names.stream == "KV_scheduler-jobs"
    assert options.names.ledger_stream == "KV_scheduler-executions"
    assert options.names.fire("a") == "scheduler.fire.a"
    assert options.reconcile_interval == timedelta(seconds=30)
    assert options.publish_retry_attempts == 5


@pytest.mark.parametrize("mode", ["jetstream", "nats"])
def test_both_modes_open_it(mode: str) -> None:
    settings = {"url": "nats://a:1, nats://b:2", "lease": "9s", "storage": "memory"}
    backend = opened({"mode": mode, mode: settings})
    assert backend._servers == ["nats://a:1", "nats://b:2"]
    assert backend.capabilities.lease == timedelta(seconds=9)


def test_a_wrong_value_names_its_key() -> None:
    with pytest.raises(InvalidDefinition, match=r"jetstream\.storage"):
        opened({"mode": "jetstream", "jetstream": {"storage": "paper"}})


def test_a_password_is_in_no_message() -> None:
    with pytest.raises(InvalidDefinition) as caught:
        opened({"mode": "jetstream", "jetstream": {"url": "nats://u:secret@h", "replicas": 0}})
    assert "secret" not in str(caught.value)
