"""Backends under torture.

``python -m sched_testkit.torture tests.torture.harnesses:Postgres --minutes 2 --seed 7``, from the
root of the repository.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import psycopg
from tests import nats_server, postgres_server
from tests.proxy import Proxy

from sched_core import Backend, Scheduler
from sched_jetstream import JetStreamBackend
from sched_sql import SqlBackend
from sched_testkit.torture import Fault, TortureHarness

TIMEOUT = timedelta(seconds=1)
"""How long an answer of the store may take: half of the lease."""
BUCKET = "torture"


class Sqlite(TortureHarness):
    name = "SQLite"
    processes = 3
    dead_are_free = True
    stopped_may_lock = True
    owns_file = True

    @contextmanager
    def place(self, folder: str) -> Iterator[str]:
        path = Path(folder) / "jobs.db"
        yield str(path)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    def backend(self, address: str) -> Backend:
        return SqlBackend(Path(address), lease=self.lease)

    def delays(self, address: str) -> Mapping[str, Fault]:
        def locked(seconds: float) -> None:
            """Another writes, for long; it may have to wait for a process that is stopped."""
            with closing(sqlite3.connect(address, isolation_level=None, timeout=30)) as held:
                held.execute("BEGIN IMMEDIATE")
                time.sleep(seconds)
                held.execute("ROLLBACK")

        return {"locked": locked}

    def meddle(self, address: str) -> bool:
        """Read all files, as a copy for a backup does: closing one drops the process's locks."""
        for path in Path(address).parent.rglob("*"):
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.read(1)
        return True


