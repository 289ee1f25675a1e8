"""What a store and its server take: read from outside, while something runs on them. Linux only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import nats
from benchmarks._servers import POSTGRES, jetstream, postmaster
from tests import nats_server, postgres_server

from sched_core import Backend, MemoryBackend

BUCKET = "jobs"


class Store(Protocol):
    """A backend that is not open, and figures of where its jobs lie."""

    @property
    def backend(self) -> Backend: ...

    async def look(self) -> dict[str, float]:
        """Return figures by name; what they are figures of must not grow."""
        ...


class Memory:
    """Jobs and executions in this process, whose memory is looked at anyway."""

    def __init__(self) -> None:
        self.backend = MemoryBackend()

    async def look(self) -> dict[str, float]:
        return {"executions": len(self.backend.store.history)}


class Sqlite:
    """A file, the log of what is written to it, and its other side files."""

    def __init__(self, folder: Path) -> None:
        from sched_sql import SqlBackend

        self._folder = folder
        self.backend = SqlBackend(folder / "jobs.db")

    async def look(self) -> dict[str, float]:
        sizes = {file.name: file.stat().st_size / 1e6 for file in self._folder.rglob("*")}
        return {
            "database MB": sizes.pop("jobs.db"),
            "log MB": sizes.pop("jobs.db-wal", 0.0),
            "others MB": sum(sizes.values()),
        }


class Postgres:
    """A database on a server of its own."""

    def __init__(self, server: postgres_server.Server) -> None:
        from sched_sql import SqlBackend

        self._server = server
        self.backend = SqlBackend(server.address())

    async def look(self) -> dict[str, float]:
        ((size, executions, connections),) = self._server.admin(
            "SELECT pg_database_size('sched'), (SELECT count(*) FROM sched.execution), (SELECT "
            "count(*) FROM pg_stat_activity WHERE usename = 'sched')",
            "sched",
        )
        return {
            "database MB": float(str(size)) / 1e6,
            "executions": float(str(executions)),
            "connections": float(str(connections)),
            "server MB": proportional_mb(postmaster(self._server)),
        }


class JetStream:
    """Two streams on a server of their own."""

    def __init__(self, server: nats_server.Server) -> None:
        from sched_jetstream import JetStreamBackend

        self._server = server
        self.backend = JetStreamBackend(
            [server.url], job_bucket=BUCKET, execution_bucket=f"{BUCKET}-lines"
        )

    async def look(self) -> dict[str, float]:
        open_now = self._server.ask("varz")["connections"]
        assert isinstance(open_now, int)
        connection = await nats.connect(self._server.url)
        try:
            manager = connection.jetstream()
            jobs = (await manager.stream_info(f"KV_{BUCKET}")).state
            executions = (await manager.stream_info(f"KV_{BUCKET}-lines")).state
        finally:
            await connection.close()
        return {
            "streams MB": (jobs.bytes + executions.bytes) / 1e6,
            "messages": jobs.messages,
            "executions": executions.messages,
            "connections": open_now,
            "server MB": self._server.memory() / 2**20,
        }


def proportional_mb(process: int) -> float:
    """Return the memory of a process and its children; what they share counts once."""
    try:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # it has ended meanwhile
    own = sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return own / 1024 + sum(proportional_mb(int(child)) for child in children)


@contextmanager
def store(name: str) -> Iterator[Store]:
    """Make a store, and run its server as long as the block lasts."""
    if name == "memory":
        yield Memory()
    elif name == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield Sqlite(Path(folder))
    elif name == "postgres":
        with postgres_server.server(**POSTGRES) as server:
            yield Postgres(server)
    else:
        with jetstream(synced=False) as node:
            yield JetStream(node)


STORES = ("sqlite", "postgres", "jetstream", "memory")
