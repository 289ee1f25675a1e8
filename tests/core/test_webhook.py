"""Sinks that make requests, against a real server in a process that is killed and comes back."""

from __future__ import annotations

import inspect
import logging
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport
from tests.core.notified import Receiver, receiver
from tests.core.running import Make, run, running, until

from sched_core import (
    Execution,
    Interval,
    InvalidDefinition,
    JobEvent,
    JobRouter,
    MemoryBackend,
    Once,
    RetryAfter,
    Scheduler,
    Status,
)
from sched_core.contrib.notify import (
    DeadMansPing,
    NotDelivered,
    Notice,
    Notifier,
    Refused,
    SentryCheckIns,
    Webhook,
)
from sched_core.contrib.notify.http import retry_after
from sched_core.testing import EPOCH, FakeClock, history

SECRET = "SECRET-TOKEN"
CLIENTS = ("standard", "httpx")


def notice(kind: Any = "failed", job_id: str | None = "a") -> Notice:
    return Notice(
        f"{kind}:uid:1:1",
        kind,
        "a failed, for ever: naïve",
        EPOCH + timedelta(seconds=5),
        "ops",
        job_id,
        "uid:1",
        "uid:1:1",
        1,
        EPOCH,
        EPOCH + timedelta(seconds=3),
        "ValueError",
        "w",
    )


def deliver(sink: Callable[..., Any], *notices: Notice, loop: str = "asyncio") -> None:
    async def main() -> None:
        for one in notices:
            result = sink(one)
            if inspect.isawaitable(result):
                await result

    run(loop, main)


@pytest.fixture(params=CLIENTS)
def made(request: pytest.FixtureRequest) -> Callable[..., Callable[[Notice], Any]]:
    """Return a function that makes a webhook, or its like, with one of the clients."""

    def make(kind: Any, url: str, **options: Any) -> Callable[[Notice], Any]:
        if request.param == "standard":
            sink: Callable[[Notice], Any] = kind(url, **options)
            return sink

        async def call(one: Notice) -> None:
            async with httpx.AsyncClient() as client:
                await kind(url, client=client, **options)(one)

        return call

    return make


# -- a receiver that dies and comes back


