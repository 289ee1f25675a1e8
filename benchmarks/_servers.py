"""Places where the measured processes keep their jobs: folders, databases, servers; always new."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests import nats_server, postgres_server

POSTGRES = {
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "autovacuum_naptime": "1min",
    "max_connections": "100",
}
"""PostgreSQL is as durable as with its defaults; tests turn that off."""


class Place(NamedTuple):
    """A store of its own."""

    address: str
    server: int = 0
    """The server's process; 0 where there is none."""


class Places:
    """Makes places; a server is started when the first of its places is asked for."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._postgres: postgres_server.Server | None = None
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Places:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def fresh(self, store: str) -> Iterator[Place]:
        """Make a place on a store, for as long as the block lasts."""
        if store == "postgres":
            with self._database() as place:
                yield place
        elif store.startswith("jetstream"):
            with jetstream(synced=store == "jetstream-synced") as server:
                assert server.process is not None
                yield Place(f"{server.url}#jobs", server.process.pid)
        else:
            with tempfile.TemporaryDirectory() as folder:
                yield Place(folder)

    @contextlib.contextmanager
    def _database(self) -> Iterator[Place]:
        with self._lock:
            if self._postgres is None:
                self._postgres = self._stack.enter_context(postgres_server.server(**POSTGRES))
        server, name = self._postgres, f"bench{next(self._numbers)}"
        server.make_database(name)
        try:
            yield Place(server.address(name), postmaster(server))
        finally:
            drop(server, name)


def postmaster(server: postgres_server.Server) -> int:
    """Return the process of a PostgreSQL server of which all others are children."""
    return int((server.data / "postmaster.pid").read_text().split()[0])


def drop(server: postgres_server.Server, name: str) -> None:
    server.admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextlib.contextmanager
def jetstream(*, synced: bool) -> Iterator[nats_server.Server]:
    """Run a NATS server of one's own; ``synced``: each acknowledged write is on the disk."""
    with (
        tempfile.TemporaryDirectory(prefix="sched-bench-") as folder,
        nats_server.running(Path(folder), synced=synced) as server,
    ):
        yield server
