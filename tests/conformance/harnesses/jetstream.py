"""Streams of a real server, behind a proxy."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import nats
from nats.js.errors import NotFoundError
from tests.conformance.harnesses import LEASE
from tests.nats_shared import delete_streams, shared_server
from tests.proxy import Proxy

from sched_jetstream import JetStreamBackend
from sched_jetstream._model.subjects import token_of
from sched_jetstream._store.provision import MARK
from sched_testkit import Harness


class JetStreamHarness(Harness):
    """A real server that all examples share, each with streams of its own."""

    name = "jetstream"
    can_cut = can_spoil = can_spoil_execution = True
    can_stall = can_refuse_writes = can_make_newer = True

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._proxy: Proxy | None = None

    @property
    def proxy(self) -> Proxy:
        if self._proxy is None:
            self._proxy = Proxy(("127.0.0.1", shared_server().port)).__enter__()
        return self._proxy

    @contextmanager
    def place(self) -> Iterator[str]:
        place = f"suite{next(self._numbers)}"
        yield place
        delete_streams(shared_server().url, f"KV_{place}", f"KV_{place}-lines")

    def backend(self, place: Any) -> JetStreamBackend:
        return JetStreamBackend(
            f"nats://127.0.0.1:{self.proxy.port}",
            job_bucket=place,
            execution_bucket=f"{place}-lines",
            time="clock",
            lease=LEASE,
            publish_retry_attempts=1,
        )

    async def cut(self, place: Any) -> None:
        self.proxy.drop()

    async def heal(self, place: Any) -> None:
        self.proxy.heal()

    async def crash(self, backend: Any) -> None:
        """Take away the connection and the tasks, as the system does with a dead process."""
        session, backend._session = backend._session, None
        session.background.stop()
        await session.wire.close()

    async def catch_up(self, backend: Any) -> None:
        if backend._session is not None:
            await backend.reconcile()

    async def spoil(self, place: Any, job_id: str) -> None:
        connection = await nats.connect(shared_server().url)
        try:
            js = connection.jetstream()
            subject = f"$KV.{place}.{token_of(job_id)}"
            stored = await js.get_last_msg(f"KV_{place}", subject)
            body = (stored.data or b"").replace(b'"format":2', b'"format":99', 1)
            await js.publish(subject, body)
        finally:
            await connection.close()

    async def spoil_execution(self, place: Any, job_id: str) -> None:
        """Write the newest line again, once it was copied, and delete its copy."""
        names = JetStreamBackend(job_bucket=place, execution_bucket=f"{place}-lines").options.names
        connection = await nats.connect(shared_server().url)
        try:
            js = connection.jetstream()
            newest = await js.get_last_msg(names.stream, names.run("*", token_of(job_id), "*"))
            while True:
                with contextlib.suppress(NotFoundError):
                    copied = await js.get_last_msg(
                        names.history_stream, names.history("*", token_of(job_id))
                    )
                    if copied.data == newest.data:
                        break
                await asyncio.sleep(0.005)
            await js.delete_msg(names.history_stream, copied.seq or 0)
            await js.publish(newest.subject or "", b"\xff: no JSON")
        finally:
            await connection.close()

    @contextmanager
    def stall(self, place: Any) -> Iterator[None]:
        self.proxy.stall()
        try:
            yield
        finally:
            self.proxy.heal()

    @contextmanager
    def refuse_writes(self, place: Any) -> Iterator[None]:
        """Have the stream take only what is smaller than any message."""
        before = change_stream(f"KV_{place}", max_msg_size=1)
        yield
        change_stream(f"KV_{place}", max_msg_size=before["max_msg_size"])

    @contextmanager
    def make_newer(self, place: Any) -> Iterator[None]:
        before = change_stream(f"KV_{place}", metadata={MARK: "99"})
        yield
        found = change_stream(f"KV_{place}", metadata=before["metadata"])
        assert found["metadata"][MARK] == "99", "the stream was changed"


def change_stream(name: str, **changes: Any) -> dict[str, Any]:
    """Change the configuration of a stream, from inside any loop; return what it was."""

    async def change() -> dict[str, Any]:
        connection = await nats.connect(shared_server().url)
        try:
            answer = await connection.request(f"$JS.API.STREAM.INFO.{name}", b"")
            config: dict[str, Any] = json.loads(answer.data)["config"]
            wanted = json.dumps({**config, **changes}).encode()
            answer = await connection.request(f"$JS.API.STREAM.UPDATE.{name}", wanted)
            assert "error" not in json.loads(answer.data), answer.data
            return config
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(change())).result()
