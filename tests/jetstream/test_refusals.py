"""What is wrong with a connection is told soon, by name, and without a secret."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nkeys
import pytest
from tests.core.running import until
from tests.nats_server import Server, running
from tests.postgres_server import free_port

from sched_core import BackendUnavailable, InvalidDefinition, Once, Scheduler
from sched_jetstream import JetStreamBackend, NatsRefused
from sched_jetstream._store import dialer
from sched_jetstream.errors import PermissionDenied

SIGNALS = "sched.jobs-signals.>"
RIGHTS = ("$KV.jobs.>", "sched.jobs.>", "$JS.ACK.KV_jobs.>", "$JS.API.>", SIGNALS)
HEARS = ("_INBOX.>", SIGNALS)
"""What the page on operations lists, for the default names."""
NARROW = (
    "accounts { A: { jetstream: { max_streams: 1 }, users: [ { user: app, password: right } ] } }"
)
"""An account with less than is needed."""
SECRET = "s3cret"


def backend(url: Any, **settings: Any) -> JetStreamBackend:
    return JetStreamBackend(
        url, **{"timeout": timedelta(seconds=1), "lease": timedelta(seconds=4), **settings}
    )


def refused(url: Any, words: str, **settings: Any) -> None:
    """Open, and see that it is refused soon, with these words and no secret."""

    async def main() -> None:
        async with Scheduler(backend(url, **settings)):
            pass

    began = time.monotonic()
    with pytest.raises(NatsRefused, match=words) as caught:
        asyncio.run(main())
    assert time.monotonic() - began < 10
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__


def users(*rights: str, password: str = "right", hears: Sequence[str] = HEARS) -> str:
    allowed = ", ".join(f'"{each}"' for each in rights)
    heard = ", ".join(f'"{each}"' for each in hears)
    return (
        f'authorization {{ users: [ {{ user: app, password: "{password}", permissions: {{ '
        f"publish: {{ allow: [{allowed}] }}, subscribe: {{ allow: [{heard}] }} }} }} ] }}"
    )


def reload(server: Server, config: str) -> None:
    """Have a running server take another configuration, as ``nats-server --signal reload``.

    It returns once the server has taken it: a client that connects meanwhile may be refused.
    """
    assert server.process is not None
    before = server.ask("varz")["config_load_time"]
    path = server.folder / "conf"
    head, _, _ = path.read_text().partition("authorization")
    path.write_text(f"{head}{config}\n")
    server.process.send_signal(signal.SIGHUP)
    until = time.monotonic() + 10
    while server.ask("varz")["config_load_time"] == before:
        assert time.monotonic() < until, f"it was not taken: {server.log()[-1000:]}"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants a password with characters that an address must encode."""
    with running(
        tmp_path_factory.mktemp("guarded"),
        config='authorization { users: [ { user: app, password: "r%t,@x" } ] }',
    ) as server:
        yield server


# -- addresses ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("servers", "words"),
    [
        ([], "empty"),
        ("", "empty"),
        ("nats://a:4222,", "empty"),
        (["nats://a", " "], "empty"),
        (None, "list of texts"),
        ([b"nats://a"], "list of texts"),
        ("nats://", "no host"),
        ("nats://a b", "no host"),
        (f"nats://me:{SECRET}@:4222", "no host"),
        (f"nats://me:{SECRET}@a:0", "port of 'a:0'"),
        (f"nats://me:{SECRET}@a:65536", "port of 'a:65536'"),
        (f"nats://me:{SECRET}/x@a:http", "port of 'a:http'"),
        (f"https://me:{SECRET}@a", "none of nats://"),
        ("nats://a/jobs", "path"),
        (["nats://a", "ws://b"], "mixed"),
    ],
)
def test_what_can_be_no_address_is_refused_when_it_is_given(servers: Any, words: str) -> None:
    with pytest.raises(InvalidDefinition, match=words) as caught:
        JetStreamBackend(servers)
    assert caught.value.field == "servers"
    assert SECRET not in str(caught.value)


async def stored(scheduler: Scheduler) -> list[Any]:
    return [job async for job in scheduler.list_jobs()]


@pytest.mark.parametrize("option", ["usr", "servers"])
def test_what_natspy_does_not_take_is_refused_when_it_is_given(option: str) -> None:
    with pytest.raises(InvalidDefinition, match="nats"):
        JetStreamBackend("nats://a", nats={option: SECRET})