def way_faults(proxies: Sequence[Proxy]) -> dict[str, Fault]:
    """Return what can happen on the way to a server."""

    def lasting(begin: Callable[[Proxy], None]) -> Fault:
        def fault(seconds: float) -> None:
            for proxy in proxies:
                begin(proxy)
            time.sleep(seconds)
            for proxy in proxies:
                proxy.heal()

        return fault

    def cut(seconds: float) -> None:
        """Again and again."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for proxy in proxies:
                proxy.hang_up()
            time.sleep(0.2)

    return {
        "connections cut": cut,
        "connections refused": lasting(Proxy.drop),
        "connections stalled": lasting(Proxy.stall),
        "black hole": lasting(Proxy.black_hole),
    }


class Postgres(TortureHarness):
    name = "PostgreSQL"
    processes = 4

    def __init__(self) -> None:
        self._server: postgres_server.Server | None = None
        self._proxy: Proxy | None = None

    @contextmanager
    def place(self, folder: str) -> Iterator[str]:
        with (
            postgres_server.server(full_page_writes="on") as server,
            Proxy(("127.0.0.1", server.port)) as proxy,
        ):
            self._server, self._proxy = server, proxy
            yield server.address(port=proxy.port)

    def backend(self, address: str) -> Backend:
        return SqlBackend(address, lease=self.lease, timeout=TIMEOUT)

    def faults(self, address: str) -> Mapping[str, Fault]:
        server, proxy = self._server, self._proxy
        assert server is not None
        assert proxy is not None

        def restarted(seconds: float) -> None:
            """Restart like `pg_ctl restart -m immediate`, with some time in between."""
            server.stop("immediate")
            time.sleep(seconds)
            server.start()

        def crashed(seconds: float) -> None:
            """A process of the server is killed: all sessions end, and it recovers from the WAL."""
            ((pid,),) = server.admin(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' "
                "ORDER BY application_name <> 'sched', random() LIMIT 1"
            )
            assert isinstance(pid, int)
            os.kill(pid, signal.SIGKILL)
            server.wait()

        def read_only(seconds: float) -> None:
            """Fenced off, as before a failover, for old and new sessions alike; and back."""
            server.admin("ALTER SYSTEM SET default_transaction_read_only = on")
            server.admin("SELECT pg_reload_conf()")
            time.sleep(seconds)
            server.admin("ALTER SYSTEM RESET default_transaction_read_only")
            server.admin("SELECT pg_reload_conf()")

        return {
            "server restarted": restarted,
            "server crashed": crashed,
            "server read-only": read_only,
            **way_faults([proxy]),
        }

    def delays(self, address: str) -> Mapping[str, Fault]:
        server, proxy = self._server, self._proxy
        assert server is not None
        assert proxy is not None

        def row_locked(seconds: float) -> None:
            """A DBA looks at some of what is running, FOR UPDATE, and goes for a coffee."""
            with psycopg.connect(server.local.replace("dbname=postgres", "dbname=sched")) as dba:
                dba.execute(
                    "SELECT 1 FROM sched.job WHERE lease_until IS NOT NULL "
                    "ORDER BY random() LIMIT 5 FOR UPDATE SKIP LOCKED"
                )
                time.sleep(seconds)

        def row_edited(seconds: float) -> None:
            """A web request edits something that is running, and is slow to commit."""
            anyio.run(self._edit_slowly, server.address(), seconds)

        def slots_used_up(seconds: float) -> None:
            """Others have all connections that the server grants; those that are made may stay."""
            server.admin("ALTER ROLE sched CONNECTION LIMIT 0")
            time.sleep(seconds)
            server.admin("ALTER ROLE sched CONNECTION LIMIT -1")

        def listeners_swallowed(seconds: float) -> None:
            """What listens hears nothing from now on, and is not told that it never will."""
            proxy.swallow(proxy.listening)
            time.sleep(seconds)

        return {
            "row locked": row_locked,
            "row edited slowly": row_edited,
            "connection slots used up": slots_used_up,
            "listeners swallowed": listeners_swallowed,
        }

    async def _edit_slowly(self, address: str, seconds: float) -> None:
        async with (
            Scheduler(self.backend(address)) as scheduler,
            await psycopg.AsyncConnection.connect(address) as connection,
            connection.transaction(),
        ):
            found = await connection.execute(
                "SELECT id FROM sched.job WHERE lease_until IS NOT NULL "
                "AND id NOT LIKE 'edited-%' ORDER BY random() LIMIT 3"
            )
            for (job_id,) in await found.fetchall():
                # A name changes nothing that the judge knows of a job.
                await scheduler.in_transaction(connection).update_job(
                    job_id, name=f"at {time.time()}"
                )
            await anyio.sleep(seconds)


class JetStream(TortureHarness):
    name = "JetStream R1"
    processes = 4
    nodes = 1

    def __init__(self) -> None:
        self._cluster: nats_server.Cluster | None = None
        self._proxies: list[Proxy] = []
        self._servers: list[nats_server.Server] = []
        self._chance = random.Random(7)

    @contextmanager
    def place(self, folder: str) -> Iterator[str]:
        with (
            nats_server.running(Path(folder) / "node") as server,
            self._behind([server]) as address,
        ):
            yield address

    @contextmanager
    def _behind(self, servers: list[nats_server.Server]) -> Iterator[str]:
        with ExitStack() as stack:
            self._servers = servers
            self._proxies = [
                stack.enter_context(Proxy(("127.0.0.1", server.port))) for server in servers
            ]
            yield ",".join(f"nats://127.0.0.1:{proxy.port}" for proxy in self._proxies)

    def backend(self, address: str) -> Backend:
        return JetStreamBackend(
            address.split(","),
            job_bucket=BUCKET,
            execution_bucket=f"{BUCKET}-lines",
            lease=self.lease,
            timeout=TIMEOUT,
            replicas=self.nodes,
            reconcile_interval=timedelta(seconds=10),
            reconcile_grace=timedelta(seconds=3),
        )

    def _kill(self, server: nats_server.Server, seconds: float) -> None:
        server.kill()
        time.sleep(seconds)
        server.start()

    def faults(self, address: str) -> Mapping[str, Fault]:
        (server,) = self._servers

        def killed(seconds: float) -> None:
            self._kill(server, seconds)

        return {"server killed": killed, **way_faults(self._proxies)}


class JetStreamCluster(JetStream):
    name = "JetStream R3"
    nodes = 3
    recovery = timedelta(seconds=15)

    @contextmanager
    def place(self, folder: str) -> Iterator[str]:
        cluster = self._cluster = nats_server.Cluster(Path(folder))
        try:
            cluster.start()
            with self._behind(cluster.nodes) as address:
                yield address
        finally:
            cluster.end()

    def faults(self, address: str) -> Mapping[str, Fault]:
        cluster = self._cluster
        assert cluster is not None

        def mend() -> None:
            """Wait until both streams are led again, and all copies are there."""
            until = time.monotonic() + 60
            while not cluster.is_whole(f"KV_{BUCKET}", f"KV_{BUCKET}-lines"):
                assert time.monotonic() < until, "the cluster does not become whole again"
                time.sleep(0.1)

        def leader_killed(seconds: float) -> None:
            leader = cluster.leader_of(f"KV_{BUCKET}")
            if leader is not None:
                self._kill(leader, seconds)
                mend()

        def node_killed(seconds: float) -> None:
            self._kill(self._chance.choice(cluster.nodes), seconds)
            mend()

        return {
            "leader killed": leader_killed,
            "node killed": node_killed,
            **way_faults(self._proxies),
        }
