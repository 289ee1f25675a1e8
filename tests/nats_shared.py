"""The server that the tests of one process share, and helpers to look at it from outside."""

from __future__ import annotations

import asyncio
import atexit
import functools
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nats
from nats.js.errors import NotFoundError
from tests.nats_server import Server


@functools.cache
def shared_server() -> Server:
    """Start the server on first use; it ends with the process."""
    folder = Path(tempfile.mkdtemp(prefix="sched-nats-"))
    server = Server(folder)
    server.start()

    def end() -> None:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return server


def delete_streams(url: str, *names: str) -> None:
    """Delete streams, whether they exist or not, also from inside a running loop."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(_delete(url, names))).result()


async def _delete(url: str, names: Sequence[str]) -> None:
    connection = await nats.connect(url)
    try:
        for name in names:
            try:
                await connection.jetstream().delete_stream(name)
            except NotFoundError:
                continue
    finally:
        await connection.close()