@pytest.mark.parametrize(
    "servers",
    ["127.0.0.1:{port}", "nats://127.0.0.1:9, nats://127.0.0.1:{port}", ["127.0.0.1:{port}/"]],
)
def test_addresses_are_taken_in_every_usual_form(guarded: Server, servers: Any) -> None:
    async def main() -> None:
        listed = [servers] if isinstance(servers, str) else servers
        places = [each.format(port=guarded.port) for each in listed]
        login = {"user": "app", "password": "r%t,@x"}
        async with Scheduler(backend(places, nats=login)) as scheduler:
            assert await stored(scheduler) == []

    asyncio.run(main())


def test_credentials_of_an_address_are_decoded(guarded: Server) -> None:
    async def main() -> None:
        url = guarded.url.replace("//", "//app:r%25t%2C%40x@")
        async with Scheduler(backend(url)) as scheduler:
            assert await stored(scheduler) == []

    asyncio.run(main())


# -- who connects ------------------------------------------------------------


@pytest.mark.parametrize(
    "login",
    [{}, {"user": "app", "password": SECRET}, {"token": SECRET}, {"user": "app"}],
)
def test_credentials_that_are_refused_are_named(guarded: Server, login: dict[str, str]) -> None:
    refused(guarded.url, "refused the credentials", nats=login)


def test_a_server_that_refuses_is_named_among_others_that_are_down(guarded: Server) -> None:
    url = guarded.url.replace("//", f"//app:{SECRET}@")
    refused([f"nats://app:{SECRET}@127.0.0.1:9", url], "refused the credentials")


def test_a_server_that_lets_us_in_is_found_behind_one_that_refuses(
    guarded: Server, tmp_path: Path
) -> None:
    async def main(other: Server) -> None:
        servers = [
            other.url.replace("//", f"//app:{SECRET}@"),
            guarded.url.replace("//", "//x:y@"),
        ]
        async with Scheduler(backend(servers)) as scheduler:
            assert await stored(scheduler) == []

    config = f'authorization {{ users: [ {{ user: app, password: "{SECRET}" }} ] }}'
    with running(tmp_path, config=config) as other:
        asyncio.run(main(other))


def seed(kind: int) -> bytes:
    return bytes(nkeys.encode_seed(os.urandom(32), kind))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"nkeys_seed_str": seed(nkeys.PREFIX_BYTE_USER).decode()}, "refused the credentials"),
        ({"nkeys_seed_str": SECRET}, "cannot be used: ErrInvalidSeed"),
        ({"nkeys_seed": "/nowhere/seed"}, "/nowhere/seed"),
        ({"user_credentials": "/nowhere/app.creds"}, "/nowhere/app.creds"),
        ({"user_credentials": "CUT"}, "cut off"),
        ({"user_credentials": "EMPTY"}, "cut off"),
        ({"user_credentials": "/tmp"}, "cannot be read"),
    ],
)
def test_keys_that_cannot_be_used_are_named(
    tmp_path: Path, given: dict[str, str], words: str
) -> None:
    for name, content in (("CUT", "-----BEGIN NATS USER JWT-----\nx\n"), ("EMPTY", "")):
        if given.get("user_credentials") == name:
            path = tmp_path / name
            path.write_text(content)
            given = {"user_credentials": str(path)}
    key = nkeys.from_seed(bytearray(seed(nkeys.PREFIX_BYTE_USER))).public_key.decode()
    config = f"authorization {{ users: [ {{ nkey: {key} }} ] }}"
    with running(tmp_path / "node", config=config) as server:
        refused(server.url, words, nats=given)


