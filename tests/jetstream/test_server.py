"""What is done with servers and streams that will not do, and with operators' accidents."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import nats
import pytest
from attrs import evolve
from nats.js import api
from tests.core.running import running as running_scheduler
from tests.core.running import until
from tests.nats_server import find_old, running
from tests.nats_shared import delete_streams, shared_server
from tests.proxy import Proxy

from sched_core import (
    BackendError,
    BackendUnavailable,
    Execution,
    ExecutionQuery,
    Interval,
    InvalidDefinition,
    Job,
    JobEvent,
    JobNotFound,
    Once,
    Scheduler,
    SchemaTooNew,
    SystemClock,
    Undecodable,
    UndecodableExecution,
)
from sched_core.clock import FIRST
from sched_core.codec import encode_execution
from sched_jetstream import (
    JetStreamBackend,
    NatsServerTooOld,
    StreamLost,
    StreamUnsuitable,
)
from sched_jetstream._runtime.sources import Source
from sched_jetstream._store.provision import check_version
from sched_jetstream._store.reader import Reader

BUCKET = "accidents"
STREAM, LINES = f"KV_{BUCKET}", f"KV_{BUCKET}-lines"


def backend(**settings: Any) -> JetStreamBackend:
    settings = {"job_bucket": BUCKET, "execution_bucket": f"{BUCKET}-lines", **settings}
    return JetStreamBackend(shared_server().url, **settings)


@pytest.fixture(autouse=True)
def fresh() -> Any:
    yield
    delete_streams(shared_server().url, STREAM, LINES)


@asynccontextmanager
async def tools() -> AsyncIterator[Any]:
    """What an operator has."""
    connection = await nats.connect(shared_server().url)
    try:
        yield connection.jetstream()
    finally:
        await connection.close()


@asynccontextmanager
async def serving(
    handler: Callable[[JobEvent], Any], store: JetStreamBackend | None = None, **options: Any
) -> AsyncIterator[Scheduler]:
    async with running_scheduler(store or backend(), handler, grace=1, **options) as scheduler:
        yield scheduler


def soon(milliseconds: int = 0) -> Once:
    return Once(datetime.now(UTC) + timedelta(milliseconds=milliseconds))


# -- servers and streams -----------------------------------------------------


def test_an_old_server_is_refused_by_name(tmp_path: Path) -> None:
    async def main(url: str) -> None:
        with pytest.raises(NatsServerTooOld, match=r"2\.9\.10 .*2\.14\.3"):
            await JetStreamBackend(url).open(SystemClock(), worker="w")

    with running(tmp_path, program=find_old()) as server:
        asyncio.run(main(server.url))


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ("2.9.10", NatsServerTooOld),
        ("2.12.11", NatsServerTooOld),
        ("2.12.12", "older than 2.14.3"),
        ("2.14.0", "discard a schedule"),
        ("2.14.3", None),
        ("2.15.1", None),
        ("3.0.0", None),
        ("strange", "not known"),
    ],
)
def test_known_versions(version: str, verdict: Any) -> None:
    if isinstance(verdict, type):
        with pytest.raises(verdict):
            check_version(version)
    elif verdict is None:
        assert check_version(version) is None
    else:
        assert verdict in str(check_version(version))


def test_no_server_is_unavailable_and_says_where() -> None:
    async def main() -> None:
        store = JetStreamBackend(
            "nats://me:secret@127.0.0.1:9", startup_timeout=timedelta(seconds=0.5)
        )
        with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:9") as caught:
            await store.open(SystemClock(), worker="w")
        assert "secret" not in str(caught.value)

    asyncio.run(main())


def test_a_server_without_jetstream_says_what_to_do(tmp_path: Path) -> None:
    async def main(url: str) -> None:
        store = JetStreamBackend(
            url, startup_timeout=timedelta(seconds=1), timeout=timedelta(seconds=0.5)
        )
        with pytest.raises(BackendError, match=r"-js|not enabled"):
            await store.open(SystemClock(), worker="w")

    with running(tmp_path) as server:
        conf = (tmp_path / "conf").read_text()
        (tmp_path / "conf").write_text(
            "\n".join(line for line in conf.splitlines() if "jetstream" not in line)
        )
        server.kill()
        server.start()
        asyncio.run(main(server.url))


def test_a_stock_bucket_of_the_same_name_is_left_alone() -> None:
    async def main() -> None:
        async with tools() as js:
            await js.create_key_value(bucket=BUCKET)
        with pytest.raises(StreamUnsuitable, match="allow_msg_schedules is None"):
            await backend().open(SystemClock(), worker="w")

    asyncio.run(main())


def test_a_newer_layout_is_refused_and_not_touched() -> None:
    async def main() -> None:
        store = backend()
        await store.open(SystemClock(), worker="w")
        await store.close()
        async with tools() as js:
            config = (await js.stream_info(STREAM)).config
            config.metadata["sched-jetstream"] = "3"
            await js.update_stream(config)
        with pytest.raises(SchemaTooNew):
            await backend().open(SystemClock(), worker="w")

    asyncio.run(main())


def test_a_limit_that_deletes_jobs_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        store = backend()
        await store.open(SystemClock(), worker="w")
        await store.close()
        async with tools() as js:
            config = (await js.stream_info(STREAM)).config
            config.max_msgs = 1000
            await js.update_stream(config)
        with caplog.at_level(logging.WARNING):
            await store.open(SystemClock(), worker="w")
        await store.close()

    asyncio.run(main())
    assert "max_msgs" in caplog.text


def test_many_replicas_start_together() -> None:
    async def main() -> None:
        stores = [backend() for _ in range(12)]
        await asyncio.gather(
            *(store.open(SystemClock(), worker=f"w{n}") for n, store in enumerate(stores))
        )
        await asyncio.gather(*(store.close() for store in stores))

    asyncio.run(main())


def test_trio_is_refused_with_a_sentence() -> None:
    async def main() -> None:
        with pytest.raises(BackendError, match="asyncio only"):
            await backend().open(SystemClock(), worker="w")

    anyio.run(main, backend="trio")


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(InvalidDefinition, match="replikas"):
        backend(replikas=3)
    with pytest.raises(InvalidDefinition, match="storage"):
        backend(storage="paper")


def test_settings_without_a_meaning_are_accepted() -> None:
    backend(stream_name="JOBS", once_key="x", load_concurrency=4)


# -- what other tools see ----------------------------------------------------


def test_records_are_entries_of_a_bucket() -> None:
    async def main() -> None:
        async with Scheduler(backend()) as scheduler, tools() as js:
            await scheduler.ensure_job("nightly", Interval(hours=1), metadata={"a": "b"})
            await scheduler.ensure_job("gone", Interval(hours=1))
            await scheduler.remove_job("gone")
            bucket = await js.key_value(BUCKET)
            assert await bucket.keys() == ["nightly"]
            first, second = (await bucket.get("nightly")).value.split(b"\n")
            assert json.loads(first)["standing"]["scheduled"]["n"] == 1
            assert json.loads(second)["metadata"] == {"a": "b"}

    asyncio.run(main())


@pytest.mark.parametrize("job_id", ["*", ">", "a.b", "a b", "😀", "x" * 255, "=2A", "日本" * 127])
def test_any_id_runs(job_id: str) -> None:
    ran: list[str] = []

    async def handle(event: JobEvent) -> None:
        ran.append(event.id)

    async def main() -> None:
        async with serving(handle) as scheduler:
            await scheduler.submit_job(job_id, soon())
            await until(lambda: ran, within=20)
            await until_settled(scheduler, job_id)
            await scheduler.remove_job(job_id)
            with pytest.raises(JobNotFound):
                await scheduler.get_job(job_id)

    asyncio.run(main())
    assert ran == [job_id]


async def until_settled(scheduler: Scheduler, job_id: str) -> None:
    with anyio.fail_after(10):
        while not [line async for line in scheduler.list_executions(job_id)]:
            await asyncio.sleep(0.02)


def test_metadata_up_to_the_limit_lies_apart_and_comes_back() -> None:
    large = {"k": "v" * (64 * 1024 - 1)}
    seen: list[int] = []

    async def handle(event: JobEvent) -> None:
        seen.append(len(event.metadata["k"]))

    async def main() -> None:
        async with serving(handle) as scheduler, tools() as js:
            await scheduler.submit_job("large", soon(), metadata=large)
            await until(lambda: seen, within=20)
            record = await js.get_last_msg(STREAM, f"$KV.{BUCKET}.large")
            assert len(record.data) < 2000
            assert dict((await scheduler.get_job("large")).spec.metadata) == large
            listed = [job async for job in scheduler.list_jobs()]
            assert [job.id for job in listed] == ["large"]

    asyncio.run(main())
    assert seen == [64 * 1024 - 1]


def test_an_oversize_record_is_a_clear_error_and_the_connection_lives(tmp_path: Path) -> None:
    async def main(url: str) -> None:
        async with Scheduler(JetStreamBackend(url)) as scheduler:
            with pytest.raises(InvalidDefinition, match="max_payload"):
                await scheduler.submit_job("a", soon(), metadata={"k": "v" * 30_000})
            await scheduler.submit_job("b", soon())
            await scheduler.get_job("b")

    with running(tmp_path, config="max_payload: 20000") as server:
        asyncio.run(main(server.url))


# -- accidents ---------------------------------------------------------------


def test_foreign_messages_are_shown_and_stop_nothing() -> None:
    ran: list[str] = []

    async def handle(event: JobEvent) -> None:
        ran.append(event.id)

    async def main() -> None:
        async with serving(handle) as scheduler, tools() as js:
            await js.publish(f"$KV.{BUCKET}.strange", b"hello")
            await js.publish(f"sched.{BUCKET}.fire.strange", b"what?")
            await js.publish(f"sched.{BUCKET}.nonsense", b"")
            await js.publish(f"sched.{BUCKET}.run.x.y.z", b"no line")
            await scheduler.submit_job("fine", soon())
            await until(lambda: ran, within=20)
            await until_settled(scheduler, "fine")
            record = await js.get_last_msg(STREAM, f"$KV.{BUCKET}.fine")
            await js.publish(f"$KV.{BUCKET}.copied", record.data)
            listed = [job async for job in scheduler.list_jobs()]
            assert [type(job) for job in listed] == [Undecodable, Job, Undecodable]
            assert [job.id for job in listed] == ["copied", "fine", "strange"]
            lines = [line async for line in scheduler.list_executions()]
            assert [type(line) for line in lines] == [Execution, UndecodableExecution]
            assert lines[1].job_id == "y"
            assert (await scheduler.health()).healthy

    asyncio.run(main())
    assert ran == ["fine"]


def test_what_tools_write_as_lines_hides_no_line() -> None:
    ran: list[str] = []

    async def main() -> None:
        began = datetime.now(UTC) - timedelta(minutes=1)
        async with serving(lambda event: ran.append(event.id)) as scheduler, tools() as js:
            for name in ("first", "last"):
                await scheduler.submit_job(name, soon())
                await until_settled(scheduler, name)
                if name == "last":
                    break
                await until_copied(js, name)
                (line,) = [line async for line in scheduler.list_executions(name)]
                assert isinstance(line, Execution)
                # Read, it ended in the year 1: that is no reason to look at nothing older.
                body = encode_execution(evolve(line, finished_at=FIRST))
                await js.publish(f"sched.{BUCKET}.run.30d.first.a", body)
                await js.publish(f"sched.{BUCKET}.run.30d.odd.a", b"\xff")
                await js.publish(f"sched.{BUCKET}.run.30d.odd.b", b"")
                deleted = {"KV-Operation": "DEL"}
                await js.publish(f"sched.{BUCKET}.run.30d.odd.c", b"", headers=deleted)
            await until_copied(js, "last")

            pages = [page async for page in pages_of(scheduler)]
            assert [len(page) for page in pages] == [1] * 5
            names = [page[0].job_id for page in pages]
            assert names == ["last", "odd", "odd", "first", "first"]
            odd = [line async for line in scheduler.list_executions("odd")]
            assert [type(line) for line in odd] == [UndecodableExecution] * 2
            assert len({line.id for line in odd}) == 2
            recent = [line async for line in scheduler.list_executions(ExecutionQuery(since=began))]
            assert [line.job_id for line in recent] == ["last", "odd", "odd", "first"]

    async def until_copied(js: Any, job_id: str) -> None:
        with anyio.fail_after(20):
            while True:
                info = await js.stream_info(LINES, subjects_filter=f"$KV.{BUCKET}-lines.*.{job_id}")
                if info.state.subjects:
                    return
                await asyncio.sleep(0.02)

    async def pages_of(scheduler: Scheduler) -> AsyncIterator[Any]:
        store, after = scheduler._backend, None
        while True:
            page = await store.executions(ExecutionQuery(), after=after, limit=1)
            yield page.items
            if (after := page.next) is None:
                return

    asyncio.run(main())


def test_a_deleted_consumer_is_made_again_and_replays_nothing() -> None:
    ran: list[str] = []

    async def handle(event: JobEvent) -> None:
        ran.append(event.key)

    async def main() -> None:
        async with serving(handle) as scheduler, tools() as js:
            for n in range(20):
                await scheduler.submit_job(f"a{n}", soon())
            await until(lambda: len(ran) == 20, within=20)
            for _ in range(2):
                await js.delete_consumer(STREAM, "workers-all")
                await asyncio.sleep(0.2)
            await scheduler.submit_job("after", soon())
            await until(lambda: len(ran) == 21, within=20)
            await asyncio.sleep(0.5)

    asyncio.run(main())
    assert len(ran) == len(set(ran)) == 21


def test_purged_hints_and_schedules_are_made_good() -> None:
    ran: list[str] = []

    async def handle(event: JobEvent) -> None:
        ran.append(event.id)

    async def main() -> None:
        store = backend(
            reconcile_interval=timedelta(seconds=1), reconcile_grace=timedelta(seconds=0.2)
        )
        async with serving(handle, store) as scheduler, tools() as js:
            await scheduler.submit_job("a", soon(2000))
            await js.purge_stream(STREAM, subject=f"sched.{BUCKET}.sched.>")
            await js.purge_stream(STREAM, subject=f"sched.{BUCKET}.fire.>")
            await until(lambda: ran, within=20)

    asyncio.run(main())
    assert ran == ["a"]


def test_purged_records_are_gone_and_a_run_in_flight_writes_nothing() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handle(event: JobEvent) -> None:
        begun.set()
        await go_on.wait()

    async def main() -> None:
        async with serving(handle) as scheduler, tools() as js:
            await scheduler.submit_job("a", soon())
            await begun.wait()
            await js.purge_stream(STREAM, subject=f"$KV.{BUCKET}.>")
            go_on.set()
            await asyncio.sleep(0.3)
            with pytest.raises(JobNotFound):
                await scheduler.get_job("a")
            assert not [line async for line in scheduler.list_executions()]
            await scheduler.submit_job("a", Once(datetime.now(UTC) + timedelta(days=1)))

    asyncio.run(main())


def test_a_deleted_stream_is_said_to_be() -> None:
    async def main() -> None:
        async with serving(lambda event: None) as scheduler, tools() as js:
            await scheduler.submit_job("a", Once(datetime.now(UTC) + timedelta(days=1)))
            await js.delete_stream(STREAM)
            with pytest.raises(StreamLost):
                await scheduler.get_job("a")
            with pytest.raises(StreamLost):
                await scheduler.submit_job("b", soon())
            health = await scheduler.health()
            assert not health.healthy
            assert STREAM in str(health.problems)
        async with Scheduler(backend()) as scheduler:
            await scheduler.submit_job("a", Once(datetime.now(UTC) + timedelta(days=1)))

    asyncio.run(main())


def test_a_stream_restored_from_a_backup_of_names_keeps_working() -> None:
    """An operator may raise the number of copies and set limits: what we need is what we check."""

    async def main() -> None:
        store = backend()
        await store.open(SystemClock(), worker="w")
        await store.close()
        async with tools() as js:
            config: api.StreamConfig = (await js.stream_info(STREAM)).config
            config.description = "do not touch"
            await js.update_stream(config)
        await store.open(SystemClock(), worker="w")
        await store.check()
        await store.close()

    asyncio.run(main())


# -- the connection ----------------------------------------------------------


def test_a_connection_that_was_closed_for_good_is_replaced() -> None:
    async def main() -> None:
        store = backend()
        async with Scheduler(store) as scheduler:
            await scheduler.submit_job("a", soon(60_000))
            assert store._session is not None
            await store._session.wire.client.close()
            await scheduler.get_job("a")
            await scheduler.submit_job("b", soon(60_000))

    asyncio.run(main())


def test_a_restarted_server_needs_no_restart_of_the_process(tmp_path: Path) -> None:
    ran: list[str] = []

    async def handle(event: JobEvent) -> None:
        ran.append(event.id)

    async def main(server: Any) -> None:
        store = JetStreamBackend(server.url, timeout=timedelta(seconds=1))
        async with serving(handle, store) as scheduler:
            await scheduler.submit_job("a", soon())
            await until(lambda: ran == ["a"], within=20)
            await scheduler.submit_job("b", soon(1500))
            await asyncio.to_thread(server.kill)
            health = await scheduler.health()
            assert not health.healthy
            await asyncio.sleep(2)
            await asyncio.to_thread(server.start)
            await until(lambda: ran == ["a", "b"], within=20)
            with anyio.fail_after(20):
                while not (await scheduler.health()).healthy:
                    await asyncio.sleep(0.1)

    with running(tmp_path) as server:
        asyncio.run(main(server))


def test_a_refusal_that_passes_is_got_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call asks for hints while the backend is red, so the backend has to look."""
    asked = Source.pull
    refused = False

    async def ask(self: Source, most: int, *, wait: float = 0.0) -> None:
        if refused:
            raise BackendError("planted: insufficient resources")
        await asked(self, most, wait=wait)

    async def main() -> None:
        nonlocal refused
        ran = asyncio.Event()

        async def handler(event: JobEvent) -> None:
            ran.set()

        async with serving(handler) as scheduler:
            refused = True
            await scheduler.submit_job("soon", Once(datetime.now(UTC)))
            with anyio.fail_after(10):
                while (await scheduler.health()).healthy:
                    await asyncio.sleep(0.05)
            refused = False
            with anyio.fail_after(10):
                await ran.wait()
                while not (await scheduler.health()).healthy:
                    await asyncio.sleep(0.05)

    monkeypatch.setattr(Source, "pull", ask)
    asyncio.run(main())