def test_what_fails_while_the_receiver_is_dead_is_told_when_it_is_back(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def main(there: Receiver) -> None:
        router, fails = JobRouter(), {"a", "b"}
        sink = Webhook(there.url, timeout=2)
        Notifier("ops", sink, every=timedelta(milliseconds=100), most=None).declare(router)

        async def work(event: JobEvent) -> None:
            if event.id in fails:
                raise ValueError(event.id)

        for id in "ab":
            router.job(id, Interval(milliseconds=150))(work)
        async with running(make(), router) as scheduler:
            both = {"a", "b"}
            await until(lambda: {one["job_id"] for one in there.notices()} == both, within=30)
            there.kill()
            down = len(await history(scheduler, "a"))
            fails.discard("b")  # it recovers while nobody can be told

            async def tried_in_vain() -> bool:
                runs = await history(scheduler, "notify:ops")
                return sum(one.status is Status.FAILED for one in runs) >= 2

            await until(tried_in_vain, within=30)
            assert len(await history(scheduler, "a")) > down
            there.start()
            fails.discard("a")
            await until(
                lambda: [one["kind"] for one in there.notices()].count("recovered") >= 2, within=30
            )
            failures = {
                id: [
                    one.id
                    for one in (await history(scheduler, id))[::-1]
                    if one.status is Status.FAILED
                ]
                for id in "ab"
            }
        told = there.notices()
        for id in "ab":
            mine = [one for one in told if one["job_id"] == id]
            failed = [one["execution_id"] for one in mine if one["kind"] == "failed"]
            # What was written before the notifier's first run is not told.
            assert set(failed) == set(failures[id][failures[id].index(failed[0]) :])
            assert [one["kind"] for one in mine] == [*["failed"] * len(failed), "recovered"]
        ids = [one["id"] for one in told]
        assert ids == [one["headers"]["Idempotency-Key"] for one in there.received()]

    with receiver(tmp_path) as there:
        run("asyncio", lambda: main(there))
    assert SECRET not in caplog.text
    assert "http://127.0.0.1" in caplog.text


def test_a_receiver_says_when_to_try_again(tmp_path: Path) -> None:
    async def main(there: Receiver) -> None:
        router = JobRouter()
        Notifier("ops", Webhook(there.url), every=timedelta(milliseconds=50)).declare(router)

        async def work(event: JobEvent) -> None:
            raise ValueError

        router.job("a", Interval(milliseconds=150))(work)
        async with running(MemoryBackend(), router) as scheduler:
            await until(there.received)

            async def again() -> list[Execution]:
                runs = await history(scheduler, "notify:ops")
                return [one for one in runs if one.attempt == 2]

            (retried,) = await until(again)
            runs = await history(scheduler, "notify:ops")
        (refused,) = [one for one in runs if one.status is Status.FAILED]
        assert refused.reason == f"POST http://127.0.0.1:{there.port}: the answer is 429"
        assert retried.claimed_at - refused.finished_at >= timedelta(seconds=2)

    with receiver(tmp_path, "429,Retry-After:2") as there:
        run("asyncio", lambda: main(there))


# -- requests and answers


def test_a_webhook_posts_the_notice_as_json(
    tmp_path: Path, made: Callable[..., Any], loop: str
) -> None:
    with receiver(tmp_path) as there:
        sink = made(Webhook, there.url, headers={"Authorization": "Bearer x"})
        deliver(sink, notice(), loop=loop)
        (got,) = there.received()
        (said,) = there.notices()
    assert (got["method"], got["path"]) == ("POST", f"/hook/{SECRET}")
    headers = {name.lower(): value for name, value in got["headers"].items()}
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == "Bearer x"
    assert headers["idempotency-key"] == "failed:uid:1:1"
    assert said == notice().as_json()
    assert said["at"] == "2026-01-01T00:00:05+00:00"


def test_a_webhook_sends_what_its_body_makes(tmp_path: Path) -> None:
    with receiver(tmp_path) as there:
        deliver(Webhook(there.url, body=lambda one: {"text": one.text}), notice())
        assert there.notices() == [{"text": notice().text}]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("200", None),
        ("204", None),
        ("299", None),
        ("302,Location:/elsewhere", Refused),
        ("400", Refused),
        ("401", Refused),
        ("404", Refused),
        ("410", Refused),
        ("408", NotDelivered),
        ("425", NotDelivered),
        ("429", NotDelivered),
        ("429,Retry-After:7", RetryAfter),
        ("500", NotDelivered),
        ("503", NotDelivered),
        ("503,Retry-After:7", RetryAfter),
    ],
)
def test_what_an_answer_means(
    tmp_path: Path, made: Callable[..., Any], answer: str, error: type[Exception] | None
) -> None:
    with receiver(tmp_path, answer) as there:
        sink = made(Webhook, there.url)
        if error is None:
            deliver(sink, notice())
        else:
            with pytest.raises(error) as raised:
                deliver(sink, notice())
            assert SECRET not in repr(raised.value)
            assert raised.value.__cause__ is None
            if isinstance(raised.value, RetryAfter):
                assert raised.value.delay == timedelta(seconds=7)
        assert len(there.received()) == (error is None)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "5"}, 5),
        ({"retry-after": "999999999999"}, 3600),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:00 GMT",
                "date": "Wed, 21 Oct 2026 07:27:30 GMT",
            },
            30,
        ),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:00 GMT",
                "date": "Wed, 21 Oct 2026 07:29:00 GMT",
            },
            0,
        ),
    ],
)
def test_how_long_a_receiver_asks_to_wait(headers: dict[str, str], wait: int | None) -> None:
    assert retry_after(headers) == (None if wait is None else timedelta(seconds=wait))