def test_the_package_that_signs_with_keys_is_named_where_it_is_missing() -> None:
    program = f"""
import asyncio, sys
sys.modules["nkeys"] = None
from sched_core import SystemClock
from sched_jetstream import JetStreamBackend
store = JetStreamBackend("nats://127.0.0.1:9", nats={{"nkeys_seed_str": "{SECRET}"}})
asyncio.run(store.open(SystemClock(), worker="w"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "NatsRefused" in done.stderr
    assert "pip install 'sched-jetstream[nkeys]'" in done.stderr
    assert SECRET not in done.stderr


def test_the_package_that_speaks_over_websockets_is_named_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dialer, "find_spec", lambda name: None)
    refused("ws://127.0.0.1:1", "need the package aiohttp: pip install aiohttp")


def test_what_only_looks_at_a_store_tells_soon_that_no_server_is_there() -> None:
    async def main() -> None:
        look = JetStreamBackend(f"nats://127.0.0.1:{free_port()}", create=False)
        async with Scheduler(look):
            pass

    with pytest.raises(BackendUnavailable, match=r"within 5 s: nothing listens there"):
        asyncio.run(main())


def test_tls_is_not_done_without_where_it_was_asked_for(guarded: Server) -> None:
    """nats-py would send the password in the clear."""
    url = guarded.url.replace("nats://", "tls://")
    refused(url, "TLS was asked for", nats={"user": "app", "password": SECRET})


# -- what it has to offer ----------------------------------------------------


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('accounts { A: { users: [ { user: app, password: "right" } ] } }', "account has no Jet"),
        ("max_payload: 8192", "max_payload"),
        (
            NARROW,
            "maximum number of streams",
        ),
    ],
)
def test_a_server_that_does_not_offer_enough_is_told(
    tmp_path: Path, config: str, words: str
) -> None:
    async def main(url: str) -> None:
        async with Scheduler(backend(url)):
            pass

    with running(tmp_path, config=config) as server:
        url = server.url.replace("//", "//app:right@") if "app" in config else server.url
        began = time.monotonic()
        with pytest.raises(Exception, match=words):
            asyncio.run(main(url))
        assert time.monotonic() - began < 10


# -- permissions -------------------------------------------------------------


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose users change."""
    with running(tmp_path_factory.mktemp("node"), config=users(*RIGHTS)) as server:
        yield server


LOGIN = {"user": "app", "password": "right"}


def without(missing: str) -> tuple[list[str], list[str]]:
    """Return the rights to publish and to subscribe, without ``right`` or ``hear right``."""
    publishes = [each for each in RIGHTS if each != missing]
    return publishes, [each for each in HEARS if f"hear {each}" != missing]


NOT_HEARD = [f"hear {each}" for each in HEARS]


@pytest.mark.parametrize("missing", [*RIGHTS, *NOT_HEARD, "sched.jobs.lock.>"])
def test_a_permission_that_is_missing_is_named_when_opening(tmp_path: Path, missing: str) -> None:
    rights, hears = without(missing)
    if missing == "sched.jobs.lock.>":
        rights = [*RIGHTS[:1], *RIGHTS[2:], *(f"sched.jobs.{each}.>" for each in ("fire", "run"))]
        rights += ["sched.jobs.sched.>", "sched.jobs.def.>", "sched.jobs.check.>"]
    with running(tmp_path, config=users(*rights, hears=hears)) as server:
        subject = missing.removeprefix("hear ").removesuffix("KV_jobs.>").removesuffix(">")
        verb = "subscribe" if missing in NOT_HEARD else "publish"
        told = f"denies this user the permission to {verb} to {subject}"
        refused(server.url, told.replace("$", r"\$"), nats=LOGIN)


@pytest.mark.parametrize("missing", [*RIGHTS, *NOT_HEARD, "password"])
def test_what_is_taken_away_while_it_runs_turns_health_red_and_is_got_over(
    node: Server, missing: str
) -> None:
    rights, hears = without(missing)
    password = "rotated" if missing == "password" else "right"
    subject = missing.removeprefix("hear ").removesuffix(".>")
    told = "refused the credentials" if missing == "password" else subject
    current = ["right"]
    ran: list[str] = []

    async def problems(scheduler: Scheduler) -> Sequence[str]:
        return (await scheduler.health()).problems

    async def main() -> None:
        login = {"user": "app", "password": lambda: current[0]}
        name = f"{missing.replace(' ', '-')}-{datetime.now(UTC):%H%M%S%f}"
        store = backend(node.url, nats=login)
        async with Scheduler(store, handler=lambda event: ran.append(event.id)) as scheduler:
            running = asyncio.create_task(scheduler.run_forever(signals=False))
            await scheduler.wait_until_running()

            async def is_told() -> bool:
                if missing.startswith("$JS"):  # it is needed when something runs
                    await attempt("during")
                return any(told in each for each in await problems(scheduler))

            async def is_well() -> bool:
                return not await problems(scheduler)

            async def attempt(what: str) -> None:
                with suppress(PermissionDenied):  # by name, while it lasts
                    await scheduler.submit_job(f"{name}-{what}-{time.monotonic_ns()}", now())

            await until(is_well, within=15)
            reload(node, users(*rights, password=password, hears=hears))
            await until(is_told, within=15)
            if missing == "password":
                current[0] = password  # as from a file that was written again
            else:
                reload(node, users(*RIGHTS))
            await until(is_well, within=15)
            await attempt("after")
            await until(lambda: any("-after-" in each for each in ran), within=15)
            await scheduler.stop(1)
            await running

    try:
        asyncio.run(main())
    finally:
        reload(node, users(*RIGHTS))


def now() -> Once:
    return Once(datetime.now(UTC))
