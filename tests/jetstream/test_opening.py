"""The backend that a configuration describes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import anyio
import nats
import pytest
from tests.core.test_config import ORIGINAL
from tests.nats_shared import delete_streams, shared_server

from sched_core import Interval, InvalidDefinition, StoreNotFound, open_scheduler
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
    assert options.names.history_stream == "KV_scheduler-executions"
    assert options.names.fire("a") == "scheduler.fire.default.a"
    assert options.reconcile_interval == timedelta(seconds=30)
    assert options.publish_retry_attempts == 5


@pytest.mark.parametrize("mode", ["jetstream", "nats"])
def test_both_modes_open_it(mode: str) -> None:
    settings = {"url": "nats://a:1, nats://b:2", "lease": "9s", "storage": "memory"}
    backend = opened({"mode": mode, mode: settings})
    assert [server.url for server in backend._servers] == ["nats://a:1", "nats://b:2"]
    assert backend.capabilities.lease == timedelta(seconds=9)


def test_a_wrong_value_names_its_key() -> None:
    with pytest.raises(InvalidDefinition, match=r"jetstream\.storage"):
        opened({"mode": "jetstream", "jetstream": {"storage": "paper"}})


def test_a_password_is_in_no_message() -> None:
    with pytest.raises(InvalidDefinition) as caught:
        opened({"mode": "jetstream", "jetstream": {"url": "nats://u:secret@h", "replicas": 0}})
    assert "secret" not in str(caught.value)


def test_who_only_looks_makes_no_streams() -> None:
    url = shared_server().url
    names = {"job_bucket": "looked-at", "execution_bucket": "looked-at-lines"}
    delete_streams(url, "KV_looked-at", "KV_looked-at-lines")

    async def streams() -> set[str]:
        connection = await nats.connect(url)
        try:
            found = await connection.jetstream().streams_info()
            return {str(stream.config.name) for stream in found}
        finally:
            await connection.close()

    async def look(*, create: bool) -> list[str]:
        config = {"mode": "jetstream", "jetstream": {"url": url, "storage": "memory", **names}}
        async with open_scheduler(config, environ={}, create=create) as scheduler:
            if create:
                await scheduler.ensure_job("hourly", Interval(hours=1))
            return [job.id async for job in scheduler.list_jobs()]

    async def main() -> None:
        before = await streams()
        with pytest.raises(StoreNotFound, match="no stream KV_looked-at on the NATS server"):
            await look(create=False)
        assert await streams() == before
        await look(create=True)
        assert await look(create=False) == ["hourly"]

    anyio.run(main)
    delete_streams(url, "KV_looked-at", "KV_looked-at-lines")


def test_it_says_where_it_is() -> None:
    backend = JetStreamBackend(["nats://u:secret@a:4222", "b:4222"], job_bucket="mine")
    assert str(backend) == "NATS JetStream at nats://***@a:4222, b:4222, bucket mine"