@contextmanager
def silent() -> Iterator[str]:
    """Give the address of a server that takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/{SECRET}"


def test_a_receiver_that_does_not_answer_is_given_up_in_time(made: Callable[..., Any]) -> None:
    with silent() as url, pytest.raises(NotDelivered, match="Timeout") as raised:
        deliver(made(Webhook, url, timeout=timedelta(milliseconds=200)), notice())
    assert SECRET not in repr(raised.value)


def test_no_receiver_is_a_failure_without_its_address(made: Callable[..., Any]) -> None:
    with silent() as url:
        pass
    with pytest.raises(NotDelivered, match=r"POST http://127\.0\.0\.1:\d+: \w+Err") as raised:
        deliver(made(Webhook, url), notice())
    assert SECRET not in repr(raised.value)


def test_httpx_logs_no_address_of_ours_and_all_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def main(url: str) -> None:
        async with httpx.AsyncClient() as client:
            posted = Webhook(url, client=client)(notice())
            assert posted is not None
            await posted
            await client.get(f"{url}/of-others".replace(SECRET, "open"))

    with receiver(tmp_path) as there:
        run("asyncio", lambda: main(there.url))
    assert SECRET not in caplog.text
    assert "open/of-others" in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/SECRET",
        "file:///etc/SECRET",
        "host/SECRET",
        "https:///SECRET",
        "https://user:SECRET@host/",
        "https://host:99999/SECRET",
        "https://host/SEC RET",
        "https://host/SECRET\n",
        "https://hö.st/SECRET",
        3,
    ],
)
@pytest.mark.parametrize("kind", [Webhook, DeadMansPing])
def test_an_address_that_makes_no_sense_is_refused_and_not_shown(kind: Any, url: Any) -> None:
    with pytest.raises(InvalidDefinition, match=r"^url") as raised:
        kind(url)
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "field"),
    [({"timeout": 0}, "timeout"), ({"timeout": "1"}, "timeout"), ({"client": 3}, "client")],
)
def test_other_arguments_are_refused_by_name(options: dict[str, Any], field: str) -> None:
    for kind in (Webhook, DeadMansPing):
        with pytest.raises(InvalidDefinition, match=rf"^{field}"):
            kind("https://host/", **options)
    with pytest.raises(InvalidDefinition, match=r"^fail"):
        DeadMansPing("https://host/", fail="fail")


def test_no_secret_is_shown() -> None:
    url = f"https://host/{SECRET}?{SECRET}=1"
    for sink in (Webhook(url, headers={"Authorization": SECRET}), DeadMansPing(url)):
        assert SECRET not in repr(sink)
        assert "https://host" in repr(sink)


# -- other sinks


def test_a_ping_asks_the_address_for_each_end_of_its_job(
    tmp_path: Path, made: Callable[..., Any]
) -> None:
    with receiver(tmp_path) as there:
        deliver(made(DeadMansPing, f"{there.url}?a=b"), notice("succeeded"), notice("failed"))
        got = [(one["method"], one["path"]) for one in there.received()]
    assert got == [("GET", f"/hook/{SECRET}?a=b"), ("GET", f"/hook/{SECRET}/fail?a=b")]


def test_a_ping_may_tell_successes_alone(tmp_path: Path) -> None:
    with receiver(tmp_path) as there:
        sink = DeadMansPing(there.url, fail=None)
        assert sink.kinds == {"succeeded"}
        deliver(sink, notice("succeeded"), notice("failed"))
        assert len(there.received()) == 1


def test_a_ping_of_one_job_is_silent_of_others(make: Make, tmp_path: Path) -> None:
    async def main(there: Receiver) -> None:
        router = JobRouter()
        ping = DeadMansPing(there.url)
        Notifier("ping", ping, every=timedelta(milliseconds=50), jobs=["mine"]).declare(router)

        async def work(event: JobEvent) -> None:
            if event.id == "other":
                raise ValueError

        for id in ("mine", "other"):
            router.job(id, Interval(milliseconds=100))(work)
        async with running(make(), router):
            await until(lambda: len(there.received()) >= 3)

    with receiver(tmp_path) as there:
        run("asyncio", lambda: main(there))
        assert {one["path"] for one in there.received()} == {f"/hook/{SECRET}"}


class Kept(Transport):
    """A transport of Sentry's SDK that keeps what it is to send."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.sent += [item.payload.json or {} for item in envelope if item.type == "check_in"]


@pytest.fixture
def sentry() -> Iterator[Kept]:
    kept = Kept()
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:1/1",
        transport=kept,
        default_integrations=False,
        auto_enabling_integrations=False,
    )
    try:
        yield kept
    finally:
        sentry_sdk.get_client().close()
        sentry_sdk.get_global_scope().set_client(None)


def test_sentry_gets_a_check_in_for_each_end(sentry: Kept) -> None:
    sink = SentryCheckIns({"a": "monitor-a"})
    deliver(sink, notice("succeeded"), notice("failed"), notice("failed", "b"), notice(job_id=None))
    got = [(one["monitor_slug"], one["status"], one["duration"]) for one in sentry.sent]
    assert got == [("monitor-a", "ok", 2.0), ("monitor-a", "error", 2.0)]


def test_sentry_s_monitors_are_named_by_the_jobs(sentry: Kept) -> None:
    deliver(SentryCheckIns(), notice("succeeded", "Billing: night run"), notice("failed", "日"))
    assert [one["monitor_slug"] for one in sentry.sent] == ["billing-night-run"]


def test_sentry_s_check_ins_are_not_summed_up(sentry: Kept, make: Make) -> None:
    async def main() -> None:
        router, clock = JobRouter(), FakeClock()
        Notifier("sentry", SentryCheckIns()).declare(router)

        @router.route("job-*")
        async def work(event: JobEvent) -> None: ...

        async with Scheduler(make(), handler=router, clock=clock) as scheduler:
            clock.advance(seconds=10)
            await scheduler.run_due()
            for number in range(250):
                await scheduler.submit_job(f"job-{number}", Once(clock.now()))
            await scheduler.run_due()
            clock.advance(seconds=10)
            await scheduler.run_due()

    run("asyncio", main)
    assert {one["monitor_slug"] for one in sentry.sent} == {
        f"job-{number}" for number in range(250)
    }


def test_without_the_sdk_sentry_s_sink_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sentry_sdk.crons", None)
    with pytest.raises(InvalidDefinition, match=r"pip install 'sched-core\[sentry\]'"):
        SentryCheckIns()
    monkeypatch.undo()
    with pytest.raises(InvalidDefinition, match=r"^monitors"):
        SentryCheckIns({})