def test_a_fault_in_a_task_of_the_backend_is_told_and_jobs_go_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Source.pull
    faults = iter([KeyError("planted")])

    async def ask(self: Source, most: int, *, wait: float = 0.0) -> None:
        if wait and (fault := next(faults, None)):
            raise fault
        await asked(self, most, wait=wait)

    async def main() -> None:
        ran = asyncio.Event()

        async def handler(event: JobEvent) -> None:
            ran.set()

        async with serving(handler) as scheduler:
            await scheduler.submit_job("soon", Once(datetime.now(UTC)))
            async with asyncio.timeout(10):
                await ran.wait()

    monkeypatch.setattr(Source, "pull", ask)
    with caplog.at_level(logging.ERROR, logger="sched_jetstream"):
        asyncio.run(main())
    assert "planted" in caplog.text


def test_attempts_to_connect_that_fail_leave_nothing_open(tmp_path: Path) -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def main(server: Any, port: int) -> None:
        store = JetStreamBackend(f"nats://127.0.0.1:{port}", timeout=timedelta(seconds=1))
        async with Scheduler(store) as scheduler:
            before = opened()
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(3)  # the proxy takes every call, and hangs up
            assert opened() <= before + 2
            await asyncio.to_thread(server.start)
            await scheduler.submit_job("a", soon(60_000))

    gc.disable()  # it would close them, sometime
    try:
        with running(tmp_path) as server, Proxy(("127.0.0.1", server.port)) as proxy:
            asyncio.run(main(server, proxy.port))
    finally:
        gc.enable()


def test_a_copy_that_lags_behind_is_not_believed_by_a_listing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was written shows: a page is read by the leader where a copy has not come so far."""

    async def behind(*_: Any, **__: Any) -> int:
        return 1  # it has seen one message only, and none of these jobs

    async def main() -> None:
        async with Scheduler(backend()) as scheduler:
            for name in ("a", "b"):
                await scheduler.ensure_job(name, Interval(hours=1))
            monkeypatch.setattr(Reader, "multi", behind)
            assert [job.id async for job in scheduler.list_jobs()] == ["a", "b"]

    asyncio.run(main())


def test_a_given_connection_is_used_and_left_open() -> None:
    async def main() -> None:
        connection = await nats.connect(shared_server().url, max_reconnect_attempts=-1)
        settings = {"job_bucket": BUCKET, "execution_bucket": f"{BUCKET}-lines"}
        store = JetStreamBackend(connection=connection, **settings)  # type: ignore[arg-type]  # strings
        async with Scheduler(store) as scheduler:
            await scheduler.submit_job("a", soon(60_000))
        assert connection.is_connected
        await connection.close()
        with pytest.raises(BackendUnavailable, match="closed"):
            await store.open(SystemClock(), worker="w")

    asyncio.run(main())
